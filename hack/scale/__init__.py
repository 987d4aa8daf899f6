"""The parts of `make bench-scale`: hack/bench_scale.py puts them together."""
