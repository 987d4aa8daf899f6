"""What lies around from elsewhere is never measured, published or verified as this run's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import keep, stage
from unit.agent.bench import Bench, Step, make_tree, shared, step


def _code(origin: Path) -> Step:
    source = {"type": "Path", "path": str(origin)}
    return {"id": "code", "action": "copyTree", "scope": "Private", "digest": "code-1", "source": source}


def _build(script: str = "mkdir -p build/bin && echo built > build/bin/harness") -> Step:
    return shared("build", script, publishTree=True)


def _engines(bench: Bench, script: str) -> Step:
    globs = [f"{bench.work}/build/engines/**/bert/Offline/*.plan"]
    return step("engines", script, engineGlobs=globs, continueOnFailure=True)


def _audit(bench: Bench, script: str, *needs: str) -> Step:
    audit = {
        "test": "TEST01",
        "benchmark": "bert",
        "variant": "bert-99",
        "scenario": "Offline",
        "logDir": str(bench.results / "audits/TEST01"),
        "from": str(bench.work / "build/compliance_logs/TEST01"),
    }
    return step("audit", script, audit=audit, continueOnFailure=True, requires=list(needs))


def test_what_was_built_in_a_claim_reaches_no_run(tmp_path: Path) -> None:
    files = {"Makefile": "all:\n", "build/bin/harness": "patched", "build/engines/s/bert/Offline/old.plan": "old"}
    dirty, clean = make_tree(tmp_path / "dirty", files), make_tree(tmp_path / "clean", {"Makefile": "all:\n"})
    script = "mkdir -p build/bin && test -e build/bin/harness || echo built > build/bin/harness"
    for name, origin in (("a", dirty), ("b", clean)):
        run = Bench(tmp_path, name)
        assert run.run(_code(origin), name="code") == 0
        assert run.run(_build(script), name="build") == 0
        assert (run.work / "build/bin/harness").read_text() == "built\n"
        assert not (run.work / "build/engines").exists()


@pytest.mark.parametrize("lies_there", [True, False])
def test_an_engine_that_this_run_did_not_make_is_none(bench: Bench, lies_there: bool) -> None:
    if lies_there:
        make_tree(bench.work, {"build/engines/s/bert/Offline/old.plan": "of another configuration"})
    harness = bench.harness(requires=["engines"])
    assert bench.run(_engines(bench, "true"), harness, name="run") == 65
    assert bench.told["reason"] == "NoEngine"
    record = bench.record("harness-PerformanceOnly")
    assert (record["reason"], record["because"], record["during"]) == ("PreviousStepFailed", "NoEngine", "engines")


def test_a_tree_in_which_a_run_has_worked_is_not_kept_for_others(tmp_path: Path) -> None:
    origin = make_tree(tmp_path / "tree", {"Makefile": "all:\n"})
    run, other = Bench(tmp_path, "a"), Bench(tmp_path, "b")
    for bench in (run, other):
        assert bench.run(_code(origin), name="code") == 0
        if bench is run:
            assert run.run(_build(), name="build") == 0
            make_tree(run.work, {"build/engines/s/bert/Offline/a.plan": "of run a"})
            next((run.scratch / ".mlperf/trees").rglob("harness")).unlink()
        assert bench.run(_build(), name="build") == 0
    assert (run.work / "build/engines").exists()
    assert not (other.work / "build/engines").exists()
    assert (other.work / "build/bin/harness").exists()


def test_settings_that_a_killed_audit_left_change_no_measurement(bench: Bench) -> None:
    (bench.work / "audit.config").write_text("*.*.mode = 2\n")
    honest = bench.harness()["argv"][2]
    assert bench.run(bench.harness("PerformanceOnly", f"test ! -e audit.config && {honest}"), name="run") == 0


def test_a_verification_that_is_older_than_its_audit_is_none(bench: Bench) -> None:
    folder = "build/compliance_logs/TEST01"
    left = f"mkdir -p {folder} && touch -d 2020-01-01 {folder}/verify_performance.txt"
    assert bench.run(_audit(bench, left), name="run") == 65
    assert bench.record("audit")["reason"] == "StaleLogs"


def test_a_link_to_an_earlier_audit_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    old = make_tree(tmp_path / "old", {"verify_performance.txt": "TEST PASS\n"})
    make_tree(bench.work, {"build/compliance_logs/other": ""})
    (bench.work / "build/compliance_logs/TEST01").symlink_to(old)
    assert bench.run(_audit(bench, "true"), name="run") == 65
    assert bench.record("audit")["reason"] == "NoResult"
    assert (old / "verify_performance.txt").exists()


def test_an_audit_of_another_engine_verifies_nothing(bench: Bench) -> None:
    folder = "build/compliance_logs/TEST01"
    script = f"mkdir -p {folder} && echo TEST PASS > {folder}/verify_performance.txt && echo two > engines/a.plan"
    assert bench.run(bench.engines(), _audit(bench, script, "engines"), name="run") == 65
    assert bench.record("audit")["reason"] == "OtherEngine"


@pytest.mark.parametrize(
    ("theirs", "code"),
    [("ours", 0), ("mine", 65), ("of the other tree", 65)],
    ids=["the same", "of the same size", "of another size"],
)
def test_a_stage_reads_what_another_run_made_anew_only_if_it_is_the_same(
    tmp_path: Path, theirs: str, code: int
) -> None:
    one, other = Bench(tmp_path, "one"), Bench(tmp_path, "other")
    (other.state / "tree.sha256").write_text("another tree")
    data = one.scratch / "data"

    def prepare(bench: Bench, text: str) -> Step:
        made = shared("data", f"echo {text} > {data}", data)
        assert bench.run(made) == 0
        return made

    def read(bench: Bench, made: Step) -> int:
        content = bench.plan(bench.harness(), name="run", reads=["data"])
        content["stages"]["prepare"] = {"timeoutSeconds": 60, "steps": [made]}
        bench.plan_file.write_text(json.dumps(content))
        os.environ.update(bench.environment)
        return stage.main(["run"])

    made = prepare(one, "ours")
    assert read(one, made) == 0
    (one.state / "run.finished").unlink()
    made_anew = prepare(other, theirs)
    # As if a while had gone by: markers know the time of a change to the second.
    os.utime(data, (1, 1))
    assert read(one, made) == code
    assert one.told["reason"] == ("InputsChanged" if code else "Skipped")
    assert read(other, made_anew) == 0


def test_a_result_of_another_node_is_measured_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    step_that_fails = step("later", "test -e again", continueOnFailure=True)
    harness = bench.harness("PerformanceOnly", f"echo x >> {bench.home}/count; {bench.harness()['argv'][2]}")
    assert bench.run(harness, step_that_fails, name="run") == 65
    monkeypatch.setattr(keep, "boot_id", lambda: "another node")
    assert bench.run(harness, step_that_fails, name="run") == 65
    assert (bench.home / "count").read_text() == "x\nx\n"
    assert bench.run(harness, step_that_fails, name="run") == 65
    assert (bench.home / "count").read_text() == "x\nx\n"
