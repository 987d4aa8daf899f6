"""`mlperf-operator gpu-config`: what it writes, lists and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from golden.cases import CASES, Case, objects
from mlperf_operator.api.v1alpha1 import ConfigVersion
from mlperf_operator.cli import app
from mlperf_operator.gpu_config_schema import load_built_in
from mlperf_operator.resources.configmaps import key_of
from mlperf_operator.suites import NVIDIA_V4_1

A100 = "A100_SXM4_40GBx8"
MINE: dict[str, Any] = {
    "system": A100,
    "suites": ["nvidia-v4.1"],
    "configs": [
        {"benchmark": "bert", "scenario": "Server", "values": {"server_target_qps": 24000}, "origin": "measured here"}
    ],
}


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["gpu-config", *map(str, arguments)])


def render(folder: Path, *arguments: str | Path, system: str = A100) -> Result:
    return invoke("render", "--system", system, "--output", folder, *arguments)


def written(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()}


def values_file(folder: Path, document: object = MINE, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(document))
    return path


# --- render -----------------------------------------------------------------------------------------------------------


def _options(case: Case) -> list[str]:
    """Return the command line that asks for what a golden run asks for."""
    spec = case.run.spec
    options = ["--suite", spec.suite, "--config-version", spec.config_version, "--power-setting", spec.power_setting]
    for request in spec.benchmarks:
        options += ["--benchmark", request.name]
    # One list of scenarios is for all benchmarks on the command line.
    for scenario in spec.benchmarks[0].scenarios or ():
        options += ["--scenario", scenario.value]
    for o in spec.gpu_config.overrides if spec.gpu_config else ():
        options += ["--override", f"{o.benchmark}/{o.scenario.value}/{o.field}={o.value}"]
    return options


ONE_LIST = [case for case in CASES if len({str(r.scenarios) for r in case.run.spec.benchmarks}) == 1]


def test_the_golden_runs_that_are_compared_are_nearly_all() -> None:
    assert len(ONE_LIST) >= len(CASES) - 2


@pytest.mark.parametrize("case", ONE_LIST, ids=lambda case: case.name)
def test_it_writes_exactly_what_the_config_map_of_such_a_run_carries(case: Case, tmp_path: Path) -> None:
    done = render(tmp_path / "out", *_options(case), system=case.run.spec.system)
    assert done.exit_code == 0, done.output
    files = written(tmp_path / "out")
    assert {key_of(name): text for name, text in files.items()} == objects(case)["configmap-golden-gpu-config"]["data"]
    assert sorted(done.output.splitlines()) == sorted(str(tmp_path / "out" / name) for name in files)


def test_without_benchmarks_it_writes_all_that_have_the_scenario(tmp_path: Path) -> None:
    assert render(tmp_path / "all").exit_code == 0
    pairs = [(name, s.value) for name, b in NVIDIA_V4_1.benchmarks.items() for s in b.scenarios]
    assert {f"custom_configs/{b}/{s}/custom.py" for b, s in pairs} < set(written(tmp_path / "all"))
    assert render(tmp_path / "server", "--scenario", "Server").exit_code == 0
    assert [name for name in written(tmp_path / "server") if "/" in name] == [
        "custom_configs/bert/Server/custom.py",
        "custom_systems/custom_list.py",
    ]


def test_own_values_and_overrides_win_in_this_order(tmp_path: Path) -> None:
    first = values_file(tmp_path)
    second = {**MINE, "configs": [{**MINE["configs"][0], "values": {"soft_drop": 1.0, "server_target_qps": 23000}}]}
    more = values_file(tmp_path, {"kind": "ConfigMap", "data": {"b.yaml": yaml.safe_dump(second)}}, "zz.yaml")
    done = render(
        *(tmp_path / "out", "--scenario", "Server", "--values", first, "--values", more),
        *("--override", "bert/Server/active_sms=70"),
    )
    assert done.exit_code == 0, done.output
    text = written(tmp_path / "out")["custom_configs/bert/Server/custom.py"]
    for line in ("server_target_qps = 23000", "soft_drop = 1", "active_sms = 70", "gpu_batch_size = {'bert': 96}"):
        assert f"    {line}\n" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--suite", "mlperf"], "there is no suite mlperf; possible: nvidia-v4.1, reference-cpu"),
        (["--system", "TOASTER"], "system TOASTER is not in suite nvidia-v4.1; possible: A100_SXM4_40GBx1, "),
        (["--benchmark", "resnet50"], "benchmark resnet50 is not in suite nvidia-v4.1; possible: 3d-unet, bert"),
        (["--benchmark", "3d-unet", "--scenario", "Server"], "3d-unet has no Server in suite nvidia-v4.1; possible: "),
        (
            ["--scenario", "MultiStream"],
            "suite nvidia-v4.1 has no MultiStream; possible: Offline, Server, SingleStream",
        ),
        (["--benchmark", "bert", "--scenario", "Sever"], "benchmarks.0.scenarios.0: Input should be 'Offline', "),
        (["--config-version", "Triton"], "configVersion Triton: the v4.1 tree cannot build its Triton backend"),
        (["--config-version", "Best"], "configVersion: Input should be 'Default', "),
        (["--power-setting", "MaxQ", "--scenario", "Server"], "no values for bert Server Default MaxQ; there are: 3d-"),
        (["--override", "server_target_qps=1"], "override server_target_qps=1 must be benchmark/Scenario/field=value"),
        (["--override", "bert/Server/qps=1"], "bert Server: there is no field qps. Possible: active_sms, "),
        (["--override", "bert/Sever/active_sms=1"], "gpuConfig.overrides.0.scenario: Input should be 'Offline', "),
        (
            ["--scenario", "Offline", "--override", "bert/Server/active_sms=1"],
            "for bert Server, which the run does not",
        ),
        (["--values", "absent.yaml"], "absent.yaml cannot be read: No such file"),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_what_is_possible(options: list[str], said: str, tmp_path: Path) -> None:
    done = render(tmp_path / "out", *options)
    assert done.exit_code == 2
    assert said in done.output
    assert done.output.startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = render(tmp_path)
    assert (done.exit_code, "is not an empty folder" in done.output) == (2, True)
    assert written(tmp_path) == {"mine": "x"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = render(tmp_path / "file" / "out")
    assert (done.exit_code, "cannot be written: Not a directory" in done.output) == (2, True)


def test_settings_that_are_wrong_are_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPERF_OPERATOR_SUITES_FILE", str(tmp_path / "absent"))
    done = invoke("list")
    assert (done.exit_code, "absent" in done.output) == (2, True)


def test_an_administrators_suite_with_the_triton_harness_gets_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = NVIDIA_V4_1.model_dump(mode="json", by_alias=True, exclude_none=True)
    for benchmark in data["benchmarks"].values():
        benchmark["variants"] |= {"Triton": benchmark["variants"]["Default"]}
    suite = data | {"name": "with-triton", "configVersions": ["Triton"], "refusedConfigVersions": {}}
    monkeypatch.setenv("MLPERF_OPERATOR_SUITES_FILE", str(values_file(tmp_path, [suite], "suites.yaml")))
    options = ("--suite", "with-triton", "--config-version", "Triton", "--scenario", "Offline")
    assert render(tmp_path / "out", *options).exit_code == 0
    text = written(tmp_path / "out")["custom_configs/bert/Offline/custom.py"]
    assert "HarnessType.Triton, AccuracyTarget.k_99, PowerSetting.MaxP" in text
    assert "    use_triton = True\n" in text
    listed = json.loads(invoke("list", "--suite", "with-triton", "-o", "json").output)
    assert {item["configVersion"] for item in listed} == {"Triton"}


# --- list -------------------------------------------------------------------------------------------------------------


def test_the_list_has_every_configuration_that_a_built_in_suite_can_run() -> None:
    listed = json.loads(invoke("list", "-o", "json").output)
    runnable = (ConfigVersion.DEFAULT, ConfigVersion.HIGH_ACCURACY)
    assert sorted((item["system"], item["benchmark"], item["scenario"], str(item["values"])) for item in listed) == (
        sorted(
            (name, entry.benchmark, entry.scenario.value, str(entry.values))
            for name, config in load_built_in().items()
            for entry in config.configs
            if entry.config_version in runnable
        )
    )
    assert yaml.safe_load(invoke("list", "-o", "yaml").output) == listed
    [names] = [{i["harnessName"] for i in listed if i["system"] == "A100_SXM4_80GBx8"}]
    assert names == {"A100_SXM_80GBx8"}


def test_the_table_shows_one_system_and_what_its_suite_refuses() -> None:
    lines = invoke("list", "--system", A100).output.splitlines()
    assert lines[0].split() == ["SUITE", "SYSTEM", "BENCHMARK", "SCENARIO", "CONFIGVERSION", "POWER", "ORIGIN"]
    rows = [line.split() for line in lines[1:] if line.startswith("nvidia-v4.1 ") and " refuses " not in line]
    assert {row[1] for row in rows} == {A100}
    assert ["nvidia-v4.1", A100, "3d-unet", "Offline", "Default", "MaxQ"] in [row[:6] for row in rows]
    assert any(line.startswith("nvidia-v4.1 refuses configVersion Triton: ") for line in lines)


@pytest.mark.parametrize("option", [("--system", "TOASTER"), ("--suite", "mlperf")])
def test_a_list_of_nothing_says_what_there_is(option: tuple[str, str]) -> None:
    done = invoke("list", *option)
    assert done.exit_code == 2
    assert f"there are no values for {option[0].removeprefix('--')} {option[1]}; " in done.output
    assert "suites: nvidia-v4.1, reference-cpu; systems: A100_SXM4_40GBx1, " in done.output


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_file_that_fits_is_told_with_what_it_changes(tmp_path: Path) -> None:
    entry = {"benchmark": "3d-unet", "scenario": "Offline", "powerSetting": "MaxQ", "origin": "ours"}
    same = {**entry, "values": {"power_limit": 225}}
    path = values_file(tmp_path, {**MINE, "configs": [*MINE["configs"], same]})
    done = invoke("check", path)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"{path}: nvidia-v4.1 {A100} bert Server Default: changes server_target_qps",
        f"{path}: nvidia-v4.1 {A100} 3d-unet Offline Default MaxQ: changes nothing",
    ]


def test_the_operators_own_files_fit(tmp_path: Path) -> None:
    for path in sorted((Path(__file__).parents[3] / "gpu_configs").glob("*.yaml")):
        done = invoke("check", path)
        assert done.exit_code == 0, done.output
        assert "adds" not in done.output


def test_a_file_that_does_not_fit_is_told_line_by_line(tmp_path: Path) -> None:
    wrong = {**MINE["configs"][0], "values": {"server_target_qps": "fast", "actve_sms": 1}}
    path = values_file(tmp_path, {**MINE, "suites": ["nvidia-v4.1", "nvidia-v9"], "configs": [wrong]})
    done = invoke("check", path)
    assert done.exit_code == 1
    assert done.output.splitlines()[0].startswith(f"Error: {path}: there is no suite nvidia-v9; possible: nvidia-v4.1")
    assert f"Error: {path}: bert Server Default: server_target_qps must be a number from 0, not 'fast'" in done.output
    assert "there is no field actve_sms; did you mean active_sms?" in done.output


def test_a_suite_can_be_named(tmp_path: Path) -> None:
    path = values_file(tmp_path)
    assert invoke("check", path, "--suite", "nvidia-v4.1").exit_code == 0
    done = invoke("check", path, "--suite", "reference-cpu")
    assert (done.exit_code, "suites has nvidia-v4.1 and not reference-cpu" in done.output) == (1, True)
    done = invoke("check", path, "--suite", "mlperf")
    assert (done.exit_code, "there is no suite mlperf" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: [", "no YAML"),
        (b"\xff\xfe", "is no text"),
        (b"kind: ConfigMap\n", "is a ConfigMap without data; each of its keys holds a file of values"),
        (b"kind: ConfigMap\ndata: {x.yaml: 'system: 1'}", "mine.yaml/x.yaml: system: Input should be a valid string"),
        (b"system: S\n", "suites: Field required"),
    ],
)
def test_a_file_that_cannot_be_read_is_exit_code_2(text: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    done = invoke("check", path)
    assert (done.exit_code, said in done.output) == (2, True), done.output
