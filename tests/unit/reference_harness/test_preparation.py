"""The stages before the run: what they leave, what they skip, what they refuse."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from unit.reference_harness.bench import Bench

DATA = ("data/digits/train.csv", "data/digits/heldout.csv")
MODEL = "models/digits/digits.onnx"
ARRAYS = ("preprocessed_data/digits/heldout_images.npy", "preprocessed_data/digits/heldout_labels.npy")


def test_the_stages_leave_data_model_and_arrays_and_nothing_by_half(prepared_scratch: Path) -> None:
    found = {str(path.relative_to(prepared_scratch)) for path in prepared_scratch.rglob("*") if path.is_file()}
    assert found == {*DATA, MODEL, *ARRAYS}
    train, held_out = ((prepared_scratch / name).read_text().splitlines() for name in DATA)
    assert (len(train), len(held_out)) == (1197, 600)
    assert not set(train) & set(held_out)


@pytest.mark.parametrize(("target", "files"), [("download_data", 2), ("download_model", 1), ("preprocess_data", 2)])
def test_a_stage_that_finds_its_outcome_leaves_it_alone(bench: Bench, target: str, files: int) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in bench.scratch.rglob("*") if path.is_file()}

    before = stamps()
    done = bench.make(target, "BENCHMARKS=digits")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("is already there.") == files
    assert stamps() == before


def test_link_dirs_links_the_scratch_folders_into_the_tree_twice_alike(empty_bench: Bench) -> None:
    for _ in range(2):
        done = empty_bench.make("link_dirs")
        assert done.returncode == 0, done.stdout
        for name in ("data", "models", "preprocessed_data"):
            assert (empty_bench.tree / "build" / name).readlink() == empty_bench.scratch / name


def test_build_says_which_libraries_and_sources_it_was_made_of(bench: Bench) -> None:
    done = bench.make("build")
    assert done.returncode == 0, done.stdout
    manifest = json.loads((bench.tree / "build" / "manifest.json").read_text())
    assert set(manifest["versions"]) == {"python", "mlcommons-loadgen", "numpy", "onnx", "onnxruntime"}
    assert "harness/sut.py" in manifest["sources"]


def test_build_fails_on_a_file_that_does_not_compile(bench: Bench) -> None:
    (bench.tree / "configs" / "broken.py").write_text("def\n")
    done = bench.make("build")
    assert done.returncode != 0
    assert "configs/ does not compile" in done.stdout


@pytest.mark.parametrize(("value", "says"), [("", "MLPERF_SCRATCH_PATH is not set"), ("/nowhere", "not an existing")])
@pytest.mark.parametrize("target", ["link_dirs", "download_data", "run"])
def test_a_missing_scratch_is_named(empty_bench: Bench, target: str, value: str, says: str) -> None:
    empty_bench.environment["MLPERF_SCRATCH_PATH"] = value
    done = empty_bench.make(target)
    assert done.returncode != 0
    assert says in done.stdout


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("download_model", "run `make download_data` first"),
        ("preprocess_data", "run `make download_data` first"),
        ("generate_engines", "run `make download_model` first"),
        ("run_harness", "run `make preprocess_data` first"),
    ],
)
def test_a_stage_without_the_one_before_says_which_to_run(empty_bench: Bench, target: str, says: str) -> None:
    done = empty_bench.make(target)
    assert done.returncode != 0
    assert says in done.stdout


def test_an_unknown_benchmark_is_refused_with_those_possible(empty_bench: Bench) -> None:
    done = empty_bench.make("download_data", "BENCHMARKS=bert")
    assert done.returncode != 0
    assert "'bert' is not a Benchmark; possible: digits" in done.stdout


def test_a_download_cut_short_leaves_no_half_file_and_is_repeated(empty_bench: Bench) -> None:
    # A file size limit, in blocks of 1,024 bytes, ends the first write midway as a full disk would.
    cut = empty_bench.make("download_data", prefix="ulimit -f 10;")
    assert cut.returncode != 0
    assert "File too large" in cut.stdout
    assert not [path for path in empty_bench.scratch.rglob("*") if path.is_file()]
    assert empty_bench.make("download_data").returncode == 0
    assert all((empty_bench.scratch / name).is_file() for name in DATA)


def test_a_damaged_model_is_trained_again(empty_bench: Bench) -> None:
    assert empty_bench.make("download_data").returncode == 0
    assert empty_bench.make("download_model").returncode == 0
    model = empty_bench.scratch / MODEL
    whole = model.read_bytes()
    os.truncate(model, len(whole) // 2)
    done = empty_bench.make("download_model")
    assert done.returncode == 0, done.stdout
    assert "is damaged" in done.stdout
    assert model.read_bytes() == whole


def test_nothing_is_left_in_the_home_folder(bench: Bench) -> None:
    done = bench.make("reference_accuracy")
    assert done.returncode == 0, done.stdout
    # ONNX Runtime's usage reports would leave a device id here.
    assert not list(bench.home.rglob("*"))


def test_an_interpreter_in_a_folder_with_a_blank_in_its_name(empty_bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "my python"
    folder.mkdir()
    interpreter = folder / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    empty_bench.environment["PYTHON"] = str(interpreter)
    done = empty_bench.make("link_dirs")
    assert done.returncode == 0, done.stdout
