"""Typed results from the files that LoadGen and NVIDIA's harness leave."""

from mlperf_operator.results.model import Accuracy, LoadgenFacts, Metric, Mode, Percentile, Result
from mlperf_operator.results.read import find_results, read_result

__all__ = ["Accuracy", "LoadgenFacts", "Metric", "Mode", "Percentile", "Result", "find_results", "read_result"]
