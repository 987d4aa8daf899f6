"""Which provider a command uses, and kind's commands; programs on the PATH stand in for docker, kind and kubectl.

kind itself has never run here: a Docker engine is needed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from local_cluster import binaries, cli, docker, host, kind, providers
from local_cluster.errors import RefusalError
from local_cluster.external import KUBECONFIG_VARIABLE, External
from local_cluster.images import BASE_PACKAGES, BuildRequest
from local_cluster.kind import Kind
from local_cluster.layout import Layout, Ports, Spec, layout_for
from local_cluster.local import Local
from local_cluster.providers import PROVIDER_VARIABLE, Provider

NOT_RUNNING = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


class Programs:
    """Stand-ins on the PATH; each writes down how it was called and answers by a piece of shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / "calls"
        for name in ("docker", "kind", "kubectl"):
            self.answer(name, "exit 0")
        self.answer("docker", "echo 28.2.2")

    def answer(self, name: str, script: str) -> None:
        """Say what a program does; its arguments are `$*`."""
        file = self.folder / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._calls}\n{script}\n')
        file.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The command lines of kind and of what changes something in Docker."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if not line.startswith(("docker version", "docker image inspect"))]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    found = Programs(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(binaries, "ensure_kind", lambda: folder / "kind")
    for variable in (KUBECONFIG_VARIABLE, PROVIDER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return found


@pytest.fixture
def here(programs: Programs) -> Layout:
    """The folders of a cluster that does not exist yet."""
    return layout_for("here")


def _choose(layout: Layout, named: str | None = None, *, full: bool = True, may_be_new: bool = True) -> Provider:
    return providers.choose(layout, full=full, named=named, may_be_new=may_be_new)


def _can_run_local(monkeypatch: pytest.MonkeyPatch, *, possible: bool) -> None:
    def refuse(*, full: bool) -> None:
        if full and not possible:
            raise RefusalError("a cluster with a node needs root")

    monkeypatch.setattr(host, "refuse_machine", refuse)


@pytest.mark.parametrize(
    ("local_can", "docker_answers", "chosen"),
    [(True, True, "local"), (True, False, "local"), (False, True, "kind"), (False, False, "local")],
)
def test_kind_is_used_only_where_docker_answers_and_local_cannot_run(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, *, local_can: bool, docker_answers: bool, chosen: str
) -> None:
    _can_run_local(monkeypatch, possible=local_can)
    if not docker_answers:
        programs.answer("docker", f"echo '{NOT_RUNNING}' >&2; exit 1")
    assert providers.default_provider() == chosen


def test_a_users_kubeconfig_wins_over_a_named_provider(
    here: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").touch()
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(tmp_path / "config"))
    assert isinstance(_choose(here, "kind"), External)


def test_the_command_line_wins_over_the_environment(here: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROVIDER_VARIABLE, "kind")
    assert isinstance(_choose(here), Kind)
    assert isinstance(_choose(here, "local"), Local)


def test_a_provider_that_does_not_exist_is_refused_with_those_that_do(
    here: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROVIDER_VARIABLE, "minikube")
    with pytest.raises(RefusalError, match=r"'minikube' is not possible: local and kind are, or MLPERF_KUBECONFIG"):
        _choose(here)


def test_a_control_plane_without_a_node_is_always_local(here: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROVIDER_VARIABLE, "kind")
    assert isinstance(_choose(here, full=False), Local)


def test_an_existing_cluster_keeps_its_provider(here: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    _can_run_local(monkeypatch, possible=True)
    Kind(here).up(audit=False)
    assert isinstance(_choose(here), Kind)
    with pytest.raises(RefusalError, match="the cluster 'here' is one of the provider kind"):
        _choose(here, "local")


def test_a_local_cluster_does_not_become_one_of_kind(here: Layout) -> None:
    here.state.mkdir(parents=True)
    here.spec_file.write_text(Spec("here", full=True, audit=False, ports=Ports()).to_json())
    with pytest.raises(RefusalError, match="the cluster 'here' is one of the provider local"):
        _choose(here, "kind")


def test_asking_for_a_cluster_that_is_not_there_looks_for_no_docker(here: Layout, programs: Programs) -> None:
    assert isinstance(_choose(here, may_be_new=False), Local)
    assert programs.calls == []


def test_kind_makes_a_cluster_and_waits_for_its_node(here: Layout, programs: Programs) -> None:
    assert Kind(here).up(audit=False) == here.kubeconfig
    assert programs.calls == [
        "kind get clusters",
        f"kind create cluster --name=mlperf-here --kubeconfig={here.kubeconfig} --wait=180s",
        f"kubectl --kubeconfig={here.kubeconfig} wait --for=condition=Ready nodes --all --timeout=180s",
    ]


def test_a_cluster_of_kind_that_exists_is_started_again_and_not_made_twice(here: Layout, programs: Programs) -> None:
    programs.answer("kind", 'case "$*" in "get clusters") printf "other\\nmlperf-here\\n";; esac')
    Kind(here).up(audit=False)
    assert programs.calls[1:3] == [
        "docker start mlperf-here-control-plane",
        f"kind export kubeconfig --name=mlperf-here --kubeconfig={here.kubeconfig}",
    ]
    assert not [line for line in programs.calls if "create" in line]


def test_a_cluster_of_kind_is_taken_down_and_twice_is_no_error(here: Layout, programs: Programs) -> None:
    Kind(here).up(audit=False)
    Kind(here).down()
    assert programs.calls[-1] == f"kind delete cluster --name=mlperf-here --kubeconfig={here.kubeconfig}"
    assert not here.state.exists()
    Kind(here).down()


def test_all_clusters_are_taken_down_those_of_kind_too(here: Layout, programs: Programs) -> None:
    Kind(here).up(audit=False)
    assert cli.main(["down", "--all"]) == 0
    assert programs.calls[-1].startswith("kind delete cluster --name=mlperf-here ")
    assert not here.base.exists()


@pytest.mark.parametrize("method", ["up", "down", "build", "base"])
def test_without_an_engine_kind_is_refused_with_dockers_own_words(
    here: Layout, programs: Programs, tmp_path: Path, method: str
) -> None:
    programs.answer("docker", f"echo Client: 28; echo 'hint' >&2; echo '{NOT_RUNNING}' >&2; exit 1")
    (tmp_path / "Dockerfile").touch()
    request = BuildRequest(tmp_path / "Dockerfile", tmp_path, "x:1")
    actions: dict[str, Callable[[], object]] = {
        "up": lambda: Kind(here).up(audit=False),
        "down": lambda: Kind(here).down(),
        "build": lambda: Kind(here).build_image(request, load=False),
        "base": lambda: Kind(here).base_image(),
    }
    with pytest.raises(RefusalError, match=r"needs a Docker engine: Cannot connect to the Docker daemon"):
        actions[method]()
    assert programs.calls == []


def test_without_the_program_docker_that_is_what_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert docker.problem() == "there is no program docker"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            'ERROR: failed to create cluster: failed to pull image "kindest/node:v1@sha256:ab": command failed',
            "Docker cannot pull the node's image kindest/node:v1@sha256:ab: it needs its registry",
        ),
        (
            'ERROR: failed to create cluster: node(s) already exist for a cluster with the name "mlperf-here"',
            "Docker has containers of a cluster 'mlperf-here' already: `kind delete cluster --name=mlperf-here`",
        ),
        ("ERROR: something else", "kind cannot make the cluster 'mlperf-here':\nERROR: something else"),
    ],
)
def test_why_kind_made_no_cluster_is_one_sentence(
    here: Layout, programs: Programs, capsys: pytest.CaptureFixture[str], said: str, sentence: str
) -> None:
    programs.answer("kind", f"case \"$*\" in create*) echo '{said}' >&2; exit 1;; esac")
    assert cli.main(["up", "--provider", "kind", "--name", "here"]) == 1
    assert f"failed: {sentence}" in capsys.readouterr().err


def test_kind_keeps_no_audit_log_and_says_so(here: Layout, programs: Programs) -> None:
    with pytest.raises(RefusalError, match="--audit is possible with the provider local only"):
        Kind(here).up(audit=True)


def test_an_archive_and_an_image_of_dockers_are_loaded(here: Layout, programs: Programs, tmp_path: Path) -> None:
    Kind(here).up(audit=False)
    archive = tmp_path / "image.tar"
    archive.touch()
    Kind(here).load_image(str(archive))
    Kind(here).load_image("localhost/x:dev")
    assert programs.calls[-2:] == [
        f"kind load image-archive {archive} --name=mlperf-here",
        "kind load docker-image localhost/x:dev --name=mlperf-here",
    ]


def test_an_image_that_docker_does_not_have_is_refused(here: Layout, programs: Programs) -> None:
    Kind(here).up(audit=False)
    missing = "echo 'Error response from daemon: No such image: x:1' >&2; exit 1"
    programs.answer("docker", f'case "$*" in image*) {missing};; esac; echo 28.2.2')
    with pytest.raises(RefusalError, match="'x:1' is neither a file nor an image that Docker has"):
        Kind(here).load_image("x:1")


@pytest.mark.parametrize("arguments", [["load-image", "x:1"], ["status"]])
def test_what_needs_a_cluster_of_kind_says_that_there_is_none(
    programs: Programs, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main([*arguments, "--provider", "kind", "--name", "here"]) == 2
    assert "there is no cluster 'here' of kind; `up` makes one" in capsys.readouterr().err


def test_an_image_is_built_by_docker_and_loaded(here: Layout, programs: Programs, tmp_path: Path) -> None:
    Kind(here).up(audit=False)
    (tmp_path / "Dockerfile").touch()
    arguments = ["--file", str(tmp_path / "Dockerfile"), "--context", str(tmp_path), "--tag", "localhost/x:dev"]
    more = ["--build-arg", "B=2", "--build-arg", "A=1", "--target", "final", "--name", "here"]
    assert cli.main(["build-image", *arguments, *more]) == 0
    assert programs.calls[-2:] == [
        f"docker build --file={tmp_path}/Dockerfile --tag=localhost/x:dev --build-arg=A=1 --build-arg=B=2 "
        f"--target=final {tmp_path}",
        "kind load docker-image localhost/x:dev --name=mlperf-here",
    ]


def test_dockers_base_image_is_made_once_with_the_packages_of_the_local_one(
    here: Layout, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(package in docker.base_dockerfile() for package in BASE_PACKAGES)
    absent = "test -e $0.built && exit 0; echo 'No such image' >&2; exit 1"
    programs.answer("docker", f'case "$*" in image*) {absent};; build*) touch $0.built;; esac; echo 28.2.2')
    for _ in range(2):
        assert cli.main(["base-image", "--provider", "kind", "--name", "here"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert len([line for line in programs.calls if line.startswith("docker build")]) == 1


def test_the_status_of_kind_tells_docker_from_the_cluster(
    here: Layout, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    Kind(here).up(audit=False)
    assert cli.main(["status", "--name", "here"]) == 0
    programs.answer("kubectl", "echo connection refused >&2; exit 1")
    assert cli.main(["status", "--name", "here"]) == 1
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0].split()[:2] == ["docker", "healthy"]
    assert lines[1].startswith("cluster")
    assert lines[1].endswith("connection refused")


def test_kinds_listing_is_read() -> None:
    assert kind.clusters("") == set()
    assert kind.clusters("kind\nmlperf-local\n") == {"kind", "mlperf-local"}


def test_kind_is_a_go_module_of_its_own_that_the_clusters_programs_do_not_depend_on() -> None:
    version = binaries.module_version((binaries.KIND_SOURCE / "go.mod").read_text(), "sigs.k8s.io/kind")
    assert version.startswith("v0.")
    assert list(binaries.KIND_SOURCE.rglob("*.go")) == []
