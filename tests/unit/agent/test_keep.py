"""What the wrapper leaves beside the harness's logs, and that none of it can stop the work."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import keep, stage
from mlperf_operator.agent.wrapper.keep import StageLog
from unit.agent.bench import Bench, make_tree, step
from unit.agent.standin_gpus import Gpus

CPUINFO = "\n\n".join(
    f"processor\t: {n}\nmodel name\t: AMD EPYC 7V12\nphysical id\t: {n // 4}\ncore id\t\t: {n % 2}" for n in range(8)
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "HEAD_BYTES", 100)
    monkeypatch.setattr(keep, "TAIL_BYTES", 200)


def opened(folder: Path, told: list[str] | None = None) -> StageLog:
    log = StageLog((told if told is not None else []).append)
    log.open(folder, "build")
    return log


def test_a_stages_log_holds_what_its_commands_print_of_every_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keep, "HEAD_BYTES", 100_000)
    assert bench.run(step("make", "echo first; exit 3"), name="build") == 65
    assert bench.run(step("make", "echo second; echo beside >&2"), name="build") == 0
    text = (bench.results / "stages" / "build.log").read_text()
    assert text == capfd.readouterr().out
    assert [line for line in text.splitlines() if line in ("first", "second", "beside")] == [
        "first",
        "second",
        "beside",
    ]
    assert text.count("[mlperf] stage build: begins 20") == 2


def test_of_a_long_log_both_ends_stay_and_what_was_dropped_is_said(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(100):
        log.write(f"line {number:04}\n".encode())
    log.close()
    head, old, tail = ((tmp_path / name).read_text() for name in ("build.log", "build.tail.old.log", "build.tail.log"))
    assert head == "".join(f"line {number:04}\n" for number in range(10))
    kept = [line for line in (old + tail).splitlines() if line.startswith("line")]
    assert kept == [f"line {number:04}" for number in range(100 - len(kept), 100)]
    said = re.match(r"\[mlperf\] about (\d+) bytes of this attempt before build.tail.old.log were dropped\n", tail)
    assert said
    assert int(said[1]) > 10 * (100 - 10 - len(kept))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 100 + 2 * 200


def test_a_later_attempt_goes_on_in_the_newest_file(tmp_path: Path) -> None:
    for text in (b"a" * 90 + b"\n", b"b" * 30 + b"\n", b"c\n"):
        log = opened(tmp_path)
        log.write(text)
        log.close()
    assert (tmp_path / "build.tail.log").read_text() == "b" * 30 + "\nc\n"


def test_one_piece_that_is_larger_than_a_file_is_kept_whole(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.write(b"x" * 500)
    log.close()
    assert (tmp_path / "build.log").stat().st_size == 500


def test_a_volume_that_takes_nothing_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "stages").write_text("a file, where the folder should be")
    log = opened(tmp_path / "stages", told)
    log.write(b"lost\n")
    log.close()
    assert told == [f"{tmp_path}/stages/build.log: the stage's output is no longer kept here: File exists"]


def test_a_volume_that_becomes_full_stops_the_copy_not_the_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (bench.results / "stages").mkdir()
    (bench.results / "stages" / "build.log").symlink_to("/dev/full")
    assert bench.run(step("make", "echo done"), name="build") == 0
    out = capfd.readouterr().out
    assert out.count("the stage's output is no longer kept here") == 1
    assert "done\n" in out


def test_a_disk_without_room_ends_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    log = opened(tmp_path, told)
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(log, "_file", full)
    log.write(b"lost\n")
    log.write(b"lost too\n")
    assert told == [f"{tmp_path}/build.log: the stage's output is no longer kept here: No space left on device"]


def test_a_link_that_the_harness_left_leads_nowhere(tmp_path: Path) -> None:
    told: list[str] = []
    (victim := tmp_path / "victim").write_text("kept")
    (folder := tmp_path / "stages").mkdir()
    (folder / "build.log").symlink_to(victim)
    opened(folder, told).write(b"overwritten\n")
    assert (victim.read_text(), len(told)) == ("kept", 1)


def test_several_threads_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "TAIL_BYTES", 10_000)
    log = opened(tmp_path)

    def write(number: int) -> None:
        for _ in range(100):
            log.write(b"%d\n" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = "".join(file.read_text() for file in tmp_path.iterdir()).split()
    assert sorted(lines) == sorted(str(n) for n in range(5) for _ in range(100))


def test_plan_and_overrides_are_kept_as_they_are_mounted(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A ConfigMap's volume: links to a folder of the present version.
    version = make_tree(tmp_path / "overrides" / "..2026_01", {"custom.py": "value = 1\n"})
    folder = tmp_path / "overrides" / "custom_configs" / "bert"
    folder.mkdir(parents=True)
    (folder / "custom.py").symlink_to(version / "custom.py")
    monkeypatch.setattr(stage, "OVERRIDES", tmp_path / "overrides")
    assert bench.run(step("make")) == 0
    kept = sorted(file for file in (bench.results / "config").rglob("*") if file.is_file())
    assert [str(file.relative_to(bench.results / "config")) for file in kept] == [
        "overrides/custom_configs/bert/custom.py",
        "plan.json",
    ]
    assert not kept[0].is_symlink()
    assert kept[1].read_bytes() == bench.plan_file.read_bytes()


def test_what_cannot_be_kept_is_said_and_the_work_goes_on(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    (bench.results / "config").write_text("a file")
    assert bench.run(step("make", "echo worked")) == 0
    assert "the configuration cannot be kept on the results volume: File exists" in capfd.readouterr().out


def test_loadgens_settings_of_each_mode_are_kept(bench: Bench) -> None:
    conf = f"{bench.work}/build/loadgen-configs/DGX_TRT/bert-99/Offline"
    other = f"{bench.work}/build/loadgen-configs/DGX_TRT/bert-99/Server"
    write = f"mkdir -p {conf} {other}; echo 'target_qps = 1' > {conf}/user.conf; touch {other}/user.conf; "
    harness = bench.harness()
    harness["argv"][2] = write + harness["argv"][2]
    assert bench.run(harness, name="run") == 0
    kept = bench.results / "config" / "measurements" / "PerformanceOnly"
    files = [file for file in kept.rglob("*") if file.is_file()]
    assert files == [kept / "DGX_TRT" / "bert-99" / "Offline" / "user.conf"]
    assert files[0].read_text() == "target_qps = 1\n"


def test_settings_are_kept_of_a_measurement_that_failed_too(bench: Bench) -> None:
    conf = f"{bench.work}/build/loadgen-configs/DGX_TRT/bert-99/Offline"
    assert bench.run(bench.harness("PerformanceOnly", f"mkdir -p {conf}; touch {conf}/user.conf"), name="run") == 65
    assert list(bench.results.glob("config/measurements/*/DGX_TRT/bert-99/Offline/user.conf"))


def test_preflight_leaves_what_is_known_of_the_node(bench: Bench, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VERSION", "12.4.1")
    checks = {"tools": [], "volumes": [], "shmBytes": 0, "gpu": None}
    look = {"id": "preflight", "action": "preflight", "scope": "Private", "digest": "p", "checks": checks}
    assert bench.run(look, name="preflight") == 0
    node = json.loads((bench.results / "node.json").read_text())
    assert node["kernel"] == os.uname().release
    assert node["memoryBytes"] > 2**20
    assert node["cpu"]["threads"] >= 1
    assert node["versions"]["CUDA_VERSION"] == "12.4.1"
    assert [item["path"] for item in node["storage"]] == [str(bench.scratch), str(bench.results)]
    assert "gpus" not in node


def test_processors_are_counted_by_socket_and_core() -> None:
    expected = {"model": "AMD EPYC 7V12", "sockets": 2, "coresPerSocket": 2, "threads": 8}
    assert keep.cpu_facts(CPUINFO) == expected
    assert keep.cpu_facts("") == {}
    assert keep.cpu_facts("processor\t: 0\n\nprocessor\t: 1\n")["coresPerSocket"] == 2


def test_of_gpus_only_what_nvidia_smi_knows_is_told() -> None:
    row = "0, NVIDIA A100-SXM4-40GB, GPU-1, 0:1:0, 40960, 550.54.14, 92.00, 400.00, 400.00, 1410, 4, [N/A]"
    [gpu] = keep.gpu_facts(f"{row}\nNo devices were found\n")
    assert (gpu["name"], gpu["memory.total"], gpu["pcie.link.gen.max"]) == ("NVIDIA A100-SXM4-40GB", "40960", "4")
    assert "pcie.link.width.max" not in gpu


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_gpus_and_their_links_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", monkeypatch, 'case $1 in topo) echo NV12;; *) echo "0,a,b,c,1,2,3,4,5,6,7,8";; esac')
    facts = keep.node_facts(gpus=True, storage=[])
    assert (facts["gpuTopology"], facts["gpus"][0]["name"]) == ("NV12\n", "a")


def test_a_driver_that_hangs_costs_its_facts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "SMI_SECONDS", 0.2)
    program(tmp_path / "bin", monkeypatch, "exec sleep 60")
    assert "gpus" not in keep.node_facts(gpus=True, storage=[])


def test_without_nvidia_smi_there_are_no_gpus_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "gpus" not in keep.node_facts(gpus=True, storage=[])


def test_facts_of_an_earlier_node_stay(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    for boot in ("one", "one", "two", "three"):
        path.write_text(keep.node_text(path, {"bootId": boot, "hostname": f"pod-{boot}"}))
    found = json.loads(path.read_text())
    assert (found["bootId"], [node["bootId"] for node in found["earlier"]]) == ("three", ["one", "two"])
    path.write_text("damaged")
    assert json.loads(keep.node_text(path, {"bootId": "four"})) == {"bootId": "four"}
    path.write_text("[1]")
    assert json.loads(keep.node_text(path, {"bootId": "four"})) == {"bootId": "four"}
