"""What a scrape says, in sums."""

from __future__ import annotations

import os

from soak.samples import open_files, resident_mb, totals

METRICS = """\
# TYPE workqueue_depth gauge
workqueue_depth{name="mlperfrun"} 2.0
workqueue_depth{name="node"} 3.0
# TYPE mlperf_operator_tasks gauge
mlperf_operator_tasks 17.0
"""


def test_a_metric_with_labels_is_summed() -> None:
    assert totals(METRICS) == {"workqueue_depth": 5, "mlperf_operator_tasks": 17}


def test_memory_and_files_of_a_process_are_the_kernels() -> None:
    before = open_files(os.getpid())
    with open(os.devnull):  # noqa: PTH123 - a device
        assert open_files(os.getpid()) == before + 1
    assert 5 < resident_mb(os.getpid()) < 10_000


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert resident_mb(0) == 0
