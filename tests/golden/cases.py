"""The runs whose rendered objects are kept as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.plan import Inputs, desired_objects
from mlperf_operator.resources.job import Bounds, Images, recovery_job
from mlperf_operator.resources.overrides import override_files
from mlperf_operator.suites import BUILT_IN, Suite

HOST_PATHS = ("/mnt/nvme", "/mnt/results")
"""Folders of the node that the administrator allows."""

NODE = "aks-nd96-000001"


@dataclass(frozen=True)
class Case:
    """A run by name, and what it is there to show."""

    name: str
    spec: Mapping[str, Any]

    @property
    def run(self) -> MLPerfRun:
        meta = {"name": "golden", "namespace": "bench", "uid": "11111111-2222-3333-4444-555555555555"}
        return MLPerfRun.model_validate({"metadata": meta, "spec": self.spec})


def nvidia(**spec: Any) -> dict[str, Any]:
    return {"suite": "nvidia-v4.1", "system": "A100_SXM4_40GBx8", "scratch": {"claimName": "mlperf-scratch"}, **spec}


def reference(**spec: Any) -> dict[str, Any]:
    return {"suite": "reference-cpu", "system": "CPU_REFERENCE", "benchmarks": [{"name": "digits"}], **spec}


def pair(benchmark: str, *scenarios: str) -> list[dict[str, Any]]:
    return [{"name": benchmark, "scenarios": list(scenarios)}]


OFFLINE: dict[str, Any] = {"environment": {"strategy": "Image", "offline": True}}
STORE = {"endpoint": "https://s3.example:9000", "bucket": "mlperf", "prefix": "a100/", "region": "westeurope"}

CASES = [
    Case("nvidia-default", nvidia(benchmarks=[{"name": "bert"}, {"name": "3d-unet"}])),
    Case(
        "nvidia-high-accuracy",
        nvidia(
            benchmarks=[{"name": "bert", "scenarios": ["Server"]}],
            configVersion="HighAccuracy",
            testModes=["AccuracyOnly"],
            gpu={"access": "RuntimeClass"},
            gpuConfig={
                "overrides": [
                    {"benchmark": "bert", "scenario": "Server", "field": "server_target_qps", "value": 11000},
                    {"benchmark": "bert", "scenario": "Server", "field": "gpu_batch_size", "value": 48},
                ]
            },
            scratch={"hostPath": {"path": "/mnt/nvme/mlperf"}},
            results={"claimTemplate": {"size": "10Gi", "accessMode": "ReadWriteMany", "storageClassName": "azurefile"}},
            image="registry.example/mlperf:v4.1",
            imagePullSecrets=[{"name": "registry"}],
            nodeSelector={"kubernetes.azure.com/agentpool": "nd96"},
            tolerations=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
            resources={"requests": {"cpu": "64", "memory": "512Gi"}, "limits": {"memory": "800Gi"}},
            queueName="a100",
        ),
    ),
    Case("nvidia-single-pair", nvidia(benchmarks=pair("bert", "SingleStream"), testModes=["PerformanceOnly"])),
    Case("nvidia-test-run", nvidia(benchmarks=pair("bert", "Offline"), testRun=True)),
    Case(
        "nvidia-harness-parity-max-q",
        nvidia(
            benchmarks=pair("3d-unet", "Offline"),
            configVersion="HighAccuracy",
            powerSetting="MaxQ",
            securityProfile="HarnessParity",
            results={"claimName": "mlperf-results"},
        ),
    ),
    Case(
        "nvidia-audits",
        nvidia(
            benchmarks=[*pair("bert", "Offline"), *pair("3d-unet", "SingleStream")],
            audits=["TEST01", "TEST05"],
        ),
    ),
    Case(
        "nvidia-code-of-a-claim",
        nvidia(benchmarks=pair("bert", "Offline"), code={"claimName": "mlperf-code", "path": "/v4.1"}),
    ),
    Case(
        "nvidia-code-of-an-image",
        nvidia(benchmarks=pair("bert", "Offline"), code={"image": "registry.example/mlperf-code:v4.1"}),
    ),
    Case("nvidia-offline", nvidia(benchmarks=[*pair("bert", "Offline"), *pair("3d-unet", "Offline")], **OFFLINE)),
    Case(
        "nvidia-image-has-the-environment",
        nvidia(
            benchmarks=pair("bert", "Offline"),
            environment={"strategy": "Image"},
            image="registry.example/mlperf-environment:v4.1",
        ),
    ),
    Case("nvidia-one-gpu", nvidia(system="A100_SXM4_40GBx1", benchmarks=pair("bert", "Offline"))),
    Case(
        "nvidia-upload",
        nvidia(
            benchmarks=pair("bert", "Offline"),
            results={"claimTemplate": {"size": "10Gi"}},
            upload={"s3": {**STORE, "credentialsSecret": {"name": "mlperf-s3"}}},
        ),
    ),
    Case(
        "nvidia-host-paths",
        nvidia(
            benchmarks=pair("bert", "Offline"),
            scratch={"hostPath": {"path": "/mnt/nvme/"}},
            results={"hostPath": {"path": "/mnt/results/team/bert"}},
        ),
    ),
    Case("reference-cpu", reference(scratch={"emptyDir": {"sizeLimit": "2Gi", "medium": "Memory"}})),
    Case(
        "reference-cpu-short",
        reference(
            benchmarks=[{"name": "digits", "scenarios": ["Offline"]}],
            testModes=["PerformanceOnly"],
            testRun=True,
            scratch={"claimTemplate": {"size": "1Gi", "deleteWithRun": True}},
            backoffLimit=2,
        ),
    ),
]


CHILDREN_POLICY = "22222222-3333-4444-5555-666666666666"


def objects(
    case: Case, suite: Suite | None = None, children_policy: str = CHILDREN_POLICY
) -> dict[str, dict[str, Any]]:
    """Return everything that is made from a run, of its own suite unless another is given, by kind and name."""
    run = case.run
    suite = suite or BUILT_IN[run.spec.suite]
    images = Images(
        harness=run.spec.image or suite.image, operator="registry.example/mlperf-operator:1", pull_policy="IfNotPresent"
    )
    overrides = override_files(run, suite)
    # The wrapper's files have tests of their own; here they would only make every change of theirs show up.
    agent_files = {"preflight.py": "# agent/preflight.py\n", "stage.py": "# agent/stage.py\n"}
    bounds = Bounds(HOST_PATHS, children_policy)
    inputs = Inputs(
        suite=suite,
        images=images,
        agent_files=agent_files,
        override_files=overrides,
        bounds=bounds,
    )
    made = [*desired_objects(run, inputs), recovery_job(run, suite, images, NODE, bounds)]
    return {f"{body['kind'].lower()}-{body['metadata']['name']}": body for body in made}
