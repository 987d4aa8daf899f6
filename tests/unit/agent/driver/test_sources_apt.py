"""apt: what its output means, and how the host's own repositories are left out of harm's way."""

from __future__ import annotations

import pytest

from mlperf_operator.agent.driver.host import Done
from mlperf_operator.agent.driver.sources.apt import OURS, SOURCES, Apt, other_lines, other_stanzas
from mlperf_operator.agent.driver.sources.base import Planned, distinct
from mlperf_operator.catalogue import Repository

CUDA = Repository(url="https://packages.example.com/cuda/", suite="/", key="key")
OURS_ARE = frozenset({("https://packages.example.com/cuda", "/")})
SIMULATED = """\
Reading package lists...
The following packages will be REMOVED:
  nvidia-driver-535-server
The following held packages will be changed:
  linux-image-amd64 nvidia-utils-535-server
The following packages will be upgraded:
  libc6:i386
Remv nvidia-driver-535-server [535.161.08-1]
Remv nvidia-utils-535-server [535.161.08-1] [nvidia-driver-550-server:amd64 ]
Inst libc6:i386 [2.36-8] (2.36-9 Debian:12.5/stable [i386])
Inst nvidia-driver-550-server (550.54.14-1 packages.example.com [amd64])
Inst nvidia-utils-550-server [550.90.07-1] (550.54.14-1 packages.example.com [amd64]) []
Conf nvidia-driver-550-server (550.54.14-1 packages.example.com [amd64])
"""


def test_a_simulation_tells_what_comes_goes_and_is_held() -> None:
    assert Apt().planned(SIMULATED) == Planned(
        installs={
            "libc6": "2.36-9",
            "nvidia-driver-550-server": "550.54.14-1",
            "nvidia-utils-550-server": "550.54.14-1",
        },
        removes=("nvidia-driver-535-server", "nvidia-utils-535-server"),
        held=("linux-image-amd64", "nvidia-utils-535-server"),
    )


@pytest.mark.parametrize(
    ("code", "output", "stale"),
    [
        (0, "Get:1 https://packages.example.com ./ InRelease [1 kB]\nReading package lists...\n", False),
        (0, "Hit:1 https://packages.example.com ./ InRelease\n", False),
        (100, "", True),
        (0, "Err:1 https://packages.example.com ./ InRelease\n", True),
        (0, "W: Failed to fetch https://packages.example.com/InRelease  Could not connect\n", True),
        (0, "W: Some index files failed to download. They have been ignored, or old ones used instead.\n", True),
    ],
)
def test_a_repository_that_does_not_answer_is_noticed_whatever_apt_returns(code: int, output: str, stale: bool) -> None:
    assert Apt().stale(Done(("apt-get",), code, output)) is stale


def test_a_line_that_names_our_repository_is_left_out_and_no_other() -> None:
    text = (
        "# comment\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/cuda.gpg] https://packages.example.com/cuda /\n"
        "deb-src https://packages.example.com/cuda/ /\n"
        "#deb https://packages.example.com/cuda /\n"
        "deb https://packages.example.com/cuda other main\n"
        "deb https://archive.example.com/debian bookworm main\n"
    )
    assert other_lines(text, OURS_ARE).splitlines() == [
        "# comment",
        "#deb https://packages.example.com/cuda /",
        "deb https://packages.example.com/cuda other main",
        "deb https://archive.example.com/debian bookworm main",
    ]


def test_a_stanza_that_names_our_repository_is_left_out_and_no_other() -> None:
    ours = "Types: deb\nURIs: https://packages.example.com/cuda/\nSuites: /\nSigned-By:\n -----BEGIN\n .\n abc\n"
    other = "Types: deb\nURIs: https://archive.example.com/debian\n https://two.example.com\nSuites: bookworm\n"
    assert other_stanzas(f"{other}\n{ours}\n\n{other}", OURS_ARE) == f"{other}\n{other}"
    assert other_stanzas(ours, OURS_ARE) == ""


def test_nothing_is_written_where_the_hosts_own_apt_looks_for_repositories() -> None:
    paths = Apt().files([CUDA], (), {"/etc/apt/sources.list": "deb https://packages.example.com/cuda /\n"})
    assert not [path for path in paths if path.startswith(("/etc/apt/sources.list", "/etc/apt/trusted"))]
    assert paths[f"{SOURCES}/host.list"] == ""
    assert "signed-by=/etc/apt/keyrings/" in paths[OURS]


def test_one_repository_of_driver_and_toolkit_is_named_once() -> None:
    again = CUDA.model_copy(update={"url": "https://packages.example.com/cuda", "key": "another"})
    assert distinct([CUDA, again]) == (CUDA,)
