"""`make preprocess_data`: arrays of the right number and shape from what was downloaded."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from standin import environment

BERT_SHAPE = (10833, 384)


def _save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def bert(data: Path, out: Path) -> None:
    """Write the tokens of SQuAD."""
    json.loads((data / "squad/dev-v1.1.json").read_text())
    for name in ("input_ids", "input_mask", "segment_ids"):
        _save(out / f"squad_tokenized/{name}.npy", np.zeros(BERT_SHAPE, np.int32))


def unet3d(data: Path, out: Path) -> None:
    """Write one volume a case, and what the accuracy script needs."""
    kits, target = data / "KiTS19", out / "KiTS19"
    for listed, kind in (("inference", np.int8), ("calibration", np.float32)):
        cases = json.loads((kits / f"{listed}_cases.json").read_text())
        for case in cases:
            content = gzip.decompress((kits / "kits19/data" / case / "imaging.nii.gz").read_bytes())
            _save(target / listed / np.dtype(kind).name.replace("float", "fp") / f"{case}.npy", _few(content, kind))
    _save(target / "etc/gaussian_patches.npy", np.ones((4, 4), np.float32))
    pickled = target / "reference/preprocessed_files.pkl"
    pickled.parent.mkdir(parents=True, exist_ok=True)
    pickled.write_bytes(pickle.dumps({"file_list": [], "shape_list": []}))


def _few(content: bytes, kind: type[np.generic]) -> NDArray[Any]:
    return np.frombuffer(content[:64], np.uint8).astype(kind)


def main(benchmarks: list[str]) -> None:
    """Preprocess the data of the benchmarks."""
    environment.check()
    scratch = Path(os.environ["MLPERF_SCRATCH_PATH"])
    work = {"bert": bert, "3d-unet": unet3d}
    for name in benchmarks:
        work[name](scratch / "data", scratch / "preprocessed_data")


if __name__ == "__main__":
    main(sys.argv[1:])
