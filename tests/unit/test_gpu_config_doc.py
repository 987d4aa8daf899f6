"""docs/gpu-configs.md: its examples work, and its table has the fields that there are."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlperf_operator.acceptance import refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.gpu_config_schema import load_built_in
from mlperf_operator.gpu_config_tool import check, listing
from mlperf_operator.limits import Limits
from mlperf_operator.resources.overrides import override_files, user_configs
from mlperf_operator.suites import BUILT_IN, NVIDIA_V4_1, SystemSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/gpu-configs.md").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?m)^ *```yaml\n((?:.*\n)*?) *```", PAGE)]
VALUES, RUN, CONFIG_MAP, SYSTEMS = BLOCKS


def test_its_values_fit(tmp_path: Path) -> None:
    for text in (VALUES, CONFIG_MAP):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        told, problems = check(file, BUILT_IN)
        assert problems == []
        assert len(told) == 1


def test_its_run_is_accepted_and_gets_its_values_and_its_override() -> None:
    document: dict[str, Any] = yaml.safe_load(RUN)
    document["metadata"] |= {"namespace": "bench", "uid": "1"}
    run = MLPerfRun.model_validate(document)
    assert refusal(run, Limits(suites=BUILT_IN)) is None
    user = user_configs({"a100-values/mine.yaml": VALUES}, NVIDIA_V4_1, run.spec.system, "ConfigMap a100-values")
    [text] = [
        text for name, text in override_files(run, NVIDIA_V4_1, user).items() if name.startswith("custom_configs")
    ]
    assert "    server_target_qps = 24000\n" in text
    assert "    gpu_batch_size = {'bert': 64}\n" in text
    assert "    active_sms = 60\n" in text


def test_its_system_is_one_that_a_suite_may_have() -> None:
    [(name, system)] = yaml.safe_load(SYSTEMS)["systems"].items()
    assert name not in NVIDIA_V4_1.systems
    assert SystemSpec.model_validate(system).gpu_count == 8


def test_its_table_has_every_field_with_its_type() -> None:
    rows = dict(re.findall(r"(?m)^\| `([a-z0-9_]+)` \| (Integer|Number|Boolean|Word|Map)\b", PAGE))
    assert rows == NVIDIA_V4_1.config_fields


@pytest.mark.parametrize("field", NVIDIA_V4_1.config_fields)
def test_its_table_says_where_a_field_stands(field: str) -> None:
    [row] = re.findall(rf"(?m)^\| `{field}` \|(.*)\|$", PAGE)
    rule = NVIDIA_V4_1.config_rules.get(field)
    if rule is None:
        assert "required" not in row
        return
    for name in (*rule.benchmarks, *rule.scenarios, *rule.power_settings, *rule.words):
        assert name in row
    assert ("required" in row) == rule.required
    if rule.maximum is not None:
        assert f"{rule.maximum:g}" in row


def test_its_table_of_origins_has_every_system_with_gpus() -> None:
    section = PAGE.split("## Where our values come from")[1].split("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `(\w+)`", section)) == set(NVIDIA_V4_1.systems)
    assert set(NVIDIA_V4_1.systems) == {system for _, system, _ in listing([NVIDIA_V4_1])}
    derived = {name for name, c in load_built_in().items() if any(e.origin.startswith("derived:") for e in c.configs)}
    assert {row.split("`")[1] for row in section.splitlines() if "derived" in row} == derived
