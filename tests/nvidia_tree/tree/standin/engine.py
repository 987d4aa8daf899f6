"""Engines: files that are different each time they are built, as TensorRT's are."""

from __future__ import annotations

import os
from pathlib import Path

from standin import environment
from standin.faults import faults
from standin.log import LOG
from standin.names import Benchmark
from standin.request import TREE, Measurement

MODELS = {
    Benchmark.BERT: "models/bert/bert_large_v1_1_fake_quant.onnx",
    Benchmark.UNET3D: "models/3d-unet-kits19/3dUNetKiTS19.onnx",
}


def generate(measurement: Measurement) -> None:
    """Build a pair's engine, replacing an earlier one.

    Raises:
        RuntimeError: it cannot be built.
    """
    environment.check()
    pair = f"{measurement.benchmark.value}/{measurement.scenario.value}"
    LOG.info("Building engines for %s benchmark in %s scenario...", *pair.split("/"))
    what = faults(f"{pair}/engine")
    if "out-of-memory" in what:
        print("[TRT] [E] Error Code 1: Cuda Runtime (out of memory)")
    if what & {"fails", "out-of-memory"}:
        raise RuntimeError("Building engines failed!")
    model = Path(os.environ["MLPERF_SCRATCH_PATH"]) / MODELS[measurement.benchmark]
    measurement.engine.parent.mkdir(parents=True, exist_ok=True)
    header = f"{TREE} {measurement.config_name} {measurement.fields['precision']}\n".encode()
    measurement.engine.write_bytes(header + os.urandom(4096) + model.read_bytes())
    LOG.info("Finished building engines for %s benchmark in %s scenario.", *pair.split("/"))


def check(measurement: Measurement) -> None:
    """Look for the engine and for the built harness, which holds the path that it was built at.

    Raises:
        RuntimeError: one is missing, or of another folder.
    """
    for path in (measurement.engine, TREE / "build/bin/harness_bert"):
        if not path.is_file():
            raise RuntimeError(f"File {path} does not exist.")
    cache = (TREE / "build/harness/CMakeCache.txt").read_text()
    if f"CMAKE_HOME_DIRECTORY={TREE}\n" not in cache:
        raise RuntimeError(f"CMakeCache.txt is of another folder than {TREE}: {cache.strip()}")
