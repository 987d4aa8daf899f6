"""What a run's objects are made from."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mlperf_operator.cluster import Cluster, Resource
from mlperf_operator.gpu_config_schema import ConfigError
from mlperf_operator.inputs import InputsReader, NotReadyError
from mlperf_operator.resources import overrides
from mlperf_operator.resources.overrides import MAX_USER_BYTES
from mlperf_operator.settings import Settings
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import run

SUITE = BUILT_IN["reference-cpu"]
VALUES = """
system: {system}
suites: [reference-cpu]
configs:
  - benchmark: digits
    scenario: Offline
    configVersion: Default
    values: {{offline_expected_qps: 4321}}
    origin: a test
"""
MINE = {"gpuConfig": {"configMapRef": {"name": "mine"}}}


class OneConfigMap:
    """A cluster that holds one ConfigMap, or none."""

    def __init__(self, data: dict[str, str] | None) -> None:
        self.data = data

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        assert (resource.plural, namespace, name) == ("configmaps", "bench", "mine")
        return None if self.data is None else {"data": self.data}


def _reader(data: dict[str, str] | None = None, **settings: Any) -> InputsReader:
    return InputsReader(cast("Cluster", OneConfigMap(data)), Settings(**settings))


async def test_a_run_gets_the_suites_image_the_agents_files_and_rendered_overrides() -> None:
    reader = _reader(image="operator:2", image_pull_policy="Always")
    inputs = await reader.read(run(), SUITE)
    assert (inputs.images.harness, inputs.images.operator, inputs.images.pull_policy) == (
        SUITE.image,
        "operator:2",
        "Always",
    )
    assert {"stage.py", "preflight.py", "snapshot.py", "as_package.py"} < set(inputs.agent_files)
    assert "__init__.py" not in inputs.agent_files
    assert all(inputs.agent_files.values())
    assert any("digits" in path for path in inputs.override_files)
    assert reader.images(run({"image": "mirror/x:1"}), SUITE).harness == "mirror/x:1"


async def test_a_config_map_that_is_not_there_yet_blocks_the_run_and_is_named() -> None:
    with pytest.raises(NotReadyError, match="ConfigMap mine, which is not there") as caught:
        await _reader().read(run(MINE), SUITE)
    assert caught.value.blocked.reason == "ConfigMapNotFound"


async def test_a_users_values_win_over_the_built_in_ones() -> None:
    own = (await _reader().read(run(), SUITE)).override_files
    changed = (await _reader({"a.yaml": VALUES.format(system="CPU_REFERENCE")}).read(run(MINE), SUITE)).override_files
    assert own != changed
    assert any("4321" in text for text in changed.values())


async def test_a_config_map_without_values_for_the_runs_system_is_an_error_that_names_what_it_has() -> None:
    with pytest.raises(ConfigError, match="it has: TOASTER"):
        await _reader({"a.yaml": VALUES.format(system="TOASTER")}).read(run(MINE), SUITE)


async def test_a_config_map_for_another_suite_is_an_error_that_names_the_suites() -> None:
    text = VALUES.format(system="CPU_REFERENCE").replace("[reference-cpu]", "[nvidia-v4.1]")
    with pytest.raises(ConfigError, match=r"for CPU_REFERENCE of suite reference-cpu; .* of suites nvidia-v4\.1"):
        await _reader({"a.yaml": text}).read(run(MINE), SUITE)


async def test_what_does_not_fit_in_a_config_map_is_told_with_file_and_entry_before_the_run_starts() -> None:
    text = VALUES.format(system="CPU_REFERENCE")
    wrong = text.replace("offline_expected_qps: 4321", "offline_expected_qps: many, thread: 2")
    other = text.replace("digits", "resnet50")
    with pytest.raises(ConfigError) as caught:
        await _reader({"a.yaml": wrong, "b.yaml": other}).read(run(MINE), SUITE)
    message = str(caught.value)
    assert "mine/a.yaml: digits Offline Default: offline_expected_qps must be a number from 0, not 'many'" in message
    assert "there is no field thread; did you mean threads?" in message
    assert "mine/b.yaml: resnet50 Offline Default: suite reference-cpu has no benchmark resnet50; possible: digits" in (
        message
    )


async def test_a_config_map_that_would_hold_the_operator_up_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    padding = "#" * (MAX_USER_BYTES - len(VALUES.format(system="CPU_REFERENCE")))
    fits = {"a.yaml": VALUES.format(system="CPU_REFERENCE") + padding}
    assert (await _reader(fits).read(run(MINE), SUITE)).override_files
    monkeypatch.setattr(overrides, "parse_system_config", None)
    with pytest.raises(ConfigError, match=f"ConfigMap mine has {MAX_USER_BYTES + 2} bytes .* up to {MAX_USER_BYTES}"):
        await _reader({**fits, "b.yaml": "é"}).read(run(MINE), SUITE)


async def test_a_file_for_another_system_is_passed_over() -> None:
    texts = {"a.yaml": VALUES.format(system="TOASTER"), "b.yaml": VALUES.format(system="CPU_REFERENCE")}
    files = (await _reader(texts).read(run(MINE), SUITE)).override_files
    assert "offline_expected_qps = 4321" in files["custom_configs/digits/Offline/custom.py"]


async def test_a_system_without_any_values_is_an_error_that_says_where_to_give_them() -> None:
    with pytest.raises(ConfigError, match="configMapRef"):
        await _reader().read(run({"system": "TOASTER"}), SUITE)


async def test_a_config_map_without_a_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="it has: no file at all"):
        await _reader({}).read(run(MINE), SUITE)


async def test_the_files_of_a_config_map_are_read_in_the_order_of_their_names() -> None:
    first, second = VALUES.format(system="CPU_REFERENCE"), VALUES.format(system="CPU_REFERENCE").replace("4321", "8765")
    inputs = await _reader({"b.yaml": second, "a.yaml": first}).read(run(MINE), SUITE)
    assert "offline_expected_qps = 8765" in inputs.override_files["custom_configs/digits/Offline/custom.py"]
