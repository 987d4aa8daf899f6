"""The operator's plan and Makefile.docker carried out: what prebuild installs is there in every later container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlperf_operator.agent.wrapper import stage
from mlperf_operator.rendering import template
from mlperf_operator.resources.stage_plan import build_plan
from mlperf_operator.resources.steps import PATHS
from mlperf_operator.suites import BUILT_IN, Prebuild, Suite
from unit.agent.bench import Bench, lines_of, make_tree
from unit.agent.roots_of import base_root, remove
from unit.agent.test_whole_plan import MAKEFILE, STAGES
from unit.core.builders import run
from unit.results.logs import detail, summary

LATER = STAGES[STAGES.index("download-data") :]
NEEDS = "{root}/usr/bin/numactl {root}/usr/bin/cmake >> {seen}; "
INSTALL = """
echo x >> {count}
mkdir -p {root}/usr/local/lib
echo glog > {root}/usr/local/lib/libglog.so.1
ln -s libglog.so.1 {root}/usr/local/lib/libglog.so
echo numactl > {root}/usr/bin/numactl
"""
REMOVE = "rm {root}/usr/bin/cmake\nunneeded\n"


@pytest.fixture(autouse=True)
def container(bench: Bench, other: Bench, tmp_path: Path) -> Path:
    """Return what plays the root of every container."""
    bench.root = other.root = tmp_path / "container"
    return bench.root


def _suite(root: Path) -> Suite:
    data = Prebuild(
        folder="deps",
        scripts=("install.sh", "remove.sh"),
        leave_out=("unneeded",),
        environment={"ROOT": str(root)},
        paths=(f"{root}/usr/bin/numactl", f"{root}/usr/local/lib/libglog.so*"),
    )
    return BUILT_IN["reference-cpu"].model_copy(update={"prebuild": data})


def _write_plan(bench: Bench, strategy: str) -> None:
    suite = _suite(bench.root)
    spec = {
        "benchmarks": [{"name": "digits", "scenarios": ["Offline"]}],
        "testModes": ["PerformanceOnly"],
        "environment": {"strategy": strategy},
    }
    plan = build_plan(run(spec, uid=bench.uid), suite, "image")
    text = json.dumps({**plan, "paths": {**plan["paths"], "root": str(bench.root)}}, sort_keys=True)
    for key, path in {**PATHS, "overrides": "/overrides", "code": "/opt/reference_harness"}.items():
        text = text.replace(f'"{path}', f'"{getattr(bench, key, bench.home / key)}')
    bench.plan_file.write_text(text)
    rendered = template("Makefile.docker.j2").render(prebuild=suite.prebuild)
    make_tree(bench.home / "overrides", {"Makefile.docker": rendered})
    words = {"root": bench.root, "count": bench.scratch / "count", "seen": bench.scratch / "seen"}
    # Every target but the first ones looks for what was installed and what was removed.
    look = "; @ls -d " + NEEDS.format(**words).replace(" >>", " 2>/dev/null >>")
    makefile = "\n".join(
        line.replace("; @", look, 1) if line.startswith(tuple(f"{s.replace('-', '_')}:" for s in LATER)) else line
        for line in MAKEFILE.format(scratch=bench.scratch).replace("prebuild: ; @true\n", "").splitlines()
    )
    logs = {"logs/mlperf_log_detail.txt": detail(), "logs/mlperf_log_summary.txt": summary()}
    scripts = {"deps/install.sh": INSTALL.format(**words), "deps/remove.sh": REMOVE.format(**words)}
    make_tree(bench.home / "code", {"Makefile": f"include Makefile.docker\n{makefile}\n", **logs, **scripts})


def _carry_out(bench: Bench, monkeypatch: pytest.MonkeyPatch, strategy: str = "Snapshot") -> dict[str, str]:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    _write_plan(bench, strategy)
    messages = {}
    for name in STAGES:
        base_root(remove(bench.root))
        assert stage.main([name]) == 0, bench.told
        messages[name] = str(bench.told["message"])
    return messages


def test_what_prebuild_installs_and_removes_is_so_in_every_later_container(
    bench: Bench, other: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _carry_out(bench, monkeypatch)
    assert first["prebuild"].startswith("environment: kept 3 files, ")
    assert {name for name, said in first.items() if said.startswith("environment: laid over 3 files, ")} == set(LATER)
    assert set(lines_of(bench.scratch / "seen")) == {f"{bench.root}/usr/bin/numactl"}
    second = _carry_out(other, monkeypatch)
    assert "skipped, done " in second["prebuild"]
    assert second["download-data"] == "", "nothing had to be done there, so nothing was laid over"
    assert second["run"].startswith("environment: laid over 3 files, ")
    assert lines_of(bench.scratch / "count") == ["x"]


def test_an_image_that_lacks_it_fails_and_says_what(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        _carry_out(bench, monkeypatch, "Image")
    assert bench.told["stage"] == "prebuild"
    assert f"prebuild: missing: {bench.root}/usr/bin/numactl" in bench.told["tail"]
    assert "Use environment.strategy Snapshot, or an image made as" in bench.told["tail"]
