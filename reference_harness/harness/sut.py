"""System under test and query sample library: what LoadGen calls."""

from __future__ import annotations

import os
import queue
import threading
from types import TracebackType
from typing import Protocol, Self

import mlperf_loadgen as lg
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from harness.log import LOG

LABEL_BYTES = 8
CRASHED = 70


class QuerySample(Protocol):
    """One sample as LoadGen issues it: `id` names the response, `index` the data."""

    id: int
    index: int


class SampleLibrary:
    """The held-out images; LoadGen says which are to be in memory."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._images = images
        self._loaded: NDArray[np.float32] = np.empty_like(images)

    def load(self, indices: list[int]) -> None:
        """Bring samples into memory."""
        self._loaded[indices] = self._images[indices]

    def unload(self, indices: list[int]) -> None:
        """Drop samples: an image asked for later without being loaded is not a digit any more."""
        self._loaded[indices] = np.nan

    def batch(self, indices: list[int]) -> NDArray[np.float32]:
        """Return loaded samples as one array."""
        return self._loaded[indices]


class ServingSystem:
    """Classifies what LoadGen issues.

    SingleStream is served in LoadGen's own thread, because the next query waits for this one. Offline and Server go
    through a queue to one thread that takes what has arrived, up to the batch size, and never waits for more.
    """

    def __init__(self, session: onnxruntime.InferenceSession, library: SampleLibrary, batch_size: int) -> None:
        self._session = session
        self._library = library
        self._batch_size = batch_size
        self._queue: queue.SimpleQueue[list[QuerySample] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="inference")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def warm_up(self) -> None:
        """Run the engine before the clock does; the rules allow it (MLPerf inference rules, warm-up)."""
        for size in (1, self._batch_size):
            self._session.run(["label"], {"image": np.zeros((size, 1, 8, 8), np.float32)})

    def issue(self, samples: list[QuerySample]) -> None:
        """Take a query to be served by the inference thread."""
        self._queue.put(samples)

    def issue_and_wait(self, samples: list[QuerySample]) -> None:
        """Serve a query at once."""
        try:
            self._serve(samples)
        except Exception:  # noqa: BLE001 - whatever it is, the run cannot go on
            self._die()

    def flush(self) -> None:
        """Nothing is held back, so there is nothing to flush."""

    def _work(self) -> None:
        try:
            while (samples := self._queue.get()) is not None:
                if self._drain(samples):
                    return
        except Exception:  # noqa: BLE001 - whatever it is, the run cannot go on
            self._die()

    def _drain(self, samples: list[QuerySample]) -> bool:
        """Serve a query and what has arrived meanwhile; say whether the end was among it."""
        ended = False
        while len(samples) < self._batch_size and not self._queue.empty():
            more = self._queue.get()
            if more is None:
                ended = True
                break
            samples = [*samples, *more]
        for start in range(0, len(samples), self._batch_size):
            self._serve(samples[start : start + self._batch_size])
        return ended

    def _serve(self, samples: list[QuerySample]) -> None:
        images = self._library.batch([sample.index for sample in samples])
        labels = np.ascontiguousarray(self._session.run(["label"], {"image": images})[0], dtype=np.int64)
        start = labels.ctypes.data
        # LoadGen copies the bytes during the call, so the array need not outlive it.
        lg.QuerySamplesComplete(
            [
                lg.QuerySampleResponse(sample.id, start + place * LABEL_BYTES, LABEL_BYTES)
                for place, sample in enumerate(samples)
            ]
        )

    @staticmethod
    def _die() -> None:
        # LoadGen would wait for the missing responses for ever, and an exception cannot cross its C++ threads.
        LOG.exception("Inference failed; ending the run.")
        os._exit(CRASHED)
