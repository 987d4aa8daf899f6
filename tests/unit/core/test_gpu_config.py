"""Configuration values: where they come from, who wins, and what the harness gets to read."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlperf_operator.api.v1alpha1 import ConfigOverride, ConfigVersion, PowerSetting, Scenario
from mlperf_operator.gpu_config import Wanted, built_in_for, entry_problems, render_overrides, value_problems
from mlperf_operator.gpu_config_schema import (
    ConfigEntry,
    ConfigError,
    SystemConfig,
    load_built_in,
    merged,
    parse_system_config,
)
from mlperf_operator.suites import BUILT_IN, FieldType, Suite, SystemSpec

NVIDIA = BUILT_IN["nvidia-v4.1"]
A100 = load_built_in()["A100_SXM4_40GBx8"]
MAX_P, MAX_Q = PowerSetting.MAX_P, PowerSetting.MAX_Q
TRITON, HIGH_TRITON = ConfigVersion.TRITON, ConfigVersion.HIGH_ACCURACY_TRITON
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


SUITE = NVIDIA.model_copy(
    update={"name": "s", "config_fields": FIELDS, "config_rules": {}, "systems": {"SYSTEM": SystemSpec()}}
)
WITH_TRITON = NVIDIA.model_copy(update={"name": "with-triton", "config_versions": (TRITON, HIGH_TRITON)})


def config(values: Mapping[str, Any], scenario: Scenario = SERVER, system: str = "SYSTEM") -> SystemConfig:
    entry = ConfigEntry(benchmark="bert", scenario=scenario, values=dict(values), origin="a test")
    return SystemConfig(system=system, suites=("s",), configs=(entry,))


def override(field: str, value: int | str, scenario: Scenario = SERVER) -> ConfigOverride:
    return ConfigOverride(benchmark="bert", scenario=scenario, field=field, value=value)


def rendered(values: Mapping[str, Any], *overrides: ConfigOverride) -> dict[str, Any]:
    """Return the values that the class in the rendered file has."""
    files = render_overrides(SUITE, config(values), Wanted([("bert", SERVER)], overrides=overrides))
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
MAX_Q_VALUES = {**UNET_OFFLINE, "power_limit": 225}
A100_VALUES = {
    ("bert", OFFLINE, DEFAULT, MAX_P): BERT_OFFLINE,
    ("bert", OFFLINE, HIGH, MAX_P): {**BERT_OFFLINE, "precision": "fp16", "offline_expected_qps": 15000},
    ("bert", SERVER, DEFAULT, MAX_P): BERT_SERVER,
    ("bert", SERVER, HIGH, MAX_P): {
        **BERT_SERVER,
        "precision": "fp16",
        "gpu_batch_size": {"bert": 64},
        "server_target_qps": 11500,
    },
    ("bert", SINGLE_STREAM, DEFAULT, MAX_P): BERT_SINGLE_STREAM,
    ("bert", SINGLE_STREAM, HIGH, MAX_P): {**BERT_SINGLE_STREAM, "precision": "fp16"},
    ("3d-unet", OFFLINE, DEFAULT, MAX_P): UNET_OFFLINE,
    ("3d-unet", OFFLINE, HIGH, MAX_P): UNET_OFFLINE,
    ("3d-unet", SINGLE_STREAM, DEFAULT, MAX_P): UNET_SINGLE_STREAM,
    ("3d-unet", SINGLE_STREAM, HIGH, MAX_P): UNET_SINGLE_STREAM,
    ("3d-unet", OFFLINE, DEFAULT, MAX_Q): MAX_Q_VALUES,
    ("3d-unet", OFFLINE, HIGH, MAX_Q): MAX_Q_VALUES,
    ("bert", OFFLINE, TRITON, MAX_P): BERT_OFFLINE,
    ("bert", OFFLINE, HIGH_TRITON, MAX_P): {**BERT_OFFLINE, "precision": "fp16", "offline_expected_qps": 15000},
    ("3d-unet", OFFLINE, TRITON, MAX_P): UNET_OFFLINE,
    ("3d-unet", OFFLINE, HIGH_TRITON, MAX_P): UNET_OFFLINE,
}


def test_the_a100_has_exactly_the_known_values() -> None:
    assert {entry.key: entry.values for entry in A100.configs} == A100_VALUES


@pytest.mark.parametrize("built_in", load_built_in().values(), ids=lambda c: c.system)
def test_every_value_says_where_it_comes_from(built_in: SystemConfig) -> None:
    for entry in built_in.configs:
        assert len(entry.origin) > 10
        assert ("power_limit" in entry.values) == (entry.power_setting is MAX_Q)


@pytest.mark.parametrize("built_in", load_built_in().values(), ids=lambda c: c.system)
def test_a_built_in_file_is_one_that_a_user_could_give(built_in: SystemConfig) -> None:
    for name in built_in.suites:
        assert value_problems(BUILT_IN[name], built_in, None) == []


@pytest.mark.parametrize("suite", BUILT_IN.values(), ids=lambda suite: suite.name)
@pytest.mark.parametrize("version", [DEFAULT, HIGH])
def test_every_pair_of_every_system_of_a_built_in_suite_can_be_rendered(suite: Suite, version: ConfigVersion) -> None:
    pairs = [(b, s) for b, benchmark in suite.benchmarks.items() for s in benchmark.scenarios]
    for system in suite.systems:
        built_in = built_in_for(suite, system)
        assert built_in is not None
        files = render_overrides(suite, built_in, Wanted(pairs, version))
        for benchmark, scenario in pairs:
            entry = built_in.find(benchmark, scenario, version)
            assert entry is not None
            assert class_values(files[f"custom_configs/{benchmark}/{scenario.value}/custom.py"]) == entry.values


def test_high_accuracy_of_bert_is_never_int8() -> None:
    # 30000 samples/s without fp16 would miss an F1 of 90.78.
    found = [
        (system, entry)
        for system, built_in in load_built_in().items()
        for entry in built_in.configs
        if entry.benchmark == "bert" and entry.config_version in (HIGH, HIGH_TRITON)
    ]
    assert len(found) == 10
    for system, entry in found:
        assert entry.values["precision"] == "fp16", (system, entry.label)
        at_99 = load_built_in()[system].find("bert", entry.scenario, DEFAULT)
        assert at_99 is not None
        for rate in ("offline_expected_qps", "server_target_qps"):
            assert entry.values.get(rate, 0) <= 0.55 * at_99.values.get(rate, 0)


def test_max_q_is_there_for_the_pairs_that_the_suite_offers() -> None:
    offered = {(name, s) for name, benchmark in NVIDIA.benchmarks.items() for s in benchmark.max_q_scenarios}
    there = {
        (entry.benchmark, entry.scenario)
        for system in NVIDIA.systems
        for entry in load_built_in()[system].configs
        if entry.power_setting is MAX_Q
    }
    assert there == offered


def test_a_built_in_suite_gets_the_values_that_name_it_and_an_administrators_own_gets_those_of_the_system() -> None:
    assert built_in_for(NVIDIA, "A100_SXM4_40GBx8") is A100
    assert built_in_for(WITH_TRITON, "A100_SXM4_40GBx8") is A100
    assert built_in_for(BUILT_IN["reference-cpu"], "A100_SXM4_40GBx8") is None
    assert built_in_for(NVIDIA, "TOASTER") is None


# --- what the harness reads -------------------------------------------------------------------------------------------


def test_the_custom_folder_is_complete_for_every_requested_pair() -> None:
    files = render_overrides(NVIDIA, A100, Wanted([("bert", SERVER), ("3d-unet", OFFLINE)]))
    assert sorted(files) == [
        "Makefile.docker",
        "custom_configs/3d-unet/Offline/custom.py",
        "custom_configs/bert/Server/custom.py",
        "custom_systems/custom_list.py",
    ]
    # NVIDIA's system list imports the dictionary by name, and cannot be imported itself without it.
    assert files["custom_systems/custom_list.py"] == "custom_systems = {}\n"


UNET_PY = "custom_configs/3d-unet/Offline/custom.py"


@pytest.mark.parametrize(
    ("suite", "version", "power", "registered", "class_name"),
    [
        (NVIDIA, DEFAULT, MAX_P, "Custom, AccuracyTarget.k_99, PowerSetting.MaxP", "A100_SXM4_40GBx8"),
        (NVIDIA, HIGH, MAX_P, "Custom, AccuracyTarget.k_99_9, PowerSetting.MaxP", "A100_SXM4_40GBx8_HighAccuracy"),
        (NVIDIA, DEFAULT, MAX_Q, "Custom, AccuracyTarget.k_99, PowerSetting.MaxQ", "A100_SXM4_40GBx8_MaxQ"),
        (NVIDIA, HIGH, MAX_Q, "Custom, AccuracyTarget.k_99_9, PowerSetting.MaxQ", "A100_SXM4_40GBx8_HighAccuracy_MaxQ"),
        (WITH_TRITON, TRITON, MAX_P, "Triton, AccuracyTarget.k_99, PowerSetting.MaxP", "A100_SXM4_40GBx8_Triton"),
        (
            *(WITH_TRITON, HIGH_TRITON, MAX_P),
            *("Triton, AccuracyTarget.k_99_9, PowerSetting.MaxP", "A100_SXM4_40GBx8_HighAccuracyTriton"),
        ),
    ],
)
def test_a_configuration_is_registered_as_the_harness_looks_it_up(
    suite: Suite, version: ConfigVersion, power: PowerSetting, registered: str, class_name: str
) -> None:
    text = render_overrides(suite, A100, Wanted([("3d-unet", OFFLINE)], version, power))[UNET_PY]
    assert f"@ConfigRegistry.register(HarnessType.{registered})\nclass {class_name}(GPUBaseConfig):\n" in text
    assert "import_module('configs.3d-unet').GPUBaseConfig" in text
    assert "    system = KnownSystem.A100_SXM4_40GBx8\n    scenario = Scenario.Offline\n" in text
    # The registry asks for it with Triton, and refuses the field without.
    assert class_values(text).get("use_triton", False) == (suite is WITH_TRITON)
    assert class_values(text).get("power_limit") == (225 if power is MAX_Q else None)


def test_a_system_is_named_as_the_harness_names_it() -> None:
    built_in = built_in_for(NVIDIA, "A100_SXM4_80GBx8")
    assert built_in is not None
    text = render_overrides(NVIDIA, built_in, Wanted([("bert", SERVER)]))[SERVER_PY]
    assert "class A100_SXM_80GBx8(GPUBaseConfig):\n    system = KnownSystem.A100_SXM_80GBx8\n" in text


def test_a_system_that_the_suite_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"suite nvidia-v4\.1 has no system SYSTEM; possible: A100_SXM4_40GBx1, "):
        render_overrides(NVIDIA, config({}), Wanted([]))


def test_max_q_without_values_says_which_pairs_have_some() -> None:
    with pytest.raises(ConfigError) as caught:
        render_overrides(NVIDIA, A100, Wanted([("bert", SERVER), ("3d-unet", OFFLINE)], DEFAULT, MAX_Q))
    assert str(caught.value) == (
        "A100_SXM4_40GBx8 has no values for bert Server Default MaxQ; there are: 3d-unet Offline Default MaxQ, "
        "3d-unet Offline HighAccuracy MaxQ"
    )


def test_max_q_on_a_system_without_any_says_to_use_max_p() -> None:
    with pytest.raises(ConfigError, match="no pair of it has powerSetting MaxQ: use MaxP"):
        render_overrides(SUITE, config({}), Wanted([("bert", SERVER)], DEFAULT, MAX_Q))


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_config_map_which_wins_over_the_operator() -> None:
    base = config({"rate": 1, "count": 1, "flag": True})
    user = config({"rate": 2, "count": 2})
    both = merged(base, [user])
    assert both is not None
    files = render_overrides(SUITE, both, Wanted([("bert", SERVER)], overrides=[override("rate", 3)]))
    assert class_values(files[SERVER_PY]) == {"flag": True, "count": 2, "rate": 3}


def test_values_for_another_pair_or_version_change_nothing() -> None:
    base = config({"rate": 1})
    user = config({"rate": 2}, scenario=OFFLINE)
    both = merged(base, [user])
    assert both is not None
    files = render_overrides(SUITE, both, Wanted([("bert", SERVER)], overrides=[override("rate", 3, OFFLINE)]))
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
        render_overrides(SUITE, config({"count": "x", "flag": "y"}), Wanted([("bert", SERVER), ("bert", OFFLINE)]))
    message = str(caught.value)
    assert "count must be" in message
    assert "flag must be" in message
    assert "SYSTEM has no values for bert Offline Default; there are: bert Server Default" in message


def nvidia_entry(benchmark: str, scenario: Scenario, values: Mapping[str, Any], **more: Any) -> ConfigEntry:
    return ConfigEntry(benchmark=benchmark, scenario=scenario, values=dict(values), origin="a test", **more)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (nvidia_entry("resnet50", OFFLINE, {}), "suite nvidia-v4.1 has no benchmark resnet50; possible: 3d-unet, bert"),
        (nvidia_entry("3d-unet", SERVER, {}), "3d-unet has no Server in suite nvidia-v4.1; possible: Offline, "),
        (
            nvidia_entry("bert", SERVER, BERT_SERVER, power_setting="MaxQ"),
            "suite nvidia-v4.1 has no MaxQ for it; possible: 3d-unet Offline",
        ),
        (nvidia_entry("bert", SERVER, {}), "gpu_batch_size is missing; server_target_qps is missing"),
        (nvidia_entry("3d-unet", OFFLINE, UNET_OFFLINE, power_setting="MaxQ"), "power_limit is missing"),
        (
            nvidia_entry("3d-unet", OFFLINE, {**UNET_OFFLINE, "power_limit": 225}),
            "power_limit is a field of MaxQ alone; leave it out",
        ),
        (
            nvidia_entry("3d-unet", OFFLINE, {**MAX_Q_VALUES, "power_limit": 50}, power_setting="MaxQ"),
            "power_limit must be from 100 up to 400, not 50",
        ),
        (
            nvidia_entry("bert", SERVER, {**BERT_SERVER, "offline_expected_qps": 1}),
            "offline_expected_qps is a field of Offline alone; leave it out",
        ),
        (
            nvidia_entry("bert", SERVER, {**BERT_SERVER, "end_on_device": True}),
            "end_on_device is a field of 3d-unet alone; leave it out",
        ),
        (nvidia_entry("bert", SERVER, {**BERT_SERVER, "soft_drop": 1.5}), "soft_drop must be up to 1, not 1.5"),
        (nvidia_entry("bert", SERVER, {**BERT_SERVER, "active_sms": 0}), "active_sms must be from 1 up to 100, not 0"),
        (
            nvidia_entry("bert", SERVER, {**BERT_SERVER, "precision": "fp8"}),
            "precision must be one of int8, fp16, fp32, not 'fp8'",
        ),
        (
            nvidia_entry("bert", SERVER, {**BERT_SERVER, "gpu_batch_size": {"bert": 1, "gptj": 2}}),
            "gpu_batch_size must have the one key bert, not 'bert, gptj'",
        ),
        (
            nvidia_entry("bert", SERVER, {**BERT_SERVER, "gpu_batch_size": {"bert": 0}}),
            "gpu_batch_size must be from 1, not 0",
        ),
    ],
)
def test_an_entry_that_the_harness_would_refuse_is_refused_before(entry: ConfigEntry, said: str) -> None:
    assert said in "; ".join(entry_problems(NVIDIA, entry))


def test_an_entry_of_a_version_that_no_suite_has_is_refused_and_one_that_it_refuses_is_only_unused() -> None:
    entry = nvidia_entry("bert", OFFLINE, BERT_OFFLINE, config_version="Triton")
    assert entry_problems(NVIDIA, entry) == []
    without = NVIDIA.model_copy(update={"refused_config_versions": {}})
    assert entry_problems(without, entry) == [
        "suite nvidia-v4.1 has no configVersion Triton; possible: Default, HighAccuracy"
    ]


def test_a_users_file_is_judged_with_the_values_that_it_lies_over() -> None:
    small = nvidia_entry("bert", SERVER, {"server_target_qps": 24000})
    user = SystemConfig(system="A100_SXM4_40GBx8", suites=(NVIDIA.name,), configs=(small,))
    assert value_problems(NVIDIA, user, A100) == []
    assert value_problems(NVIDIA, user, None) == ["bert Server Default: gpu_batch_size is missing"]


def test_everything_wrong_in_a_users_file_is_told_with_its_entry() -> None:
    entry = nvidia_entry("bert", SERVER, {"servr_target_qps": 24000})
    user = SystemConfig(system="TOASTER", suites=("other",), configs=(entry, entry))
    problems = value_problems(NVIDIA, user, A100)
    assert problems[0] == "suites has other and not nvidia-v4.1"
    assert problems[1].startswith("suite nvidia-v4.1 has no system TOASTER; possible: A100_SXM4_40GBx1, ")
    assert "bert Server Default: there is no field servr_target_qps; did you mean server_target_qps?" in problems[2]
    assert "bert Server Default: there are two entries; make one of them" in problems


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


@given(values=st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES, max_size=5))
def test_no_value_changes_anything_but_a_literal(values: dict[str, Any]) -> None:
    """Whatever the values, the file's syntax tree is the one without them, and its literals are the values."""
    try:
        files = render_overrides(SUITE, config(values), Wanted([("bert", SERVER)]))
    except ConfigError:
        return
    plain = render_overrides(SUITE, config({}), Wanted([("bert", SERVER)]))
    assert {name: text for name, text in files.items() if name != SERVER_PY} == {
        name: text for name, text in plain.items() if name != SERVER_PY
    }
    tree, empty = ast.parse(files[SERVER_PY]), ast.parse(plain[SERVER_PY])
    [made] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    added = made.body[2:]
    del made.body[2:]
    assert ast.dump(tree) == ast.dump(empty)
    for statement, name in zip(added, sorted(values), strict=True):
        assert isinstance(statement, ast.Assign)
        assert [ast.unparse(target) for target in statement.targets] == [name]
        ast.literal_eval(statement.value)


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
        ("a: 2026-13-45", "cm/key: no YAML: a value cannot be read (ValueError)"),
        ("a: !!bool maybe", "cm/key: no YAML: a value cannot be read (KeyError)"),
        ("a: !!int ''", "cm/key: no YAML: a value cannot be read (IndexError)"),
        ("a: !!timestamp x", "cm/key: no YAML: a value cannot be read (AttributeError)"),
        ("a: \0", "cm/key: no YAML: a character cannot be read (ReaderError)"),
        ("[" * 5000, "cm/key: no YAML: it is nested too deeply"),
        ("a: " + "9" * 5000, "cm/key: no YAML: a number of more than 64 characters in line 1"),
        ("", "cm/key: file: Input should be a valid dictionary"),
        ("- 1", "cm/key: file: Input should be a valid dictionary"),
        (yaml.safe_dump({**GOOD, "sytem": 1}), "sytem: Extra inputs"),
        (yaml.safe_dump(GOOD), "configs.0.origin (bert Server): Field required"),
        (
            yaml.safe_dump({**GOOD, "configs": [{"scenario": "Sever", "values": {}, "origin": "x"}]}),
            "configs.0.scenario (Sever): Input should be 'Offline', 'Server' or 'SingleStream'",
        ),
        (yaml.safe_dump({**GOOD, "configs": [3]}), "configs.0: Input should be a valid dictionary"),
        (yaml.safe_dump({**GOOD, "configs": [{}]}), "configs.0.benchmark: Field required"),
        (yaml.safe_dump({**GOOD, "suites": []}), "suites: Tuple should have at least 1 item"),
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
    assert render_overrides(NVIDIA, A100, Wanted(pairs)) == render_overrides(NVIDIA, other, Wanted(pairs))
