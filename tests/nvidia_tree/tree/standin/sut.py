"""A system under test that takes the time that its config expects, and answers what its engine's precision allows."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from types import TracebackType
from typing import Protocol, Self

import mlperf_loadgen as lg
import numpy as np

from standin.faults import faults
from standin.names import Scenario
from standin.request import Measurement

ANSWER_BYTES = 4
WRONG = {"fp16": 0, "int8": 150}
"""One answer of so many is wrong; 0 for none."""


class QuerySample(Protocol):
    """One sample as LoadGen issues it."""

    id: int
    index: int


def right_answer(index: int) -> int:
    """Return the answer to a sample, which the accuracy scripts know too."""
    return (index * 7919 + 13) % 65537


class ServingSystem:
    """Serves what LoadGen issues in one thread; SingleStream at once, in LoadGen's own."""

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = measurement
        self._faults = faults(measurement.place)
        self._queue: queue.SimpleQueue[list[QuerySample] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._seconds = 0.0 if measurement.mode == "AccuracyOnly" else self._time_of_a_sample()
        self._wrong = WRONG[measurement.fields["precision"]]
        if "low-accuracy" in self._faults:
            self._wrong = 5

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def issue(self, samples: list[QuerySample]) -> None:
        """Take a query."""
        if "killed" in self._faults:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hungry" in self._faults:
            taken = [bytearray(1 << 24)]
            while taken:  # Every page is written, or it would cost nothing.
                taken.append(bytearray(os.urandom(1 << 20) * 16))
        if self._measurement.scenario is Scenario.SingleStream:
            self._serve(samples)
        else:
            self._queue.put(samples)

    def _work(self) -> None:
        while (samples := self._queue.get()) is not None:
            self._serve(samples)

    def _serve(self, samples: list[QuerySample]) -> None:
        until = time.monotonic() + self._seconds * len(samples)
        # Before the sleep, so that a busy machine does not make it longer.
        answers = np.array([self._answer(sample.index) for sample in samples], np.int32)
        time.sleep(max(0.0, until - time.monotonic()))
        at = answers.ctypes.data
        responses = [
            lg.QuerySampleResponse(sample.id, at + place * ANSWER_BYTES, ANSWER_BYTES)
            for place, sample in enumerate(samples)
        ]
        # LoadGen copies the bytes during the call.
        lg.QuerySamplesComplete(responses)

    def _answer(self, index: int) -> int:
        wrong = self._wrong and index % self._wrong == self._wrong - 1
        return -1 if wrong else right_answer(index)

    def _time_of_a_sample(self) -> float:
        fields, scenario = self._measurement.fields, self._measurement.scenario
        if scenario is Scenario.Offline:
            seconds = 1 / float(fields["offline_expected_qps"])
        elif scenario is Scenario.Server:
            seconds = 0.1 / float(fields["server_target_qps"])
        else:
            seconds = float(fields["single_stream_expected_latency_ns"]) / 1e9
        if "too-fast" in self._faults:  # So that LoadGen's minimum duration is missed.
            return seconds / 4
        if "overloaded" in self._faults:
            return seconds * 25
        return seconds * 3 if "slow" in self._faults else seconds
