"""Lets the files of this folder find each other by their package's name in a run's pod, where there is no package.

A program imports it first. A package of that name in the image does not count: files of two versions never mix.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

_FOLDERS: dict[str, list[str]] = {
    "mlperf_operator": [],
    "mlperf_operator.agent": [],
    "mlperf_operator.agent.wrapper": [str(Path(__file__).parent)],
}

for _name, _folders in _FOLDERS.items():
    _spec = ModuleSpec(_name, None, is_package=True)
    _spec.submodule_search_locations = _folders
    sys.modules[_name] = module_from_spec(_spec)
