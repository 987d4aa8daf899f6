"""Runs laid out as a submission: what is copied where, what is refused, and what is still lacking."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlperf_operator.bundle import layout
from mlperf_operator.bundle.make import make_bundle
from mlperf_operator.bundle.runs import BundleError, load_run, pairs_of
from mlperf_operator.bundle.system import NEEDED, describe
from mlperf_operator.cli import app
from unit.bundle.run_folders import ACCURACY, NODE, PERFORMANCE, SYSTEM, RunMaker, audit
from unit.results.logs import detail, summary, write

GIVEN = {"division": "closed", "submitter": "Contoso", "status": "available", "system_type": "datacenter"}
PAIR = f"{SYSTEM}/bert-99/Offline"


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    return RunMaker(tmp_path / "run")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLPERF_TERMINATION_LOG", str(tmp_path / "termination-log"))


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bundle", *map(str, arguments)])
    return done.exit_code, done.output


def made(tmp_path: Path, *runs: Path, **given: Any) -> Path:
    make_bundle(runs, tmp_path / "submission", {**GIVEN, **given})
    return tmp_path / "submission" / "closed" / "Contoso"


def test_logs_and_settings_come_where_the_checker_looks(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    root = made(tmp_path, maker.close())
    files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    assert files == {
        f"results/{PAIR}/performance/run_1/mlperf_log_summary.txt",
        f"results/{PAIR}/performance/run_1/mlperf_log_detail.txt",
        f"results/{PAIR}/accuracy/mlperf_log_summary.txt",
        f"results/{PAIR}/accuracy/mlperf_log_detail.txt",
        f"results/{PAIR}/accuracy/mlperf_log_accuracy.json",
        f"results/{PAIR}/accuracy/accuracy.txt",
        f"measurements/{PAIR}/mlperf.conf",
        f"measurements/{PAIR}/user.conf",
        f"measurements/{PAIR}/README.md",
        f"measurements/{PAIR}/{SYSTEM}_Offline.json",
        f"systems/{SYSTEM}.json",
        "code/bert-99/README.md",
        "code/bert-99/overrides/custom_configs/bert/Offline/custom.py",
    }
    for mode, place in ((PERFORMANCE, "performance/run_1"), (ACCURACY, "accuracy")):
        copy = root / "results" / PAIR / place / "mlperf_log_detail.txt"
        assert copy.read_bytes() == (maker.pair_folder("Offline", mode) / "mlperf_log_detail.txt").read_bytes()


def test_a_long_accuracy_log_keeps_its_ends_and_its_digest(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    whole = (maker.pair_folder("Offline", ACCURACY) / "mlperf_log_accuracy.json").read_bytes()
    root = made(tmp_path, maker.close())
    cut = (root / "results" / PAIR / "accuracy" / "mlperf_log_accuracy.json").read_bytes()
    assert cut == whole[:4096] + b"\n\n...\n\n" + whole[-4096:]
    scores = (root / "results" / PAIR / "accuracy" / "accuracy.txt").read_text()
    assert scores == f'{{"exact_match": 83.0, "f1": 90.4}}\nhash={hashlib.sha256(whole).hexdigest()}\n'


def test_a_log_that_was_cut_before_keeps_the_digest_of_then(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    folder = maker.pair_folder("Offline", ACCURACY)
    scores = '{"exact_match": 83.0, "f1": 90.4}\nhash=0123\n'
    write(folder, {"mlperf_log_accuracy.json": "[short\n]", "accuracy.txt": scores})
    root = made(tmp_path, maker.close())
    assert (root / "results" / PAIR / "accuracy" / "mlperf_log_accuracy.json").read_text() == "[short\n]"
    assert (root / "results" / PAIR / "accuracy" / "accuracy.txt").read_text() == scores


def test_how_it_was_measured_is_told(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    maker.pair("Server", result_completed_samples_per_sec=20000.0)
    root = made(tmp_path, maker.close())
    text = (root / "measurements" / PAIR / "README.md").read_text()
    assert 'make run_harness RUN_ARGS="--benchmarks=bert --scenarios=Offline --test_mode=PerformanceOnly"' in text
    assert "--scenarios=Server" not in text
    assert f"https://example.org/tree, commit {'1' * 40}, folder closed/NVIDIA" in text
    assert hashlib.sha256((maker.root / "manifest.json").read_bytes()).hexdigest() in text


REFUSED = [
    ({"result_validity": "INVALID"}, "its performance result is INVALID"),
    ({"f1": 89.0}, "its accuracy F1 89 does not reach 89.96526"),
    ({"effective_min_duration_ms": 60000}, "its performance was not measured for ten minutes"),
]


@pytest.mark.parametrize(("changed", "said"), REFUSED)
def test_what_could_not_be_submitted_is_refused_with_its_reason(
    maker: RunMaker, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    maker.pair(**changed)
    run = maker.close()
    code, text = command(run, "--submitter", "Contoso", "--output", tmp_path / "out")
    assert (code, (tmp_path / "out").exists()) == (1, False)
    assert f"Error: bench/run: bert-99 Offline: {said}" in text
    code, text = command(run, "--submitter", "Contoso", "--output", tmp_path / "out", "--allow-incomplete")
    assert code == 0
    assert f"NOT SUBMITTABLE: bench/run: bert-99 Offline: {said}" in text
    assert f"- NOT SUBMITTABLE: bench/run: bert-99 Offline: {said}" in (tmp_path / "out" / "TODO.md").read_text()


def problems(maker: RunMaker) -> list[str]:
    return [problem for pair in pairs_of(load_run(maker.close())) for problem in pair.problems]


def test_a_short_run_is_refused(maker: RunMaker) -> None:
    maker.run_args = " --test_run"
    maker.pair()
    assert problems(maker) == ["it is a short run (testRun)"]


def test_without_accuracy_it_is_refused(maker: RunMaker) -> None:
    maker.pair()
    maker.steps.pop()
    assert problems(maker) == ["it has no accuracy result"]


def test_without_performance_it_is_refused(maker: RunMaker) -> None:
    maker.pair()
    maker.step("Offline", PERFORMANCE, reason="StageFailed", message="out of memory")
    del maker.steps[0]
    [found] = problems(maker)
    assert found.startswith("it has no performance result: ")


def test_two_engines_are_never_one_result(maker: RunMaker) -> None:
    maker.pair()
    maker.step("Offline", ACCURACY, engines={"bert.plan": "2" * 64})
    del maker.steps[1]
    assert any("engine" in problem for problem in problems(maker))


def test_logs_of_two_systems_are_never_one_result(maker: RunMaker) -> None:
    maker.pair()
    folder = maker.pair_folder("Offline", ACCURACY)
    folder.parents[1].rename(folder.parents[2] / "another_TRT")
    assert problems(maker) == ["performance and accuracy are of different systems"]


def test_what_is_lacking_is_listed(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    (maker.root / "config" / "measurements" / PERFORMANCE / PAIR / f"{SYSTEM}_Offline.json").unlink()
    (maker.root / "config" / "measurements" / PERFORMANCE / PAIR / "mlperf.conf").unlink()
    code, text = command(maker.close(), "--submitter", "Contoso", "--output", tmp_path / "out")
    assert code == 0
    for line in (
        f"to do: bench/run: bert-99 Offline: measurements/{PAIR}/mlperf.conf is not among the run's artifacts",
        f"to do: bench/run: bert-99 Offline: measurements need {SYSTEM}_Offline.json",
        "to do: bench/run: bert-99 Offline: compliance test TEST01: it was not run",
        f"to do: {SYSTEM} bert-99: a closed datacenter submission needs scenario Server too",
        f"to do: systems/{SYSTEM}.json: host_networking must say something; give it with --system-json",
    ):
        assert line in text
        assert line.removeprefix("to do: ") in (tmp_path / "out" / "TODO.md").read_text()


def test_an_open_submission_needs_no_compliance_and_no_scenarios(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    options = ("--submitter", "Contoso", "--output", tmp_path / "out", "--division", "open")
    code, text = command(maker.close(), *options)
    assert code == 0
    assert "compliance" not in text
    assert "scenario" not in text
    assert (tmp_path / "out" / "open" / "Contoso" / "results").is_dir()


def test_files_over_the_limit_are_named(maker: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_FILE_BYTES", 500)
    maker.pair()
    found = make_bundle([maker.close()], tmp_path / "out", GIVEN)
    assert any("performance/run_1/mlperf_log_detail.txt is larger than 50 MB" in text for text in found.lacks)


def test_several_runs_make_one_submission(tmp_path: Path) -> None:
    one, two = (RunMaker(tmp_path / name, uid=name) for name in ("one", "two"))
    one.pair("Offline")
    two.pair("Server", result_completed_samples_per_sec=20000.0)
    root = made(tmp_path, one.close(), two.close({**NODE, "product": "another node"}))
    assert sorted(folder.name for folder in (root / "results" / SYSTEM / "bert-99").iterdir()) == ["Offline", "Server"]
    todo = (tmp_path / "submission" / "TODO.md").read_text()
    assert "the runs are from nodes whose facts differ; it describes that of bench/one" in todo


def test_one_result_of_two_runs_is_refused(tmp_path: Path) -> None:
    runs = [RunMaker(tmp_path / name, uid=name) for name in ("one", "two")]
    for run in runs:
        run.pair()
    with pytest.raises(BundleError, match=f"bench/two: bert-99 Offline: another run has {PAIR} too"):
        make_bundle([run.close() for run in runs], tmp_path / "out", GIVEN)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_system_whose_name_is_no_folders_is_refused(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "run", system="with space")
    maker.pair()
    with pytest.raises(BundleError, match="cannot name a folder of a submission"):
        make_bundle([maker.close()], tmp_path / "out", GIVEN)


def test_files_that_are_not_as_the_manifest_says_are_refused(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    run = maker.close()
    (run / "report.json").write_text("{}")
    code, text = command(run, "--submitter", "Contoso", "--output", tmp_path / "out")
    assert code == 1
    assert "is not as its manifest says: report.json has 2 bytes" in text


def test_a_report_that_was_made_up_is_refused(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    run = maker.close()
    report = json.loads((run / "report.json").read_text())
    report["lines"] = [line.replace("27500", "99999") for line in report["lines"]]
    (run / "report.json").write_text(json.dumps(report))
    manifest = json.loads((run / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == "report.json":
            text = (run / "report.json").read_bytes()
            file.update(size=len(text), sha256=hashlib.sha256(text).hexdigest())
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"report\.json is no report: .* does not match the digest"):
        load_run(run)


def test_a_file_that_changes_while_it_is_copied_is_told(
    maker: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.pair()
    run = maker.close()
    real = layout.Submission._results

    def change(self: layout.Submission, pair: Any, target: Path) -> None:
        (run / pair.performance / "mlperf_log_summary.txt").write_text("another")
        real(self, pair, target)

    monkeypatch.setattr(layout.Submission, "_results", change)
    with pytest.raises(BundleError, match=r"mlperf_log_summary\.txt was changed while it was copied"):
        make_bundle([run], tmp_path / "out", GIVEN)


def test_a_file_that_vanishes_is_told(maker: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.pair()
    run = maker.close()
    real = layout.Submission._measurements

    def remove(self: layout.Submission, pair: Any, target: Path) -> None:
        (run / "config" / "measurements" / PERFORMANCE / PAIR / "user.conf").unlink()
        real(self, pair, target)

    monkeypatch.setattr(layout.Submission, "_measurements", remove)
    with pytest.raises(BundleError, match=r"bench/run: bert-99 Offline: .*No such file"):
        make_bundle([run], tmp_path / "out", GIVEN)


def test_a_folder_that_is_none_a_result_that_is_none_an_output_that_is_there(maker: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no complete run's folder"):
        make_bundle([tmp_path], tmp_path / "out", GIVEN)
    run = maker.close()
    with pytest.raises(BundleError, match="the runs hold no logs of LoadGen"):
        make_bundle([run], tmp_path / "out", GIVEN)
    other = RunMaker(tmp_path / "other")
    other.pair()
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match="out is there already"):
        make_bundle([other.close()], tmp_path / "out", GIVEN)


def test_incomplete_runs_are_laid_out_as_far_as_they_go(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    for name in ("mlperf_log_accuracy.json", "accuracy.txt"):
        (maker.pair_folder("Offline", ACCURACY) / name).unlink()
    found = make_bundle([maker.close()], tmp_path / "out", GIVEN, allow_incomplete=True)
    assert any("it has no accuracy result" in text for text in found.refused)
    assert (tmp_path / "out/closed/Contoso/results" / PAIR / "performance/run_1/mlperf_log_detail.txt").exists()


def test_a_node_describes_its_system_as_far_as_it_can() -> None:
    fields, missing = describe(NODE, {"tensorrt_version": "10.2.0.13"}, {**GIVEN, "system_name": "x", "cooling": "Air"})
    assert {
        "accelerator_model_name": "NVIDIA A100-SXM4-40GB",
        "accelerators_per_node": 8,
        "accelerator_memory_capacity": "40 GB",
        "accelerator_host_interconnect": "PCIe Gen4 x16",
        "host_processor_model_name": "AMD EPYC 7V12 64-Core Processor",
        "host_processors_per_node": 2,
        "host_processor_core_count": 48,
        "host_memory_capacity": "946 GB",
        "framework": "TensorRT 10.2.0.13, CUDA 12.4.1",
        "other_software_stack": "TensorRT 10.2.0.13, CUDA 12.4.1, cuDNN 8.9.7, Driver 550.54.14",
        "operating_system": "Ubuntu 22.04.4 LTS",
        "cooling": "Air",
        "submitter": "Contoso",
    }.items() <= fields.items()
    assert missing == [
        "host_memory_configuration",
        "host_storage_capacity",
        "host_storage_type",
        "host_networking",
        "host_network_card_count",
        "host_networking_topology",
        "accelerator_memory_configuration",
        "accelerator_interconnect",
    ]


def test_without_facts_everything_is_asked_for() -> None:
    fields, missing = describe({}, {}, {})
    assert set(missing) == set(NEEDED) - {"number_of_nodes"}
    assert fields["sw_notes"] == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--submitter", "../evil"), "'../evil' cannot name a submitter's folder"),
        (("--submitter", "a b"), "'a b' cannot name a submitter's folder"),
        (("--submitter", "A", "--system-json", "none.json"), "none.json cannot be read"),
        (("--submitter", "A", "--system-json", "list.json"), "list.json must hold a JSON object"),
        (("--submitter", "A", "--system-json", "status.json"), "status 'sold' is none of available; preview; rdi"),
    ],
)
def test_options_that_cannot_be_are_refused(
    maker: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"list.json": "[]", "status.json": '{"status": "sold"}'})
    code, text = command(maker.root, "--output", "out", *options)
    assert code == 2
    assert said in text


def test_a_flag_wins_over_the_file_and_the_file_over_the_node(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    given = {"status": "rdi", "system_type": "edge", "host_memory_capacity": "1 TB"}
    (tmp_path / "system.json").write_text(json.dumps(given))
    options = ("--submitter", "Contoso", "--output", tmp_path / "out", "--system-json", tmp_path / "system.json")
    code, text = command(maker.close(), *options, "--status", "preview")
    assert code == 0
    found = json.loads((tmp_path / "out/closed/Contoso/systems" / f"{SYSTEM}.json").read_text())
    assert (found["status"], found["system_type"], found["host_memory_capacity"]) == ("preview", "edge", "1 TB")
    assert "a closed edge submission needs scenario SingleStream too" in text


def test_compliance_tests_are_laid_out_with_their_logs_cut(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    log = "[" + "0123456789abcdef" * 1000 + "]"
    for test in ("TEST01", "TEST05"):
        origin = tmp_path / "origin" / test
        write(origin, {"verify_performance.txt": "TEST PASS\n"})
        write(
            origin / "performance" / "run_1", {"mlperf_log_summary.txt": summary(), "mlperf_log_detail.txt": detail()}
        )
        if test == "TEST01":
            write(origin, {"verify_accuracy.txt": "TEST PASS\n"})
            write(origin / "accuracy", {"mlperf_log_accuracy.json": log})
        maker.audits.append(audit(maker, origin, "bert-99", "Offline"))
    found = make_bundle([maker.close()], tmp_path / "out", GIVEN)
    place = tmp_path / "out/closed/Contoso/compliance" / PAIR
    assert not [text for text in found.lacks if "compliance" in text]
    assert (place / "TEST05" / "verify_performance.txt").read_text() == "TEST PASS\n"
    assert (place / "TEST01" / "performance" / "run_1" / "mlperf_log_detail.txt").read_text() == detail()
    assert (place / "TEST01" / "accuracy" / "mlperf_log_accuracy.json").stat().st_size == 2 * 4096 + 7
    digest = hashlib.sha256(log.encode()).hexdigest()
    assert (place / "TEST01" / "accuracy" / "accuracy.txt").read_text() == f"hash={digest}\n"


def test_a_code_tree_that_is_no_git_repository_is_named_too(maker: RunMaker, tmp_path: Path) -> None:
    maker.pair()
    root = made(tmp_path, maker.close(source={"type": "Path", "path": "/code"}))
    assert 'The code is that of {"path": "/code", "type": "Path"}.' in (root / "code/bert-99/README.md").read_text()
