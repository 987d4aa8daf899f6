"""Where the code tree comes from, conditions about lists of cases, and steps that only look or are never skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unit.agent.bench import Bench, Step, lines_of, make_tree, shared, step

TREE = {"Makefile": "all:\n", "code/main.py": "print()\n"}


def _copy(path: Path, folder: str = "closed/NVIDIA") -> Step:
    source = {"type": "Path", "path": str(path), "subPath": folder}
    return {"id": "code", "action": "copyTree", "scope": "Private", "digest": "code-1", "source": source}


class TestCode:
    @pytest.mark.parametrize("folder", ["", "closed/NVIDIA/"])
    def test_the_tree_itself_and_a_checkout_serve(self, bench: Bench, folder: str) -> None:
        place = bench.home / "code"
        make_tree(place, {f"{folder}{name}": text for name, text in TREE.items()})
        make_tree(place, {"README.md": "of the repository"})
        assert bench.run(_copy(place)) == 0
        assert (bench.work / "code" / "main.py").is_file()
        # Of a checkout nothing but the tree.
        assert (bench.work / "README.md").exists() is (folder == "")

    def test_of_a_checkout_with_a_makefile_of_its_own_the_tree_is_taken(self, bench: Bench) -> None:
        files = {"Makefile": "of the repository", "closed/NVIDIA/Makefile": "of the tree"}
        assert bench.run(_copy(make_tree(bench.home / "code", files))) == 0
        assert (bench.work / "Makefile").read_text() == "of the tree"

    def test_what_an_earlier_build_left_in_a_checkout_is_not_brought(self, bench: Bench) -> None:
        """The tree's digest leaves it out, so that it would be kept as what others build from the same sources."""
        left = ("build/bin/harness_bert", "code/__pycache__/main.cpython-310.pyc", ".git/config")
        place = make_tree(bench.home / "code", {**TREE, **dict.fromkeys(left, "of another tree"), "code/build/a": "a"})
        (place / "code" / ".git").symlink_to("/")
        assert bench.run(_copy(place, "")) == 0
        there = sorted(str(path.relative_to(bench.work)) for path in bench.work.rglob("*") if not path.is_dir())
        assert there == ["Makefile", "code/build/a", "code/main.py"]

    @pytest.mark.parametrize("there", [{}, {"open/NVIDIA/Makefile": "all:\n"}])
    def test_a_place_without_a_makefile_is_configuration_and_says_where_one_was_looked_for(
        self, bench: Bench, there: dict[str, str]
    ) -> None:
        place = make_tree(bench.home / "code", there)
        assert bench.run(_copy(place)) == 64
        assert f"no Makefile in {place}/closed/NVIDIA nor {place};" in bench.told["message"]


class TestCases:
    def _unpack(self, bench: Bench, cases: object, *made: str) -> Step:
        names = bench.home / "cases.json"
        names.write_text(cases if isinstance(cases, str) else json.dumps(cases))
        made_files = " ".join(f"{bench.scratch}/{name}.nii" for name in made) or "/dev/null"
        condition = {"glob": f"{bench.scratch}/{{}}.nii", "casesFrom": str(names), "minBytes": 2}
        script = f"for file in {made_files}; do echo x > $file; done"
        wanted = [condition, {"glob": str(names), "jsonLength": 2}]
        return shared("unpack", script, postconditions=wanted, removeOnFailure=[f"{bench.scratch}/*.nii"])

    def test_each_case_of_a_list_has_its_file(self, bench: Bench) -> None:
        assert bench.run(self._unpack(bench, ["case_1", "case_2"], "case_1", "case_2")) == 0

    def test_the_one_that_is_missing_is_named_whatever_else_is_there(self, bench: Bench) -> None:
        assert bench.run(self._unpack(bench, ["case_1", "case_2"], "case_1", "case_3")) == 65
        assert f"0 of 1 files {bench.scratch}/case_2.nii" in bench.told["message"]
        assert not list(bench.scratch.glob("*.nii"))

    @pytest.mark.parametrize("cases", ["", "{}", '["case_1"]'])
    def test_a_list_that_is_none_is_no_excuse(self, bench: Bench, cases: str) -> None:
        assert bench.run(self._unpack(bench, cases, "case_1")) == 65
        assert bench.told["reason"] == "PostconditionFailed"

    def test_a_case_that_goes_later_is_noticed(self, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
        unpack = self._unpack(bench, ["case_1", "case_2"], "case_1", "case_2")
        assert bench.run(unpack) == 0
        (bench.scratch / "case_2.nii").unlink()
        assert bench.run(unpack) == 0
        assert "was done before, but" in capfd.readouterr().out


class TestLooking:
    def _look(self, bench: Bench) -> Step:
        return shared("download_data-bert", "", bench.scratch / "data", argv=[], removeOnFailure=[])

    def test_what_is_there_already_is_done_without_a_command(self, bench: Bench) -> None:
        (bench.scratch / "data").write_text("rows")
        assert bench.run(self._look(bench)) == 0

    def test_what_is_missing_is_named_and_what_is_wrong_stays(self, bench: Bench) -> None:
        assert bench.run(self._look(bench)) == 65
        assert bench.told["message"] == (
            f"download_data-bert: nothing is fetched offline, and scratch has 0 of 1 files {bench.scratch}/data"
        )
        (bench.scratch / "data").touch()
        assert bench.run(self._look(bench)) == 65
        assert (bench.scratch / "data").exists()


def test_a_step_that_says_always_is_never_skipped(bench: Bench) -> None:
    links = step("link_dirs", f"echo x >> {bench.home}/count", always=True)
    for _ in range(2):
        assert bench.run(links) == 0
    assert lines_of(bench.home / "count") == ["x", "x"]


def test_what_a_build_must_leave_is_looked_at_when_it_is_built_and_not_before_its_tree_is_back(
    bench: Bench, other: Bench
) -> None:
    def build(own: Bench, script: str) -> Step:
        return step(
            "build", script, scope="Shared", publishTree=True, postconditions=[{"glob": f"{own.work}/build/bin"}]
        )

    make = f"echo x >> {bench.scratch}/count; mkdir -p build; echo ELF > build/bin"
    assert bench.run(build(bench, "true")) == 65
    assert bench.run(build(bench, make)) == 0
    assert other.run(build(other, make)) == 0
    assert (other.work / "build" / "bin").read_text() == "ELF\n"
    assert lines_of(bench.scratch / "count") == ["x"]


def test_a_step_whose_need_failed_is_told_even_without_a_record_of_its_own(bench: Bench) -> None:
    measured = step("measure", "exit 3", continueOnFailure=True)
    staged = step("stage_results", f"touch {bench.home}/staged", continueOnFailure=True, requires=["measure"])
    assert bench.run(measured, staged) == 65
    assert not (bench.home / "staged").exists()
    assert bench.told["step"] == "measure"
