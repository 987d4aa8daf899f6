"""Many results under one folder: what is taken, what is passed over, and what the folders' names say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlperf_operator.results import Accuracy, find_results
from mlperf_operator.results.layout import place_of
from unit.results.logs import DETAIL, FOOTER, SUMMARY, detail, metadata, summary, write

LOGS: dict[str, str | bytes] = {
    DETAIL: detail(result_samples_per_second=1.5),
    SUMMARY: summary("Samples per second: 1.5"),
}
F1 = '{"exact_match": 83.0, "f1": 90.38}'


def _paths(root: Path) -> list[str]:
    return [result.path for result in find_results(root)]


def test_results_are_found_to_the_bottom_in_order(tmp_path: Path) -> None:
    for name in ("b/c/d/e", "a", "b", "."):
        write(tmp_path / name, LOGS)
    assert _paths(tmp_path) == [".", "a", "b", "b/c/d/e"]


def test_a_submissions_performance_run_carries_the_accuracy_of_its_pair(tmp_path: Path) -> None:
    pair = tmp_path / "bert-99" / "Offline"
    write(pair / "performance" / "run_1", LOGS)
    write(pair / "accuracy", {SUMMARY: FOOTER, "accuracy.txt": F1})
    accuracy, performance = find_results(tmp_path)
    expected = (Accuracy("F1", 90.38, 89.96526, True),)
    assert (accuracy.mode, accuracy.accuracy, accuracy.validity) == ("AccuracyOnly", expected, None)
    assert (performance.mode, performance.accuracy, performance.validity) == ("PerformanceOnly", expected, "VALID")
    assert performance.warnings == ()


def test_nothing_above_the_named_folder_is_read(tmp_path: Path) -> None:
    run = write(tmp_path / "bert-99" / "Offline" / "performance" / "run_1", LOGS)
    write(tmp_path / "bert-99" / "Offline" / "accuracy", {"accuracy.txt": F1})
    [found] = find_results(run)
    assert (found.path, found.variant, found.accuracy) == (".", "bert-99", ())


def test_a_ranging_run_beside_run_1_is_not_taken(tmp_path: Path) -> None:
    performance = tmp_path / "rnnt" / "Server" / "performance"
    write(performance / "run_1", LOGS)
    write(performance / "ranging", {SUMMARY: summary(verdict="INVALID")})
    assert _paths(tmp_path) == ["rnnt/Server/performance/run_1"]


def test_a_ranging_run_alone_is_shown_as_what_it_is(tmp_path: Path) -> None:
    text = summary("Scheduled samples per second : 7.5", "Server", verdict="INVALID")
    write(tmp_path / "rnnt" / "Server" / "performance" / "ranging", {SUMMARY: text})
    [found] = find_results(tmp_path)
    assert (found.validity, found.variant) == ("INVALID", "rnnt")
    assert found.warnings == ("this is the ranging run of a power measurement, no result",)


def test_compliance_runs_are_results_of_their_own_folders(tmp_path: Path) -> None:
    test = tmp_path / "3d-unet-99.9" / "Offline" / "TEST04-A"
    write(test / "performance" / "run_1", LOGS)
    write(test, {"metadata.json": metadata(benchmark_full="3d-unet-99.9", benchmark_short="3d-unet")})
    found = list(find_results(tmp_path))
    assert [(r.path.removeprefix("3d-unet-99.9/Offline/"), r.variant, r.scenario) for r in found] == [
        ("TEST04-A", "3d-unet-99.9", "Offline"),
        ("TEST04-A/performance/run_1", "3d-unet-99.9", "Offline"),
    ]


def test_the_accuracy_of_a_compliance_test_has_no_threshold_and_no_warning(tmp_path: Path) -> None:
    test = tmp_path / "stable-diffusion-xl" / "Offline" / "TEST01"
    write(test / "accuracy", {"accuracy.txt": "{'FID_SCORE': 179.7, 'CLIP_SCORE': 32.3}"})
    write(test / "performance" / "run_1", LOGS)
    write(tmp_path / "bert-99" / "Offline" / "TEST01", {**LOGS, "accuracy.txt": F1})
    assert {(item.threshold, item.passed) for found in find_results(tmp_path) for item in found.accuracy} == {
        (None, None)
    }
    assert [found.warnings for found in find_results(tmp_path)] == [(), (), ()]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder deeper than Python calls functions, and remove it: shutil would call itself for each level."""
    folders = [tmp_path / "/".join("a" * depth) for depth in range(1, 1201)]
    for folder in folders:
        folder.mkdir()
    yield folders[-1]
    for file in folders[-1].iterdir():
        file.unlink()
    for folder in reversed(folders):
        folder.rmdir()


def test_a_very_deep_tree_is_searched_to_the_bottom(tmp_path: Path, deep: Path) -> None:
    write(deep, LOGS)
    write(tmp_path / "b", LOGS)
    assert _paths(tmp_path) == [str(deep.relative_to(tmp_path)), "b"]


def test_one_unreadable_result_is_not_the_end(tmp_path: Path) -> None:
    write(tmp_path / "a", {"metadata.json": b"\x00\xff"})
    write(tmp_path / "b", LOGS)
    first, second = find_results(tmp_path)
    assert "metadata.json is no JSON" in (first.error or "")
    assert second.validity == "VALID"


def test_links_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a", LOGS)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "accuracy.txt").symlink_to("accuracy.txt")
    assert _paths(tmp_path) == ["a"]


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "bert-99" / "Offline", LOGS)
    (tmp_path / "latest").symlink_to("bert-99/Offline")
    [found] = find_results(tmp_path / "latest")
    assert (found.path, found.variant) == (".", "bert-99")


def test_a_pipe_with_a_results_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SUMMARY)
    [found] = find_results(tmp_path)
    assert found.error == "none of its files can be read as a file"


def test_a_folder_with_an_unprintable_name_is_shown(tmp_path: Path) -> None:
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff")), LOGS)
    assert _paths(tmp_path) == ["a\\xff"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_item_with_its_error(tmp_path: Path) -> None:
    write(tmp_path / "b", LOGS)
    (tmp_path / "a").mkdir(mode=0o000)
    errors = {result.path: result.error for result in find_results(tmp_path)}
    assert errors == {"a": "cannot be read: Permission denied", "b": None}


def test_a_folder_that_is_gone_is_an_item_with_its_error(tmp_path: Path) -> None:
    [found] = find_results(tmp_path / "gone")
    assert (found.path, found.error) == (".", "cannot be read: No such file or directory")


PLACES = [
    ("/r/bert-99/Server/performance/run_1", None, "Server", "bert-99"),
    ("/r/bert-99.9/offline/accuracy", None, "Offline", "bert-99.9"),
    ("/r/llama2-70b-99/interactive", None, "Interactive", "llama2-70b-99"),
    ("/r/3d-unet-99/Offline/TEST01/performance/run_1", None, "Offline", "3d-unet-99"),
    ("/r/3d-unet-99%2E9/Offline", None, "Offline", "3d-unet-99.9"),
    ("/logs/bert/Server/PerformanceOnly/sys/bert-99/Server", "Server", "Server", "bert-99"),
    ("/r/bert-99/Server/2024.01.20-07.40.41", "Server", "Server", "bert-99"),
    ("/r/bert-99/Server/2024.01.20-07.40.41", "Offline", None, None),
    ("/r/bert-99.9/Server/Server/accuracy", None, "Server", "bert-99.9"),
    ("/mnt/server/logs/today", "Server", None, None),
    ("/mnt/server/logs/today", None, None, None),
    ("/", None, None, None),
    ("/Offline", "Offline", "Offline", None),
]


@pytest.mark.parametrize(("path", "logged", "scenario", "variant"), PLACES)
def test_scenario_and_variant_stand_in_the_names_of_a_submissions_folders(
    path: str, logged: str | None, scenario: str | None, variant: str | None
) -> None:
    place = place_of(Path(path).parts, logged)
    assert (place.scenario, place.variant) == (scenario, variant)


def test_a_result_of_mlcommons_endpoints_is_said_not_to_be_read(tmp_path: Path) -> None:
    write(tmp_path / "Offline" / "performance", {"result_summary.json": "{}"})
    [found] = find_results(tmp_path)
    assert found.path == "Offline/performance"
    assert "endpoints" in (found.error or "")
