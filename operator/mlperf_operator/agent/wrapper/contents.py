"""Whether a file holds what a postcondition says of its content: a download that ended early looks whole from outside.

Standard-library Python 3.10, beside stage.py in the run's pod.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

_NPY_MAGIC = b"\x93NUMPY"
_NPY_TYPE = re.compile(r"[<>|=]?[biufcSV](\d+)")
_MAX_NPY_HEADER = 1 << 16


def problems(file: Path, condition: dict[str, Any]) -> list[str]:
    """Return what of a file's content is not as a postcondition says."""
    found = [f"{file} has another {kind}" for kind in ("md5", "sha256") if _differs(file, kind, condition.get(kind))]
    if condition.get("gzip"):
        found += _gzip_problems(file)
    if condition.get("npyShape") is not None:
        found += _npy_problems(file, tuple(condition["npyShape"]))
    if condition.get("jsonLength") is not None:
        found += _json_problems(file, condition["jsonLength"])
    return found


def digest(file: Path, kind: str = "sha256") -> str:
    """Return a file's digest in hex."""
    found = hashlib.new(kind)
    with file.open("rb") as source:
        for block in iter(lambda: source.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def _differs(file: Path, kind: str, wanted: str | None) -> bool:
    return bool(wanted) and digest(file, kind) != wanted


def _gzip_problems(file: Path) -> list[str]:
    try:
        # To the end: the checksum comes there.
        with gzip.open(file) as source:
            while source.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return [f"{file} cannot be unpacked: {error}"]
    return []


def _npy_problems(file: Path, wanted: tuple[int, ...]) -> list[str]:
    try:
        shape, size = npy_layout(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, struct.error) as error:
        return [f"{file} is no NumPy array: {error}"]
    if shape != wanted:
        return [f"{file} has shape {shape}, not {wanted}"]
    if file.stat().st_size != size:
        return [f"{file} has {file.stat().st_size} bytes where its shape needs {size}"]
    return []


def npy_layout(file: Path) -> tuple[tuple[int, ...], int]:
    """Return shape and bytes of a .npy file by its header (format 1 to 3 of numpy.lib.format).

    Raises:
        ValueError, struct.error, and what ast.literal_eval raises: the file has no such header.
    """
    with file.open("rb") as source:
        if source.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
            raise ValueError("it does not begin as one")
        major = source.read(2)[0:1]
        length = struct.unpack("<H", source.read(2))[0] if major == b"\x01" else struct.unpack("<I", source.read(4))[0]
        if length > _MAX_NPY_HEADER:
            raise ValueError(f"its header has {length} bytes")
        header = ast.literal_eval(source.read(length).decode("latin-1").strip())
        begin = source.tell()
    shape, kind = (header.get("shape"), header.get("descr")) if isinstance(header, dict) else (None, None)
    found = _NPY_TYPE.fullmatch(str(kind))
    if found is None or not isinstance(shape, tuple) or not all(isinstance(part, int) for part in shape):
        raise ValueError(f"its header says shape {shape!r} of {kind!r}")
    return shape, begin + int(found[1]) * math.prod(shape)


def _json_problems(file: Path, wanted: int) -> list[str]:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        return [f"{file} is no JSON: {error}"]
    if not isinstance(value, list):
        return [f"{file} holds no JSON list"]
    return [] if len(value) == wanted else [f"{file} lists {len(value)} items, not {wanted}"]
