"""Values of the digits benchmark that hold for every scenario."""

from __future__ import annotations

from configs.configuration import BenchmarkConfiguration
from harness.constants import Benchmark


class CPUBaseConfig(BenchmarkConfiguration):
    """One inference thread, weights as trained."""

    benchmark = Benchmark.Digits
    threads = 1
    quantize_bits = 32


GPUBaseConfig = CPUBaseConfig
"""The name that override files written for NVIDIA's tree import."""
