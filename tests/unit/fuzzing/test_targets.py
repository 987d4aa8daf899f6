"""Whatever others wrote, it is read or refused, and in a time that grows no faster than its length."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlperf_operator.gpu_config_schema import ConfigError, parse_system_config
from unit.fuzzing.targets import TARGETS

JUNK = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", errors="replace")),
    st.integers(1, 3000).map(lambda depth: b"[" * depth),
    st.integers(1, 3000).map(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth),
    st.integers(1, 20_000).map(lambda digits: b"9" * digits),
)


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Return a good text of which a part is cut out, replaced or repeated."""
    seed = draw(st.sampled_from(seeds))
    start, end = sorted((draw(st.integers(0, len(seed))), draw(st.integers(0, len(seed)))))
    middle = draw(st.one_of(JUNK, st.integers(2, 5).map(lambda times: seed[start:end] * times)))
    return seed[:start] + middle + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
def test_no_exception_leaves_a_reader(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=60, deadline=None)
    @given(JUNK | damaged(target.seeds))
    def reads(data: bytes) -> None:
        target.read(data)

    for seed in target.seeds:
        target.read(seed)
    reads()


LOG = b':::MLLOG {"key": "result_validity", "value": '
WORST: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "a line of nothing but a value's name": ("detail", lambda n: LOG + b'"value":' * (n // 8)),
    "commas before no time": ("detail", lambda n: LOG + b", " * (n // 2)),
    "spaces before no time": ("detail", lambda n: LOG + b"1," + b" " * n + b'"time'),
    "markers in one line": ("detail", lambda n: b":::MLLOG" * (n // 8)),
    "one line a marker": ("detail", lambda n: b":::MLLOG\n" * (n // 9)),
    "keys": ("detail", lambda n: b'\n:::MLLOG {"key": "result_%d", "value": 1}' * (n // 40)),
    "lines without a marker": ("detail", lambda n: LOG + b"x\n" * (n // 2)),
    "digits": ("detail", lambda n: LOG + b"1" * n + b', "time_ms": 1, "metadata": {}}'),
    "errors": (
        "detail",
        lambda n: b':::MLLOG {"key": "e", "value": "x", "metadata": {"is_error": true}}\n' * (n // 68),
    ),
    "spaces before no constraint": ("summary", lambda n: (b" " * 990 + b"x\n") * (n // 992)),
    "words before no constraint": ("summary", lambda n: (b" satisfied" * 99 + b"\n") * (n // 991)),
    "spaces before no colon": ("summary", lambda n: (b"x" + b" " * 990 + b"y\n") * (n // 993)),
    "verdicts": ("summary", lambda n: b"Result is : VALID\n" * (n // 18)),
    "footers": ("summary", lambda n: b"No warnings encountered\n" * (n // 24)),
    "digits of an estimate": (
        "summary",
        lambda n: b"Early stopping 99th percentile estimate: " + b"1" * 900 + b"\n" * (n - 950),
    ),
    "spaces after accuracy": ("accuracy", lambda n: b"accuracy" + b" " * n),
    "spaces after a name": ("accuracy", lambda n: b"Accuracy:" + b" " * n + b"mean"),
    "names": ("accuracy", lambda n: b"'f1': " * (n // 6)),
    "error rates without a number": ("accuracy", lambda n: b"Word Error Rate:" * (n // 16)),
    "digits of an accuracy": ("accuracy", lambda n: b"AUC=" + b"1" * n),
    "keys of metadata": ("metadata", lambda n: b'{"scenario": 1' + b', "a": 1, "a": 2' * (n // 16) + b"}"),
    "accuracy items": ("metadata", lambda n: b'{"accuracy": [' + b"[], " * (n // 4) + b"1]}"),
    "an endless config name": (
        "metadata",
        lambda n: b'{"scenario": "a", "config_name": "' + b"_k_99_" * (n // 6) + b'"}',
    ),
    "a target of underscores": ("metadata", lambda n: b'{"scenario": "a", "config_name": "_k_99' + b"_" * n + b'"}'),
    "an unclosed text": ("metadata", lambda n: b'{"scenario": "' + b"\\" * n),
    "open brackets": ("metadata", lambda n: b"[" * n),
    "lines of a report": ("collected", lambda n: b'{"kind": "result"}\n' * (n // 19)),
    "open objects": ("termination", lambda n: b'{"a":' * (n // 5)),
    "values of a system": ("gpu-config", lambda n: b"system: a\n" * (n // 10)),
    "base 60": ("gpu-config", lambda n: b"system: 1" + b":5" * (n // 2)),
    "base 60 with a point": ("gpu-config", lambda n: b"system: 1" + b":5" * (n // 2) + b".5"),
    "entries of nothing": ("gpu-config", lambda n: b"configs:\n" + b"- {}\n" * (n // 5)),
    "an unclosed value": ("gpu-config", lambda n: b"system: 'a" + b"\n" * n),
    "lists in lists": ("gpu-config", lambda n: b"[" * n),
}


def _seconds(name: str, data: bytes) -> float:
    """Return the least processor time of three tries, which a busy machine does not change much."""
    found = []
    for _ in range(3):
        start = time.process_time()
        TARGETS[name].read(data)
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.parametrize("case", WORST)
def test_the_time_grows_no_faster_than_the_text(case: str) -> None:
    name, make = WORST[case]
    length = 16_384 if name in ("gpu-config", "plan") else 65_536
    short, long = (_seconds(name, make(length * times)) for times in (1, 4))
    # Linear is 4 times, quadratic 16; below 40 ms a clock says little.
    assert long < 8 * short + 0.04, f"{short:.3f} s, and {long:.3f} s for 4 times the text"
    assert short < 2


def test_of_thousands_of_problems_the_first_are_named_and_the_others_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_system_config("system: a\nsuites: [b]\nconfigs:\n" + "- {}\n" * 1000, "a.yaml")
    text = str(caught.value)
    assert text.startswith("a.yaml: configs.0.benchmark: Field required; ")
    assert text.endswith("; and 3980 more")
    assert len(text) < 2000
