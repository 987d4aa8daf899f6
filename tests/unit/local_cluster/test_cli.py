"""The command line: exit codes, refusals, and a cluster of the user's own."""

import os
from pathlib import Path

import pytest
from local_cluster import cli, docker, host, processes
from local_cluster.errors import RefusalError
from local_cluster.external import KUBECONFIG_VARIABLE
from local_cluster.layout import Layout, Ports, Spec, layout_for
from local_cluster.providers import PROVIDER_VARIABLE

OWN_ANSWERS = 'case "$*" in *readyz*) exit 0;; esac; exit 1'


@pytest.fixture(autouse=True)
def user_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every command inside the test's own folder, as an ordinary user."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.delenv(KUBECONFIG_VARIABLE, raising=False)
    monkeypatch.delenv(PROVIDER_VARIABLE, raising=False)
    # Where an engine answers, a cluster that local cannot make would be one of kind.
    monkeypatch.setattr(docker, "problem", lambda: "there is no program docker")


def _existing(*, full: bool) -> Layout:
    layout = layout_for("here")
    layout.state.mkdir(parents=True)
    layout.spec_file.write_text(Spec("here", full=full, audit=False, ports=Ports()).to_json())
    return layout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up"], "needs root"),
        (["up", "--control-plane-only", "--name", "Bad_Name"], "the name 'Bad_Name' is not possible"),
        (["status"], "there is no cluster 'local'; `up` makes one"),
        (["status", "--control-plane-only"], "there is no cluster 'control-plane'"),
        (["load-image", "x.tar"], "there is no cluster 'local'"),
        (["logs", "etcd"], "there is no cluster 'local'"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("local-cluster: refused: ")
    assert words in output.err
    assert output.err.count("\n") == 1


def test_a_new_cluster_that_is_refused_keeps_neither_folder_nor_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RefusalError("port 6443 (apiserver) is taken")

    monkeypatch.setattr(host, "refuse_conflicts", refuse)
    assert cli.main(["up", "--control-plane-only", "--name", "here"]) == 2
    assert not layout_for("here").base.exists()


def test_another_kind_of_cluster_under_the_same_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    _existing(full=True)
    assert cli.main(["up", "--control-plane-only", "--name", "here"]) == 2
    assert "exists with a node; choose another --name, or take it down first" in capsys.readouterr().err


def test_a_cluster_without_a_node_takes_no_images(capsys: pytest.CaptureFixture[str]) -> None:
    _existing(full=False)
    assert cli.main(["load-image", "x.tar", "--name", "here"]) == 2
    assert "has no node" in capsys.readouterr().err


def test_an_unknown_component_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    layout = _existing(full=False)
    layout.logs.mkdir()
    (layout.logs / "etcd.log").write_text("words\n")
    assert cli.main(["logs", "ectd", "--name", "here"]) == 2
    assert "there is no log of 'ectd'; there are: etcd" in capsys.readouterr().err


def test_taking_down_what_is_not_there_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down"]) == 0
    assert cli.main(["down"]) == 0


def test_taking_down_a_stopped_cluster_removes_its_folders() -> None:
    layout = _existing(full=False)
    assert cli.main(["down", "--name", "here"]) == 0
    assert not layout.base.exists()


def test_all_clusters_are_taken_down_whatever_their_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A kubeconfig of the user's own protects that cluster only.
    monkeypatch.setenv(KUBECONFIG_VARIABLE, "/somebody/elses")
    layout = _existing(full=False)
    left = layout_for("integration-4711")
    left.state.mkdir()
    assert cli.main(["down", "--all"]) == 0
    said = capsys.readouterr().err
    assert "'here' is gone" in said
    assert "'integration-4711' is gone" in said
    assert not layout.base.exists()
    assert cli.main(["down", "--all"]) == 0
    assert "there is no local cluster" in capsys.readouterr().err


def test_the_status_of_all_clusters_names_each_and_fails_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--all"]) == 0
    _existing(full=False)
    other = layout_for("there")
    other.state.mkdir()
    other.spec_file.write_text(Spec("there", full=True, audit=False, ports=Ports(), slot=1).to_json())
    for layout in (layout_for("here"), other):
        layout.certs.mkdir()
    assert cli.main(["status", "--all"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("# ")] == ["# here", "# there"]
    assert len([line for line in lines if line.startswith("kubelet")]) == 1


def test_a_cluster_that_cannot_be_taken_down_does_not_keep_the_others_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = _existing(full=True)
    other = layout_for("there")
    other.state.mkdir()
    monkeypatch.setattr(processes, "find", lambda names: {os.getpid(): ["/usr/bin/k3s", "server"]})
    assert cli.main(["down", "--all"]) == 1
    assert "failed: here: another Kubernetes node runs on this machine: k3s" in capsys.readouterr().err
    assert layout.spec_file.exists()
    assert not other.state.exists()


def _own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str) -> Path:
    """Put a kubectl on the PATH that answers as a cluster would, and name a kubeconfig."""
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{answers}\n")
    program.chmod(0o755)
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(kubeconfig))
    return kubeconfig


def test_a_users_own_cluster_is_verified_and_its_path_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = _own_cluster(tmp_path, monkeypatch, OWN_ANSWERS)
    assert cli.main(["up"]) == 0
    assert capsys.readouterr().out == f"{kubeconfig}\n"


def test_a_users_own_cluster_that_does_not_answer_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = _own_cluster(tmp_path, monkeypatch, "echo no route to host >&2; exit 1")
    assert cli.main(["up"]) == 1
    assert f"the cluster of {kubeconfig} is not ready: no route to host" in capsys.readouterr().err


def test_a_users_own_cluster_is_never_taken_down_and_gets_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = _own_cluster(tmp_path, monkeypatch, OWN_ANSWERS)
    assert cli.main(["down"]) == 0
    assert kubeconfig.exists()
    assert cli.main(["load-image", "x.tar"]) == 2
    assert "push images to a registry" in capsys.readouterr().err


def test_a_kubeconfig_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KUBECONFIG_VARIABLE, "/does/not/exist")
    assert cli.main(["up"]) == 2
    assert "names /does/not/exist, which is not a file" in capsys.readouterr().err


def test_a_build_argument_without_a_value_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = ["build-image", "--file", "Dockerfile", "--context", str(tmp_path), "--tag", "x", "--build-arg", "BASE"]
    assert cli.main(build) == 2
    assert "--build-arg 'BASE': NAME=VALUE is possible" in capsys.readouterr().err
