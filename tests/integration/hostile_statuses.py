"""Statuses that nobody should write, of runs and of pods, as hypothesis strategies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from integration.hostile import EDGES, NEIGHBOUR, TEXTS, Body

TIMES = [
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "2026-01-02T03:04:05.123456789Z"),
    *("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "2026-01-02T03:04:05", "2026-01-02", "", "yesterday"),
]
_TEXT = st.sampled_from([*TEXTS[:40], *EDGES, NEIGHBOUR, "", "x" * 1000])
_TIME = st.sampled_from(TIMES)
_NUMBER = st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**63 - 1])


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Body]:
    return st.fixed_dictionaries({}, optional=fields)


def statuses() -> st.SearchStrategy[Body]:
    """A status that nobody but the operator should write, in the form that the schema wants."""
    condition = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Accepted", "Suspended", "Succeeded", "Finished", "Prepared", "Ready"]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": _TEXT,
        },
        optional={"message": _TEXT, "lastTransitionTime": _TIME, "observedGeneration": _NUMBER},
    )
    stage = st.fixed_dictionaries(
        {"name": _TEXT, "state": st.sampled_from(["Pending", "Running", "Completed", "Skipped", "Failed"])},
        optional={"startedAt": _TIME, "finishedAt": _TIME, "exitCode": _NUMBER, "message": _TEXT},
    )
    result = st.fixed_dictionaries(
        {"benchmark": _TEXT, "variant": _TEXT, "scenario": _TEXT, "mode": st.just("PerformanceOnly")},
        optional={"metric": st.just({"name": "x", "value": 1e308, "unit": "ns"}), "missing": _TEXT},
    )
    return _some(
        startTime=_TIME,
        completionTime=_TIME,
        jobName=_TEXT,
        podName=_TEXT,
        attempts=_NUMBER,
        observedGeneration=_NUMBER,
        configDigest=_TEXT,
        node=_TEXT,
        stage=_TEXT,
        summary=_TEXT,
        artifacts=st.fixed_dictionaries({"path": _TEXT}, optional={"claim": _TEXT, "uploadedTo": _TEXT}),
        driver=_some(version=_TEXT, managedBy=_TEXT),
        gpu=_some(product=_TEXT, count=_NUMBER),
        conditions=st.lists(condition, max_size=4, unique_by=lambda item: str(item["type"])),
        stages=st.lists(stage, max_size=4, unique_by=lambda item: str(item["name"])),
        results=st.lists(result, max_size=3),
    )


def pod_statuses() -> st.SearchStrategy[Body]:
    """A pod's status that no kubelet writes."""
    ended = _some(exitCode=_NUMBER, reason=_TEXT, message=_TEXT, startedAt=_TIME, finishedAt=_TIME)
    states = [("terminated", ended), ("running", _some(startedAt=_TIME)), ("waiting", _some(reason=_TEXT))]
    state = st.one_of(st.just({}), *(st.fixed_dictionaries({name: facts}) for name, facts in states))
    names = st.sampled_from(["collect", "run", "preflight", "code", "", "x" * 300, "run"])
    container = st.fixed_dictionaries(
        {"name": names, "state": state, "image": _TEXT, "imageID": _TEXT, "ready": st.booleans()},
        optional={"restartCount": _NUMBER},
    )
    condition = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["PodScheduled", "DisruptionTarget", "Ready"]),
            "status": st.sampled_from(["True", "x"]),
        },
        optional={"lastTransitionTime": _TIME, "message": _TEXT},
    )
    return _some(
        phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown", "x", ""]),
        reason=_TEXT,
        message=_TEXT,
        startTime=_TIME,
        conditions=st.lists(condition, max_size=3),
        initContainerStatuses=st.lists(container, max_size=3),
        containerStatuses=st.lists(container, max_size=3),
    )
