"""Which runs are refused, and what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlperf_operator.acceptance import refusal
from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.grants import ParityGrant
from mlperf_operator.limits import Limits
from mlperf_operator.parity import placed
from mlperf_operator.suites import BUILT_IN
from unit.core.builders import a100, run
from unit.nodes.builders import SETTINGS

LIMITS = Limits(
    suites=BUILT_IN,
    host_paths=("/mnt/scratch", "/mnt/admin"),
    images=("mirror.example/", "registry.example"),
    code_claims=("bench/trees", "bench/owned", "other/secret-trees"),
    harness_parity={
        "bench": ParityGrant(
            volumes=("owned", "/mnt/admin"), images=("admin.example/",), node_selector={"pool": "mlperf", "gpu": "a100"}
        ),
        "other": ParityGrant(volumes=("elsewhere",)),
        "team": ParityGrant(volumes=("demo-scratch", "demo-results")),
    },
    namespaces=("bench", "other", "team", "crowd", "mlperf-system"),
    own_namespace="mlperf-system",
    upload_endpoints=("https://s3.example:9000",),
)
OWNED = {"claimName": "owned"}
NVIDIA = BUILT_IN["nvidia-v4.1"]
OFFLINE_UNET = [{"name": "3d-unet", "scenarios": ["Offline"]}]


def upload(endpoint: str) -> dict[str, Any]:
    return {"s3": {"endpoint": endpoint, "bucket": "results", "credentialsSecret": {"name": "keys"}}}


def parity(**spec: Any) -> MLPerfRun:
    return a100(**{"securityProfile": "HarnessParity", "scratch": OWNED, **spec})


def expecting(scenario: str, **bounds: str) -> dict[str, str]:
    return {"benchmark": "bert", "scenario": scenario, "metric": "result_samples_per_second", **bounds}


REFUSED: list[tuple[str, MLPerfRun, str, list[str]]] = [
    ("an unknown suite", run({"suite": "nvidia-v9"}), "UnknownSuite", ["nvidia-v9", "nvidia-v4.1", "reference-cpu"]),
    ("an unknown system", run({"system": "TOASTER"}), "UnknownSystem", ["TOASTER", "CPU_REFERENCE"]),
    ("an unknown benchmark", run({"benchmarks": [{"name": "bert"}]}), "UnsupportedBenchmark", ["bert", "digits"]),
    (
        "3d-unet with Server",
        a100(benchmarks=[{"name": "3d-unet", "scenarios": ["Server"]}]),
        "UnsupportedScenario",
        ["3d-unet", "Server", "Offline, SingleStream"],
    ),
    ("Triton", a100(configVersion="Triton"), "UnsupportedConfigVersion", ["BUILD_TRITON", "Default, HighAccuracy"]),
    ("NVIDIA's suite without scratch", a100(scratch=None), "ScratchRequired", ["claimName", "claimTemplate"]),
    ("NVIDIA's suite on an emptyDir", a100(scratch={"emptyDir": {}}), "ScratchRequired", ["outlives the pod"]),
    (
        "a host path that nobody allowed",
        run({"scratch": {"hostPath": {"path": "/etc"}}}),
        "HostPathNotAllowed",
        ["/etc", "/mnt/scratch"],
    ),
    (
        "a host path that climbs out",
        run({"results": {"hostPath": {"path": "/mnt/scratch/../../etc"}}}),
        "HostPathNotAllowed",
        ["results.hostPath"],
    ),
    (
        "a host path that only begins alike",
        run({"scratch": {"hostPath": {"path": "/mnt/scratchy"}}}),
        "HostPathNotAllowed",
        ["/mnt/scratchy"],
    ),
    ("a foreign image", run({"image": "evil.example/x:1"}), "ImageNotAllowed", ["evil.example", "mirror.example/"]),
    (
        "an image of another registry on the same host",
        run({"image": "registry.example:5000/x:1"}),
        "ImageNotAllowed",
        ["registry.example:5000/x:1"],
    ),
    (
        "an image of a registry that only begins alike",
        run({"image": "registry.example.evil/x:1"}),
        "ImageNotAllowed",
        ["registry.example.evil", "registry.example"],
    ),
    (
        "an expectation of a pair that is not run",
        a100(benchmarks=[{"name": "bert", "scenarios": ["Offline"]}], expectations=[expecting("Server", min="1")]),
        "UnusedExpectation",
        ["bert Server result_samples_per_second", "requested: bert Offline"],
    ),
    (
        "an expectation of a run that measures accuracy only",
        a100(testModes=["AccuracyOnly"], expectations=[expecting("Offline", min="1")]),
        "UnusedExpectation",
        ["needs test mode PerformanceOnly"],
    ),
    (
        "an expectation that nothing meets",
        a100(expectations=[expecting("Offline", min="10", max="9.5")]),
        "UnusedExpectation",
        ["a min of 10 above its max of 9.5"],
    ),
    ("fewer GPUs than the system has", a100(gpu={"count": 4}), "GPUCountMismatch", ["4", "A100_SXM4_40GBx8", "8"]),
    (
        "a driver to install",
        a100(driver={"policy": "Ensure"}),
        "DriverManagementOff",
        ["driver.enabled", "Verify"],
    ),
    ("a driver for a suite without", run({"driver": {"policy": "Ensure"}}), "NoDriverNeeded", ["reference-cpu"]),
    ("a resource claim", a100(gpu={"access": "ResourceClaim"}), "GPUAccessNotPossible", ["DevicePlugin"]),
    ("uncounted GPUs", a100(gpu={"access": "RuntimeClass"}), "GPUAccessNotAllowed", ["allowRuntimeClassAccess"]),
    (
        "an audit that nobody has",
        a100(audits=["TEST01", "TEST04"]),
        "UnsupportedAudit",
        ["bert", "TEST04", "TEST01, T"],
    ),
    ("an audit of the reference suite", run({"audits": ["TEST01"]}), "UnsupportedAudit", ["digits", "possible: none"]),
    (
        "audits without an accuracy result",
        a100(audits=["TEST01"], testModes=["PerformanceOnly"]),
        "AuditNeedsResults",
        ["PerformanceOnly, AccuracyOnly"],
    ),
    (
        "audits of MaxQ",
        parity(audits=["TEST05"], benchmarks=OFFLINE_UNET, powerSetting="MaxQ"),
        "AuditNeedsResults",
        ["power meter", "powerSetting MaxP"],
    ),
    (
        "MaxQ of a benchmark without values",
        parity(powerSetting="MaxQ"),
        "UnsupportedPowerSetting",
        ["bert Offline, bert Server, bert SingleStream", "possible: 3d-unet Offline"],
    ),
    (
        "MaxQ of all scenarios of a benchmark that has values for one",
        parity(powerSetting="MaxQ", benchmarks=[{"name": "3d-unet"}]),
        "UnsupportedPowerSetting",
        ["no MaxQ values for 3d-unet SingleStream;", "possible: 3d-unet Offline"],
    ),
    (
        "MaxQ without the right to set it",
        a100(powerSetting="MaxQ", benchmarks=OFFLINE_UNET),
        "PowerSettingNeedsProfile",
        ["HarnessParity", "MaxP"],
    ),
    (
        "privileges where nobody allowed them",
        run(
            {"suite": "nvidia-v4.1", "system": "A100_SXM4_40GBx8", "benchmarks": [{"name": "bert"}], "scratch": OWNED}
            | {"securityProfile": "HarnessParity"},
            namespace="crowd",
        ),
        "ProfileNotAllowed",
        ["namespace crowd", "harnessParity", "Minimal"],
    ),
    (
        "a namespace that nobody allowed",
        run(namespace="elsewhere"),
        "NamespaceNotAllowed",
        ["namespace elsewhere", "allowedNamespaces"],
    ),
    (
        "the operator's own namespace, although it is in the list",
        run(namespace="mlperf-system"),
        "NamespaceNotAllowed",
        ["mlperf-system is the operator's own", "possible: a namespace of the team's"],
    ),
    (
        "privileges for an image that others may only run without them",
        parity(image="mirror.example/harness:1"),
        "ImageNotAllowed",
        [
            "image mirror.example/harness:1",
            "the node's privileges",
            "one of: admin.example/ (",
            "harnessParity, images",
        ],
    ),
    (
        "privileges for code of such an image",
        parity(code={"image": "registry.example/code:1"}),
        "ImageNotAllowed",
        ["code.image registry.example/code:1", NVIDIA.image],
    ),
    (
        "privileges on another node than the administrator's",
        parity(nodeSelector={"pool": "control-plane", "gpu": "a100", "zone": "b"}),
        "NodeSelectorNotAllowed",
        ["nodeSelector pool=control-plane contradicts pool=mlperf,", "harnessParity, nodeSelector", "leave it out"],
    ),
    (
        "an image of anybody's as root on a scratch of privileged runs",
        a100(scratch=OWNED, image="mirror.example/harness:1"),
        "VolumeReserved",
        ["scratch", "image mirror.example/harness:1 is not", "another volume"],
    ),
    (
        "an image with such code and its results on a volume of privileged runs",
        a100(code={"image": "mirror.example/code:1"}, results=OWNED),
        "VolumeReserved",
        ["results", "code.image mirror.example/code:1 is not"],
    ),
    (
        "privileges for a suite that needs none",
        run({"securityProfile": "HarnessParity", "scratch": OWNED}),
        "ProfileNotNeeded",
        ["reference-cpu", "Minimal"],
    ),
    (
        "privileges over a scratch of anybody's",
        parity(scratch={"claimName": "scratch"}),
        "VolumeNotAllowed",
        ["scratch must be", "/mnt/admin, owned", "Minimal"],
    ),
    ("privileges over another namespace's claim", parity(scratch={"claimName": "elsewhere"}), "VolumeNotAllowed", []),
    (
        "privileges over a new scratch",
        parity(scratch={"claimTemplate": {"size": "1Ti"}}),
        "VolumeNotAllowed",
        ["scratch must be"],
    ),
    (
        "privileges over a host path beside the allowed one",
        parity(scratch={"hostPath": {"path": "/mnt/scratch"}}),
        "VolumeNotAllowed",
        ["scratch must be"],
    ),
    (
        "privileges over code of a claim that others write to",
        parity(code={"claimName": "trees"}),
        "VolumeNotAllowed",
        ["code.claimName must be", "owned"],
    ),
    (
        "privileges over results that others write to",
        parity(results={"claimName": "anybodys"}),
        "VolumeNotAllowed",
        ["results must be left out or be", "/mnt/admin, owned"],
    ),
    (
        "code that others write to, run as root on a scratch of privileged runs",
        a100(scratch=OWNED, code={"claimName": "trees"}),
        "VolumeReserved",
        ["scratch", "code.claimName trees is not", "harnessParity", "another volume"],
    ),
    (
        "such code with its results on a volume of privileged runs",
        a100(code={"claimName": "trees"}, results=OWNED),
        "VolumeReserved",
        ["results", "code.claimName trees is not"],
    ),
    (
        "code of a claim that nobody allowed",
        a100(code={"claimName": "mine"}),
        "CodeClaimNotAllowed",
        ["mine", "allows: owned, trees (", "allowedCodeClaims", "code.image"],
    ),
    (
        "code of a claim that is allowed in another namespace",
        a100(code={"claimName": "secret-trees"}),
        "CodeClaimNotAllowed",
        ["secret-trees is not allowed"],
    ),
    (
        "code of a path that climbs out",
        a100(code={"claimName": "trees", "path": "/../etc"}),
        "CodePathInvalid",
        ["/../etc"],
    ),
    (
        "code of a foreign image",
        a100(code={"image": "evil.example/x:1"}),
        "ImageNotAllowed",
        ["code.image evil.example/x:1", "mirror.example/"],
    ),
    (
        "an upload to a store that nobody allowed",
        a100(upload=upload("https://evil.example")),
        "UploadNotAllowed",
        ["https://evil.example", "https://s3.example:9000", "allowedUploadEndpoints"],
    ),
    *(
        (
            f"an upload below {prefix}",
            a100(upload={"s3": {**upload("https://s3.example:9000")["s3"], "prefix": prefix}}),
            "UploadPrefixInvalid",
            [prefix, "name the folder itself"],
        )
        for prefix in ("..", "a/../b", "lab/.", "./lab")
    ),
    (
        "an upload to another port of an allowed store",
        a100(upload=upload("https://s3.example")),
        "UploadNotAllowed",
        [],
    ),
    (
        "an override of a pair that is not run",
        run(
            {
                "benchmarks": [{"name": "digits", "scenarios": ["Offline"]}],
                "gpuConfig": {
                    "overrides": [
                        {"benchmark": "digits", "scenario": "Server", "field": "server_target_qps", "value": 1}
                    ]
                },
            }
        ),
        "UnusedOverride",
        ["digits Server", "digits Offline"],
    ),
]


@pytest.mark.parametrize(("case", "refused", "reason", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_run_that_cannot_be_is_refused_and_told_what_is_possible(
    case: str, refused: MLPerfRun, reason: str, words: list[str]
) -> None:
    found = refusal(refused, LIMITS)
    assert found is not None, case
    assert found.reason == reason
    for word in words:
        assert word in found.message


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"scratch": {"hostPath": {"path": "/mnt/scratch/team"}}},
        {"scratch": {"hostPath": {"path": "/mnt/scratch"}}},
        {"image": "mirror.example/harness:2"},
        {"image": "registry.example/harness:2"},
        {"gpu": {"count": 2}},
        {"image": BUILT_IN["reference-cpu"].image},
        {"driver": {"policy": "Verify"}},
        {"gpu": {"access": "ResourceClaim"}},
    ],
)
def test_a_run_within_the_limits_is_accepted(spec: dict[str, Any]) -> None:
    assert refusal(run(spec), LIMITS) is None


@pytest.mark.parametrize(
    "accepted",
    [
        a100(audits=["TEST05", "TEST01"]),
        parity(),
        parity(code={"claimName": "owned"}, results={"claimName": "owned"}),
        parity(results={"hostPath": {"path": "/mnt/admin/results"}}),
        a100(scratch=OWNED),
        a100(scratch=OWNED, code={"claimName": "owned"}),
        a100(scratch={"hostPath": {"path": "/mnt/admin/fast"}}),
        a100(scratch={"hostPath": {"path": "/mnt/scratch"}}, code={"claimName": "trees"}),
        parity(scratch={"hostPath": {"path": "/mnt/admin/fast"}}),
        parity(powerSetting="MaxQ", benchmarks=OFFLINE_UNET),
        parity(image="admin.example/harness:1", code={"image": "admin.example/code:1"}),
        parity(image=NVIDIA.image),
        parity(nodeSelector={"gpu": "a100", "zone": "b"}),
        a100(code={"claimName": "trees", "path": "/v4.1"}),
        a100(code={"image": "mirror.example/code:1"}),
        a100(upload=upload("https://s3.example:9000")),
        a100(upload={"s3": {**upload("https://s3.example:9000")["s3"], "prefix": "lab..1/.a100/"}}),
        a100(environment={"strategy": "Image", "offline": True}),
    ],
    ids=lambda accepted: str(accepted.spec.model_dump(exclude_unset=True, mode="json"))[90:150],
)
def test_what_a100_users_and_their_administrator_agree_on_is_accepted(accepted: MLPerfRun) -> None:
    assert refusal(accepted, LIMITS) is None


@pytest.mark.parametrize("field", ["scratch", "results"])
@pytest.mark.parametrize("path", ["/mnt", "/mnt/admin", "/mnt/admin/fast"])
def test_a_host_path_of_privileged_runs_is_not_for_other_namespaces_nor_for_code_of_others(
    field: str, path: str
) -> None:
    limits = replace(LIMITS, host_paths=("/mnt",), code_claims=("bench/trees", "team/trees"))
    volumes = {"scratch": {"claimName": "scratch"}, field: {"hostPath": {"path": path}}}
    nvidia = {"suite": "nvidia-v4.1", "system": "A100_SXM4_40GBx8", "benchmarks": [{"name": "bert"}], **volumes}
    for refused, why in (
        (run(nvidia, namespace="team"), "of another namespace"),
        (run({**volumes}, namespace="team"), "of another namespace"),
        (run({**nvidia, "code": {"claimName": "trees"}}), "code.claimName trees is not"),
    ):
        found = refusal(refused, limits)
        assert found is not None
        assert found.reason == "VolumeReserved"
        assert f"{field}: the administrator keeps this volume" in found.message
        assert why in found.message
    assert refusal(run(nvidia), limits) is None
    beside = {**nvidia, field: {"hostPath": {"path": "/mnt/administrator"}}}
    assert refusal(run(beside, namespace="team"), limits) is None


def test_privileged_runs_go_where_the_administrator_puts_them_whatever_else_they_select() -> None:
    given = {"pool": "mlperf", "gpu": "a100"}
    assert placed(parity(), LIMITS).spec.node_selector == given
    assert placed(parity(nodeSelector={"zone": "b"}), LIMITS).spec.node_selector == {"zone": "b", **given}
    # Should the administrator's answer have changed since the run was accepted, the administrator's word still counts.
    assert placed(parity(nodeSelector={"pool": "other"}), LIMITS).spec.node_selector == given
    for other in (a100(nodeSelector={"zone": "b"}), parity()):
        assert placed(other, Limits(suites=BUILT_IN)) == other
    assert placed(a100(), LIMITS) == a100()


@pytest.mark.parametrize("field", ["scratch", "results"])
def test_a_claim_made_under_the_name_of_one_of_privileged_runs_is_theirs_too(field: str) -> None:
    made = {"scratch": {"claimName": "own"}, field: {"claimTemplate": {"size": "1Gi"}}}
    spec = {"suite": NVIDIA.name, "system": "A100_SXM4_40GBx8", "benchmarks": [{"name": "bert"}], **made}
    with_foreign_image = {**spec, "image": "mirror.example/harness:1"}
    found = refusal(run(with_foreign_image, namespace="team"), LIMITS)
    assert found is not None
    assert (found.reason, found.message.partition(":")[0]) == ("VolumeReserved", field)
    assert refusal(run(with_foreign_image, namespace="team", name="other"), LIMITS) is None
    assert refusal(run(spec, namespace="team"), LIMITS) is None


def test_an_empty_list_of_namespaces_allows_all_but_the_operators_own() -> None:
    limits = replace(LIMITS, namespaces=())
    assert refusal(run(namespace="anywhere"), limits) is None
    assert getattr(refusal(run(namespace="mlperf-system"), limits), "reason", None) == "NamespaceNotAllowed"


def test_without_images_of_its_own_a_grant_allows_the_suites_image_alone() -> None:
    limits = replace(LIMITS, harness_parity={"bench": ParityGrant(volumes=("owned",))})
    assert refusal(parity(), limits) is None
    for image in ("admin.example/a:1", "mirror.example/a:1"):
        assert getattr(refusal(parity(image=image), limits), "reason", None) == "ImageNotAllowed"


def test_keys_of_a_store_are_of_the_secrets_that_the_administrator_lists_where_there_is_a_list() -> None:
    asking = a100(upload=upload("https://s3.example:9000"))
    for listed in ((), ("bench/keys",), ("other/more", "bench/keys")):
        assert refusal(asking, replace(LIMITS, upload_secrets=listed)) is None
    found = refusal(asking, replace(LIMITS, upload_secrets=("bench/own", "other/keys", "bench/more")))
    assert found is not None
    assert found.reason == "UploadNotAllowed"
    # Of other namespaces nothing is told.
    assert "credentialsSecret keys is not allowed; in namespace bench the administrator allows: more, own (" in (
        found.message
    )


def test_every_pair_of_a_built_in_suite_is_accepted() -> None:
    for suite in BUILT_IN.values():
        for system in suite.systems:
            for name, benchmark in suite.benchmarks.items():
                spec = {
                    "suite": suite.name,
                    "system": system,
                    "benchmarks": [{"name": name, "scenarios": [s.value for s in benchmark.scenarios]}],
                    "scratch": {"claimName": "scratch"},
                }
                assert refusal(run(spec), LIMITS) is None


@pytest.mark.parametrize("image", ["r.example/a", "r.example/a:1", "r.example/a@sha256:0", "r.example/a/b:1"])
def test_an_allowed_repository_may_have_any_tag_digest_or_folder(image: str) -> None:
    assert refusal(run({"image": image}), Limits(suites=BUILT_IN, images=("r.example/a",))) is None


def test_uncounted_gpus_are_possible_where_the_administrator_allows_them() -> None:
    allowed = replace(LIMITS, runtime_class_access=True)
    assert refusal(a100(gpu={"access": "RuntimeClass"}), allowed) is None


MANAGED = replace(LIMITS, drivers=SETTINGS)


@pytest.mark.parametrize("version", ["550", "550.54.14", "535", "535.183.01"])
def test_a_driver_of_the_catalogue_is_accepted_by_its_branch_or_its_version(version: str) -> None:
    assert refusal(a100(driver={"policy": "Ensure", "version": version}), MANAGED) is None


@pytest.mark.parametrize("version", ["470", "550.54", "550.54.15"])
def test_a_driver_that_the_catalogue_has_not_is_refused_and_the_possible_ones_are_named(version: str) -> None:
    found = refusal(a100(driver={"policy": "Ensure", "version": version}), MANAGED)
    assert found is not None
    assert found.reason == "DriverNotInCatalogue"
    for word in (version, "550 (550.54.14), 535 (535.183.01)", "driver.drivers", "Verify"):
        assert word in found.message


@pytest.mark.parametrize("policy", ["Auto", "Verify", "Ignore"])
def test_a_run_that_does_not_insist_may_name_any_driver(policy: str) -> None:
    for limits in (LIMITS, MANAGED):
        assert refusal(a100(driver={"policy": policy, "version": "470"}), limits) is None


def test_a_suite_without_a_driver_is_refused_one_although_the_catalogue_has_it() -> None:
    found = refusal(run({"driver": {"policy": "Ensure"}}), MANAGED)
    assert found is not None
    assert found.reason == "NoDriverNeeded"


def test_an_offline_run_needs_an_image_that_has_the_environment() -> None:
    found = refusal(a100(environment={"offline": True}), LIMITS)
    assert found is not None
    assert found.reason == "OfflineNeedsImage"
    assert "environment.strategy Image" in found.message
    assert refusal(a100(environment={"offline": True, "strategy": "Image"}), LIMITS) is None
    # A suite whose prebuild installs nothing has no such need.
    assert refusal(run({"environment": {"offline": True}}), LIMITS) is None
