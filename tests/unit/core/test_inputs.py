"""What a run's objects are made from, and what is told when a part of it is not there."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cluster import CONFIG_MAPS, Cluster, Resource
from mlperf_operator.gpu_config import ConfigError
from mlperf_operator.inputs import InputsReader, NotReadyError, read_agent_files
from mlperf_operator.plan import Inputs
from mlperf_operator.settings import Settings
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import run


class Store:
    """A cluster with at most one ConfigMap."""

    def __init__(self, data: dict[str, str] | None) -> None:
        self.data = data

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        assert (resource, namespace, name) == (CONFIG_MAPS, "bench", "mine")
        return {"data": self.data} if self.data is not None else None


async def read(made: MLPerfRun, data: dict[str, str] | None = None) -> Inputs:
    settings = Settings(image="operator:9", image_pull_policy="Never")
    reader = InputsReader(cast("Cluster", Store(data)), settings)
    return await reader.read(made, BUILT_IN[made.spec.suite])


def values(batch_size: int, system: str = "CPU_REFERENCE") -> str:
    entry = {"benchmark": "digits", "scenario": "Offline", "values": {"batch_size": batch_size}, "origin": "mine"}
    return yaml.safe_dump({"system": system, "suites": ["reference-cpu"], "configs": [entry]})


def referring(**spec: Any) -> MLPerfRun:
    return run({"gpuConfig": {"configMapRef": {"name": "mine"}, **spec}})


def offline_py(inputs: Inputs) -> str:
    return inputs.override_files["custom_configs/digits/Offline/custom.py"]


async def test_a_run_gets_the_suites_image_unless_it_names_another() -> None:
    assert (await read(run())).images.harness == BUILT_IN["reference-cpu"].image
    images = (await read(run({"image": "registry.example/h:1"}))).images
    assert (images.harness, images.operator, images.pull_policy) == ("registry.example/h:1", "operator:9", "Never")


async def test_the_pods_files_are_those_of_this_operator() -> None:
    files = (await read(run())).agent_files
    assert files == read_agent_files()
    assert set(files) == {"stage.py", "preflight.py"}


async def test_the_users_values_win_over_the_operators_and_overrides_over_both() -> None:
    own = await read(referring(), {"a.yaml": values(7)})
    assert "batch_size = 7" in offline_py(own)
    assert "offline_expected_qps = 10000" in offline_py(own)
    override = {"benchmark": "digits", "scenario": "Offline", "field": "batch_size", "value": 9}
    both = await read(referring(overrides=[override]), {"a.yaml": values(7)})
    assert "batch_size = 9" in offline_py(both)


async def test_the_files_of_a_config_map_are_read_in_the_order_of_their_names() -> None:
    inputs = await read(referring(), {"b.yaml": values(2), "a.yaml": values(1)})
    assert "batch_size = 2" in offline_py(inputs)


async def test_a_config_map_that_is_not_there_yet_is_waited_for() -> None:
    with pytest.raises(NotReadyError) as caught:
        await read(referring())
    assert caught.value.blocked.reason == "ConfigMapNotFound"
    assert "ConfigMap mine, which is not there; create it" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"a.yaml": values(1, "OTHER")}, "ConfigMap mine has no values for CPU_REFERENCE; it has: OTHER"),
        ({}, "ConfigMap mine has no values for CPU_REFERENCE; it has: no file at all"),
        ({"a.yaml": "x: ["}, "mine/a.yaml: no YAML"),
    ],
)
async def test_a_config_map_that_would_change_nothing_is_refused(data: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await read(referring(), data)


async def test_a_system_without_values_says_where_to_give_them() -> None:
    spec = {"suite": "nvidia-v4.1", "system": "A100_SXM_80GBx8", "benchmarks": [{"name": "bert"}]}
    with pytest.raises(ConfigError, match="no configuration values for A100_SXM_80GBx8; give them in gpuConfig"):
        await read(run(spec))
