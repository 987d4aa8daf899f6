"""Faults on purpose, and what must hold whatever they do: `make bench-chaos` and tests/integration/test_faults.py."""
