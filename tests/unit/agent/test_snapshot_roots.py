"""What a prebuild did to a root, laid over a copy of it as it was, gives the same root: whatever it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlperf_operator.agent.wrapper import delta, roots
from unit.agent.bench import make_tree
from unit.agent.roots_of import base_root, copy, kept, laid, remove, seen

Change = Callable[[Path], object]

NAMES = st.sampled_from(["a", "b", "lib.so.1", "lib.so", "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=8)),
    st.tuples(st.just("folder"), PATHS, st.sampled_from([0o755, 0o700, 0o1777])),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("name"), PATHS, PATHS),
    st.tuples(st.just("mode"), PATHS, st.sampled_from([0o644, 0o755, 0o4755, 0o600])),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("remove"), PATHS, st.none()),
    st.tuples(st.just("pipe"), PATHS, st.none()),
)


def _write(root: Path, path: Path, more: Any) -> None:
    if path.is_fifo():  # It would wait for a reader.
        path.unlink()
    path.write_bytes(more)


def _link(root: Path, path: Path, more: Any) -> None:
    remove(path)
    path.symlink_to(more)


ACTS: dict[str, Callable[[Path, Path, Any], object]] = {
    "write": _write,
    "folder": lambda root, path, more: path.mkdir(more, exist_ok=True),
    "link": _link,
    "name": lambda root, path, more: os.link(root / more, path, follow_symlinks=False),
    "mode": lambda root, path, more: path.chmod(more),
    "move": lambda root, path, more: (root / more).rename(path),
    "remove": lambda root, path, more: remove(path),
    "pipe": lambda root, path, more: os.mkfifo(path),
}


def act(root: Path, operations: list[tuple[str, str, Any]]) -> None:
    """Do things in a root; one that cannot be done there is nothing."""
    for kind, name, more in operations:
        with suppress(OSError):
            if kind not in ("remove", "mode"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
            ACTS[kind](root, root / name, more)


@settings(max_examples=50, deadline=None)
@given(st.lists(OPERATIONS, max_size=12), st.lists(OPERATIONS, max_size=12))
def test_a_kept_change_laid_over_the_base_gives_the_changed_root(
    first: list[tuple[str, str, Any]], then: list[tuple[str, str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, place = Path(folder, "root"), Path(folder, "store")
        root.mkdir()
        act(root, first)
        fresh = copy(root, Path(folder, "fresh"))
        note = kept(root, place, lambda: act(root, then))
        laid(fresh, place, note)
        assert seen(fresh) == seen(root)


def _replace(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def _same_size_and_time(root: Path) -> None:
    path = root / "opt/data"
    status = path.stat()
    path.write_text("KEPT AS IT IS")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _folder_to_link(root: Path) -> None:
    (root / "usr/share/cmake").rename(root / "usr/lib/cmake")
    (root / "usr/share/cmake").symlink_to("../lib/cmake")


def _folder_to_file(root: Path) -> None:
    remove(root / "usr/share/cmake")
    (root / "usr/share/cmake").write_text("a file now")


def _file_to_folder(root: Path) -> None:
    (root / "opt/data").unlink()
    make_tree(root, {"opt/data/within/file": "x"})


def _names(root: Path) -> None:
    (root / "usr/bin/cmake").unlink()
    (root / "usr/lib/libnew.so.1").write_text("new")
    (root / "usr/lib/libnew.so").symlink_to("libnew.so.1")
    for name in ("usr/bin/new", "usr/bin/also", "opt/third"):
        os.link(root / "usr/lib/libnew.so.1", root / name)
    os.link(root / "opt/data", root / "opt/same")


def _times_and_modes(root: Path) -> None:
    (root / "usr/bin/cmake").chmod(0o4755)
    (root / "usr/share").chmod(0o1777)
    os.utime(root / "opt/data", ns=(0, 1_700_000_000_123_456_789))
    (root / "opt/old").write_text("x")
    os.utime(root / "opt/old", ns=(0, -1_500_000_000))


CHANGES: dict[str, Change] = {
    "nothing": lambda root: None,
    "a new tree": lambda root: make_tree(root, {"usr/local/lib/a.so": "a", "usr/local/bin/b": "b"}),
    "a deleted tree": lambda root: remove(root / "usr/share/cmake"),
    "a deleted file and its package's note": lambda root: (
        remove(root / "usr/bin/cmake"),
        (root / "var/lib/dpkg/status").write_text(""),
    ),
    "the same size and time, another content": _same_size_and_time,
    "a folder becomes a link, and its files lie elsewhere": _folder_to_link,
    "a folder becomes a file": _folder_to_file,
    "a file becomes a folder": _file_to_folder,
    "a link becomes a folder": lambda root: (remove(root / "lib"), make_tree(root, {"lib/x": "x"})),
    "a link leads elsewhere": lambda root: remove(root / "lib").symlink_to("usr/share"),
    "several names of one file": _names,
    "times and modes": _times_and_modes,
    "an attribute alone": lambda root: os.setxattr(root / "opt/data", "user.note", b"\x00\xff=\n"),
    "a name that is no UTF-8": lambda root: (root / "opt/\udcfe").write_text("x"),
    "a name longer than tar's own": lambda root: make_tree(root, {f"opt/{'n' * 200}/{'m' * 200}": "x"}),
    "a pipe": lambda root: os.mkfifo(root / "opt/pipe"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = base_root(tmp_path / "root")
    (folder / "lib").symlink_to("usr/lib")
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_prebuild_may_do(root: Path, tmp_path: Path, name: str) -> None:
    fresh = copy(root, tmp_path / "fresh")
    note = kept(root, tmp_path / "store", lambda: CHANGES[name](root))
    laid(fresh, tmp_path / "store", note)
    assert seen(fresh) == seen(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away and make devices")
def test_owners_and_devices(root: Path, tmp_path: Path) -> None:
    fresh = copy(root, tmp_path / "fresh")

    def change() -> None:
        os.chown(root / "opt/data", 7, 8)
        os.chown(root / "lib", 9, 9, follow_symlinks=False)
        (root / "usr/bin/cmake").chmod(0o4755)
        os.chown(root / "opt", 2_500_000, 0)
        os.mknod(root / "opt/null", 0o20666, os.makedev(1, 3))

    laid(fresh, tmp_path / "store", kept(root, tmp_path / "store", change))
    assert seen(fresh) == seen(root)


def test_only_what_changed_is_kept(root: Path, tmp_path: Path) -> None:
    note = kept(root, tmp_path / "store", lambda: _replace(root / "usr/bin/cmake", "new"))
    assert (note["files"], note["deleted"]) == (1, 0)


def test_what_belongs_to_a_container_alone_is_not_kept(root: Path, tmp_path: Path) -> None:
    left = ("proc/1", "sys/a", "dev/null", "run/lock", "tmp/half", "var/tmp/x", "etc/hosts", "etc/resolv.conf")
    note = kept(
        root,
        tmp_path / "store",
        lambda: make_tree(root, dict.fromkeys((*left, "root/.cache/pip/wheel", "etc/new"), "x")),
    )
    fresh = copy(base_root(tmp_path / "again"), tmp_path / "fresh")
    laid(fresh, tmp_path / "store", note)
    assert {path.name for path in (fresh / "etc").iterdir()} == {"os-release", "new"}
    assert not (fresh / "tmp").exists()
    assert not (fresh / "root/.cache").exists()


def test_libraries_come_before_their_links_and_both_before_programs() -> None:
    def entry(kind: str) -> roots.Entry:
        return roots.Entry(kind, 0o755, 0, 0, 0, 0, 0, "", "")

    after = {
        "a": entry("file"),
        "b.so": entry("link"),
        "c.so.1": entry("file"),
        "d": entry("folder"),
        "e": entry("link"),
    }
    assert roots.difference({}, after).changed == ["d", "c.so.1", "b.so", "a", "e"]


def test_a_file_that_is_replaced_stays_whole_for_whoever_has_it_open(root: Path, tmp_path: Path) -> None:
    fresh = copy(root, tmp_path / "fresh")
    note = kept(root, tmp_path / "store", lambda: (root / "usr/bin/cmake").write_text("in place, and shorter"))
    with (fresh / "usr/bin/cmake").open() as running:
        laid(fresh, tmp_path / "store", note)
        assert running.read() == "#!old cmake"


class TestMounts:
    """What is mounted in a container is neither kept nor touched."""

    TABLE = (
        "22 1 0:5 / / rw - overlay overlay rw\n"
        "23 22 0:6 / /c/proc rw - proc proc rw\n"
        "24 22 8:1 /var/lib/x /c/etc/hosts rw - ext4 /dev/sda rw\n"
        "25 22 8:1 /smi /c/usr/bin/with\\040space ro - ext4 /dev/sda rw\n"
        "26 22 8:1 / /cc/x rw - ext4 /dev/sda rw\n"
    )

    def test_they_are_read_from_the_kernels_table(self) -> None:
        assert roots.mount_points(self.TABLE, Path("/c")) == {"proc", "etc/hosts", "usr/bin/with space"}
        assert roots.mount_points(self.TABLE, Path("/")) == {
            *("c/proc", "c/etc/hosts", "c/usr/bin/with space", "cc/x"),
        }

    def test_a_manifest_leaves_them_out_with_all_below(self, root: Path) -> None:
        found = roots.scan(root, {"usr/share", "opt/data"})
        assert "usr/bin/cmake" in found
        assert not [path for path in found if path.startswith(("usr/share", "opt/data"))]

    def test_another_file_system_is_left_out(self) -> None:
        if Path("/dev/shm").stat().st_dev == Path("/dev").stat().st_dev:
            pytest.skip("there is no second file system below /dev")
        assert "shm" not in roots.scan(Path("/dev"), ())

    def test_this_machines_table_can_be_read(self) -> None:
        assert "proc" in roots.mounted(Path("/"))

    @pytest.fixture
    def store(self, root: Path, tmp_path: Path) -> Path:
        def change() -> None:
            _replace(root / "usr/bin/cmake", "new")
            remove(root / "usr/share/cmake")
            _file_to_folder(root)
            remove(root / "usr/lib/python3.10")
            (root / "usr/lib/python3.10").write_text("")

        self.fresh = copy(root, tmp_path / "fresh")
        kept(root, tmp_path / "store", change)
        return tmp_path / "store" / "environment.tar"

    def test_a_mounted_file_stays(self, store: Path) -> None:
        assert delta.Root(self.fresh, {"usr/bin/cmake", "opt/data"}).lay(store) == 4
        assert (self.fresh / "usr/bin/cmake").read_text() == "#!old cmake"
        assert (self.fresh / "opt/data").read_text() == "kept as it is"

    def test_what_is_mounted_in_a_deleted_folder_stays(self, store: Path) -> None:
        (self.fresh / "usr/share/cmake/gone").write_text("x")
        delta.Root(self.fresh, {"usr/share/cmake/Modules/A.cmake"}).lay(store)
        assert (self.fresh / "usr/share/cmake/Modules/A.cmake").read_text() == "module"
        assert not (self.fresh / "usr/share/cmake/gone").exists()

    def test_what_is_mounted_where_no_folder_may_be_is_an_error_before_anything_is_done(self, store: Path) -> None:
        before = seen(self.fresh)
        mounted = "usr/lib/python3.10/dist-packages"
        with pytest.raises(delta.SnapshotError, match=r"/usr/lib/python3\.10 is no folder in the environment, but"):
            delta.Root(self.fresh, {mounted}).lay(store)
        assert seen(self.fresh) == before
