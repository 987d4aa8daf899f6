"""Which files of a folder an image build sees, and a digest of them, so that an unchanged image is not built again."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class _Rule:
    parts: tuple[str, ...]
    pattern: re.Pattern[str]
    keep: bool


class IgnoreRules:
    """The rules of a .dockerignore file: the last rule that matches a path, or a folder above it, decides."""

    def __init__(self, text: str) -> None:
        rules = (line.strip() for line in text.splitlines())
        self._rules = [_rule(line) for line in rules if line and not line.startswith("#")]

    def ignores(self, path: str) -> bool:
        """Say whether a path, relative to the build's folder, is left out."""
        ignored = False
        for rule in self._rules:
            if rule.pattern.match(path):
                ignored = not rule.keep
        return ignored

    def may_keep_below(self, folder: str) -> bool:
        """Say whether an exception (`!...`) may bring back something in a folder that is left out."""
        return any(rule.keep and _may_be_above(tuple(folder.split("/")), rule.parts) for rule in self._rules)


def _rule(line: str) -> _Rule:
    keep = line.startswith("!")
    parts = tuple(part for part in line.removeprefix("!").strip().split("/") if part not in {"", "."})
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".*" if last else "(?:.*/)?"
        else:
            expression += _part_expression(part) + ("" if last else "/")
    return _Rule(parts, re.compile(f"(?:{expression})(?:/.*)?\\Z", re.DOTALL), keep)


def _part_expression(part: str) -> str:
    """Translate one part of a pattern: `*` and `?` never match a slash."""
    pieces = re.split(r"(\[[^]]+\]|\*+|\?)", part)
    wild = {"?": "[^/]"}
    return "".join(
        wild.get(piece) or ("[^/]*" if piece.startswith("*") else piece if piece.startswith("[") else re.escape(piece))
        for piece in pieces
        if piece
    )


def _may_be_above(folder: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    for name, part in zip(folder, pattern, strict=False):
        if part == "**":
            return True
        if not fnmatchcase(name, part):
            return False
    return len(pattern) > len(folder)


def ignore_file(dockerfile: Path, context: Path) -> Path | None:
    """Return the ignore file of a build: one beside the Dockerfile and named after it, else the folder's own."""
    candidates = (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore")
    return next((file for file in candidates if file.is_file()), None)


def visible_files(context: Path, rules: IgnoreRules) -> Iterator[Path]:
    """Yield the files and links that a build sees, in a stable order."""
    for folder, names, files in os.walk(context):
        relative = Path(folder).relative_to(context)
        paths = {name: (relative / name).as_posix() for name in names}
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        names[:] = sorted(
            name
            for name, path in paths.items()
            if name not in links and (not rules.ignores(path) or rules.may_keep_below(path))
        )
        for name in sorted(files + links):
            if not rules.ignores((relative / name).as_posix()):
                yield Path(folder) / name


def digest(dockerfile: Path, context: Path, inputs: list[str]) -> str:
    """Return a digest of all that a build depends on: the Dockerfile, the files it sees, and the other inputs."""
    ignoring = ignore_file(dockerfile, context)
    rules = IgnoreRules(ignoring.read_text() if ignoring else "")
    value = hashlib.sha256(b"\0".join([dockerfile.read_bytes(), *(text.encode() for text in inputs)]))
    for file in visible_files(context, rules):
        content = os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()
        mode = file.lstat().st_mode
        value.update(f"\0{file.relative_to(context).as_posix()}\0{mode:o}\0{len(content)}\0".encode() + content)
    return value.hexdigest()[:32]
