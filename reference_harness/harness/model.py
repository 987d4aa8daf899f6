"""The trained model as ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from harness import dataset, training
from harness.constants import HarnessError
from harness.log import LOG
from harness.scratch import scratch, write_whole

OPSET = 17
IR_VERSION = 8
RECIPE = f"data={dataset.SOURCE_SHA256[:16]} split={dataset.SPLIT_SEED} seed={training.SEED} ridge={training.RIDGE}"

Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def model_file() -> Path:
    """Return the model's path on scratch."""
    return scratch() / "models" / "digits" / "digits.onnx"


def download() -> None:
    """Train the model and write it to scratch, unless the same one is there already."""
    path = model_file()
    if _is_complete(path):
        LOG.info("%s is already there.", path)
        return
    samples = dataset.load("train")
    LOG.info("Training on %d images.", len(samples.labels))
    weights = training.train(dataset.normalise(samples), samples.labels)
    write_whole(path, to_onnx(weights).SerializeToString())
    LOG.info("Wrote %s (%d bytes).", path, path.stat().st_size)


def load() -> onnx.ModelProto:
    """Read the model from scratch.

    Raises:
        HarnessError: the file is missing or not this model.
    """
    path = model_file()
    if not _is_complete(path):
        raise HarnessError(f"{path} is missing or not the expected model: run `make download_model` first")
    return onnx.load(path)


def _is_complete(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        LOG.warning("%s is damaged: %s", path, error)
        return False
    return properties(model).get("recipe") == RECIPE


def properties(model: onnx.ModelProto) -> dict[str, str]:
    """Return the model's own metadata."""
    return {entry.key: entry.value for entry in model.metadata_props}


def to_onnx(weights: training.Weights) -> onnx.ModelProto:
    """Return the network with outputs `label` and `logits`."""
    nodes, tensors, signal = [], [], "image"
    for index, kernels in enumerate(weights.convolutions, start=1):
        tensors.append(_tensor(f"kernels{index}", kernels))
        nodes.append(helper.make_node("Conv", [signal, f"kernels{index}"], [f"conv{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        signal = f"relu{index}"
    pool = [training.POOL, training.POOL]
    nodes += [
        helper.make_node("AveragePool", [signal], ["pooled"], kernel_shape=pool, strides=pool),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "readout", "bias"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    tensors += [_tensor("readout", weights.readout), _tensor("bias", weights.bias)]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, dataset.SIDE, dataset.SIDE])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", training.CLASSES]),
        ],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, {"recipe": RECIPE})
    return model


def _tensor(name: str, values: NDArray[np.float64]) -> TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def map_weights(model: onnx.ModelProto, transform: Transform) -> None:
    """Replace every weight matrix and kernel, but not the bias, by its transform."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(_tensor(tensor.name, transform(numpy_helper.to_array(tensor).astype(np.float64))))
