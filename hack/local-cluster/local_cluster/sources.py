"""Where this machine's own distribution comes from: its suite and its package sources, without those of others."""

import re
from pathlib import Path

from local_cluster.errors import RefusalError

APT = Path("/etc/apt")


def suite() -> str:
    """Return the distribution's code name, e.g. `bookworm`.

    Raises:
        RefusalError: the machine does not say.
    """
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise RefusalError("/etc/os-release names no VERSION_CODENAME, so the base image has no suite")
    return found.group(1)


def own_sources() -> str:
    """Return the machine's package sources of its distribution, in the format of sources.list.

    Raises:
        RefusalError: it has none.
    """
    codename = suite()
    files = [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]
    lines = []
    for file in (file for file in files if file.is_file()):
        text = file.read_text()
        lines += deb822_lines(text, codename) if file.suffix == ".sources" else one_line_sources(text, codename)
    if not lines:
        raise RefusalError(f"{APT} has no package source of the suite {codename} with the component main")
    return "\n".join(lines) + "\n"


def one_line_sources(text: str, codename: str) -> list[str]:
    """Return the lines of a sources.list that belong to the distribution: its suites, and the component main."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("deb ")]
    return [line for line in lines if _is_own(re.sub(r"\[[^]]*\]", "", line).split()[2:], codename)]


def deb822_lines(text: str, codename: str) -> list[str]:
    """Translate the distribution's stanzas of a .sources file into lines of a sources.list."""
    lines = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled", "yes") == "no":
            continue
        components = fields.get("Components", "")
        key = fields.get("Signed-By", "")
        option = f"[signed-by={key}] " if key else ""
        suites = [name for name in fields.get("Suites", "").split() if _is_own([name, *components.split()], codename)]
        lines += [f"deb {option}{uri} {name} {components}" for uri in fields.get("URIs", "").split() for name in suites]
    return lines


def _is_own(suite_and_components: list[str], codename: str) -> bool:
    names = (codename, f"{codename}-updates", f"{codename}-security")
    return suite_and_components[:1] != [] and suite_and_components[0] in names and "main" in suite_and_components[1:]
