"""Whether a result that can be read is the one that was asked for: its folder and metadata.json name that too.

LoadGen knows nothing of variant, accuracy target and power setting. Where NVIDIA's harness (v4.1,
code/actionhandler/run_harness.py) says something else than what was asked for, the result is of something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlperf_operator.agent.causes import Explained, because
from mlperf_operator.api.v1alpha1 import Cause, PowerSetting, TestMode
from mlperf_operator.results import Result
from mlperf_operator.results.files import Files
from mlperf_operator.results.layout import place_of, scenario_of, short_name
from mlperf_operator.results.merge import mode_of
from mlperf_operator.results.metadata import Metadata, parse_metadata
from mlperf_operator.results.model import Accuracy, ResultError
from mlperf_operator.results.read import MAX_TEXT_BYTES, METADATA
from mlperf_operator.results.targets import bounds_of, scores_of

_CONFIG = re.compile(r"_k_(?P<target>99(?:_9)?)_(?P<power>Max[PQ])-(?P<scenario>[A-Za-z]{1,40})$")
"""The end of a config's name, such as DGX-A100_A100-SXM4-40GBx8_TRT-custom_k_99_9_MaxP-Server."""

_TARGET = re.compile(r"-(99(?:\.9)?)$")


def doubt(entry: Mapping[str, Any], result: Result, log_dir: Path, files: Files) -> Explained | None:
    """Return why a result of a step is of something else than what was asked for, None when nothing says so.

    Raises:
        OSError: metadata.json cannot be read.
    """
    try:
        metadata = _metadata(log_dir / result.path / METADATA, files)
    except ResultError as error:
        # The harness writes it last.
        return because(Cause.PARTIAL_LOGS, str(error))
    said = [_other_folder(entry, result), *(_contradictions(entry, result, metadata) if metadata is not None else ())]
    text = next(filter(None, said), None)
    if text is not None:
        return because(Cause.NO_RESULT, text)
    absent = _absent_scores(entry, result)
    return because(Cause.ACCURACY_SCRIPT_FAILED, f"there is no {', '.join(absent)}") if absent else None


def held(item: Accuracy, variant: str) -> Accuracy:
    """Return an accuracy item held against MLCommons' own bounds too: the tree may ask for less than its variant."""
    bounds = bounds_of(variant, item.name)
    allowed = bounds.allow(item.value)
    if allowed is None or item.passed is False:
        return item
    known = [bound for bound in (item.threshold, bounds.lowest) if bound is not None]
    return Accuracy(item.name, item.value, max(known, default=None), allowed)


def _metadata(path: Path, files: Files) -> Metadata | None:
    file = files.find(path)
    if file is None:
        return None
    with file:
        return parse_metadata(file.read(MAX_TEXT_BYTES).decode("utf-8-sig", errors="replace"))


def _other_folder(entry: Mapping[str, Any], result: Result) -> str | None:
    # What lies above the log folder has the benchmark's name, which is no variant.
    found = place_of(("", *Path(result.path).parts), entry["scenario"]).variant
    asked = entry["variant"]
    return None if found in (None, asked, short_name(asked)) else f"the folder is called {found}, asked for was {asked}"


def _contradictions(entry: Mapping[str, Any], result: Result, metadata: Metadata) -> list[str | None]:
    mode, scenario = mode_of(metadata.mode), scenario_of(metadata.scenario)
    return [
        _unlike("test mode", mode, entry["mode"]),
        _unlike("scenario", scenario, entry["scenario"]),
        _unlike("variant", metadata.variant, entry["variant"]),
        _other_config(entry, metadata.config_name or ""),
        "metadata.json says INVALID, LoadGen's log VALID"
        if (result.validity, metadata.validity) == ("VALID", "INVALID")
        else None,
    ]


def _unlike(what: str, said: str | None, asked: str) -> str | None:
    return None if said in (None, asked) else f"metadata.json is of {what} {said}, asked for was {asked}"


def _other_config(entry: Mapping[str, Any], name: str) -> str | None:
    found, target = _CONFIG.search(name), _TARGET.search(entry["variant"])
    if found is None:
        return None
    asked = {
        "target": target[1].replace(".", "_") if target is not None else found["target"],
        "power": entry.get("powerSetting", PowerSetting.MAX_P.value),
        "scenario": entry["scenario"],
    }
    if found.groupdict() == asked:
        return None
    return f"the harness used the configuration {name[:200]}, asked for was {' '.join(asked.values())}"


def _absent_scores(entry: Mapping[str, Any], result: Result) -> list[str]:
    if entry["mode"] != TestMode.ACCURACY or not result.accuracy:
        return []
    found = {item.name.lower() for item in result.accuracy}
    return [name for name in scores_of(entry["variant"]) if name.lower() not in found]
