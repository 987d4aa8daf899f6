"""NVIDIA's suite on a real kubelet, with a tree that has the interface and the traps of NVIDIA's (tests/nvidia_tree).

The runs go on side by side, started once for all tests: first a whole suite alone, then what uses its scratch.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_cluster import packages as machine_packages
from local_cluster.errors import RefusalError

from e2e import nvidia_lab as lab
from e2e.lab import Run, container_state, processes, send, stage, wait_for
from e2e.nvidia_lab import EVERYTHING, UNET_OFFLINE, manifest, result
from e2e.suites import (
    CHECKOUT,
    GIT_CODE,
    HUNGRY_TREE,
    MEASURED_BADLY,
    NEVER_BUILT,
    NO_NETWORK,
    NO_TOOLS,
    NOT_MEASURED,
    NVIDIA_CODE,
    NVIDIA_NAMESPACE,
    NVIDIA_OFFLINE,
    NVIDIA_SCRATCH,
    PARITY_NODES,
    PAUSED_PREBUILD,
    PREBUILT_IMAGE,
    SLOW_TREE,
    TREE_IMAGE,
)
from installation import Cluster, condition

pytestmark = pytest.mark.e2e

PAUSED, SEEDED, EMPTY, OTHER, RESULTS = "paused", "seeded", "empty", "other", "results"
"""Claims of runs that need a scratch of their own."""

PERFORMANCE = ["PerformanceOnly"]
BERT_OFFLINE: lab.Pairs = {"bert": ["Offline"]}
PREPARED = ("download-data", "download-model", "preprocess-data", "build")
HOSTILE = "$(touch /scratch/pwned)`touch /scratch/pwned`; touch /scratch/pwned #'\"\\ ${PATH} %s\t&& exit 0"
MAX_Q: dict[str, Any] = {"powerSetting": "MaxQ", "securityProfile": "HarnessParity"}
PRECISION = {"benchmark": "3d-unet", "scenario": "Offline", "field": "precision"}
TELLING = {"benchmark": "3d-unet", "scenario": "Offline", "metric": "result_samples_per_second"}


class Runs:
    """Runs by name, applied in one namespace; each is waited for when it is first asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._applied: dict[str, Run] = {}
        self._ended: dict[str, dict[str, Any]] = {}

    def apply(self, name: str, pairs: lab.Pairs, scratch: str = NVIDIA_SCRATCH, **spec: Any) -> Run:
        """Start a run."""
        body = manifest(name, scratch, pairs, **spec)
        self._applied[name] = Run.apply(self.cluster, NVIDIA_NAMESPACE, body)
        return self._applied[name]

    def run(self, name: str) -> Run:
        """A run that has ended."""
        self.ended(name)
        return self._applied[name]

    def ended(self, name: str) -> dict[str, Any]:
        """A run as the API server has it, once it has ended."""
        if name not in self._ended:
            self._ended[name] = self._applied[name].finished(lab.FINISH_SECONDS)
        return self._ended[name]


@pytest.fixture(scope="module")
def tree(operator: Cluster, images: tuple[str, str]) -> Iterator[Cluster]:
    """The cluster with the stand-in's images, GPUs, and a namespace whose runs may lock memory, as the harness must."""
    try:
        machine_packages.ensure({"cc": "gcc", "ld": "binutils", "dpkg-deb": "dpkg", "git": "git"})
    except RefusalError as error:
        pytest.skip(str(error))
    lab.build_tree_image(images[1])
    lab.build_prebuilt_image()
    operator.kubectl("delete", "namespace", NVIDIA_NAMESPACE, "--ignore-not-found", "--timeout=120s")
    operator.ensure_namespace(NVIDIA_NAMESPACE, pod_security="privileged")
    for claim in (NVIDIA_SCRATCH, PAUSED, SEEDED, EMPTY, OTHER, RESULTS, NVIDIA_CODE):
        operator.ensure_claim(NVIDIA_NAMESPACE, claim)
    with lab.many_gpus(operator):
        yield operator
    operator.kubectl("delete", "namespace", NVIDIA_NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def runs(tree: Cluster) -> Runs:
    """All runs of this module, started."""
    found = Runs(tree)
    found.apply("whole", EVERYTHING, baseline={"policy": "Ignore"})
    found.apply("no-network", BERT_OFFLINE, EMPTY, suite=NO_NETWORK)
    paused = found.apply("paused", UNET_OFFLINE, PAUSED, suite=PAUSED_PREBUILD, backoffLimit=1, testModes=PERFORMANCE)
    lab.seed_code(lab.volume(tree, NVIDIA_NAMESPACE, NVIDIA_CODE))
    lab.seed_offline(lab.volume(tree, NVIDIA_NAMESPACE, SEEDED))
    kill_prebuild(paused, lab.volume(tree, NVIDIA_NAMESPACE, PAUSED))
    assert condition(found.ended("whole"), "Succeeded")[0] == "True"
    start_the_rest(found)
    damage(found)
    return found


def start_the_rest(found: Runs) -> None:
    """Start what uses the whole run's scratch, and what must not: other suites prepare it anew."""
    both: lab.Pairs = {"bert": ["Offline"], "3d-unet": ["Offline"]}
    never: lab.Pairs = {"bert": ["Offline", "SingleStream"], "3d-unet": ["Offline"]}
    audits: dict[str, Any] = {"audits": ["TEST01", "TEST05"]}
    found.apply("again", both, configVersion="HighAccuracy", results={"claimName": RESULTS}, **audits)
    found.apply("badly", EVERYTHING, OTHER, suite=MEASURED_BADLY)
    found.apply("not-measured", EVERYTHING, OTHER, suite=NOT_MEASURED)
    found.apply("never-built", never, OTHER, suite=NEVER_BUILT, **audits)
    offline = {"environment": {"offline": True, "strategy": "Image"}, "image": PREBUILT_IMAGE}
    found.apply("offline", both, SEEDED, suite=NVIDIA_OFFLINE, **offline)
    one: dict[str, Any] = {"pairs": UNET_OFFLINE, "testModes": PERFORMANCE}
    found.apply("max-q", **MAX_Q, **one)
    one |= {"scratch": OTHER}
    found.apply("slow", suite=SLOW_TREE, testRun=True, code={"claimName": NVIDIA_CODE}, **one)
    found.apply("hungry", suite=HUNGRY_TREE, resources={"limits": {"memory": "400Mi"}}, **one)
    image = {"environment": {"strategy": "Image"}, **one}
    found.apply("image-lacks", suite=NO_TOOLS, **image)
    code = {"image": TREE_IMAGE, "path": CHECKOUT}
    hostile = [{**TELLING, "metric": HOSTILE[:80], "min": "1"}]
    found.apply("image-has", image=PREBUILT_IMAGE, code=code, expectations=hostile, **image)


def kill_prebuild(run: Run, scratch: Path) -> None:
    """Kill a run's prebuild, with everything in its container, after it has installed something."""
    wait_for("the pause of prebuild", (scratch / "standin-paused").exists, 120)
    pod = run.started("prebuild")
    send(signal.SIGKILL, processes(pod, "stage.py prebuild"))


def damage(found: Runs) -> None:
    """Change one byte of the kept environment on the paused run's scratch, and start another run there."""
    found.ended("paused")
    scratch = lab.volume(found.cluster, NVIDIA_NAMESPACE, PAUSED)
    [archive] = (scratch / ".mlperf/environments").glob("*/environment.tar")
    with archive.open("r+b") as file:
        file.seek(archive.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    found.apply("damaged", UNET_OFFLINE, PAUSED, suite=PAUSED_PREBUILD, testModes=PERFORMANCE)


def outcome(run: dict[str, Any], pair: str, mode: str) -> str:
    """A result in one word: LoadGen's verdict, PASSED or FAILED, or the cause of there being none."""
    found = result(run, pair, mode)
    if "cause" in found:
        assert found["missing"]
        assert not found.get("validity")
        assert not found["accuracy"]
        return str(found["cause"])
    if mode == "Performance":
        return str(found["validity"])
    return "PASSED" if all(item["passed"] for item in found["accuracy"]) else "FAILED"


def test_the_whole_suite_is_valid_and_accurate(runs: Runs) -> None:
    run = runs.ended("whole")
    for kind in ("Succeeded", "ResultsValid", "AccuracyMet", "Prepared", "DriverReady"):
        assert condition(run, kind)[0] == "True", condition(run, kind)
    pairs = [f"{name}/{scenario}" for name, scenarios in EVERYTHING.items() for scenario in scenarios]
    assert [outcome(run, pair, "Performance") for pair in pairs] == ["VALID"] * 5
    assert [outcome(run, pair, "Accuracy") for pair in pairs] == ["PASSED"] * 5
    assert {r["variant"] for r in run["status"]["results"]} == {"bert-99", "3d-unet-99"}
    assert result(run, "bert/Offline", "Performance")["metric"]["value"] == pytest.approx(30000, rel=0.2)
    # One fact each: LoadGen's word, MLPerf's ten minutes.
    assert not any(r.get("minDurationMet") for r in run["status"]["results"])


def test_an_engine_is_built_once_a_pair_and_both_modes_name_it(runs: Runs) -> None:
    run = runs.ended("whole")
    log = runs.run("whole").log("run")
    assert log.count("$ make generate_engines") == 5
    assert log.count("$ make run_harness") == 10
    digests = {(r["benchmark"], r["scenario"], r["engineDigest"]) for r in run["status"]["results"]}
    assert len(digests) == 5


def test_the_environment_is_made_once_and_laid_over_each_later_container(runs: Runs) -> None:
    whole = runs.run("whole")
    prebuild = whole.log("prebuild")
    assert "standin-tools: configured" in prebuild
    assert "a repository that is gone" not in prebuild
    for name in (*PREPARED, "run"):
        assert "[environment] laid over" in whole.log(name)
    assert "$ make prebuild" not in runs.run("again").log("prebuild")
    assert "environment: skipped" in stage(runs.ended("again"), "prebuild")["message"]


def test_the_stages_need_what_prebuild_installed(runs: Runs) -> None:
    """So that the test before proves something: without it, the tree's own check fails."""
    scratch = lab.volume(runs.cluster, NVIDIA_NAMESPACE, NVIDIA_SCRATCH)
    folder = scratch / runs.ended("whole")["status"]["artifacts"]["path"] / "config/overrides"
    name = "without-prebuild"
    argv = ["python3", "-m", "standin.environment"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NVIDIA_NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {"name": "it", "image": TREE_IMAGE, "args": argv, "workingDir": f"{CHECKOUT}/closed/NVIDIA"},
            ],
        },
    }
    assert folder.is_dir()
    runs.cluster.apply(pod)
    ended = wait_for(
        "the pod", lambda: runs.cluster.get("pod", name, "-n", NVIDIA_NAMESPACE)["status"]["phase"] == "Failed"
    )
    assert ended
    log = runs.cluster.kubectl("logs", "-n", NVIDIA_NAMESPACE, name)
    for text in (
        "standin_lib is 1.0, not 2.0",
        "no program standin-cc",
        "standin_old.py is still there",
        "libglog.so.0",
    ):
        assert text in log


def test_a_second_run_finds_everything_prepared_and_never_mixes_the_variants(runs: Runs) -> None:
    run = runs.ended("again")
    assert [stage(run, name)["state"] for name in PREPARED] == ["Skipped"] * 4
    assert condition(run, "ResultsValid")[:2] == ("True", "Valid")
    assert condition(run, "AccuracyMet")[:2] == ("True", "Met")
    assert {r["variant"] for r in run["status"]["results"]} == {"bert-99.9", "3d-unet-99.9"}
    assert result(run, "bert/Offline", "Accuracy")["accuracy"][0]["threshold"] == pytest.approx(90.783, abs=0.001)


def test_audits_run_after_the_measurements_and_their_files_are_kept(runs: Runs) -> None:
    run = runs.ended("again")
    assert condition(run, "AuditsPassed")[:2] == ("True", "Passed")
    audits = {(a["benchmark"], a["test"]): a["passed"] for a in run["status"]["audits"]}
    assert audits == {(name, test): True for name in ("bert", "3d-unet") for test in ("TEST01", "TEST05")}
    folder = runs.run("again").results_folder()
    for audit in run["status"]["audits"]:
        assert list((folder / audit["logs"]).rglob("verify_performance.txt"))


@pytest.mark.parametrize(
    ("run", "pair", "mode", "word", "text"),
    [
        ("badly", "bert/Offline", "Performance", "INVALID", "Min duration satisfied : NO"),
        ("badly", "bert/Offline", "Accuracy", "FAILED", ""),
        ("badly", "bert/Server", "Performance", "INVALID", "field: server_target_qps, value: "),
        ("badly", "bert/Server", "Accuracy", "AccuracyScriptFailed", "no module named transformers"),
        ("badly", "bert/SingleStream", "Performance", "PartialLogs", "no verdict"),
        ("badly", "bert/SingleStream", "Accuracy", "AccuracyScriptFailed", ""),
        ("badly", "3d-unet/Offline", "Performance", "PartialLogs", ""),
        ("badly", "3d-unet/Offline", "Accuracy", "NoResult", "asked for was 3d-unet-99"),
        ("badly", "3d-unet/SingleStream", "Performance", "VALID", ""),
        ("badly", "3d-unet/SingleStream", "Accuracy", "OtherEngine", ""),
        ("not-measured", "bert/Offline", "Performance", "StaleLogs", "older than"),
        ("not-measured", "bert/Offline", "Accuracy", "AccuracyScriptFailed", ""),
        ("not-measured", "bert/Server", "Performance", "SystemNotMatched", "did not match any known systems"),
        ("not-measured", "bert/Server", "Accuracy", "SystemNotMatched", "did not match any known systems"),
        ("not-measured", "bert/SingleStream", "Performance", "NoRegisteredConfig", "No registered config for bert."),
        ("not-measured", "bert/SingleStream", "Accuracy", "NoRegisteredConfig", "No registered config for bert."),
        ("not-measured", "3d-unet/Offline", "Performance", "OutOfMemory", "out of memory"),
        ("not-measured", "3d-unet/Offline", "Accuracy", "OutOfMemory", "out of memory"),
        ("not-measured", "3d-unet/SingleStream", "Performance", "Killed", "Killed"),
        ("not-measured", "3d-unet/SingleStream", "Accuracy", "StaleLogs", "older than"),
        ("never-built", "bert/Offline", "Performance", "EngineBuildFailed", "Building engines failed"),
        ("never-built", "bert/Offline", "Accuracy", "EngineBuildFailed", "Building engines failed"),
        ("never-built", "bert/SingleStream", "Performance", "NoResult", "wrote no result"),
        ("never-built", "bert/SingleStream", "Accuracy", "NoResult", "wrote no result"),
        ("never-built", "3d-unet/Offline", "Performance", "VALID", ""),
        ("never-built", "3d-unet/Offline", "Accuracy", "PASSED", ""),
    ],
)
def test_each_trap_is_told_for_what_it_is(runs: Runs, run: str, pair: str, mode: str, word: str, text: str) -> None:
    ended = runs.ended(run)
    found = result(ended, pair, mode)
    assert outcome(ended, pair, mode) == word, found
    assert text in f"{found.get('missing', '')} {found.get('message', '')}"


@pytest.mark.parametrize(
    ("run", "succeeded", "valid", "accurate"),
    [
        ("badly", "AccuracyScriptFailed", "Invalid", "BelowThreshold"),
        ("not-measured", "StaleLogs", "Missing", "Missing"),
        ("never-built", "StageFailed", "Missing", "Missing"),
    ],
)
def test_a_run_with_a_trap_in_it_is_no_success(runs: Runs, run: str, succeeded: str, valid: str, accurate: str) -> None:
    ended = runs.ended(run)
    assert condition(ended, "Finished")[0] == "True"
    for kind, reason in (("Succeeded", succeeded), ("ResultsValid", valid), ("AccuracyMet", accurate)):
        assert condition(ended, kind)[:2] == ("False", reason), condition(ended, kind)
    # Everything that was asked for has its entry.
    asked = [(b["name"], s) for b in ended["spec"]["benchmarks"] for s in b["scenarios"]]
    told = {(r["benchmark"], r["scenario"], r["mode"]) for r in ended["status"]["results"]}
    assert told == {(*pair, mode) for pair in asked for mode in ("PerformanceOnly", "AccuracyOnly")}


def test_failed_audits_are_failed_whatever_make_returned(runs: Runs) -> None:
    run = runs.ended("never-built")
    assert condition(run, "AuditsPassed")[:2] == ("False", "Failed")
    audits = {(a["benchmark"], a["scenario"], a["test"]): a.get("passed") for a in run["status"]["audits"]}
    for test in ("TEST01", "TEST05"):
        assert audits["3d-unet", "Offline", test] is False
        # Nothing was measured that they could be held against.
        assert audits["bert", "Offline", test] is None
        assert audits["bert", "SingleStream", test] is None


def test_a_harness_that_the_kernel_ends_for_memory(runs: Runs) -> None:
    run = runs.ended("hungry")
    assert condition(run, "Succeeded")[0] == "False"
    assert condition(run, "ResultsValid")[0] != "True"
    assert outcome(run, "3d-unet/Offline", "Performance") == "OutOfMemory"


def test_empty_downloads_with_exit_code_0_fail_the_stage_and_are_removed(runs: Runs) -> None:
    run = runs.ended("no-network")
    status, reason, message = condition(run, "Succeeded")
    assert (status, reason) == ("False", "PostconditionFailed")
    assert "ended with 0 but left /scratch/models/bert/bert_large_v1_1.onnx has 0 bytes" in message
    assert outcome(run, "bert/Offline", "Performance") == "NotMeasured"
    scratch = lab.volume(runs.cluster, NVIDIA_NAMESPACE, EMPTY)
    assert not list((scratch / "models/bert").glob("*.onnx"))


def test_a_data_download_that_failed_once_is_not_taken_for_done(runs: Runs) -> None:
    assert stage(runs.ended("no-network"), "download-data")["state"] == "Completed"
    log = runs.run("no-network").log("download-data")
    assert "removing /scratch/data/squad/dev-v1.1.json, which a failed try left" in log
    assert "already exists" not in log


def test_a_run_without_a_network_takes_everything_from_scratch(runs: Runs) -> None:
    run = runs.ended("offline")
    assert condition(run, "ResultsValid")[:2] == ("True", "Valid")
    assert condition(run, "AccuracyMet")[:2] == ("True", "Met")
    offline = runs.run("offline")
    assert "$ make download" not in offline.log("download-data") + offline.log("download-model")
    assert "Submodule path 'language/bert/DeepLearningExamples': checked out" in offline.log("build")


def test_valid_but_three_times_too_slow_is_told(runs: Runs) -> None:
    run = runs.ended("slow")
    assert condition(run, "ResultsValid")[:2] == ("True", "Valid")
    status, reason, message = condition(run, "ExpectationsMet")
    assert (status, reason) == ("False", "BelowBaseline")
    assert "68 % below the 23.9 that such a system reached officially" in message
    assert condition(runs.ended("max-q"), "ExpectationsMet")[:2] == ("True", "Met")


def test_the_short_run_is_nvidias_own_option(runs: Runs) -> None:
    log = runs.run("slow").log("run")
    assert "--test_mode=PerformanceOnly --test_run" in log
    assert "--fast" not in log


def test_the_code_tree_comes_from_the_image_a_claim_another_image_or_a_commit(runs: Runs) -> None:
    digests = {}
    for name in ("whole", "slow", "image-has", "never-built", "offline"):
        [line] = [text for text in runs.run(name).log("code").splitlines() if "code tree " in text]
        digests[name] = line.rpartition(" ")[2]
    assert len(set(digests.values())) == 1, digests
    for name in ("never-built", "offline"):
        assert f"fetch -q --depth 1 --filter=blob:none origin {GIT_CODE['gitCommit']}" in runs.run(name).log("code")


def test_max_q_measures_with_its_own_config_and_power_limit(runs: Runs) -> None:
    run = runs.ended("max-q")
    assert condition(run, "ResultsValid")[:2] == ("True", "Valid")
    assert "_TRT_MaxQ-custom_k_99_MaxQ-" in result(run, "3d-unet/Offline", "Performance")["configName"]
    log = runs.run("max-q").log("run")
    assert "power_limit : 225" in log
    [pod] = runs.run("max-q").pods()
    assert pod["spec"]["hostNetwork"] is True
    assert pod["spec"]["nodeSelector"] == PARITY_NODES


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({**MAX_Q, "benchmarks": [{"name": "bert"}], "gpuConfig": {}}, "MaxQ"),
        ({"powerSetting": "MaxQ"}, "HarnessParity"),
        ({"audits": ["TEST04"]}, "TEST04"),
        ({"configVersion": "Triton"}, "Triton"),
        ({"environment": {"offline": True}}, "strategy Image"),
        ({"gpuConfig": {"overrides": [{**PRECISION, "value": HOSTILE}]}}, "precision"),
        ({"gpuConfig": {"configMapRef": {"name": "hostile"}}}, "precision"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(runs: Runs, spec: dict[str, Any], text: str) -> None:
    values = {"benchmark": "3d-unet", "scenario": "Offline", "origin": HOSTILE, "values": {"precision": HOSTILE}}
    file = {"system": lab.SYSTEM, "suites": ["nvidia-tree"], "configs": [values]}
    metadata = {"name": "hostile", "namespace": NVIDIA_NAMESPACE}
    runs.cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"own.yaml": json.dumps(file)}}
    )
    assert text in refusal(runs.cluster, spec)


def refusal(cluster: Cluster, spec: dict[str, Any]) -> str:
    """What the API server or the operator says to a run that it refuses."""
    body = manifest(f"refused-{time.monotonic_ns()}", NVIDIA_SCRATCH, UNET_OFFLINE, **spec)
    try:
        run = Run.apply(cluster, NVIDIA_NAMESPACE, body)
    except RuntimeError as error:
        return str(error)
    status, _, message = condition(run.finished(), "Accepted")
    assert status == "False"
    assert run.has_no("jobs")
    return message


def test_the_image_strategy_says_everything_that_the_image_lacks(runs: Runs) -> None:
    run = runs.ended("image-lacks")
    assert condition(run, "Succeeded")[:2] == ("False", "StageFailed")
    said = stage(run, "prebuild")["message"]
    for text in ("numactl", "transformers", "libglog", "mlperf-operator suite dockerfile"):
        assert text in said
    assert not any(r.get("validity") for r in run["status"].get("results", []))


def test_an_image_made_as_the_dockerfile_says_needs_no_snapshot(runs: Runs) -> None:
    run = runs.ended("image-has")
    assert condition(run, "ResultsValid")[:2] == ("True", "Valid")
    assert "this container has all" in runs.run("image-has").log("prebuild")
    assert "[environment]" not in runs.run("image-has").log("run")


def test_no_text_of_a_user_reaches_a_shell(runs: Runs) -> None:
    run = runs.ended("image-has")
    status, reason, message = condition(run, "ExpectationsMet")
    assert (status, reason) == ("False", "NotMet")
    assert HOSTILE[:40] in message
    for claim in (NVIDIA_SCRATCH, PAUSED, SEEDED, EMPTY, OTHER):
        assert not list(lab.volume(runs.cluster, NVIDIA_NAMESPACE, claim).glob("pwned*"))
    [pod] = runs.run("image-has").pods()
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert all((c.get("command") or c["args"])[0] == "python3" for c in containers)
    assert HOSTILE[:20] not in json.dumps([(c.get("command"), c.get("args"), c.get("env")) for c in containers])


def test_a_prebuild_that_was_killed_is_done_again_in_a_fresh_container(runs: Runs) -> None:
    run = runs.ended("paused")
    assert condition(run, "ResultsValid")[:2] == ("True", "Valid")
    killed, second = sorted(runs.run("paused").pods(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    assert container_state(killed, "prebuild")["terminated"]["exitCode"] == 137
    log = runs.run("paused").log("prebuild", second["metadata"]["name"])
    assert "$ make prebuild" in log
    assert "environment.json is not there" in log


def test_a_damaged_environment_is_seen_and_made_again(runs: Runs) -> None:
    log = runs.run("damaged").log("prebuild")
    assert "is damaged: it has another sha256 than when it was kept; making it again" in log
    assert condition(runs.ended("damaged"), "ResultsValid")[:2] == ("True", "Valid")


def test_the_artifacts_are_whole_and_lie_where_the_status_says(runs: Runs) -> None:
    folder = runs.run("whole").results_folder()
    for name in (
        *("report.json", "node.json", "config/plan.json", "config/overrides/custom_configs/bert/Server/custom.py"),
        *(f"stages/{name}.log" for name in ("code", "preflight", "prebuild", *PREPARED, "run")),
        *(f"logs/3d-unet/Offline/{mode}/stdout.txt" for mode in ("PerformanceOnly", "AccuracyOnly")),
    ):
        assert (folder / name).is_file(), name
    verify = ["mlperf-operator", "artifacts", "verify", str(folder)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert runs.ended("whole")["status"]["artifacts"]["manifestSha256"] in done.stdout


def test_a_volume_of_results_has_a_folder_a_run(runs: Runs) -> None:
    run = runs.ended("again")
    artifacts, uid = run["status"]["artifacts"], run["metadata"]["uid"]
    assert (artifacts["claim"], artifacts["path"]) == (RESULTS, f"{NVIDIA_NAMESPACE}/again/{uid}")
    assert (runs.run("again").results_folder() / "manifest.json").is_file()
