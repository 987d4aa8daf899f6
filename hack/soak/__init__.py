"""The parts of `make bench-soak`: hack/bench_soak.py puts them together."""
