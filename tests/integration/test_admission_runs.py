"""Runs and the policy `runs`: what a user is refused at once, and that the operator would refuse the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.admission import Wall, fresh, in_force, nvidia_run, run_of
from integration.chart import Object, container, only
from integration.test_chart_driver import PACKAGES
from mlperf_operator.acceptance import refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.controller import _limits
from mlperf_operator.limits import Limits
from mlperf_operator.settings import Settings
from mlperf_operator.suites import REFERENCE_CPU

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SYSTEM, BENCH, OTHER, PLAIN, FORBIDDEN = fresh("system", "bench", "other", "plain", "forbidden")
OWN_SUITE = REFERENCE_CPU.model_copy(update={"name": "own", "image": "registry.example/own:1"})
POLICIES = ("runs", "children", "jobs", "objects", "origin", "parity", "pods", "driver", "nodes")
STORE: Object = {"endpoint": "https://s3.example:9000", "bucket": "mlperf", "credentialsSecret": {"name": "s3"}}

VALUES: Object = {
    "suiteImages": {"reference-cpu": "registry.example:5000/harness:1"},
    "suites": [OWN_SUITE.model_dump(mode="json", by_alias=True)],
    "allowedNamespaces": [BENCH, OTHER, PLAIN],
    "allowedImages": ["registry.example/ok", "registry.example/open/", "docker.io"],
    "allowedHostPaths": ["/mnt/a/", "/mnt//b/./c", "/mnt/p/bench/", "/mnt/p/other"],
    "allowedCodeClaims": [f"{PLAIN}/code", f"{BENCH}/code", f"{BENCH}/foreign"],
    "allowedUploadEndpoints": ["https://s3.example:9000"],
    "allowedUploadSecrets": [f"{PLAIN}/s3", f"{BENCH}/other"],
    "harnessParity": {
        BENCH: {
            "volumes": ["scratch", "code", "made-scratch", "made-results", "/mnt/p/bench"],
            "images": ["registry.example/parity"],
            "nodeSelector": {"pool": "mlperf"},
        },
        OTHER: {"volumes": ["/mnt/p/other/"]},
    },
    "driver": {"enabled": True, "drivers": [{"branch": "550", "version": "550.54.14", "sources": [PACKAGES]}]},
}


@pytest.fixture(scope="module")
def wall(kubeconfig: str) -> Iterator[Wall]:
    with in_force(kubeconfig, VALUES, SYSTEM, [BENCH, OTHER, PLAIN, FORBIDDEN]) as found:
        yield found


@pytest.fixture(scope="module")
def limits(wall: Wall, tmp_path_factory: pytest.TempPathFactory) -> Limits:
    """What the operator that the same values configure would allow."""
    return limits_of(wall.rendered, SYSTEM, tmp_path_factory.mktemp("settings"))


def limits_of(objects: list[Object], namespace: str, folder: Path) -> Limits:
    with pytest.MonkeyPatch.context() as patch:
        for entry in container(objects)["env"]:
            patch.setenv(entry["name"], entry.get("value", namespace))
        for kind in ("suites", "driver"):
            kept = only(objects, "ConfigMap", f"mlperf-operator-{kind}")["data"][f"{kind}.yaml"]
            (folder / f"{kind}.yaml").write_text(kept)
            patch.setenv(f"MLPERF_OPERATOR_{kind.upper()}_FILE", str(folder / f"{kind}.yaml"))
        settings = Settings.from_environment()
        return _limits(settings, settings.driver())


def operators_word(limits: Limits, body: Object) -> str:
    """Return why the operator refuses a run, or nothing."""
    meta = {**body["metadata"], "uid": "1"}
    found = refusal(MLPerfRun.model_validate({"metadata": meta, "spec": body["spec"]}), limits)
    return f"{found.reason}: {found.message}" if found else ""


def volume(text: str | None) -> Object | None:
    """Return a volume: a claim, a host path, or what its name says."""
    if text is None:
        return None
    if text == "template":
        return {"claimTemplate": {"size": "1Gi"}}
    return {"hostPath": {"path": text}} if text.startswith("/") else {"claimName": text}


def given(**fields: Any) -> Object:
    return {key: value for key, value in fields.items() if value is not None}


IMAGES = (
    *(
        None,
        "registry.example:5000/harness:1",
        "registry.example/own:1",
        "registry.example/ok",
        "registry.example/ok:1",
    ),
    *(
        "registry.example/ok/a@sha256:0",
        "registry.example/okay",
        "registry.example/ok:5000/evil",
        "docker.io:5000/evil",
    ),
    *(
        "registry.example/open/a",
        "registry.example/open",
        "docker.io/a:1",
        "docker.io.evil/a",
        "mlperf-reference-harness",
    ),
    *("registry.example/parity:1", "registry.example/parity-evil"),
)
PATHS = (
    *("/mnt/a", "/mnt/a/", "/mnt/a/x", "/mnt/ab", "/mnt", "/", "/etc", "/mnt/a/../../etc", "/mnt/./a//x", "/mnt/b/c/d"),
    *(
        "/mnt/b",
        "/mnt/p",
        "/mnt/p/bench",
        "/mnt/p/bench/x",
        "/mnt/p/benches",
        "/mnt/p/other",
        "/mnt/p/other/x/",
        "/mnt/a/..b",
        "//mnt/a",
        "///mnt/a",
    ),
)


def table() -> Iterator[Object]:
    """Return runs of every kind that the limits are about, in every namespace."""
    yield from (run_of(namespace) for namespace in (BENCH, OTHER, PLAIN, FORBIDDEN, SYSTEM))
    yield from images()
    yield from paths()
    yield from claims()
    yield from others()


def images() -> Iterator[Object]:
    for image, namespace in itertools.product(IMAGES, (BENCH, PLAIN)):
        yield run_of(namespace, **given(image=image))
        yield nvidia_run(namespace, **given(image=image))
        yield nvidia_run(namespace, securityProfile="HarnessParity", **given(image=image))
        yield run_of(namespace, **given(code={"image": image} if image else None))


def paths() -> Iterator[Object]:
    for path, namespace in itertools.product(PATHS, (BENCH, OTHER, PLAIN)):
        for profile in ("Minimal", "HarnessParity"):
            yield nvidia_run(namespace, scratch=volume(path), securityProfile=profile)
        yield nvidia_run(namespace, results=volume(path), image="registry.example/ok:1")
        yield nvidia_run(namespace, results=volume(path), code={"claimName": "foreign"})


def claims() -> Iterator[Object]:
    for scratch, results, code, profile, image in itertools.product(
        ("scratch", "mine", "template"),
        (None, "scratch", "mine", "template"),
        (None, "code", "foreign", "unknown"),
        ("Minimal", "HarnessParity"),
        (None, "registry.example/ok:1", "registry.example/parity:1"),
    ):
        options = given(results=volume(results), code={"claimName": code} if code else None, image=image)
        yield nvidia_run(BENCH, scratch=volume(scratch), securityProfile=profile, **options)
        # Named so that a claim that it asks for gets the name of a listed one.
        yield nvidia_run(BENCH, "made", scratch=volume(scratch), securityProfile=profile, **options)
    for claim, path in itertools.product(("code", "other"), ("/", "/a/..", "/a/..b", "/../a")):
        yield nvidia_run(PLAIN, code={"claimName": claim, "path": path})


def others() -> Iterator[Object]:
    selectors: tuple[Object, ...] = ({}, {"pool": "mlperf"}, {"pool": "other"}, {"pool": "mlperf", "a": "b"})
    for profile, labels in itertools.product(("Minimal", "HarnessParity"), selectors):
        yield nvidia_run(BENCH, securityProfile=profile, nodeSelector=labels)
    endpoints = ("https://s3.example:9000", "http://s3.example:9000", "https://s3.example")
    for endpoint, prefix in itertools.product(endpoints, ("", "a/b", "a/../b", "./a", "..a")):
        yield run_of(PLAIN, upload={"s3": {**STORE, "endpoint": endpoint, "prefix": prefix}})
    for namespace, name in itertools.product((BENCH, PLAIN), ("s3", "other", "unknown")):
        yield run_of(namespace, upload={"s3": {**STORE, "credentialsSecret": {"name": name}}})
    for policy, version in itertools.product(("Auto", "Ensure", "Verify", "Ignore"), ("550", "550.54.14", "535", "55")):
        yield nvidia_run(PLAIN, driver={"policy": policy, "version": version})
    for access in ("DevicePlugin", "RuntimeClass"):
        yield nvidia_run(PLAIN, gpu={"access": access})
        yield run_of(PLAIN, gpu={"access": access})


def test_a_run_is_refused_exactly_where_the_operator_would_refuse_it(wall: Wall, limits: Limits) -> None:
    runs = list(table())
    judged = [(wall.user.create(body), operators_word(limits, body), body) for body in runs]
    assert [found for found in judged if bool(found[0]) != bool(found[1])] == []
    assert 100 < sum(bool(refused) for refused, _, _ in judged) < len(runs) - 100


LEFT_TO_THE_OPERATOR = {
    "ProfileNotNeeded": run_of(BENCH, securityProfile="HarnessParity", scratch={"claimName": "scratch"}),
    "NoDriverNeeded": run_of(PLAIN, driver={"policy": "Ensure"}),
    "GPUAccessNotPossible": nvidia_run(PLAIN, gpu={"access": "ResourceClaim"}),
    "OfflineNeedsImage": nvidia_run(PLAIN, environment={"offline": True}),
}


def test_what_a_suite_knows_of_itself_is_left_to_the_operator(wall: Wall, limits: Limits) -> None:
    for reason, body in LEFT_TO_THE_OPERATOR.items():
        assert operators_word(limits, body).startswith(f"{reason}: ")
        assert wall.user.create(body) == ""


def parity(**spec: Any) -> Object:
    return nvidia_run(BENCH, securityProfile="HarnessParity", **spec)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (run_of(SYSTEM), "this namespace is the operator's own: "),
        (run_of(FORBIDDEN), f"runs in namespace {FORBIDDEN} are not allowed; "),
        (
            run_of(PLAIN, scratch=volume("/etc")),
            "hostPath /etc is not allowed; the administrator allows: /mnt//b/./c, ",
        ),
        (run_of(PLAIN, scratch=volume("/mnt/a/../../etc")), "hostPath /mnt/a/../../etc is not allowed"),
        (
            run_of(PLAIN, image="evil.example/a"),
            "image evil.example/a is not allowed; possible: registry.example:5000/ha",
        ),
        (
            run_of(PLAIN, code={"image": "evil.example/a"}),
            "image evil.example/a is not allowed; possible: registry.exa",
        ),
        (run_of(PLAIN, code={"claimName": "code", "path": "/.."}), "code.path may not hold .."),
        (run_of(PLAIN, code={"claimName": "mine"}), "code.claimName mine is not allowed: "),
        (nvidia_run(PLAIN, securityProfile="HarnessParity"), "has not allowed it in namespace plain-"),
        (
            parity(image="registry.example/ok"),
            "image registry.example/ok is not allowed with securityProfile HarnessParity",
        ),
        (parity(nodeSelector={"pool": "mine"}), "nodeSelector contradicts where the administrator puts runs"),
        (
            parity(scratch={"claimName": "mine"}),
            "must be of the administrator's: scratch, code, made-scratch, made-results, /mnt/p/bench/ (chart",
        ),
        (run_of(PLAIN, results=volume("/mnt/p/other/x")), "the administrator keeps this volume for runs with security"),
        (
            run_of(PLAIN, upload={"s3": {**STORE, "endpoint": "http://evil"}}),
            "upload.s3.endpoint http://evil is not allow",
        ),
        (
            run_of(PLAIN, upload={"s3": {**STORE, "credentialsSecret": {"name": "mine"}}}),
            "upload.s3.credentialsSecret mine is not allowed in namespace plain-",
        ),
        (
            nvidia_run(
                BENCH,
                "made",
                image="registry.example/ok:1",
                scratch=volume("template"),
            ),
            "the administrator keeps this volume for runs with security",
        ),
        (run_of(PLAIN, upload={"s3": {**STORE, "prefix": "a/../b"}}), "upload.s3.prefix may hold neither . nor .."),
        (nvidia_run(PLAIN, gpu={"access": "RuntimeClass"}), "gpu.access RuntimeClass gives a pod every GPU"),
        (nvidia_run(PLAIN, driver={"policy": "Ensure", "version": "535"}), "possible: 550, 550.54.14 (chart values"),
    ],
)
def test_a_refusal_says_what_is_possible(wall: Wall, body: Object, said: str) -> None:
    assert said in wall.user.create(body)


def test_what_was_accepted_goes_on_when_the_limits_get_narrower(wall: Wall) -> None:
    """The administrator's own run stands for one of before: it breaks today's limits."""
    body = run_of(PLAIN, "of-before", image="evil.example/a", suspend=True)
    assert wall.administrator.create(body, dry=False) == ""
    for patch in (
        {"spec": {"suspend": False}},
        {"spec": {"ttlSecondsAfterFinished": 60}},
        {"metadata": {"labels": {"a": "b"}}},
    ):
        assert wall.user.change("MLPerfRun", PLAIN, "of-before", patch) == ""
    # That the rest never changes is the CRD's rule, which comes first.
    path = f"/apis/mlperf.dev/v1alpha1/namespaces/{PLAIN}/mlperfruns/of-before"
    change = {"spec": {"image": "evil.example/b"}}
    assert "image is immutable" in wall.user.ask("PATCH", path, change, "application/merge-patch+json")[1]


def test_the_api_server_finds_nothing_to_warn_of_in_any_expression(wall: Wall) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    names = [o["metadata"]["name"] for o in wall.objects if o["kind"] == "ValidatingAdmissionPolicy"]
    assert len(names) == len(POLICIES)
    for name in names:
        _, answer = wall.administrator.ask("GET", f"{path}/{name}")
        assert json.loads(answer)["status"]["typeChecking"] == {}
