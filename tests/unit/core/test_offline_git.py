"""Git's configuration of a run, by git itself: repositories of other users, and none but those on scratch offline."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mlperf_operator.resources import fetching
from mlperf_operator.suites import BUILT_IN, Suite
from unit.core.builders import a100

OTHER_UID = 12345
OFFLINE = a100(environment={"offline": True})


def git(folder: Path, *arguments: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": str(config or os.devnull),
    }
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "protocol.file.allow=always"]
    own = who if config is None else []
    argv = ["git", *own, *arguments]
    return subprocess.run(argv, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def commit(folder: Path, name: str) -> Path:
    """Make a repository with one file."""
    folder.mkdir()
    (folder / name).write_text(name)
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "one")):
        assert git(folder, *arguments).returncode == 0
    return folder


def give_away(*folders: Path) -> None:
    """Let a volume of another user's hold them, as far as this test's user may."""
    if os.geteuid() == 0:
        for path in (path for folder in folders for path in (folder, *folder.rglob("*"))):
            os.chown(path, OTHER_UID, OTHER_UID)


@pytest.fixture
def suite() -> Suite:
    urls = {"https://example.invalid/inference.git": "inference.git", "https://example.invalid/Deep.git": "Deep.git"}
    return BUILT_IN["nvidia-v4.1"].model_copy(update={"offline_git": urls})


@pytest.fixture
def config(tmp_path: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Git's configuration for repositories that another user owns, one of them a submodule of the other."""
    monkeypatch.setattr(fetching, "OFFLINE_PATH", str(tmp_path / "offline"))
    deep, inference = commit(tmp_path / "deep", "tokenization.py"), commit(tmp_path / "source", "loadgen.txt")
    assert git(inference, "submodule", "add", "-q", str(deep), "deep").returncode == 0
    modules = inference / ".gitmodules"
    modules.write_text(modules.read_text().replace(str(deep), "https://example.invalid/Deep.git"))
    assert git(inference, "commit", "-qam", "two").returncode == 0
    local = tmp_path / "offline" / "git"
    local.mkdir(parents=True)
    for origin, name in ((inference, "inference.git"), (deep, "Deep.git")):
        assert git(tmp_path, "clone", "-q", "--mirror", str(origin), str(local / name)).returncode == 0
    give_away(tmp_path / "offline")
    file = tmp_path / "gitconfig"
    file.write_text(fetching.git_config(OFFLINE, suite))
    return file


def test_what_the_tree_clones_comes_from_scratch_with_its_submodule(tmp_path: Path, config: Path) -> None:
    clone = tmp_path / "clone"
    # As clone_loadgen of NVIDIA's Makefile.build does it.
    for folder, arguments in (
        (tmp_path, ("clone", "https://example.invalid/inference.git", str(clone))),
        (clone, ("fetch",)),
        (clone, ("submodule", "update", "--init", "deep")),
    ):
        done = git(folder, *arguments, config=config)
        assert done.returncode == 0, done.stderr
    assert (clone / "deep" / "tokenization.py").read_text() == "tokenization.py"


def test_a_single_commit_of_the_code_tree_comes_from_scratch(tmp_path: Path, config: Path) -> None:
    clone = tmp_path / "checkout"
    clone.mkdir()
    head = git(tmp_path / "source", "rev-parse", "HEAD").stdout.strip()
    # As copy_from_git of agent/wrapper/code_tree.py does it.
    for arguments in (
        ("init", "-q"),
        ("remote", "add", "--", "origin", "https://example.invalid/inference.git"),
        ("fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", head),
        ("checkout", "-q", head),
    ):
        done = git(clone, *arguments, config=config)
        assert done.returncode == 0, done.stderr
    assert (clone / "loadgen.txt").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's repository")
def test_without_it_git_refuses_what_belongs_to_another_user(tmp_path: Path, config: Path) -> None:
    repository = tmp_path / "offline" / "git" / "inference.git"
    assert "dubious ownership" in git(repository, "rev-parse", "HEAD").stderr
    assert git(repository, "rev-parse", "HEAD", config=config).returncode == 0
    online = tmp_path / "online"
    online.write_text(fetching.git_config(a100(), BUILT_IN["nvidia-v4.1"]))
    assert git(repository, "rev-parse", "HEAD", config=online).returncode == 0


def test_the_images_own_settings_still_count(tmp_path: Path, config: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = image\n")
    assert git(tmp_path, "config", "user.name", config=config).stdout == "image\n"


def test_online_no_url_is_led_elsewhere() -> None:
    assert "insteadOf" not in fetching.git_config(a100(), BUILT_IN["nvidia-v4.1"])


def test_a_url_with_quotes_stays_one_url(tmp_path: Path) -> None:
    url = 'https://example.invalid/a"b\\c.git'
    suite = BUILT_IN["nvidia-v4.1"].model_copy(update={"offline_git": {url: "x.git"}})
    file = tmp_path / "gitconfig"
    file.write_text(fetching.git_config(OFFLINE, suite))
    found = git(tmp_path, "config", "--get", "url.file:///scratch/offline/git/x.git.insteadOf", config=file)
    assert found.stdout == f"{url}\n"


def test_a_repository_is_named_as_the_suite_says_or_after_its_url() -> None:
    found = fetching.offline_repositories(OFFLINE, BUILT_IN["nvidia-v4.1"])
    assert found["https://github.com/mlcommons/inference.git"] == "/scratch/offline/git/inference.git"
    code = BUILT_IN["nvidia-v4.1"].code.git_url
    assert code is not None
    assert found[code] == "/scratch/offline/git/inference_results_v4.1.git"
