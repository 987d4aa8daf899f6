"""Engines: the model quantised as configured and optimised by ONNX Runtime for this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from harness import model
from harness.constants import HarnessError
from harness.log import LOG
from harness.scratch import BUILD, write_whole
from harness.settings import RunSettings

FULL_PRECISION_BITS = 32
ERRORS_ONLY = 3


def engine_file(settings: RunSettings) -> Path:
    """Return the engine's path, laid out as in NVIDIA's tree: build/engines/SYSTEM/BENCHMARK/SCENARIO/."""
    folder = BUILD / "engines" / settings.system_id / settings.benchmark.value / settings.scenario.value
    name = f"{settings.benchmark.value}-{settings.scenario.value}-cpu-b{settings.batch_size}"
    return folder / f"{name}-w{settings.quantize_bits}.{settings.setting.shortname()}.onnx"


def generate(settings: RunSettings) -> Path:
    """Build the engine of a config, replacing an earlier one."""
    network = model.load()
    if settings.quantize_bits < FULL_PRECISION_BITS:
        model.map_weights(network, lambda weights: quantise(weights, settings.quantize_bits))
    helper.set_model_props(network, model.properties(network) | identity(settings))
    path = engine_file(settings)
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / path.name
        options = _options(settings)
        options.optimized_model_filepath = str(optimised)
        _session(network.SerializeToString(), options)
        write_whole(path, optimised.read_bytes())
    LOG.info("Built engine %s (%d bytes).", path, path.stat().st_size)
    return path


def identity(settings: RunSettings) -> dict[str, str]:
    """Return what of a config is baked into its engine."""
    return {
        "config": settings.config_name,
        "batch": f"at most {settings.batch_size}",
        "weights": f"{settings.quantize_bits} bits",
    }


def quantise(weights: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Round to the levels of a signed integer of that many bits, one symmetric scale for the tensor.

    One bit keeps the sign alone, at the mean magnitude.
    """
    if bits == 1:
        return np.asarray(np.where(weights < 0, -1.0, 1.0) * np.abs(weights).mean())
    levels = 2 ** (bits - 1) - 1
    scale = np.abs(weights).max() / levels
    return np.asarray(np.round(weights / scale) * scale)


def load(settings: RunSettings) -> onnxruntime.InferenceSession:
    """Load the engine of a config.

    Raises:
        HarnessError: it was never built, or was built from another config.
    """
    path = engine_file(settings)
    if not path.is_file():
        raise HarnessError(f"no engine {path}: run `make generate_engines` with the same RUN_ARGS first")
    options = _options(settings)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _session(path.read_bytes(), options)
    built_from = session.get_modelmeta().custom_metadata_map
    wanted = identity(settings)
    if any(built_from.get(key) != value for key, value in wanted.items()):
        raise HarnessError(f"{path} was built for {built_from}, not for {wanted}: run `make generate_engines` again")
    return session


def _options(settings: RunSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    # Below this, it warns that an optimised model fits this machine only, which is what an engine is.
    options.log_severity_level = ERRORS_ONLY
    return options


def _session(content: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
