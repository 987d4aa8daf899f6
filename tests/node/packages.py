"""Stand-in packages of the real names, built by dpkg-deb. What they install says in its first lines that it is one.

Dependencies and conflicts are as in the real ones: a branch's packages exclude those of another branch, the driver
wants its own exact version of the rest, and cuda-drivers-fabricmanager pins nothing.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TEXTS = Path(__file__).parent / "standin" / "packages"
OLD_BRANCH, FIRST, SECOND = "535.161.08", "550.54.14", "550.90.07"
VERSIONS = (OLD_BRANCH, FIRST, SECOND)
TOOLKIT, TOOLKIT_VERSION = "nvidia-container-toolkit", "1.17.8-1"

_SCRIPT = "#!/bin/sh\n# Stand-in for tests.\nset -e\n. /standin/lib.sh\n"
_UNIT = "[Unit]\nDescription=Stand-in for tests\n[Service]\nExecStart={}\n[Install]\nWantedBy=multi-user.target\n"
_UNITS = "lib/systemd/system"


@dataclass(frozen=True)
class Deb:
    """A package to build."""

    name: str
    version: str
    relations: Mapping[str, str] = field(default_factory=dict)
    """Control fields such as Depends."""
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    """What preinst, postinst and prerm do after their hook; each is there with its hook anyway."""
    payload: int = 0
    """Bytes to carry besides, for benchmarks; then it is compressed as real packages are."""

    def control(self) -> str:
        """Return the control file."""
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "all",
            "Maintainer": "Tests of mlperf-operator <tests@example.invalid>",
            **self.relations,
            "Description": "stand-in for tests, without any driver",
        }
        return "".join(f"{key}: {value}\n" for key, value in fields.items())


def text(name: str, version: str) -> str:
    """Return one of the files in standin/packages for an upstream version."""
    return (TEXTS / name).read_text().replace("@VERSION@", version)


def branch_of(version: str) -> str:
    """Return the branch of a driver's version."""
    return version.split(".", maxsplit=1)[0]


def driver_packages(version: str) -> tuple[str, ...]:
    """Return the packages that a catalogue entry has to name."""
    branch = branch_of(version)
    return tuple(f"nvidia-{part}-{branch}-server" for part in ("driver", "dkms", "utils"))


def fabric_packages(version: str) -> tuple[str, ...]:
    """Return the fabric manager's package of a driver's version."""
    return (f"nvidia-fabricmanager-{branch_of(version)}",)


def driver_debs(version: str, payload: int = 0) -> list[Deb]:
    """Return driver and fabric manager of one version; `payload` is the bytes of driver and module together."""
    branch, full = branch_of(version), f"{version}-1"
    driver, dkms, utils = driver_packages(version)
    (fabric,) = fabric_packages(version)
    return [
        Deb(driver, full, {"Depends": f"{dkms} (= {full}), {utils} (= {full})", **_only_one("nvidia-driver-binary")}),
        Deb(
            dkms,
            full,
            _only_one("nvidia-dkms-kernel"),
            {f"usr/src/nvidia-srv-{version}/dkms.conf": f"PACKAGE_VERSION={version}\n"},
            {
                "postinst": text("dkms.postinst", version),
                "prerm": 'rm -f "/lib/modules/$kernel/updates/dkms"/nvidia*.ko\n',
            },
            payload // 4,
        ),
        Deb(
            utils,
            full,
            _only_one("nvidia-utils"),
            {
                "usr/bin/nvidia-smi": text("nvidia-smi", version),
                f"{_UNITS}/nvidia-persistenced.service": _UNIT.format("/usr/bin/nvidia-persistenced --verbose"),
            },
            payload=payload - payload // 4,
        ),
        Deb(
            fabric,
            full,
            _only_one("nvidia-fabricmanager"),
            {
                "usr/bin/nv-fabricmanager": text("nv-fabricmanager", version),
                f"{_UNITS}/nvidia-fabricmanager.service": _UNIT.format("/usr/bin/nv-fabricmanager"),
            },
            {"prerm": "systemctl stop nvidia-fabricmanager || true\n"},
        ),
        Deb(f"cuda-drivers-fabricmanager-{branch}", full, {"Depends": f"{fabric} (>= {version})"}),
    ]


def _only_one(name: str) -> dict[str, str]:
    return {"Provides": name, "Conflicts": name, "Replaces": name}


def toolkit_deb() -> Deb:
    """Return the container toolkit."""
    files = {"usr/bin/nvidia-ctk": text("nvidia-ctk", TOOLKIT_VERSION)}
    files["usr/bin/nvidia-container-runtime"] = "#!/bin/sh\n# Stand-in for tests.\nexit 1\n"
    return Deb(TOOLKIT, TOOLKIT_VERSION, files=files)


def everything() -> list[Deb]:
    """Return all stand-in packages."""
    return [*(deb for version in VERSIONS for deb in driver_debs(version)), toolkit_deb()]


def build(deb: Deb, folder: Path, filling: bytes = b"") -> Path:
    """Build a package into a folder and return its file; its payload is the filling, over and over."""
    place = folder / f"{deb.name}_{deb.version}_all.deb"
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        scripts = {
            name: f"{_SCRIPT}{_guard(name)}hook {name} {deb.name}\n{deb.scripts.get(name, '')}"
            for name in ("preinst", "postinst", "prerm")
        }
        texts = {f"DEBIAN/{name}": script for name, script in scripts.items()} | dict(deb.files)
        for path, content in texts.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            file.chmod(0o755 if content.startswith("#!") else 0o644)
        (tree / "DEBIAN/control").write_text(deb.control())
        if deb.payload:
            _fill(tree / "usr/lib" / deb.name / "payload", deb.payload, filling)
        compression = ["-Zxz", "-z1"] if deb.payload else ["-Znone"]
        argv = ["dpkg-deb", "--build", "--root-owner-group", *compression, str(tree), str(place)]
        subprocess.run(argv, check=True, capture_output=True)
    return place


def _guard(script: str) -> str:
    """Return a line that ends a script at once where dpkg only undoes something."""
    done_for = {"preinst": "install|upgrade", "postinst": "configure", "prerm": "remove|upgrade"}[script]
    return f"case $1 in {done_for}) ;; *) exit 0 ;; esac\n"


def _fill(file: Path, size: int, filling: bytes) -> None:
    file.parent.mkdir(parents=True)
    with file.open("wb") as sink:
        while size > 0:
            size -= sink.write(filling[:size])
