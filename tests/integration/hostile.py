"""MLPerfRuns that nobody should write: sound ones with a few places changed, as a hypothesis strategy.

Their specs and most of the strings are those of tests/unit/core/test_hostile_values.py, which holds everything that is
rendered from them against what a shell, a path and a name may be. Here the whole object is hostile.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlperf_operator import naming
from mlperf_operator.api.v1alpha1 import API_VERSION, KIND
from unit.core.test_hostile_values import HOSTILE, SPECS

Body = dict[str, Any]
Place = tuple[str | int, ...]

NEIGHBOUR = "neighbour"
"""Name in the labels of the objects that are not a run's own, and what some runs are called after."""

NEIGHBOUR_UID = "00000000-0000-4000-8000-000000000001"

SUFFIXES = ("", "-collect", "-agent", "-gpu-config", "-scratch", "-results")
"""What a run's children have behind its name."""

OWN_SUITE: Body = {
    "suite": "own",
    "system": "X",
    "benchmarks": [{"name": "any", "scenarios": ["Offline"]}],
    "expectations": [{"benchmark": "any", "scenario": "Offline", "metric": "m", "min": "1"}],
}
REFERENCE: Body = {
    "suite": "reference-cpu",
    "system": "CPU_REFERENCE",
    "benchmarks": [{"name": "digits", "scenarios": ["Offline", "SingleStream"]}],
    "testModes": ["PerformanceOnly"],
    "gpuConfig": {"overrides": [{"benchmark": "digits", "scenario": "Offline", "field": "threads", "value": 1}]},
    "scratch": {"claimTemplate": {"size": "1Gi", "deleteWithRun": True}},
    "nodeSelector": {"a.example/b": "c"},
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}},
    "imagePullSecrets": [{"name": "registry"}],
    "ttlSecondsAfterFinished": 3600,
    "backoffLimit": 1,
    "baseline": {"policy": "Ignore", "tolerancePercent": 5},
}
# Suspended, so that the few that are accepted get a Job and no pod: there is no node that could run one.
BASES: list[Body] = [{**spec, "suspend": True} for spec in (*SPECS, OWN_SUITE, REFERENCE)]

TEXTS: list[str] = [
    *HOSTILE,
    *("$(MAKE) -C /", "\tall:\n\t@id", "{{ lipsum.__globals__ }}", "{#", "${{ secrets }}", "%{id}", "`${7*7}`"),
    *("' || true || '", '" + self.suite + "', "self.metadata", "!!python/object/apply:os.system [id]", "&a [*a, *a]"),
    *("---\nkind: Secret", "a: {b: c}", "null", "~", "yes", "1e3", "0x10", "\x7f", "\x1b[31m", "\u0000", "\ufeffa"),
    *("\U0001d54f" * 20, "\u200b", "ﷺ" * 50, "/proc/self/root", "/mnt/scratch/../../etc", "//etc//passwd", "/"),
    *("..%2f..%2fetc", "file:///etc/passwd", "http://169.254.169.254", "https://s3.example@evil.example", "CON"),
    *("a" * 63, "a" * 64, "a" * 253, "a" * 254, f"{'a' * 253}/b", f"{'a' * 317}", "a" * 100_000, "A/b/c", "/a", "a/"),
    *("kube-system", "default", "system:masters", "mlperf-operator", "latest", "localhost/x@sha256:0", "x" * 512),
    *("9" * 32, "0.0000000000000000000000000001", "1E", "0", "-0", "99999999999Ei", "1m", "0.1m", "--config=/etc"),
]
EDGES: list[str] = [
    *("a-b.c", "a..b", "A_b.-c", "0", "1.5", "a--b", "550.1.2", "1Ei", "x.y/z_w", "x:5000/y@z", "a" * 63, "1m", "null"),
    *("/", "//", "/-x/./y", "/mnt/scratch/..", "/mnt/scratch", "/mnt/scratch/a/../../../etc", "0.0000001", "9" * 32),
    *("Triton", "TEST04", "SingleStream", "Memory", "ReadWriteMany", "NoExecute", "Equal", "AccuracyOnly", "Image"),
    *("registry.example/a..b/../c:x@", "registry.examplex", "http://s3.example", "https://s3.example:0:1", "threads"),
    *(
        "reference-cpu",
        "nvidia-v4.1",
        "digits",
        "Offline",
        "Ensure",
        "Ignore",
        "RuntimeClass",
        "HarnessParity",
        "trees",
    ),
    *(f"{NEIGHBOUR}-scratch", f"{NEIGHBOUR}-agent", "kube-root-ca.crt", "kubernetes.io/hostname", "batch_size"),
]
"""What the patterns of some fields let pass."""


def _nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def _any(*values: Any) -> tuple[Any, ...]:
    return values


NUMBERS: list[Any] = [True, False, 0, 1, 2, 8, 9, 10, 16, 60, 100, 604_800, 2_592_000, 315_360_000]
THINGS: list[Any] = [
    *(None, *NUMBERS, -1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**40),
    *(0.5, -0.0, 1e308, 1e-320, "1", "", [], {}, [None], [[]], [{}], {"": ""}, {"a": None}, ["x", "x"]),
    *(_nested(20), _nested(200), ["x"] * 2000, {f"k{i}": "v" for i in range(2000)}, {"a" * 400: "b"}),
    *({"claimName": "a", "hostPath": {"path": "/etc"}}, {"hostPath": {"path": "/mnt/scratch"}}, {"emptyDir": {}}),
    *({"hostPath": {"path": "/mnt/scratch/.."}}, {"claimTemplate": {"size": "0"}}, {"name": f"{NEIGHBOUR}-agent"}),
    *({"claimName": f"{NEIGHBOUR}-scratch"}, {"$ref": "#/definitions/x"}, {"__proto__": {"a": 1}}, {"name": "a.b"}),
    *([{"name": "bert"}, {"name": "bert"}], [{"name": "digits"}] * 9, [{"operator": "Exists"}] * 40),
    *({"image": "registry.example/x", "path": "/.."}, {"claimName": "trees", "image": "registry.example/x"}),
]

NAMES: list[Any] = [
    *(f"{NEIGHBOUR}{suffix}" for suffix in SUFFIXES),
    *("a.b", "a..b", "-a", "a-", "A", "a_b", "", "a" * 52, "a" * 53, "a" * 254, "é", "a b", "a/b", "..", "%2e%2e"),
    *("1", "a.b.c.d", "x-" + "collect-" * 6 + "a", "status", "a\nb", "\x00", None, 7, {}, ["a"]),
]

METADATA: list[Body] = [
    *({"name": name} for name in NAMES),
    {"name": None, "generateName": "made-"},
    {"name": None, "generateName": "../"},
    {"labels": {naming.MANAGED_BY_LABEL: naming.MANAGER, naming.RUN_LABEL: NEIGHBOUR}},
    {"labels": {naming.RUN_UID_LABEL: NEIGHBOUR_UID, "kueue.x-k8s.io/queue-name": "q"}},
    *({"labels": labels} for labels in ({"a b": "c"}, {"a": "b" * 64}, {"a": None}, {"a": 1}, {"": ""}, "x", ["x"])),
    {"labels": {f"l{i}": "v" * 63 for i in range(500)}},
    *({"annotations": found} for found in ({"a": "x" * 200_000}, {"a": "x" * 300_000}, {"a b": ""}, {"a": 1}, "x")),
    {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kopf.zalando.org/progress": "{"}},
    {"finalizers": ["example.com/never", "foregroundDeletion", "orphan"]},
    *({"finalizers": found} for found in _any(["no-domain"], ["a b/c"], "x", [1])),
    {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": NEIGHBOUR, "uid": NEIGHBOUR_UID}]},
    {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "blockOwnerDeletion": True}]},
    {"ownerReferences": [{"apiVersion": API_VERSION, "kind": KIND, "name": "x", "uid": "y", "controller": True}] * 2},
    *({"ownerReferences": found} for found in _any([{}], "x", [{"apiVersion": "", "kind": "", "name": "", "uid": ""}])),
    *({"namespace": found} for found in ("kube-system", "", None, "../default", 1)),
    {"uid": NEIGHBOUR_UID, "resourceVersion": "", "generation": -5, "selfLink": "/../x", "creationTimestamp": None},
    *({"resourceVersion": found} for found in ("1", "x", 1)),
    *({"creationTimestamp": found} for found in ("0000-01-01T00:00:00Z", "yesterday", 1)),
    {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": -1},
    *(
        {"managedFields": found}
        for found in _any([{"manager": "m", "operation": "Apply"}], [{}], "x", [{"fieldsV1": 1}])
    ),
    {"unknown": "field"},
]

TOP: list[Body] = [
    {"status": {"conditions": [{"type": "Finished", "status": "True", "reason": "x"}], "jobName": NEIGHBOUR}},
    *({"status": found} for found in _any(None, "x", {"results": [{}]}, {"conditions": "x"})),
    *({"spec": found} for found in _any(None, "x", [], {}, 1)),
    *({"metadata": found} for found in _any(None, "x", [])),
    *({"apiVersion": found} for found in ("mlperf.dev/v1", "v1", "", None, 1)),
    *({"kind": found} for found in ("Secret", "MLPerfRunList", "", None)),
    {"data": {"a": "b"}, "type": "Opaque"},
]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where anything stands in a spec, the spec itself left out."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def _put(holder: Any, key: Any, value: Any) -> None:
    holder[key] = copy.deepcopy(value)


def _drop(holder: Any, key: Any, _: Any) -> None:
    del holder[key]


def _add_field(holder: Any, key: Any, value: Any) -> None:
    target = holder[key] if isinstance(holder[key], dict) else holder
    if isinstance(target, dict):
        target["unknownField"] = copy.deepcopy(value)


def _repeat(holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder[key], list):
        holder[key] *= 3
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = [holder[key]]


def _rename(holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, dict):
        holder[value if isinstance(value, str) else "renamed"] = holder.pop(key)


Change = Callable[[Any, Any, Any], None]
CHANGES: list[tuple[Change, list[Any]]] = [
    (_put, TEXTS),
    (_put, THINGS),
    *[(_put, [*EDGES, *NUMBERS])] * 3,
    *[(_drop, [None])] * 3,
    (_add_field, [*TEXTS[:5], *THINGS[:5]]),
    (_repeat, [None]),
    (_rename, [*TEXTS, *EDGES]),
]
PLACES = [list(places(base)) for base in BASES]
PICKS = st.tuples(st.integers(0, 10_000), st.integers(0, len(CHANGES) - 1), st.integers(0, 10_000))
EXTRAS = st.one_of(*[st.just({})] * 4, st.sampled_from([*METADATA, *TOP]))


@st.composite
def hostile_runs(draw: st.DrawFn) -> Body:
    """An MLPerfRun without a name of its own unless that is what is hostile."""
    number = draw(st.integers(0, len(BASES) - 1))
    spec = copy.deepcopy(BASES[number])
    for place, kind, pick in draw(st.lists(PICKS, min_size=1, max_size=2)):
        change, values = CHANGES[kind]
        _change(spec, PLACES[number][place % len(PLACES[number])], change, values[pick % len(values)])
    body: Body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {}, "spec": spec}
    extra = draw(EXTRAS)
    if extra in METADATA:
        body["metadata"] = copy.deepcopy(extra)
    else:
        body |= copy.deepcopy(extra)
    return body


def _change(spec: Body, place: Place, change: Change, value: Any) -> None:
    holder: Any = spec
    try:
        for step in place[:-1]:
            holder = holder[step]
        change(holder, place[-1], value)
    except (KeyError, IndexError, TypeError):
        return  # an earlier change took the place away


def generated(count: int, strategy: st.SearchStrategy[Body]) -> list[Body]:
    """Return so many different examples of a strategy, the same in each call."""
    found: dict[str, Body] = {}

    # More than that, because some come twice.
    @settings(
        max_examples=count * 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(body: Body) -> None:
        if len(found) < count:
            found.setdefault(json.dumps(body), body)

    collect()
    assert len(found) == count
    return list(found.values())
