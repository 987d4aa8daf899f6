"""Known vulnerabilities in what we depend on: Go programs by govulncheck, Python packages by `uv audit`."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from supply_chain.outcome import Outcome, judged, run, said, skipped

ACCEPTED = Path(__file__).with_name("accepted.yaml")
STANDARD_LIBRARY = "stdlib"
_UNREACHABLE = re.compile(r"dns error|error sending request|client error \(Connect\)|timed out", re.IGNORECASE)
_TOKEN = re.compile(r"\S")
_AUDIT_FOUND = 1


class Finding(BaseModel):
    """A vulnerability whose code is in a program."""

    model_config = ConfigDict(frozen=True)

    program: str
    id: str
    module: str
    version: str
    fixed_in: str

    def text(self) -> str:
        """Return it as one line."""
        fixed = f"fixed in {self.fixed_in}" if self.fixed_in else "no fixed version"
        return f"{self.program}: {self.id} in {self.module} {self.version}, {fixed}"


class Accepted(BaseModel):
    """Findings that are known and stay until a day, with the reason; on that day they fail the check."""

    model_config = ConfigDict(extra="forbid")

    programs: Annotated[list[str], Field(min_length=1)]
    module: str
    ids: Annotated[list[str], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=20)]
    expires: dt.date

    def covers(self, finding: Finding) -> bool:
        """Say whether the finding is one of these, by its id: govulncheck names now this, now that of its modules."""
        return finding.program in self.programs and finding.id in self.ids


def accepted_findings(path: Path = ACCEPTED) -> list[Accepted]:
    """Read the list of accepted findings."""
    return [Accepted.model_validate(entry) for entry in yaml.safe_load(path.read_text()) or []]


def objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Return the JSON objects that govulncheck printed one after another."""
    decoder, position = json.JSONDecoder(), 0
    while found := _TOKEN.search(text, position):
        message, position = decoder.raw_decode(text, found.start())
        yield message


def findings(program: str, text: str) -> list[Finding]:
    """Return the vulnerabilities whose functions are in a program, from govulncheck's JSON.

    The linker leaves out what cannot be called, so a finding by package or module alone is none of the program's.
    """
    found: dict[tuple[str, bool], tuple[str, str, str]] = {}
    for message in objects(text):
        finding = message.get("finding")
        if finding and "function" in finding["trace"][0]:
            place = finding["trace"][0]
            fixed = finding.get("fixed_version", "")
            # One may be in several modules; in Go's own library too, which is told apart.
            key = (finding["osv"], place["module"] == STANDARD_LIBRARY)
            found.setdefault(key, (place["module"], place.get("version", ""), fixed))
    return [
        Finding(program=program, id=number, module=module, version=version, fixed_in=fixed)
        for (number, _), (module, version, fixed) in sorted(found.items())
    ]


def problems(found: Iterable[Finding], accepted: Iterable[Accepted], today: dt.date) -> list[str]:
    """Return what must be acted on: findings that nobody accepted, and entries that have expired or cover nothing.

    Those of Go's standard library are left out: they are the machine's Go's, and `standard_library` tells them.
    """
    ours = [finding for finding in found if finding.module != STANDARD_LIBRARY]
    entries = list(accepted)
    lines = [finding.text() for finding in ours if not any(entry.covers(finding) for entry in entries)]
    for entry in entries:
        covered = {(finding.program, finding.id) for finding in ours if entry.covers(finding)}
        if entry.expires <= today:
            lines.append(f"accepted until {entry.expires}, which is past: {entry.module} {', '.join(entry.ids)}")
        gone = [name for name in entry.ids if not any(name == found_id for _, found_id in covered)]
        gone += [name for name in entry.programs if not any(name == program for program, _ in covered)]
        if gone:
            lines.append(f"accepted, but no longer found in {entry.module}: {', '.join(gone)}; remove it from the list")
    return lines


def standard_library(found: Iterable[Finding]) -> str:
    """Return a sentence on the findings in the Go that this machine builds with, empty where there are none."""
    go = {finding for finding in found if finding.module == STANDARD_LIBRARY}
    if not go:
        return ""
    newest = max((finding.fixed_in for finding in go), key=lambda text: [int(n) for n in re.findall(r"\d+", text)])
    known = len({finding.id for finding in go})
    return f"; this machine's Go {go.pop().version.removeprefix('v')} has {known} known ones, {newest} mends them"


def go_programs(govulncheck: Path, database: str, programs: Mapping[str, Path], today: dt.date) -> Outcome:
    """Look for known vulnerabilities in Go programs, in a database that is a URL (file:// is possible)."""
    name, found = "govulncheck", []
    for program, path in programs.items():
        done = run(govulncheck, "-db", database, "-mode=binary", "-format=json", path)
        if done.returncode:
            return judged(name, program, said(done))
        found += findings(program, done.stdout)
    accepted = accepted_findings()
    wrong = problems(found, accepted, today)
    until = min((entry.expires for entry in accepted), default=None)
    note = f", {sum(len(entry.ids) for entry in accepted)} accepted (until {until})" if until else ""
    return judged(name, f"{len(programs)} Go programs{note}{standard_library(found)}", wrong)


def python_packages() -> Outcome:
    """Look for known vulnerabilities of the packages in uv.lock, in a database that `uv audit` asks on the internet."""
    name = "uv audit"
    done = run("uv", "audit", "--frozen", "--preview-features=audit-command", "--no-progress")
    if done.returncode not in {0, _AUDIT_FOUND} and _UNREACHABLE.search(done.stderr):
        return skipped(name, "NOT AUDITED: the database of Python vulnerabilities (api.osv.dev) cannot be reached")
    lines = said(done)
    return judged(name, "the packages of uv.lock", lines if done.returncode else [])
