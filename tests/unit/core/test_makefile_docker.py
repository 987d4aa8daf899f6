"""The Makefile.docker that replaces the tree's: real make carries it out."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlperf_operator.rendering import template
from mlperf_operator.suites import NVIDIA_V4_1, Prebuild
from unit.agent.bench import make_tree

HOSTILE = 'it\'s $(touch $HOME/x) `touch x` $$ ${y} "q" # ; & | < > * ? \\ %s é'
SCRIPTS = {
    "deps/one.sh": 'echo "one ENV=$ENV flags=${MAKEFLAGS-none} $(ls | tr "\\n" " ")" >> "$SAID"\n',
    "deps/two.sh": "unneeded() {\n  echo unneeded >> $SAID\n}\nneeded() { echo needed $1 >> $SAID; }\n"
    "if true; then\n  unneeded\nfi\n\tunneeded with words ;\nneeded unneeded\n",
    "deps/requirements.1.txt": "a\n",
    "deps/other": "",
}


def _without_make(environment: Mapping[str, str]) -> dict[str, str]:
    """Of a make that runs these tests the one under test knows nothing: it would tell of the folders that it enters."""
    return {key: value for key, value in environment.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


class Tree:
    """A code tree with the rendered file."""

    def __init__(self, folder: Path, prebuild: Prebuild | None) -> None:
        self.folder, self.said = folder, folder.parent / "said"
        make_tree(folder, {**SCRIPTS, "Makefile": "include Makefile.docker\n"})
        (folder / "Makefile.docker").write_text(template("Makefile.docker.j2").render(prebuild=prebuild))
        self.temporary = folder.parent / "tmp"
        self.temporary.mkdir()

    def make(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run make and return its exit code and what it printed."""
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env={**_without_make(os.environ), "SAID": str(self.said), "TMPDIR": str(self.temporary), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert list(self.temporary.iterdir()) == [], "its folder of copies is gone"
        return done.returncode, done.stdout

    @property
    def lines(self) -> list[str]:
        """What the scripts said."""
        return self.said.read_text().splitlines()


def prebuild(**more: Any) -> Prebuild:
    return Prebuild.model_validate({"folder": "deps", "scripts": ("one.sh",), **more})


def test_nothing_is_launched_where_nothing_is_asked(tmp_path: Path) -> None:
    for number, data in enumerate((None, prebuild())):
        code, said = Tree(tmp_path / f"{number}" / "tree", data).make("prebuild")
        assert (code, said) == (0, "prebuild: inside the container already; nothing is launched\n")


def test_the_scripts_run_in_order_in_a_folder_of_copies(tmp_path: Path) -> None:
    data = prebuild(
        scripts=("one.sh", "two.sh"),
        files=("requirements.*.txt",),
        leave_out=("unneeded",),
        environment={"ENV": "release"},
        commands=(("sh", "-c", 'echo command ENV=$ENV >> "$SAID"'),),
        programs=("sh",),
        python_modules=("json", "xml.dom"),
        paths=("/bin/s*",),
    )
    tree = Tree(tmp_path / "tree", data)
    code, said = tree.make("prebuild", "ARCH=x86_64", "-j2", MLPERF_PREBUILD="install")
    assert code == 0, said
    assert tree.lines == [
        "one ENV=release flags=none one.sh requirements.1.txt two.sh ",
        "needed unneeded",
        "command ENV=release",
    ]
    assert "prebuild: bash -e two.sh: 0 s, ended with 0" in said
    assert "two.sh:: # left out:   unneeded\n" in said
    assert said.endswith("prebuild: this container has all 4 things that the suite names\n")
    assert (tree.folder / "deps/two.sh").read_text() == SCRIPTS["deps/two.sh"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"scripts": ("fails.sh", "one.sh")}, "prebuild: bash -e fails.sh: 0 s, ended with 3"),
        ({"scripts": ("hides.sh", "one.sh")}, "prebuild: bash -e hides.sh: 0 s, ended with 1"),
        ({"scripts": ("absent.sh",)}, "prebuild: the code tree has no deps/absent.sh"),
        ({"files": ("requirements.*.toml",)}, "prebuild: the code tree has no deps/requirements.*.toml"),
        ({"scripts": ("hides.sh",), "commands": (("true",),)}, "ended with 1"),
    ],
)
def test_a_failure_ends_it(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    tree = Tree(tmp_path / "tree", prebuild(**more))
    make_tree(tree.folder, {"deps/fails.sh": "exit 3\n", "deps/hides.sh": "false\necho went on\n"})
    code, output = tree.make("prebuild", MLPERF_PREBUILD="install")
    assert code == 2
    assert said in output
    assert "went on" not in output
    assert not tree.said.exists()


@pytest.mark.parametrize("how", ["install", "verify"])
def test_everything_that_is_missing_is_told_at_once(tmp_path: Path, how: str) -> None:
    names = {
        "programs": ("sh", "no-such-program"),
        "python_modules": ("json", "no_such_module", "no.such"),
        "paths": (),
    }
    tree = Tree(tmp_path / "tree", prebuild(**{**names, "paths": ("/bin/sh", "/no/such/*.so")}))
    code, said = tree.make("prebuild", MLPERF_PREBUILD=how)
    assert code == 2
    missing = [line for line in said.splitlines() if line.startswith("prebuild: missing: ")]
    assert [line.removeprefix("prebuild: missing: ") for line in missing] == [
        *("program no-such-program", "Python module no_such_module", "Python module no.such", "/no/such/*.so"),
    ]
    assert ("mlperf-operator suite dockerfile" in said) is (how == "verify")


def test_verifying_installs_nothing(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree", prebuild(programs=("sh",)))
    code, said = tree.make("prebuild", MLPERF_PREBUILD="verify")
    assert (code, said) == (0, "prebuild: this container has all 1 things that the suite names\n")
    assert not tree.said.exists()


def test_another_word_is_refused(tmp_path: Path) -> None:
    code, said = Tree(tmp_path / "tree", prebuild()).make("prebuild", MLPERF_PREBUILD="both")
    assert code == 2
    assert "MLPERF_PREBUILD is install, verify, or not set" in said


@pytest.mark.parametrize("target", ["build_docker", "attach_docker", "launch_docker"])
def test_docker_is_never_called(tmp_path: Path, target: str) -> None:
    code, said = Tree(tmp_path / "tree", prebuild()).make(target)
    assert code == 2
    assert "nothing is launched" in said


def test_no_value_reaches_make_or_the_shell(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" "$TEXT" > {tmp_path}/arguments\n')
    program.chmod(stat.S_IRWXU)
    data = prebuild(environment={"TEXT": HOSTILE}, commands=((str(program), HOSTILE, "second"),), programs=(HOSTILE,))
    tree = Tree(tmp_path / "tree", data)
    code, said = tree.make("prebuild", MLPERF_PREBUILD="install", HOME=str(tmp_path))
    assert code == 2, "there is no such program"
    assert (tmp_path / "arguments").read_text() == f"{HOSTILE}|second|{HOSTILE}|"
    assert f"prebuild: missing: program {HOSTILE}\n" in said
    assert not (tmp_path / "x").exists()
    assert not (tree.folder / "x").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": "/etc"},
        {"folder": "-x"},
        {"scripts": ("a b.sh",)},
        {"files": ("$(x)",)},
        {"leave_out": ("a|b",)},
        {"environment": {"A B": "x"}},
        {"environment": {"A": "x\ny"}},
        {"commands": (("a", "b\nc"),)},
        {"paths": ("/a\x00",)},
    ],
)
def test_what_no_recipe_could_hold_is_refused_as_data(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        prebuild(**wrong)


def test_nvidias_scripts_and_what_is_left_out_are_those_of_the_tree() -> None:
    data = NVIDIA_V4_1.prebuild
    assert data is not None
    text = template("Makefile.docker.j2").render(prebuild=data)
    assert text.index("run bash -e 'install_apt_deps.sh'") < text.index("run bash -e 'install_misc_deps.sh'")
    assert "(install_mxeval_deps)" in text
    assert "docker run" not in text
