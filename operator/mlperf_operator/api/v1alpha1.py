"""MLPerfRun, version mlperf.dev/v1alpha1: what a user asks for and what the operator reports.

The field descriptions are the API's reference: they end up in the CRD (`kubectl explain mlr.spec`) and in docs/api.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from mlperf_operator.models import Lenient, Strict

GROUP = "mlperf.dev"
VERSION = "v1alpha1"
API_VERSION: Final = "mlperf.dev/v1alpha1"
KIND: Final = "MLPerfRun"
PLURAL = "mlperfruns"
SHORT_NAME = "mlr"

MAX_NAME_LENGTH = 52
"""Longest metadata.name: the Job has it too, and pods and claims add a suffix to it within 63 characters."""

MAX_MESSAGE = 1024
"""Longest message about a result, a compliance test or an upload, in characters."""

MAX_TTL_SECONDS = 10 * 365 * 86400
"""Longest ttlSecondsAfterFinished, in seconds: ten years. Beyond the calendar's end there is no date to wait for."""


class Scenario(StrEnum):
    """LoadGen's scenarios."""

    OFFLINE = "Offline"
    SERVER = "Server"
    SINGLE_STREAM = "SingleStream"


class TestMode(StrEnum):
    """LoadGen's test modes."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    PERFORMANCE = "PerformanceOnly"
    ACCURACY = "AccuracyOnly"


class ConfigVersion(StrEnum):
    """NVIDIA's `--config_ver`."""

    DEFAULT = "Default"
    HIGH_ACCURACY = "HighAccuracy"
    TRITON = "Triton"
    HIGH_ACCURACY_TRITON = "HighAccuracyTriton"


class DriverPolicy(StrEnum):
    """Who brings the GPU driver."""

    AUTO = "Auto"
    ENSURE = "Ensure"
    VERIFY = "Verify"
    IGNORE = "Ignore"


class FabricManagerPolicy(StrEnum):
    """Whether NVIDIA's fabric manager must run."""

    AUTO = "Auto"
    REQUIRED = "Required"
    NONE = "None"


class GpuAccess(StrEnum):
    """How the run's containers get their GPUs."""

    DEVICE_PLUGIN = "DevicePlugin"
    RUNTIME_CLASS = "RuntimeClass"
    RESOURCE_CLAIM = "ResourceClaim"


class EnvironmentStrategy(StrEnum):
    """How the environment that `prebuild` makes reaches the later stages."""

    SNAPSHOT = "Snapshot"
    IMAGE = "Image"


class SecurityProfile(StrEnum):
    """What the run's containers may do."""

    MINIMAL = "Minimal"
    HARNESS_PARITY = "HarnessParity"


class PowerSetting(StrEnum):
    """NVIDIA's `--power_setting`."""

    MAX_P = "MaxP"
    MAX_Q = "MaxQ"


class AuditTest(StrEnum):
    """MLCommons' compliance tests that NVIDIA's v4.1 harness has."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    TEST01 = "TEST01"
    TEST04 = "TEST04"
    TEST05 = "TEST05"
    TEST06 = "TEST06"


class BaselinePolicy(StrEnum):
    """Whether results are held against the operator's own figures for the system."""

    COMPARE = "Compare"
    IGNORE = "Ignore"


class Cause(StrEnum):
    """Why a result is missing, in one word."""

    NO_REGISTERED_CONFIG = "NoRegisteredConfig"
    SYSTEM_NOT_MATCHED = "SystemNotMatched"
    ENGINE_BUILD_FAILED = "EngineBuildFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    KILLED = "Killed"
    TIMED_OUT = "TimedOut"
    FABRIC_MANAGER = "FabricManager"
    DRIVER = "Driver"
    SCRATCH_FULL = "ScratchFull"
    ACCURACY_SCRIPT_FAILED = "AccuracyScriptFailed"
    PARTIAL_LOGS = "PartialLogs"
    STALE_LOGS = "StaleLogs"
    OTHER_ENGINE = "OtherEngine"
    HARNESS_FAILED = "HarnessFailed"
    NO_RESULT = "NoResult"
    NOT_MEASURED = "NotMeasured"


class Validity(StrEnum):
    """LoadGen's own word about a performance result."""

    VALID = "VALID"
    INVALID = "INVALID"


class ConditionType(StrEnum):
    """The conditions of a run, in the order in which they are shown."""

    ACCEPTED = "Accepted"
    DRIVER_READY = "DriverReady"
    PREPARED = "Prepared"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FINISHED = "Finished"
    RESULTS_VALID = "ResultsValid"
    ACCURACY_MET = "AccuracyMet"
    EXPECTATIONS_MET = "ExpectationsMet"
    AUDITS_PASSED = "AuditsPassed"


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class StageState(StrEnum):
    """Where a stage stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    SKIPPED = "Skipped"
    FAILED = "Failed"


DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
ShortDnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
SystemName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$", max_length=63)]
BenchmarkName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9_.]*$", max_length=40)]
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
ImageReference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.:/@]*$", max_length=512)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$", max_length=32)]
DecimalString = Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]+)?$", max_length=32)]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[-A-Za-z0-9_./]*$", max_length=255)]
ShortText = Annotated[str, StringConstraints(max_length=255)]
LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=317
    ),
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]


class LocalReference(Strict):
    """An object in the run's own namespace."""

    name: DnsName = Field(description="Name of the object.")


class BenchmarkRequest(Strict):
    """One benchmark and the scenarios to run it in."""

    name: BenchmarkName = Field(
        description="Benchmark, by the suite's name for it: bert or 3d-unet in nvidia-v4.1, digits in reference-cpu."
    )
    scenarios: list[Scenario] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="LoadGen scenarios. Default: every scenario that the suite has for this benchmark.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class ConfigOverride(Strict):
    """One field of the harness's configuration, set for one benchmark and scenario."""

    benchmark: BenchmarkName = Field(description="Benchmark whose configuration is changed.")
    scenario: Scenario = Field(description="Scenario whose configuration is changed.")
    field: FieldName = Field(description="Field of the harness's configuration, such as server_target_qps.")
    value: int | ShortText = Field(
        description="The field's value: an integer, or a string that holds a decimal number, true or false, or text."
    )


class GpuConfigSpec(Strict):
    """Where the harness's configuration for the system comes from, beyond the operator's own gpu_configs."""

    config_map_ref: LocalReference | None = Field(
        default=None,
        description="A ConfigMap whose data has the schema of gpu_configs/*.yaml. It adds to the operator's values and "
        "wins over them. It holds values, never Python.",
    )
    overrides: list[ConfigOverride] = Field(
        default_factory=list,
        max_length=64,
        description="Single fields, which win over both.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class DriverSpec(Strict):
    """What the run asks of the node's NVIDIA driver."""

    policy: DriverPolicy = Field(
        default=DriverPolicy.AUTO,
        description="Ensure: the operator installs it on a node that the administrator opted in. Verify: it must be "
        "there. Ignore: its version is not compared; GPUs must work all the same. Auto: Ignore for suites without a "
        "driver, Ensure where an opted-in node fits that nobody else manages, else Verify.",
    )
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){0,2}$", max_length=32)] = Field(
        default="550", description="Branch such as 550, or an exact version such as 550.54.14."
    )
    fabric_manager: FabricManagerPolicy = Field(
        default=FabricManagerPolicy.AUTO,
        description="Auto: it must run where the node has NVSwitch, in exactly the driver's version. Required: where "
        "the operator brings the driver, a node without one is not used. None: as Auto; the run itself asks nothing.",
    )


class GpuSpec(Strict):
    """The GPUs of the run."""

    access: GpuAccess = Field(default=GpuAccess.DEVICE_PLUGIN, description="How containers get GPUs.")
    count: int | None = Field(
        default=None, ge=1, le=16, description="Number of GPUs. Default: the number that the system's name says."
    )


class EnvironmentSpec(Strict):
    """The environment that the harness needs beyond its image."""

    strategy: EnvironmentStrategy = Field(
        default=EnvironmentStrategy.SNAPSHOT,
        description="Snapshot: prebuild installs it once, and scratch keeps what it changed. Image: the image has it.",
    )
    offline: bool = Field(
        default=False,
        description="Nothing is fetched from the network: git repositories come from scratch/offline/git, Python "
        "wheels from scratch/offline/wheels; data and models must be on scratch already.",
    )


class CodeSpec(Strict):
    """Where the harness's code tree comes from, instead of the suite's own source: exactly one of the two."""

    claim_name: DnsName | None = Field(default=None, description="A PersistentVolumeClaim that holds it.")
    image: ImageReference | None = Field(
        default=None, description="An image that holds it, of those that the administrator allows; it needs python3."
    )
    path: AbsolutePath = Field(
        default="/",
        description="Folder of the claim or image: the tree, or a checkout of the repository that the suite names.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> CodeSpec:
        if (self.claim_name is None) == (self.image is None):
            msg = "set exactly one of claimName, image"
            raise ValueError(msg)
        return self


class BaselineSpec(Strict):
    """How results are held against the operator's own figures for the system. A miss is a condition, not a failure."""

    policy: BaselinePolicy = Field(default=BaselinePolicy.COMPARE, description="Compare or Ignore.")
    tolerance_percent: int = Field(
        default=10, ge=0, le=100, description="How far below (a rate) or above (a latency) the figure a result may be."
    )


class S3Upload(Strict):
    """A bucket of an S3-compatible store that gets a copy of the run's artifacts."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9][-A-Za-z0-9.:]*$", max_length=255)] = (
        Field(description="URL of the store without a path, one that the administrator allows.")
    )
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$", max_length=63)] = Field(
        description="Bucket, which must be there."
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^([-A-Za-z0-9_.]+/?)*$", max_length=255)] = Field(
        default="", description="Put before <namespace>/<name>/<uid>/."
    )
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]*$", max_length=63)] = Field(
        default="us-east-1", description="Region that requests are signed for."
    )
    credentials_secret: LocalReference = Field(
        description="Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )


class UploadSpec(Strict):
    """Where the artifacts are copied to when the run has ended."""

    s3: S3Upload = Field(description="An S3-compatible store.")


class ClaimTemplate(Strict):
    """A PersistentVolumeClaim that the operator makes for the run. It is kept when the run is deleted."""

    storage_class_name: DnsName | None = Field(default=None, description="Default: the cluster's default StorageClass.")
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce", description="How the volume may be mounted."
    )
    size: Quantity = Field(description="Requested capacity, such as 1Ti.")
    delete_with_run: bool = Field(default=False, description="Delete the claim, and what it holds, with the run.")


class EmptyDirVolume(Strict):
    """A volume that lives and dies with the pod."""

    size_limit: Quantity | None = Field(default=None, description="Most that it may hold, such as 2Gi.")
    medium: Literal["Disk", "Memory"] = Field(default="Disk", description="Memory makes it a tmpfs.")


class HostPathVolume(Strict):
    """A folder of the node."""

    path: AbsolutePath = Field(description="Absolute path below one of the prefixes that the administrator allows.")


class VolumeSpec(Strict):
    """Where files are kept: exactly one of the four."""

    claim_name: DnsName | None = Field(default=None, description="An existing PersistentVolumeClaim.")
    claim_template: ClaimTemplate | None = Field(default=None, description="A claim to make for this run.")
    host_path: HostPathVolume | None = Field(default=None, description="A folder of the node.")
    empty_dir: EmptyDirVolume | None = Field(
        default=None, description="Lost with the pod; only for suites whose preparation is cheap (reference-cpu)."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> VolumeSpec:
        given = [v for v in (self.claim_name, self.claim_template, self.host_path, self.empty_dir) if v is not None]
        if len(given) != 1:
            msg = "set exactly one of claimName, claimTemplate, hostPath, emptyDir"
            raise ValueError(msg)
        return self


class Toleration(Strict):
    """A Kubernetes toleration."""

    key: LabelKey | None = Field(default=None, description="Taint key; empty with operator Exists matches all.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How key and value are compared.")
    value: LabelValue | None = Field(default=None, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; empty matches all."
    )
    toleration_seconds: int | None = Field(default=None, ge=0, description="Only with NoExecute: for how long.")


class ResourceAmounts(Strict):
    """CPU and memory of the run container."""

    cpu: Quantity | None = Field(default=None, description="CPU, such as 8 or 500m.")
    memory: Quantity | None = Field(default=None, description="Memory, such as 64Gi.")


class ResourcesSpec(Strict):
    """Requests and limits of every make stage and of the run."""

    requests: ResourceAmounts | None = Field(default=None, description="What the scheduler reserves.")
    limits: ResourceAmounts | None = Field(default=None, description="What the containers may use at most.")


class Expectation(Strict):
    """A bound that a result's metric is held against. A miss is a condition, not a failure."""

    benchmark: BenchmarkName = Field(description="Benchmark of the result.")
    scenario: Scenario = Field(description="Scenario of the result.")
    metric: Annotated[str, StringConstraints(max_length=80)] = Field(
        description="Metric name as in status.results, such as result_samples_per_second."
    )
    min: DecimalString | None = Field(default=None, description="Smallest value that meets it, as a decimal string.")
    max: DecimalString | None = Field(default=None, description="Largest value that meets it, as a decimal string.")


class MLPerfRunSpec(Strict):
    """What to measure, where, and how. Immutable but for suspend and ttlSecondsAfterFinished."""

    suite: ShortDnsName = Field(
        default="nvidia-v4.1", description="nvidia-v4.1, reference-cpu, or a suite that the administrator added."
    )
    system: SystemName = Field(description="System under test as the suite names it, such as A100_SXM4_40GBx8.")
    benchmarks: list[BenchmarkRequest] = Field(
        min_length=1,
        max_length=8,
        description="What to run.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    config_version: ConfigVersion = Field(
        default=ConfigVersion.DEFAULT,
        description="Default measures the 99 % accuracy variant (bert-99), HighAccuracy the 99.9 % one (bert-99.9).",
    )
    test_modes: list[TestMode] = Field(
        default=[TestMode.PERFORMANCE, TestMode.ACCURACY],
        min_length=1,
        max_length=2,
        description="Performance, accuracy, or both with the same engine.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    test_run: bool = Field(
        default=False,
        description="The harness's short run (--test_run): good for trying things, too short for a submission.",
    )
    power_setting: PowerSetting = Field(
        default=PowerSetting.MAX_P,
        description="MaxQ measures with the power limit of the system's MaxQ values, for the pairs that have some; it "
        "needs securityProfile HarnessParity.",
    )
    audits: list[AuditTest] = Field(
        default_factory=list,
        max_length=4,
        description="Compliance tests to run after the measurements; only those that each requested benchmark has.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    gpu_config: GpuConfigSpec | None = Field(default=None, description="Changes to the system's configuration values.")
    driver: DriverSpec = Field(default=DriverSpec(), description="What the run asks of the node's driver.")
    gpu: GpuSpec = Field(default=GpuSpec(), description="The run's GPUs. Ignored by suites that use none.")
    environment: EnvironmentSpec = Field(
        default=EnvironmentSpec(), description="How the harness's dependencies come in."
    )
    security_profile: SecurityProfile = Field(
        default=SecurityProfile.MINIMAL,
        description="Minimal: no more than a benchmark needs. HarnessParity: what NVIDIA's own launcher gives, where "
        "the administrator allows it.",
    )
    code: CodeSpec | None = Field(default=None, description="Code tree. Default: the suite's own source.")
    image: ImageReference | None = Field(default=None, description="Container image. Default: the suite's.")
    image_pull_secrets: list[LocalReference] = Field(
        default_factory=list,
        max_length=8,
        description="Secrets with registry credentials.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    scratch: VolumeSpec | None = Field(
        default=None,
        description="Data, models, the prepared environment and the run's working tree; may be shared by runs. "
        "nvidia-v4.1 requires one. Default for reference-cpu: emptyDir.",
    )
    results: VolumeSpec | None = Field(
        default=None, description="Logs and results. Default: a folder of the run's own on the scratch volume."
    )
    upload: UploadSpec | None = Field(default=None, description="A copy of the artifacts elsewhere. Default: none.")
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels that the node must have."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=32,
        description="Taints that the pod tolerates.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="CPU and memory.")
    queue_name: ShortDnsName | None = Field(
        default=None, description="Kueue LocalQueue that admits the run; it becomes a label, so at most 63 characters."
    )
    suspend: bool = Field(
        default=False, description="True stops the run's pod; false lets it go on from the stages that are done."
    )
    start_timeout_seconds: int = Field(
        default=1800, ge=10, le=604800, description="Longest time from creation to the first running container."
    )
    stage_timeout_seconds: int = Field(
        default=36000, ge=10, le=604800, description="Longest time for any one stage before `run`."
    )
    run_timeout_seconds: int = Field(
        default=172800, ge=60, le=2592000, description="Longest time for the whole run, from its pod's start."
    )
    backoff_limit: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Retries after an unexpected failure. Disruptions such as an eviction are always retried; a stage "
        "that fails and a wrong configuration never are.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TTL_SECONDS,
        description="Delete the MLPerfRun this long after it finished. Default: keep it.",
    )
    expectations: list[Expectation] = Field(
        default_factory=list,
        max_length=32,
        description="Bounds to hold results against.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    baseline: BaselineSpec = Field(
        default=BaselineSpec(), description="The operator's own figures for the system, where it has some."
    )


class Condition(Lenient):
    """A fact about the run, by the Kubernetes conventions."""

    type: ConditionType = Field(description="Which fact.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(description="CamelCase word for programs.")
    message: Annotated[str, StringConstraints(max_length=4096)] = Field(
        default="", description="What happened and what to do next."
    )
    observed_generation: int = Field(default=0, description="Generation of the spec that this was said about.")
    last_transition_time: str | None = Field(
        default=None, description="When status last changed.", json_schema_extra={"format": "date-time"}
    )


class StageStatus(Lenient):
    """One stage of the run's pod."""

    name: str = Field(description="Name of the container.")
    state: StageState = Field(description="Where it stands.")
    started_at: str | None = Field(
        default=None, description="When it began.", json_schema_extra={"format": "date-time"}
    )
    finished_at: str | None = Field(
        default=None, description="When it ended.", json_schema_extra={"format": "date-time"}
    )
    exit_code: int | None = Field(default=None, description="Its container's exit code.")
    message: Annotated[str, StringConstraints(max_length=1200)] = Field(
        default="", description="What it said at its end: why it failed, with its last lines, or why it was skipped."
    )


class DriverStatus(Lenient):
    """The node's driver as found."""

    version: str | None = Field(default=None, description="Driver version.")
    fabric_manager_version: str | None = Field(default=None, description="Fabric manager version.")
    managed_by: str | None = Field(
        default=None, description="mlperf-operator, host where it was there before, or who else manages the driver."
    )


class GpuStatus(Lenient):
    """The GPUs as found."""

    product: str | None = Field(default=None, description="Product name, such as NVIDIA A100-SXM4-40GB.")
    count: int | None = Field(default=None, description="How many.")


class Metric(Lenient):
    """A result's official primary metric."""

    name: str = Field(description="Name in LoadGen's detail log, such as result_samples_per_second.")
    value: float = Field(description="Value in `unit`.")
    unit: str = Field(description="samples/s, ns, ms or tokens/s.")


class AccuracyItem(Lenient):
    """One accuracy metric against its threshold."""

    name: str = Field(description="Metric, such as F1 or DICE.")
    value: float = Field(description="Measured value.")
    threshold: float | None = Field(default=None, description="Value to reach.")
    passed: bool | None = Field(default=None, description="Whether it was reached; unset when no threshold is known.")


class ResultStatus(Lenient):
    """One benchmark, scenario and mode: what came out, or why nothing did."""

    benchmark: str = Field(description="Benchmark, such as bert.")
    variant: str = Field(description="Benchmark with its accuracy target, such as bert-99.9.")
    scenario: str = Field(description="LoadGen scenario.")
    mode: TestMode = Field(description="LoadGen test mode.")
    validity: Validity | None = Field(default=None, description="LoadGen's verdict; unset for accuracy runs.")
    metric: Metric | None = Field(default=None, description="Official primary metric of a performance run.")
    accuracy: list[AccuracyItem] = Field(
        default_factory=list,
        description="Accuracy of an accuracy run.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    config_name: str | None = Field(default=None, description="Configuration that the harness says it used.")
    early_stopping_met: bool | None = Field(default=None, description="LoadGen's early-stopping criterion.")
    min_duration_met: bool | None = Field(
        default=None, description="Whether the run was configured for MLPerf's minimum of ten minutes."
    )
    harness_version: str | None = Field(default=None, description="LoadGen's version.")
    logs: str | None = Field(default=None, description="Folder of the logs on the artifacts volume.")
    engine_digest: str | None = Field(
        default=None, description="sha256 over the engines that were measured; one for both modes of a pair."
    )
    cause: Cause | None = Field(default=None, description="Why there is no result at all, in one word.")
    missing: str | None = Field(default=None, description="Why there is no result at all.")
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE)] = Field(
        default="", description="LoadGen's reason for INVALID, and warnings."
    )


class AuditStatus(Lenient):
    """One compliance test of one benchmark and scenario."""

    test: AuditTest = Field(description="Compliance test.")
    benchmark: str = Field(description="Benchmark, such as bert.")
    variant: str = Field(description="Benchmark with its accuracy target, such as bert-99.9.")
    scenario: str = Field(description="LoadGen scenario.")
    passed: bool | None = Field(default=None, description="Whether it passed; unset where it was not judged.")
    logs: str | None = Field(default=None, description="Folder of the logs on the artifacts volume.")
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE)] = Field(
        default="", description="What the verification said, or why there is none."
    )


class Artifacts(Lenient):
    """Where the run's files are."""

    claim: str | None = Field(default=None, description="PersistentVolumeClaim; unset for emptyDir and hostPath.")
    path: str = Field(description="Folder on that volume.")
    manifest_sha256: str | None = Field(
        default=None, description="sha256 of manifest.json in that folder, which lists every other file with its own."
    )
    uploaded_to: str | None = Field(default=None, description="URL of the uploaded copy, once it is whole.")
    upload_error: Annotated[str, StringConstraints(max_length=MAX_MESSAGE)] | None = Field(
        default=None, description="Why there is no uploaded copy, or only a part."
    )


class MLPerfRunStatus(Lenient):
    """What the operator observed."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec last acted on.")
    start_time: str | None = Field(
        default=None, description="When the operator accepted the run.", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(
        default=None, description="When it finished.", json_schema_extra={"format": "date-time"}
    )
    job_name: str | None = Field(default=None, description="The run's Job.")
    pod_name: str | None = Field(default=None, description="The run's latest pod.")
    attempts: int | None = Field(default=None, description="Pods started so far.")
    config_digest: str | None = Field(default=None, description="sha256 of what the Job was made from.")
    artifacts: Artifacts | None = Field(default=None, description="Where the logs are.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Facts about the run.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    stages: list[StageStatus] = Field(
        default_factory=list,
        description="The pod's stages in order.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    stage: str | None = Field(
        default=None, description="The stage that runs now, failed, or ran last; for the columns."
    )
    benchmarks: str | None = Field(default=None, description="Requested benchmarks; for the columns.")
    node: str | None = Field(default=None, description="Node that the run is or was on.")
    driver: DriverStatus | None = Field(default=None, description="The node's driver.")
    gpu: GpuStatus | None = Field(default=None, description="The node's GPUs.")
    results: list[ResultStatus] = Field(
        default_factory=list,
        description="One entry for each requested benchmark, scenario and mode.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    audits: list[AuditStatus] = Field(
        default_factory=list,
        description="One entry for each requested compliance test of each benchmark and scenario.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    summary: str | None = Field(default=None, description="One line with the results; for the columns.")


class ObjectMeta(Lenient):
    """The part of Kubernetes' object metadata that the operator reads."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    resource_version: str = ""


class MLPerfRun(Lenient):
    """A run of MLPerf Inference on one node."""

    api_version: Literal["mlperf.dev/v1alpha1"] = API_VERSION
    kind: Literal["MLPerfRun"] = KIND
    metadata: ObjectMeta
    spec: MLPerfRunSpec
    status: MLPerfRunStatus = Field(default_factory=MLPerfRunStatus)


def to_wire(model: BaseModel) -> dict[str, Any]:
    """Return the model as the API server takes it: camelCase keys, nothing that is unset."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
