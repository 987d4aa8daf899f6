"""Whatever lies in a folder, it ends as a result or as an error, and never as a traceback."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from mlperf_operator.results import Result
from unit.results.logs import DETAIL, SUMMARY, accuracy_metadata, detail, metadata, read, summary

WHOLE = {
    DETAIL: detail(result_samples_per_second=1.5, early_stopping_result="x"),
    SUMMARY: summary(block="Recommendations:\n * Do less."),
    "metadata.json": metadata(accuracy=json.loads(accuracy_metadata({"name": "F1", "value": 90}))["accuracy"]),
    "accuracy.txt": '{"exact_match": 83.0, "f1": 90.38}\naccuracy=5%\n',
}


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, str | bytes]:
    """Return a folder's files, some cut, some with foreign bytes in them, some missing."""
    files: dict[str, str | bytes] = {}
    for name, text in WHOLE.items():
        content = text.encode()
        start, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
        how = draw(st.sampled_from(["whole", "missing", "cut", "spoiled", "junk"]))
        if how != "missing":
            files[name] = {
                "whole": content,
                "cut": content[start:end],
                "spoiled": content[:start] + draw(st.binary(max_size=20)) + content[end:],
                "junk": draw(st.binary(max_size=200)),
            }[how]
    return files


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [*json.loads(metadata()), "accuracy", "accuracy_pass"]
items = st.lists(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["name", "value", "threshold", "pass", "upper_limit"], json_values)
    )
)


def _read(files: dict[str, str | bytes]) -> Result:
    with TemporaryDirectory() as folder:
        return read(Path(folder), files)


@settings(max_examples=150, deadline=None)
@given(damaged())
def test_damaged_files_end_as_a_result_or_an_error(files: dict[str, str | bytes]) -> None:
    found = _read(files)
    json.dumps(asdict(found), allow_nan=False)
    if found.error is not None:
        assert found == Result(path=found.path, error=found.error)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({}, optional={**dict.fromkeys(KEYS, json_values), "accuracy": items | json_values}))
def test_any_metadata_json_ends_as_a_result_or_an_error(body: dict[str, object]) -> None:
    found = _read({"metadata.json": json.dumps(body)})
    json.dumps(asdict(found), allow_nan=False)
    assert found.error is not None or found.validity in (None, "VALID", "INVALID")
