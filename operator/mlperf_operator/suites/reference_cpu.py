"""reference_harness/ of this project: MLCommons' LoadGen with a small real model, under NVIDIA's make contract."""

from __future__ import annotations

from mlperf_operator.api.v1alpha1 import ConfigVersion, Scenario
from mlperf_operator.suites.model import (
    CodeSource,
    MakeStep,
    Postcondition,
    StageSpec,
    Suite,
    SuiteBenchmark,
    SystemSpec,
)

MIB = 1024**2


def _shared(target: str, glob: str, count: int = 1, *, retries: int = 0) -> MakeStep:
    return MakeStep(
        target=target,
        per_benchmark=True,
        scope="Shared",
        retries=retries,
        postconditions={"digits": (Postcondition(glob=glob, min_count=count),)},
    )


REFERENCE_CPU = Suite(
    name="reference-cpu",
    image="mlperf-reference-harness:latest",
    code=CodeSource(path="/opt/reference_harness"),
    systems={"CPU_REFERENCE": SystemSpec()},
    benchmarks={
        "digits": SuiteBenchmark(
            scenarios=(Scenario.OFFLINE, Scenario.SERVER, Scenario.SINGLE_STREAM),
            variants={ConfigVersion.DEFAULT: "digits-99", ConfigVersion.HIGH_ACCURACY: "digits-99.9"},
        )
    },
    config_versions=(ConfigVersion.DEFAULT, ConfigVersion.HIGH_ACCURACY),
    refused_config_versions={
        ConfigVersion.TRITON: "the reference harness has no Triton backend",
        ConfigVersion.HIGH_ACCURACY_TRITON: "the reference harness has no Triton backend",
    },
    config_fields={
        "offline_expected_qps": "Number",
        "server_target_qps": "Number",
        "server_target_latency_ns": "Integer",
        "single_stream_expected_latency_ns": "Integer",
        "min_duration": "Integer",
        "min_query_count": "Integer",
        "batch_size": "Integer",
        "threads": "Integer",
        "quantize_bits": "Integer",
    },
    uses_gpu=False,
    requires_scratch=False,
    run_as_root=False,
    tools=("make", "bash", "python3"),
    scratch_min_free_bytes=64 * MIB,
    stages=(
        StageSpec(name="prebuild", steps=(MakeStep(target="prebuild"), MakeStep(target="link_dirs", always=True))),
        StageSpec(name="download-data", steps=(_shared("download_data", "/scratch/data/digits/*.csv", 2, retries=2),)),
        StageSpec(
            name="download-model", steps=(_shared("download_model", "/scratch/models/digits/*.onnx", retries=2),)
        ),
        StageSpec(
            name="preprocess-data", steps=(_shared("preprocess_data", "/scratch/preprocessed_data/digits/*.npy", 2),)
        ),
        StageSpec(name="build", steps=(MakeStep(target="build", scope="Shared", publish_tree=True),)),
    ),
)
