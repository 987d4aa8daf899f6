"""The metrics of runs and nodes, made anew from the informers' records at each scrape: pure.

Nothing is counted here, so nothing is lost or counted twice when the operator restarts, and what is deleted vanishes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from prometheus_client.core import GaugeMetricFamily

from mlperf_operator.nodes.records import NodeRecord
from mlperf_operator.observed import RunRecord
from mlperf_operator.run_facts import JUDGED, ResultFacts, ResultKey, RunFacts, facts_of

MAX_ENTRIES = 10_000
"""Most nodes' runs, results, states or stages that are shown of each kind; the latest are kept."""

OTHER = "other"
"""In place of a suite that is not known: a user may write anything there."""

K = TypeVar("K")

_Where = tuple[str, str, str]
"""Namespace, node, suite."""

_WHERE = ("namespace", "node", "suite")
_RESULT = tuple(field for field in ResultKey._fields if field != "mode")


class Fleet:
    """All runs, folded into what is shown of them."""

    def __init__(self, suites: Collection[str], limit: int = MAX_ENTRIES) -> None:
        self._suites = suites
        self._limit = limit
        self._states: Counter[tuple[str, str, str, str]] = Counter()
        self._running: dict[tuple[str, str, str, str], float] = {}
        self._last: dict[_Where, RunFacts] = {}
        self._results: dict[ResultKey, list[tuple[float, str, ResultFacts]]] = {}
        self._nodes: list[NodeRecord] = []
        self._left_out: dict[str, int] = {}

    def add(self, record: RunRecord) -> None:
        """Take in a run."""
        run = facts_of(record)
        suite = run.suite if run.suite in self._suites else OTHER
        self._states[run.namespace, suite, run.state, run.reason] += 1
        for stage, started in run.running:
            key = (run.namespace, run.node, suite, stage)
            self._running[key] = min(started, self._running.get(key, started))
        if run.completed is None:
            return
        where = (run.namespace, run.node, suite)
        if where not in self._last or _order(self._last[where]) < _order(run):
            self._last[where] = run
        for result in run.results:
            known = self._results.setdefault(result.key, [])
            known.append((*_order(run), result))
            known.sort(key=lambda entry: entry[:2], reverse=True)
            del known[2:]

    def add_nodes(self, nodes: Iterable[NodeRecord]) -> None:
        """Take in the nodes whose driver has a report."""
        self._nodes += [node for node in nodes if node.told is not None]

    def families(self) -> Iterator[GaugeMetricFamily]:
        """Return the metrics."""
        yield self._runs()
        yield self._stages_running()
        yield from self._last_runs()
        yield from self._last_results()
        yield from self._drivers()
        left_out = _gauge("mlperf_metrics_left_out", "Entries beyond the limit of metrics, by kind.", "kind")
        for kind, count in self._left_out.items():
            left_out.add_metric((kind,), count)
        yield left_out

    def _within(self, kind: str, keys: list[K]) -> list[K]:
        """Return as many keys as the limit allows, the first ones, and note how many that leaves out."""
        self._left_out[kind] = max(0, len(keys) - self._limit)
        return keys[: self._limit]

    def _runs(self) -> GaugeMetricFamily:
        family = _gauge("mlperf_runs", "MLPerfRuns that are there.", "namespace", "suite", "state", "reason")
        for key in self._within("states", [key for key, _ in self._states.most_common()]):
            family.add_metric(key, self._states[key])
        return family

    def _stages_running(self) -> GaugeMetricFamily:
        family = _gauge(
            "mlperf_stage_running_start_timestamp_seconds",
            "When the stage that runs there began; of several runs the first.",
            *_WHERE,
            "stage",
        )
        for key in self._within("stages", sorted(self._running, key=lambda key: self._running[key])):
            family.add_metric(key, self._running[key])
        return family

    def _last_runs(self) -> Iterator[GaugeMetricFamily]:
        about = "of the last run that finished on a node."
        ended = _gauge("mlperf_last_run_completion_timestamp_seconds", f"End {about}", *_WHERE)
        taken = _gauge("mlperf_last_run_duration_seconds", f"Time from start to end {about}", *_WHERE)
        stages = _gauge("mlperf_last_run_stage_duration_seconds", f"Time of each stage {about}", *_WHERE, "stage")
        words = f"Conditions {about} 1: True, 0: False; one that is Unknown is not there."
        conditions = _gauge("mlperf_last_run_condition", words, *_WHERE, "condition", "reason")
        latest = sorted(self._last, key=lambda where: _order(self._last[where]), reverse=True)
        for where in self._within("runs", latest):
            run = self._last[where]
            if run.completed is not None:
                ended.add_metric(where, run.completed)
                if run.started is not None:
                    taken.add_metric(where, max(0.0, run.completed - run.started))
            for stage, seconds in run.stages:
                stages.add_metric((*where, stage), seconds)
            for kind in JUDGED:
                said = run.conditions.get(kind, {})
                if said.get("status") in ("True", "False"):
                    reason = str(said.get("reason", ""))
                    conditions.add_metric((*where, kind, reason), float(said["status"] == "True"))
        yield from (ended, taken, stages, conditions)

    def _last_results(self) -> Iterator[GaugeMetricFamily]:
        value, before, valid, accuracy, passed, ended = _result_families()
        latest = sorted(self._results, key=lambda key: self._results[key][0][:2], reverse=True)
        for key in self._within("results", latest):
            completed, _, result = self._results[key][0]
            labels = tuple(text for field, text in zip(key._fields, key, strict=True) if field != "mode")
            ended.add_metric(key, completed)
            if result.valid is not None:
                valid.add_metric(labels, float(result.valid))
            if result.metric is not None:
                name, unit, number = result.metric
                value.add_metric((*labels, name, unit), number)
                earlier = self._results[key][1][2].metric if len(self._results[key]) > 1 else None
                if earlier is not None and earlier[:2] == (name, unit):
                    before.add_metric((*labels, name, unit), earlier[2])
            for name, (number, reached) in result.accuracy.items():
                accuracy.add_metric((*labels, name), number)
                if reached is not None:
                    passed.add_metric((*labels, name), float(reached))
        yield from (value, before, valid, accuracy, passed, ended)

    def _drivers(self) -> Iterator[GaugeMetricFamily]:
        state = _gauge(
            "mlperf_node_driver_state", "How a node's driver stands; always 1.", "node", "phase", "reason", "wanted"
        )
        labels = ("node", "driver", "fabric_manager", "product", "managed_by")
        info = _gauge("mlperf_node_driver_info", "What a node's driver pod found; always 1.", *labels)
        for node in self._within("nodes", sorted(self._nodes, key=lambda node: node.name)):
            told = node.told
            if told is None:
                continue
            state.add_metric((node.name, told.phase.value, told.reason, told.version or ""), 1)
            found = (told.driver, told.fabric_manager, told.product, told.managed_by)
            info.add_metric((node.name, *(text or "" for text in found)), 1)
        yield from (state, info)


def _result_families() -> tuple[GaugeMetricFamily, ...]:
    about = "of the last run that measured it."
    metric = (*_RESULT, "metric", "unit")
    return (
        _gauge("mlperf_result_value", f"LoadGen's primary metric {about}", *metric),
        _gauge("mlperf_result_previous_value", "The same, of the run before that one.", *metric),
        _gauge("mlperf_result_valid", f"1: LoadGen says VALID, 0: INVALID {about}", *_RESULT),
        _gauge("mlperf_result_accuracy", f"Accuracy {about}", *_RESULT, "metric"),
        _gauge("mlperf_result_accuracy_passed", f"1: its threshold was reached, 0: missed {about}", *_RESULT, "metric"),
        _gauge("mlperf_result_timestamp_seconds", f"End {about}", *ResultKey._fields),
    )


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _order(run: RunFacts) -> tuple[float, str]:
    """Return what decides which of two finished runs is the later one."""
    return (run.completed or 0.0, run.uid)
