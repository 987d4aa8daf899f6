"""The stages before `build`: link_dirs, download_data, download_model, preprocess_data; and reference_accuracy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import onnxruntime

from harness import dataset, model
from harness.constants import Benchmark, HarnessError
from harness.log import LOG, configure_logging
from harness.scratch import link_dirs


def reference_accuracy() -> None:
    """Print the accuracy of the model in full precision on the held-out images, and its smallest decision margin."""
    images, labels = dataset.load_preprocessed()
    session = onnxruntime.InferenceSession(model.load().SerializeToString(), providers=["CPUExecutionProvider"])
    answers, logits = session.run(["label", "logits"], {"image": images})
    ordered = np.sort(logits, axis=1)
    LOG.info(
        "%d of %d right; the smallest margin between the best two classes is %.2g.",
        int((answers == labels).sum()),
        len(labels),
        (ordered[:, -1] - ordered[:, -2]).min(),
    )


STAGES: dict[str, Callable[[], None]] = {
    "link_dirs": link_dirs,
    "download_data": dataset.download,
    "download_model": model.download,
    "preprocess_data": dataset.preprocess,
    "reference_accuracy": reference_accuracy,
}


def main(argv: list[str]) -> None:
    """Run one stage for the requested benchmarks; the tree has one, so the stage runs once."""
    parser = argparse.ArgumentParser(prog="harness.prepare")
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--benchmarks", default=Benchmark.Digits.value)
    arguments = parser.parse_args(argv)
    for name in arguments.benchmarks.replace(",", " ").split():
        Benchmark.parse(name)
    STAGES[arguments.stage]()


if __name__ == "__main__":
    configure_logging()
    try:
        main(sys.argv[1:])
    except (HarnessError, OSError) as error:
        LOG.error("%s", error)
        sys.exit(1)
