"""Configuration values: where they come from, who wins, and what the harness gets to read."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlperf_operator.api.v1alpha1 import ConfigOverride, ConfigVersion, Scenario
from mlperf_operator.gpu_config import (
    ConfigEntry,
    ConfigError,
    SystemConfig,
    load_built_in,
    merged,
    parse_system_config,
    render_overrides,
)
from mlperf_operator.suites import BUILT_IN, FieldType

NVIDIA = BUILT_IN["nvidia-v4.1"]
A100 = load_built_in()["A100_SXM4_40GBx8"]
DEFAULT, HIGH = ConfigVersion.DEFAULT, ConfigVersion.HIGH_ACCURACY
OFFLINE, SERVER, SINGLE_STREAM = Scenario.OFFLINE, Scenario.SERVER, Scenario.SINGLE_STREAM
SERVER_PY = "custom_configs/bert/Server/custom.py"

FIELDS: dict[str, FieldType] = {
    "rate": "Number",
    "count": "Integer",
    "flag": "Boolean",
    "word": "Word",
    "batch": "Map",
}


def config(values: Mapping[str, Any], scenario: Scenario = SERVER, system: str = "SYSTEM") -> SystemConfig:
    entry = ConfigEntry(benchmark="bert", scenario=scenario, values=dict(values), origin="a test")
    return SystemConfig(system=system, suites=("s",), configs=(entry,))


def override(field: str, value: int | str, scenario: Scenario = SERVER) -> ConfigOverride:
    return ConfigOverride(benchmark="bert", scenario=scenario, field=field, value=value)


def rendered(values: Mapping[str, Any], *overrides: ConfigOverride) -> dict[str, Any]:
    """Return the values that the class in the rendered file has."""
    files = render_overrides(FIELDS, config(values), [("bert", SERVER)], DEFAULT, overrides)
    return class_values(files[SERVER_PY])


def class_values(text: str) -> dict[str, Any]:
    """Return the class's literals; anything but a literal or a member of a known enum fails."""
    [made] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    found: dict[str, Any] = {}
    for statement in made.body:
        assert isinstance(statement, ast.Assign)
        [target] = statement.targets
        assert isinstance(target, ast.Name)
        if isinstance(statement.value, ast.Attribute):
            assert target.id in ("system", "scenario")
            continue
        found[target.id] = ast.literal_eval(statement.value)
    return found


# --- the operator's own values ----------------------------------------------------------------------------------------

STREAMS_1 = {"gpu_copy_streams": 1, "gpu_inference_streams": 1}
BERT_OFFLINE = {
    "use_small_tile_gemm_plugin": True,
    "gpu_batch_size": {"bert": 1024},
    "gpu_copy_streams": 2,
    "gpu_inference_streams": 2,
    "offline_expected_qps": 30000,
    "workspace_size": 7516192768,
}
BERT_SERVER = {
    "active_sms": 60,
    "gpu_batch_size": {"bert": 96},
    "gpu_copy_streams": 4,
    "gpu_inference_streams": 2,
    "graphs_max_seqlen": 240,
    "server_num_issue_query_threads": 0,
    "server_target_qps": 24750,
    "soft_drop": 0.99,
    "use_graphs": True,
    "use_small_tile_gemm_plugin": True,
}
BERT_SINGLE_STREAM = {
    **STREAMS_1,
    "bert_opt_seqlen": 270,
    "gpu_batch_size": {"bert": 1},
    "single_stream_expected_latency_ns": 1700000,
    "use_graphs": True,
    "use_small_tile_gemm_plugin": False,
}
UNET_OFFLINE = {
    **STREAMS_1,
    "gpu_batch_size": {"3d-unet": 1},
    "offline_expected_qps": 23,
    "slice_overlap_patch_kernel_cg_impl": False,
    "start_from_device": True,
}
UNET_SINGLE_STREAM = {
    **STREAMS_1,
    "gpu_batch_size": {"3d-unet": 8},
    "slice_overlap_patch_kernel_cg_impl": False,
    "start_from_device": True,
    "end_on_device": True,
    "single_stream_expected_latency_ns": 520000000,
}
A100_VALUES = {
    ("bert", OFFLINE, DEFAULT): BERT_OFFLINE,
    ("bert", OFFLINE, HIGH): {**BERT_OFFLINE, "precision": "fp16", "offline_expected_qps": 15000},
    ("bert", SERVER, DEFAULT): BERT_SERVER,
    ("bert", SERVER, HIGH): {
        **BERT_SERVER,
        "precision": "fp16",
        "gpu_batch_size": {"bert": 64},
        "server_target_qps": 11500,
    },
    ("bert", SINGLE_STREAM, DEFAULT): BERT_SINGLE_STREAM,
    ("bert", SINGLE_STREAM, HIGH): {**BERT_SINGLE_STREAM, "precision": "fp16"},
    ("3d-unet", OFFLINE, DEFAULT): UNET_OFFLINE,
    ("3d-unet", OFFLINE, HIGH): UNET_OFFLINE,
    ("3d-unet", SINGLE_STREAM, DEFAULT): UNET_SINGLE_STREAM,
    ("3d-unet", SINGLE_STREAM, HIGH): UNET_SINGLE_STREAM,
}


def test_the_a100_has_exactly_the_known_values() -> None:
    assert {(e.benchmark, e.scenario, e.config_version): e.values for e in A100.configs} == A100_VALUES


@pytest.mark.parametrize("built_in", load_built_in().values(), ids=lambda c: c.system)
def test_every_value_says_where_it_comes_from(built_in: SystemConfig) -> None:
    for entry in built_in.configs:
        assert len(entry.origin) > 10
        assert not any(name.startswith("power") for name in entry.values), "MaxQ changes the node's power limit"


@pytest.mark.parametrize("built_in", load_built_in().values(), ids=lambda c: c.system)
@pytest.mark.parametrize("version", [DEFAULT, HIGH])
def test_every_pair_of_a_built_in_suite_can_be_rendered(built_in: SystemConfig, version: ConfigVersion) -> None:
    for name in built_in.suites:
        suite = BUILT_IN[name]
        assert built_in.system in suite.systems
        pairs = [(b, s) for b, benchmark in suite.benchmarks.items() for s in benchmark.scenarios]
        files = render_overrides(suite.config_fields, built_in, pairs, version)
        for benchmark, scenario in pairs:
            entry = built_in.find(benchmark, scenario, version)
            assert entry is not None
            text = files[f"custom_configs/{benchmark}/{scenario.value}/custom.py"]
            assert class_values(text) == entry.values


# --- what the harness reads -------------------------------------------------------------------------------------------


def test_the_custom_folder_is_complete_for_every_requested_pair() -> None:
    files = render_overrides(NVIDIA.config_fields, A100, [("bert", SERVER), ("3d-unet", OFFLINE)], DEFAULT)
    assert sorted(files) == [
        "Makefile.docker",
        "custom_configs/3d-unet/Offline/custom.py",
        "custom_configs/bert/Server/custom.py",
        "custom_systems/custom_list.py",
    ]
    # NVIDIA's system list imports the dictionary by name, and cannot be imported itself without it.
    assert files["custom_systems/custom_list.py"] == "custom_systems = {}\n"


def test_makefile_docker_launches_nothing() -> None:
    text = render_overrides(NVIDIA.config_fields, A100, [], DEFAULT)["Makefile.docker"]
    assert ".PHONY: prebuild" in text
    assert not any(line.startswith("\t") and "docker" in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("version", "registered", "class_name"),
    [
        (DEFAULT, "HarnessType.Custom, AccuracyTarget.k_99, PowerSetting.MaxP", "A100_SXM4_40GBx8"),
        (HIGH, "HarnessType.Custom, AccuracyTarget.k_99_9, PowerSetting.MaxP", "A100_SXM4_40GBx8_HighAccuracy"),
    ],
)
def test_a_config_version_is_registered_as_the_harness_looks_it_up(
    version: ConfigVersion, registered: str, class_name: str
) -> None:
    text = render_overrides(NVIDIA.config_fields, A100, [("3d-unet", OFFLINE)], version)[
        "custom_configs/3d-unet/Offline/custom.py"
    ]
    assert f"@ConfigRegistry.register({registered})\nclass {class_name}(GPUBaseConfig):\n" in text
    assert "import_module('configs.3d-unet').GPUBaseConfig" in text
    assert "    system = KnownSystem.A100_SXM4_40GBx8\n    scenario = Scenario.Offline\n" in text


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_config_map_which_wins_over_the_operator() -> None:
    base = config({"rate": 1, "count": 1, "flag": True})
    user = config({"rate": 2, "count": 2})
    both = merged(base, [user])
    assert both is not None
    files = render_overrides(FIELDS, both, [("bert", SERVER)], DEFAULT, [override("rate", 3)])
    assert class_values(files[SERVER_PY]) == {"flag": True, "count": 2, "rate": 3}


def test_values_for_another_pair_or_version_change_nothing() -> None:
    base = config({"rate": 1})
    user = config({"rate": 2}, scenario=OFFLINE)
    both = merged(base, [user])
    assert both is not None
    files = render_overrides(FIELDS, both, [("bert", SERVER)], DEFAULT, [override("rate", 3, OFFLINE)])
    assert class_values(files[SERVER_PY]) == {"rate": 1}


def test_a_system_of_the_users_own_needs_no_values_of_the_operators() -> None:
    assert merged(None, []) is None
    assert merged(None, [config({"rate": 2})]) == config({"rate": 2})
    both = merged(None, [config({"rate": 2, "count": 1}), config({"rate": 3})])
    assert both is not None
    entry = both.find("bert", SERVER, DEFAULT)
    assert entry is not None
    assert entry.values == {"rate": 3, "count": 1}


# --- what a value may be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("rate", "0.99", 0.99),
        ("rate", "24750", 24750),
        ("rate", 7, 7),
        ("count", "9007199254740993", 9007199254740993),
        ("flag", "true", True),
        ("flag", "false", False),
        ("word", "fp16", "fp16"),
        ("batch", 64, {"bert": 64}),
        ("batch", "64", {"bert": 64}),
    ],
)
def test_an_override_is_read_as_its_fields_type(field: str, value: int | str, wanted: object) -> None:
    found = rendered({}, override(field, value))[field]
    assert (found, type(found)) == (wanted, type(wanted))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 2.5}, "count must be an integer from 0, not 2.5"),
        ({"count": -1}, "count must be an integer from 0, not -1"),
        ({"count": True}, "count must be an integer from 0, not True"),
        ({"count": 10**400}, "count must be an integer from 0, not a int"),
        ({"rate": "fast"}, "rate must be a number from 0, not 'fast'"),
        ({"rate": float("nan")}, "rate must be a number from 0, not nan"),
        ({"rate": float("inf")}, "rate must be a number from 0, not inf"),
        ({"rate": "1e999"}, "rate must be a number from 0"),
        ({"rate": None}, "rate must be a number from 0, not None"),
        ({"flag": 1}, "flag must be true or false, not 1"),
        ({"flag": "yes"}, "flag must be true or false, not 'yes'"),
        ({"word": "a b"}, "word must be a word of letters, digits and _, not 'a b'"),
        ({"word": ""}, "word must be a word"),
        ({"word": "x" * 1000}, f"not '{'x' * 60}...'"),
        ({"batch": {"bert": "x"}}, "batch must be a map of benchmark to integer, not a dict"),
        ({"batch": {"be rt": 1}}, "batch must be a map of benchmark to integer"),
        ({"batch": [1]}, "batch must be a map of benchmark to integer, not a list"),
        ({"ratio": 1}, "there is no field ratio; did you mean rate? Possible: batch, count, flag, rate, word"),
        ({"zzz": 1}, "there is no field zzz. Possible: batch"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_possible(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rendered(values)
    assert "bert Server: " in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_every_problem_of_every_pair_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        render_overrides(FIELDS, config({"count": "x", "flag": "y"}), [("bert", SERVER), ("bert", OFFLINE)], DEFAULT)
    message = str(caught.value)
    assert "count must be" in message
    assert "flag must be" in message
    assert "SYSTEM has no values for bert Offline Default; there are: bert Server Default" in message


NASTY = st.one_of(
    st.text(),
    st.sampled_from(
        ["'", '"', "\\", "\n", "{{ 7*7 }}", "{% raw %}", "__import__('os')", "'''", "fp16\nx = 1", "\u2028"]
    ),
)
VALUES = st.one_of(
    NASTY,
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(),
    st.lists(st.integers()),
    st.dictionaries(NASTY, st.one_of(st.integers(), NASTY), max_size=3),
)


@given(values=st.dictionaries(st.one_of(st.sampled_from(sorted(FIELDS)), NASTY), VALUES, max_size=4))
def test_whatever_the_user_writes_becomes_literals_or_a_refusal(values: dict[str, Any]) -> None:
    try:
        found = rendered(values)
    except ConfigError:
        return
    assert set(found) == set(values)
    assert set(found) <= set(FIELDS)


@given(field=st.sampled_from(sorted(FIELDS)), value=st.one_of(st.integers(), NASTY.filter(lambda t: len(t) < 256)))
def test_whatever_an_override_says_becomes_a_literal_or_a_refusal(field: str, value: int | str) -> None:
    try:
        found = rendered({}, override(field, value))
    except ConfigError:
        return
    assert set(found) == {field}


# --- reading a file ---------------------------------------------------------------------------------------------------

GOOD = {"system": "S", "suites": ["s"], "configs": [{"benchmark": "bert", "scenario": "Server", "values": {}}]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "cm/key: no YAML: "),
        ("a: &x 1\nb: *x", "cm/key: no YAML: aliases (*name) are not allowed; write it out in line 2"),
        ("a: 2026-13-45", "cm/key: no YAML: ValueError"),
        ("[" * 5000, "cm/key: no YAML: RecursionError"),
        ("a: " + "9" * 5000, "cm/key: no YAML: ValueError"),
        ("", "cm/key: file: Input should be a valid dictionary"),
        ("- 1", "cm/key: file: Input should be a valid dictionary"),
        (yaml.safe_dump({**GOOD, "sytem": 1}), "sytem: Extra inputs"),
        (yaml.safe_dump(GOOD), "configs.0.origin: Field required"),
        ("system: !!python/object:os.system {}", "cm/key: no YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_name(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_system_config(text, "cm/key")
    assert said in str(caught.value)


def test_a_refusal_does_not_show_what_the_file_holds() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_system_config("password: hunter2\n\tb: [", "cm/key")
    assert "hunter2" not in str(caught.value)


def test_nested_aliases_cost_nothing() -> None:
    lines = ["a0: &a0 [1, 1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases"):
        parse_system_config("\n".join(lines), "cm/key")


@given(st.one_of(st.text(), st.recursive(st.one_of(st.none(), st.integers(), st.text()), st.lists).map(yaml.safe_dump)))
def test_any_text_is_a_config_or_a_refusal(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_system_config(text, "cm/key")


def test_the_order_of_entries_does_not_change_what_is_rendered() -> None:
    pairs = [("bert", SERVER), ("3d-unet", OFFLINE)]
    other = A100.model_copy(update={"configs": A100.configs[::-1]})
    assert render_overrides(NVIDIA.config_fields, A100, pairs, DEFAULT) == render_overrides(
        NVIDIA.config_fields, other, pairs, DEFAULT
    )
