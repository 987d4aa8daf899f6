"""Postconditions about what is in a file: a download that ended early looks whole from outside."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlperf_operator.agent.wrapper import contents
from unit.agent.bench import Bench, shared


def _npy(shape: tuple[int, ...], kind: str = "<i4") -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, kind))
    return stream.getvalue()


WHOLE = gzip.compress(b"voxels" * 1000)
ARRAY = _npy((7, 384))


@pytest.mark.parametrize(
    ("content", "condition", "said"),
    [
        (WHOLE, {"gzip": True}, None),
        (WHOLE + WHOLE, {"gzip": True}, None),
        (WHOLE[:-9], {"gzip": True}, "cannot be unpacked: Compressed file ended before"),
        (WHOLE[:30] + b"!!" + WHOLE[32:], {"gzip": True}, "cannot be unpacked: "),
        (WHOLE[:-8] + b"\0" * 8, {"gzip": True}, "cannot be unpacked: CRC check failed"),
        (b"<html>404</html>", {"gzip": True}, "cannot be unpacked: Not a gzipped file"),
        (b"<html>404</html>", {"gzip": False}, None),
        (ARRAY, {"npyShape": [7, 384]}, None),
        (_npy(()), {"npyShape": []}, None),
        (_npy((2, 3), "<f2"), {"npyShape": [2, 3]}, None),
        (ARRAY, {"npyShape": [8, 384]}, "has shape (7, 384), not (8, 384)"),
        (ARRAY[:-1], {"npyShape": [7, 384]}, f"has {len(ARRAY) - 1} bytes where its shape needs {len(ARRAY)}"),
        (b"PK\x03\x04", {"npyShape": [7]}, "is no NumPy array: it does not begin as one"),
        (ARRAY[:9], {"npyShape": [7]}, "is no NumPy array: "),
        (ARRAY[:40], {"npyShape": [7]}, "is no NumPy array: "),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", {"npyShape": [7]}, "is no NumPy array: its header has 4294967295 bytes"),
        (b"\x93NUMPY\x01\x00\x02\x00{}", {"npyShape": [7]}, "its header says shape None of None"),
        (b"[1, 2, 3]", {"jsonLength": 3}, None),
        (b"[1, 2]", {"jsonLength": 3}, "lists 2 items, not 3"),
        (b"[1, 2", {"jsonLength": 2}, "is no JSON: "),
        (b"[" * 100_000, {"jsonLength": 2}, "is no JSON: "),
        (b'{"a": 1}', {"jsonLength": 1}, "holds no JSON list"),
        (b"abc", {"md5": "900150983cd24fb0d6963f7d28e17f72"}, None),
        (b"abd", {"md5": "900150983cd24fb0d6963f7d28e17f72"}, "has another md5"),
        (b"abd", {"sha256": "0" * 64}, "has another sha256"),
    ],
)
def test_what_is_in_a_file(tmp_path: Path, content: bytes, condition: dict[str, Any], said: str | None) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    found = contents.problems(file, condition)
    if said is None:
        assert found == []
    else:
        (text,) = found
        assert text.startswith(f"{file} ")
        assert said in text


def test_every_version_of_the_format_is_read(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, np.zeros((3, 4)), version=version)
        assert contents.npy_layout(tmp_path / "a.npy") == ((3, 4), (tmp_path / "a.npy").stat().st_size)


@given(st.binary(max_size=80))
def test_no_bytes_are_more_than_a_problem(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("any") / "file"
    for begin in (b"", b"\x93NUMPY\x01\x00\x40\x00", b"\x1f\x8b\x08\x00"):
        file.write_bytes(begin + content)
        found = contents.problems(file, {"gzip": True, "npyShape": [1], "jsonLength": 1})
        assert all(text.startswith(f"{file} ") for text in found)


def test_a_download_that_ended_early_is_removed_and_fetched_again(bench: Bench) -> None:
    file, cut = bench.scratch / "case/imaging.nii.gz", bench.home / "cut"
    for path, content in ((bench.home / "whole", WHOLE), (cut, WHOLE[:-9])):
        path.write_bytes(content)
    # As a program that skips what is there: only the first try ends early.
    script = f"mkdir -p {file.parent}; test -e {file} || mv {cut} {file} 2>/dev/null || cp {bench.home}/whole {file}"
    condition = {"glob": str(file), "gzip": True}
    assert bench.run(shared("download", script, file, postconditions=[condition], retries=1)) == 0
    assert file.read_bytes() == WHOLE


def test_what_stays_broken_fails_the_stage(bench: Bench) -> None:
    file = bench.scratch / "cases.json"
    condition = {"glob": str(file), "jsonLength": 43}
    script = f"echo '{json.dumps([1])}' > {file}"
    assert bench.run(shared("download", script, file, postconditions=[condition])) == 65
    assert f"{file} lists 1 items, not 43" in bench.told["message"]
    assert not file.exists()
