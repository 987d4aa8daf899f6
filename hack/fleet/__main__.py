"""`python -m fleet --nodes N`: keep a fleet until Ctrl-C, with an operator in it, to look at."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from fleet.fleet import fleet
from fleet.replica import Replica
from fleet.stages import Delays


async def _keep(name: str, nodes: int, milliseconds: int) -> None:
    async with fleet(name, nodes, Delays(milliseconds, milliseconds, milliseconds, milliseconds)) as made:
        operator = Replica(made.operator_kubeconfig, made.folder / "operator.log")
        try:
            operator.wait_ready()
            print(made.layout.kubeconfig, flush=True)
            await asyncio.Event().wait()
        finally:
            operator.end()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="fleet")
    parser.add_argument("--name", default="fleet")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--step", type=int, default=1000, help="milliseconds that each step of a pod takes")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_keep(options.name, options.nodes, options.step))


if __name__ == "__main__":
    main()
