"""The digits data set: 1,797 grey images of 8 x 8 pixels with labels 0 to 9.

Origin: "Optical Recognition of Handwritten Digits" of the UCI repository (CC BY 4.0), as scikit-learn ships it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.constants import HarnessError
from harness.log import LOG
from harness.scratch import scratch, write_whole

SOURCE = Path("sklearn", "datasets", "data", "digits.csv.gz")
SOURCE_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
SPLIT_SEED = 2024
HELD_OUT = 600
SIDE = 8
WHITE = 16


@dataclass(frozen=True)
class Samples:
    """Images as pixel values 0 to 16, shape (n, 64), and their labels, shape (n,)."""

    pixels: NDArray[np.int64]
    labels: NDArray[np.int64]

    def csv(self) -> bytes:
        """Return one line a sample: 64 pixels, then the label."""
        rows = np.column_stack([self.pixels, self.labels])
        return "".join(",".join(map(str, row)) + "\n" for row in rows.tolist()).encode()


def data_file(part: str) -> Path:
    """Return the path of `train` or `heldout` on scratch."""
    return scratch() / "data" / "digits" / f"{part}.csv"


def preprocessed_file(part: str) -> Path:
    """Return the path of `images` or `labels` on scratch."""
    return scratch() / "preprocessed_data" / "digits" / f"heldout_{part}.npy"


def _source() -> Samples:
    # Only this one file of scikit-learn is needed, so it is read without importing, or even having, the rest.
    for folder in sys.path:
        path = Path(folder) / SOURCE
        if path.is_file():
            content = gzip.decompress(path.read_bytes())
            found = hashlib.sha256(content).hexdigest()
            if found != SOURCE_SHA256:
                raise HarnessError(f"{path} is not the expected data: sha256 {found}, expected {SOURCE_SHA256}")
            return _parse(content)
    raise HarnessError(f"no {SOURCE} on Python's path: install scikit-learn or use the reference harness's image")


def _parse(content: bytes) -> Samples:
    rows = np.loadtxt(io.BytesIO(content), delimiter=",").astype(np.int64)
    return Samples(rows[:, :-1], rows[:, -1])


def split(samples: Samples) -> dict[str, Samples]:
    """Split into `train` and `heldout`, always the same way: NumPy keeps RandomState's streams unchanged."""
    order = np.random.RandomState(SPLIT_SEED).permutation(len(samples.labels))
    parts = {"train": order[:-HELD_OUT], "heldout": order[-HELD_OUT:]}
    return {name: Samples(samples.pixels[index], samples.labels[index]) for name, index in parts.items()}


def download() -> None:
    """Write both parts to scratch, unless they are there already."""
    for name, samples in split(_source()).items():
        _write_unless_there(data_file(name), samples.csv())


def load(part: str) -> Samples:
    """Read a part from scratch.

    Raises:
        HarnessError: the file is missing.
    """
    path = data_file(part)
    if not path.is_file():
        raise HarnessError(f"{path} is missing: run `make download_data` first")
    return _parse(path.read_bytes())


def normalise(samples: Samples) -> NDArray[np.float64]:
    """Return the images with values 0 to 1 in the model's shape (n, 1, 8, 8)."""
    return samples.pixels.reshape(-1, 1, SIDE, SIDE) / WHITE


def preprocess() -> None:
    """Write the held-out images as float32 and the labels as int64, unless they are there already."""
    samples = load("heldout")
    arrays: dict[str, NDArray[Any]] = {"images": normalise(samples).astype(np.float32), "labels": samples.labels}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        _write_unless_there(preprocessed_file(name), buffer.getvalue())


def load_preprocessed() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the held-out images and labels.

    Raises:
        HarnessError: a file is missing.
    """
    paths = {part: preprocessed_file(part) for part in ("images", "labels")}
    for path in paths.values():
        if not path.is_file():
            raise HarnessError(f"{path} is missing: run `make preprocess_data` first")
    return np.load(paths["images"], allow_pickle=False), np.load(paths["labels"], allow_pickle=False)


def _write_unless_there(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        LOG.info("%s is already there.", path)
        return
    write_whole(path, content)
    LOG.info("Wrote %s (%d bytes).", path, len(content))
