"""`python -m mlperf_operator`."""

from mlperf_operator.cli import main

main()
