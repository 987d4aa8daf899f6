"""The runs whose rendered objects are kept as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.gpu_config import load_built_in, render_overrides
from mlperf_operator.plan import Inputs, desired_objects
from mlperf_operator.resources.job import Images, recovery_job
from mlperf_operator.resources.stage_plan import requested_pairs
from mlperf_operator.suites import BUILT_IN

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


def objects(case: Case) -> dict[str, dict[str, Any]]:
    """Return everything that is made from a run, by kind and name."""
    run = case.run
    suite = BUILT_IN[run.spec.suite]
    images = Images(
        harness=run.spec.image or suite.image, operator="registry.example/mlperf-operator:1", pull_policy="IfNotPresent"
    )
    overrides = render_overrides(
        suite.config_fields,
        load_built_in()[run.spec.system],
        requested_pairs(run, suite),
        run.spec.config_version,
        run.spec.gpu_config.overrides if run.spec.gpu_config else [],
    )
    # stage.py and preflight.py have tests of their own; here they would only make every change of theirs show up.
    agent_files = {"preflight.py": "# agent/preflight.py\n", "stage.py": "# agent/stage.py\n"}
    inputs = Inputs(suite=suite, images=images, agent_files=agent_files, override_files=overrides)
    made = [*desired_objects(run, inputs), recovery_job(run, suite, images, NODE)]
    return {f"{body['kind'].lower()}-{body['metadata']['name']}": body for body in made}
