"""Stand-in for tests: as TEST01's, which it calls, but for the answers."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "TEST01/run_verification.py"), run_name="__main__")
