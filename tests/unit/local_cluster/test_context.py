"""What an image build sees, and when it runs again."""

from pathlib import Path

import pytest
from local_cluster import context

TREE = ("Dockerfile", "a.py", "docs/x.md", "docs/keep.md", "src/pkg/m.py", "src/pkg/m.pyc", "wheels/w.whl")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def _visible(tree: Path, rules: str) -> set[str]:
    files = context.visible_files(tree, context.IgnoreRules(rules))
    return {file.relative_to(tree).as_posix() for file in files}


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        ("", set()),
        ("# a comment\n\n", set()),
        ("docs", {"docs/x.md", "docs/keep.md"}),
        ("/docs/", {"docs/x.md", "docs/keep.md"}),
        ("docs/*.md\n!docs/keep.md", {"docs/x.md"}),
        ("docs\n!docs/keep.md", {"docs/x.md"}),
        ("*.py", {"a.py"}),
        ("**/*.py", {"a.py", "src/pkg/m.py"}),
        ("**/*.pyc", {"src/pkg/m.pyc"}),
        ("src/**", {"src/pkg/m.py", "src/pkg/m.pyc"}),
        ("s?c/*/m.[p]y", {"src/pkg/m.py"}),
        ("*\n!src/**\n**/*.pyc", set(TREE) - {"src/pkg/m.py"}),
        ("*\n!wheels", set(TREE) - {"wheels/w.whl"}),
        ("a", set()),
    ],
)
def test_ignore_rules_mean_what_they_mean_to_docker(tree: Path, rules: str, left_out: set[str]) -> None:
    assert set(TREE) - _visible(tree, rules) == left_out


def test_a_link_is_seen_as_a_link_and_never_followed(tree: Path) -> None:
    (tree / "loop").symlink_to(".")
    assert "loop" in _visible(tree, "")
    assert not [name for name in _visible(tree, "") if name.startswith("loop/")]


def _digest(tree: Path, *inputs: str) -> str:
    return context.digest(tree / "Dockerfile", tree, list(inputs))


def test_the_digest_is_stable(tree: Path) -> None:
    assert _digest(tree, "A=1") == _digest(tree, "A=1")


def test_content_mode_name_and_inputs_change_the_digest(tree: Path) -> None:
    digests = {_digest(tree), _digest(tree, "A=1"), _digest(tree, "A=2")}
    (tree / "a.py").chmod(0o755)
    digests.add(_digest(tree))
    (tree / "a.py").write_text("other")
    digests.add(_digest(tree))
    (tree / "a.py").rename(tree / "b.py")
    digests.add(_digest(tree))
    assert len(digests) == 6


def test_a_file_that_is_left_out_does_not_change_the_digest(tree: Path) -> None:
    (tree / ".dockerignore").write_text("docs\n")
    before = _digest(tree)
    (tree / "docs/x.md").write_text("new words")
    assert _digest(tree) == before


def test_an_ignore_file_named_after_the_dockerfile_wins(tree: Path) -> None:
    (tree / ".dockerignore").write_text("docs\n")
    own = tree / "Dockerfile.dockerignore"
    own.write_text("src\n")
    assert context.ignore_file(tree / "Dockerfile", tree) == own
