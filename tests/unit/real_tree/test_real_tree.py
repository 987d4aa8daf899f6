"""`make test-nvidia-tree`: that its checks find what is wrong. NVIDIA's tree itself is no part of the tests."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlperf_operator.api.v1alpha1 import AuditTest
from mlperf_operator.suites import NVIDIA_V4_1, ConfigRule, Suite, SystemSpec
from real_tree import __main__ as command
from real_tree import facts, makefiles, registry, wanted
from real_tree.registry import Tree
from real_tree.report import Report
from real_tree.workplace import PACKAGES, TreeError, copy_of, python_for
from unit.real_tree.small_tree import write_tree

PYTHON = Path(sys.executable)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Tree(write_tree(tmp_path / "tree"), PYTHON, scratch)


def edit(tree: Tree, name: str, old: str, new: str) -> None:
    path = tree.path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def one(monkeypatch: pytest.MonkeyPatch, system: str = "A100_SXM4_40GBx8", label: str = "3d-unet Offline") -> None:
    """Let only one configuration be held against the tree."""
    found = [
        (name, version, power, own)
        for name, version, power, entries in wanted.configurations(NVIDIA_V4_1)
        if name == system and (own := [e for e in entries if e.label == f"{label} Default"])
    ]
    assert len(found) == 1
    monkeypatch.setattr(wanted, "configurations", lambda suite: iter(found if suite is NVIDIA_V4_1 else []))


# --- the overrides ----------------------------------------------------------------------------------------------------


def test_every_configuration_is_found_by_the_command_lines_of_its_plan(tree: Tree) -> None:
    report = Report()
    registry.check(tree, report)
    assert report.failed == []
    entries = [e for suite in wanted.suites() for *_, own in wanted.configurations(suite) for e in own]
    # Engines, performance and accuracy of each.
    assert report.passed == {registry.GROUP: 3 * len(entries)}
    assert {e.config_version for e in entries} == set(wanted.ACCURACY)
    assert {e.power_setting.value for e in entries} == {"MaxP", "MaxQ"}


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("code/main.py", '"high_accuracy" in version', "True", "would act on 0 configurations"),
        ("code/main.py", "dispatch_action(arguments, values, setting)", "3 / 0", "ZeroDivisionError"),
        ("configs/configuration.py", "cls.known[key] = config", "config.start_from_device = 0", "would act on 0"),
        (
            "configs/configuration.py",
            "cls.known[key] = config",
            "config.offline_expected_qps = 1; cls.known[key] = config",
            "other values of offline_expected_qps",
        ),
        (
            "code/main.py",
            "values, setting)",
            "values, WorkloadSetting(HarnessType.Triton))",
            "registered for Triton, k_99",
        ),
        ("code/__init__.py", 'config["benchmark"].valstr()', "'bert'", "AssertionError"),
    ],
)
def test_a_configuration_that_the_tree_takes_otherwise_is_told(
    tree: Tree, name: str, old: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(monkeypatch)
    edit(tree, name, old, new)
    report = Report()
    registry.check(tree, report)
    assert len(report.failed) == 3
    assert all(said in text for text in report.failed)


def test_a_tree_that_lacks_a_file_of_its_own_says_so(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    one(monkeypatch)
    (tree.path / "code/actionhandler/run_audit.py").unlink()
    with pytest.raises(TreeError, match=r"No module named 'code\.actionhandler\.run_audit'; .*the checkout is sparse"):
        registry.check(tree, Report())


# --- the Makefiles ----------------------------------------------------------------------------------------------------


def test_every_make_call_of_our_plans_is_run_dry_with_our_makefile_docker(tree: Tree) -> None:
    report = Report()
    before = (tree.path / "Makefile.docker").read_text()
    makefiles.check(tree.path, tree.scratch, report)
    assert report.failed == []
    targets = {call.target for call in makefiles.calls()}
    assert targets >= {"prebuild", *makefiles.EXPECTED}
    assert {call.stage for call in makefiles.calls()} >= {"prebuild", "download-data", "build", "run"}
    assert (tree.path / "Makefile.docker").read_text() == before
    assert not (tree.path / "build").exists()


@pytest.mark.parametrize(
    ("target", "name", "old", "new", "said"),
    [
        ("download_data", "Makefile.data", "bash code", "docker run x bash code", "it would start a container"),
        (
            "download_data",
            "Makefile.const",
            "ifeq ($(SKIP",
            "X := $(shell nvidia-smi -L)\nifeq ($(SKIP",
            "starts nvidia-smi",
        ),
        ("run_harness", "Makefile.const", "ifeq ($(SKIP", "X := $(shell git log)\nifeq ($(SKIP", "starts git log"),
        (
            "download_data",
            "Makefile.data",
            "bash code/",
            "bash other/",
            "it would not do bash code/bert/",
        ),
        (
            "run_harness",
            "Makefile",
            '$(RUN_ARGS) --action="run_harness"',
            '--action="run_harness"',
            "it would not do -m code",
        ),
        ("build", "Makefile.build", "build:\n", "built:\n", "make says make: *** No rule to make target 'build'"),
        ("prebuild", "Makefile.build", "build:\n", "prebuild:\n\techo other\nbuild:\n", "two recipes for one target"),
    ],
)
def test_a_makefile_that_does_otherwise_is_told(
    tree: Tree, target: str, name: str, old: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one(monkeypatch, label="bert Offline")
    edit(tree, name, old, new)
    call = next(call for call in makefiles.calls() if call.target == target)
    monkeypatch.setattr(makefiles, "calls", lambda: iter([call, replace(call)]))
    report = Report()
    makefiles.check(tree.path, tree.scratch, report)
    [problem] = report.failed
    assert said in problem
    assert not report.passed, "the same call is made once"


# --- what the suite says ----------------------------------------------------------------------------------------------


def failures(tree: Tree, suite: Suite) -> str:
    report = Report()
    facts.check(tree, suite, report)
    assert report.passed["systems"] + len(report.failed) > 0
    return "\n".join(report.failed)


def test_what_the_suite_says_is_held_against_the_tree(tree: Tree) -> None:
    said = failures(tree, NVIDIA_V4_1)
    for text in (
        "config fields: use_graphs is of type Boolean: int",
        "config fields: gpu_batch_size is a field",
        "prebuild: docker/common/install_apt_deps.sh is there",
        "prebuild: the Dockerfile runs our scripts in our order",
        "prebuild: install_mxeval_deps is defined, and called on a line of its own",
        "scenarios: bert Offline: True: False",
        "postconditions: download_data bert leaves /scratch/data/squad/dev-v1.1.json: the tree never says ['squad', ",
    ):
        assert text in said
    for text in ("systems:", "soft_drop", "power_limit", "audits:", "repositories:"):
        assert text not in said


def test_a_word_that_is_not_so_is_told(tree: Tree) -> None:
    systems = {
        "OTHER": SystemSpec(gpu_product="A100-SXM4-40GB", gpu_count=8),
        "A100_SXM4_40GBx1": SystemSpec(gpu_product="A100-PCIe", gpu_count=2),
        "A100_SXM4_40GBx8": NVIDIA_V4_1.systems["A100_SXM4_40GBx8"],
    }
    rules = {**NVIDIA_V4_1.config_rules, "power_limit": ConfigRule(), "soft_drop": ConfigRule(benchmarks=("3d-unet",))}
    bert = NVIDIA_V4_1.benchmarks["bert"]
    benchmarks = {**NVIDIA_V4_1.benchmarks, "bert": bert.model_copy(update={"audits": (AuditTest.TEST04,)})}
    changed = {"systems": systems, "config_rules": rules, "benchmarks": benchmarks, "offline_git": {}}
    said = failures(tree, NVIDIA_V4_1.model_copy(update=changed))
    for text in (
        "systems: OTHER is known as OTHER",
        "systems: A100_SXM4_40GBx1 has 2 GPUs: ",
        "systems: A100_SXM4_40GBx1 has NVIDIA A100-PCIe: ",
        "config fields: power_limit stands where we say: ['3d-unet Offline MaxP', ",
        "config fields: soft_drop stands where we say: ",
        "audits: bert has TEST04: ['TEST04'] do nothing",
        "repositories: INFERENCE_URL can be had offline: ['https://github.com/mlcommons/inference']",
    ):
        assert text in said


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_copy_leaves_out_what_was_built_and_never_writes_to_the_tree(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    (tree / "build").mkdir()
    (tree / "code/build").mkdir()
    copy = copy_of(tree, "v4.1", tmp_path / "scratch")
    assert not (copy / "build").exists()
    assert (copy / "code/build").is_dir()


@pytest.mark.parametrize("arguments", [[], [""], ["a", "b"]])
def test_without_a_tree_it_says_how_to_call_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert "make test-nvidia-tree TREE=<checkout" in capsys.readouterr().err


def test_a_folder_that_is_no_such_tree_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path)]) == 2
    assert "it lacks VERSION, Makefile, " in capsys.readouterr().err
    (write_tree(tmp_path) / "VERSION").write_text("v5.0\n")
    assert command.main([str(tmp_path)]) == 2
    assert "is version v5.0; this checks v4.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "code", "said"), [(False, 0, "NVIDIA's tree takes"), (True, 1, "1 do not:\n  x: y: 3")]
)
def test_it_ends_with_a_summary_and_its_exit_code(
    wrong: bool, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(path: Path, scratch: Path, report: Report) -> None:
        report.expect("x", "a", holds=True)
        report.expect("x", "y", holds=not wrong, found=3)

    monkeypatch.setattr(command, "check", check)
    assert command.main(["/tree"]) == code
    assert said in capsys.readouterr().out


def test_pythons_packages_come_by_uv_whose_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        return subprocess.CompletedProcess(argv, len(asked) // 3, "", "no network\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert python_for(tmp_path) == tmp_path / "venv/bin/python"
    assert [set(PACKAGES) <= set(argv) for argv in asked] == [False, True]
    with pytest.raises(TreeError, match="uv venv failed: no network"):
        python_for(tmp_path)
