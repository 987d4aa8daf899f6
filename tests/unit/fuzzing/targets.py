"""What reads text that others wrote, each with an input to begin from: for hypothesis and for `make fuzz`.

A target returns for every input. An exception that its parser does not document leaves it, and is a finding.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from mlperf_operator import report, stages
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.cli_results import to_item
from mlperf_operator.gpu_config_schema import ConfigError, parse_system_config
from mlperf_operator.observed import ContainerRecord, PodRecord
from mlperf_operator.resources.overrides import override_files, user_configs
from mlperf_operator.results.accuracy import parse_accuracy
from mlperf_operator.results.detail import parse_detail
from mlperf_operator.results.facts import facts_of
from mlperf_operator.results.metadata import parse_metadata
from mlperf_operator.results.model import ResultError
from mlperf_operator.results.read import ACCURACY, DETAIL, MAX_LINE, METADATA, SUMMARY, find_results
from mlperf_operator.results.summary import Summary, parse_summary
from mlperf_operator.suites import BUILT_IN
from unit.results import logs

UID = "11111111-2222-3333-4444-555555555555"
SYSTEM = "A100_SXM4_40GBx8"

_BETWEEN = b"\n%%%%\n"
"""Between the files of a folder in one input."""

_FILES = (METADATA, SUMMARY, DETAIL, ACCURACY)


@dataclass(frozen=True)
class Target:
    """A reader of foreign text, and what it reads when all is well."""

    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _as_json(value: object) -> str:
    """Return what is printed and sent: JSON has neither NaN nor infinity."""
    return json.dumps(value, allow_nan=False)


def metadata(data: bytes) -> None:
    with suppress(ResultError):
        _as_json(asdict(parse_metadata(_text(data))))


def summary(data: bytes) -> None:
    _as_json(asdict(parse_summary(_text(data))))


def detail(data: bytes) -> None:
    file = io.StringIO(_text(data))
    log = parse_detail(iter(partial(file.readline, MAX_LINE), ""))
    _as_json([log.number(key) for key in log.values])
    _as_json(asdict(facts_of(Summary(), log)))


def accuracy(data: bytes) -> None:
    for variant in ("bert-99.9", "llama3.1-8b", None):
        _as_json([asdict(item) for item in parse_accuracy(_text(data), variant)])


def folder(data: bytes) -> None:
    with TemporaryDirectory() as root:
        place = Path(root, "results", "system", "bert-99", "Offline", "performance", "run_1")
        place.mkdir(parents=True)
        for name, content in zip(_FILES, data.split(_BETWEEN), strict=False):
            (place / name).write_bytes(content)
        for result in find_results(Path(root)):
            _as_json(to_item(result))


def collected(data: bytes) -> None:
    """Read collect's log, whose digest fits: it is not the digest that is to be tried."""
    lines = [line + "\n" for line in _text(data).split("\n") if line]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    closing = json.dumps({"kind": "report", "uid": UID, "count": len(lines), "sha256": digest}) + "\n"
    for log, sha256 in (("".join([*lines, closing]), digest), (_text(data), digest)):
        with suppress(report.ReportError):
            report.parse_log(log, UID, sha256)


def termination(data: bytes) -> None:
    for name in ("preflight", "run", "collect"):
        container = ContainerRecord(name=name, state="Terminated", message=_text(data), exit_code=1)
        stages.termination(container)
        _as_json([stages.reason_of(container), stages.sentence(container)])
        with suppress(report.ReportError):
            report.announced(container, UID)
        stages.seen(_pod(container))


def _pod(container: ContainerRecord) -> PodRecord:
    fields = dict.fromkeys(PodRecord.__dataclass_fields__)
    return PodRecord(**{**fields, "containers": (container,)})  # type: ignore[arg-type] # nothing else is read


def gpu_config(data: bytes) -> None:
    with suppress(ConfigError):
        parse_system_config(_text(data), "a.yaml")


def plan(data: bytes) -> None:
    """Render a user's values for a run, as the operator does before it makes anything."""
    suite, run = BUILT_IN["nvidia-v4.1"], _run()
    with suppress(ConfigError):
        override_files(run, suite, user_configs({"a.yaml": _text(data)}, suite, SYSTEM, "the ConfigMap"))


@cache
def _run() -> MLPerfRun:
    spec = {
        "suite": "nvidia-v4.1",
        "system": SYSTEM,
        "benchmarks": [{"name": "bert"}, {"name": "3d-unet"}],
        "scratch": {"claimName": "scratch"},
    }
    return MLPerfRun.model_validate({"metadata": {"name": "fuzz", "namespace": "bench", "uid": UID}, "spec": spec})


_STOPPED = "Recommendations:\n * Reduce target QPS to improve latency.\nEarly Stopping Result:\n * Run unsuccessful."
_INVALID = logs.summary(
    "Completed samples per second : 1.5", "Server", verdict="INVALID", stopping="NO", block=_STOPPED
)
_SPOILED = ':::MLLOG {"key": "result_invalid_reason", "value": "raise "qps"\nplease", "time_ms": 1, "metadata": {}}\n'
_DETAIL = logs.detail(result_samples_per_second=1.5, early_stopping_result="x") + _SPOILED
_ACCURACY = '{"exact_match": 83.0, "f1": 90.38}\naccuracy=5%\nAccuracy: mean = 0.863, AUC=80.2\nhash=01\n'
_RESULT = {"benchmark": "bert", "variant": "bert-99", "scenario": "Offline", "mode": "PerformanceOnly"}
_LINE = json.dumps({"kind": "result", "uid": UID, "step": "a", "result": {**_RESULT, "validity": "VALID"}})
_FACTS = {"driver": "550.54.15", "product": "NVIDIA A100-SXM4-40GB", "count": 8}
_ENDED = json.dumps({"reason": "StageFailed", "message": "it failed", "tail": "line", "facts": _FACTS})
_CONFIG = yaml.safe_dump(
    {
        "system": SYSTEM,
        "suites": ["nvidia-v4.1"],
        "configs": [
            {
                "benchmark": "bert",
                "scenario": "Server",
                "values": {"server_target_qps": 11000, "gpu_batch_size": {"bert": 64}, "use_graphs": True},
                "origin": "measured",
            }
        ],
    }
)

TARGETS = {
    "metadata": Target(
        metadata, (logs.metadata().encode(), logs.accuracy_metadata({"name": "F1", "value": 90.0}).encode())
    ),
    "summary": Target(summary, (logs.summary().encode(), _INVALID.encode(), logs.FOOTER.encode())),
    "detail": Target(detail, (_DETAIL.encode(),)),
    "accuracy": Target(accuracy, (_ACCURACY.encode(),)),
    "folder": Target(folder, (_BETWEEN.join(t.encode() for t in (logs.metadata(), _INVALID, _DETAIL, _ACCURACY)),)),
    "collected": Target(collected, (_LINE.encode(),)),
    "termination": Target(termination, (_ENDED.encode(), b'{"kind": "report", "sha256": "0"}')),
    "gpu-config": Target(gpu_config, (_CONFIG.encode(),)),
    "plan": Target(plan, (_CONFIG.encode(),)),
}
