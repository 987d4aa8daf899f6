"""KWOK's own program, built from the module beside this file; it is kept with the programs of the local cluster."""

from __future__ import annotations

from pathlib import Path

import go_programs


def program() -> Path:
    """Build KWOK where it is missing, which takes two minutes, and return its path.

    Raises:
        RefusalError: no usable Go toolchain.
        ClusterError: the build failed, such as for want of its modules.
    """
    return go_programs.program(Path(__file__).resolve().parent, "kwok", "sigs.k8s.io/kwok/cmd/kwok")
