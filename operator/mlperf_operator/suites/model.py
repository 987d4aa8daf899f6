"""The schema of a suite."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from mlperf_operator.api.v1alpha1 import (
    AuditTest,
    BenchmarkName,
    ConfigVersion,
    FieldName,
    PowerSetting,
    Scenario,
    ShortDnsName,
)
from mlperf_operator.models import Strict

FieldType = Literal["Integer", "Number", "Boolean", "Word", "Map"]
"""Type of a config field's value. Word: letters, digits and _. Map: benchmark to integer."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
"""A name that the rendered override files hold as Python."""


class ConfigRule(Strict):
    """Where a config field may stand and what it may be, beyond its type. An empty list allows all."""

    benchmarks: tuple[BenchmarkName, ...] = Field(default=(), description="Benchmarks that have the field.")
    scenarios: tuple[Scenario, ...] = Field(default=(), description="Scenarios that have the field.")
    power_settings: tuple[PowerSetting, ...] = Field(default=(), description="Power settings that have the field.")
    required: bool = Field(default=False, description="Whether every configuration that has the field must set it.")
    minimum: float | None = Field(default=None, description="Smallest number.")
    maximum: float | None = Field(default=None, description="Largest number.")
    words: tuple[str, ...] = Field(default=(), description="Possible words.")
    keyed_by_benchmark: bool = Field(default=False, description="Whether a map's one key is the benchmark itself.")


Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A word that a recipe quotes for make and its shell; a line end would end the recipe."""

TreePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?][A-Za-z0-9_.*?/-]*$")]
"""A path or pattern below the code tree."""

StageName = Literal["prebuild", "download-data", "download-model", "preprocess-data", "build"]
STAGE_ORDER: tuple[StageName, ...] = ("prebuild", "download-data", "download-model", "preprocess-data", "build")


class Postcondition(Strict):
    """Files that must be there after a step, whatever its command returned."""

    glob: str = Field(description="Absolute path pattern inside the container; ** crosses folders.")
    min_count: int = Field(default=1, ge=1, description="Fewest files that must match.")
    min_bytes: int = Field(default=1, ge=0, description="Smallest size of each, in bytes.")
    md5: str | None = Field(default=None, description="MD5 of each, in hex.")
    sha256: str | None = Field(default=None, description="SHA-256 of each, in hex.")
    gzip: bool = Field(default=False, description="Each must be a gzip file that can be read to its end.")
    npy_shape: tuple[int, ...] | None = Field(
        default=None, description="Shape of the array in each, a NumPy .npy file."
    )
    json_length: int | None = Field(default=None, ge=0, description="Number of items of the JSON list in each.")
    cases_from: str | None = Field(
        default=None,
        description="A JSON list of names: the condition is one for each, which stands for {} in the glob.",
    )

    @model_validator(mode="after")
    def _cases_have_a_place(self) -> Postcondition:
        if (self.cases_from is not None) != ("{}" in self.glob):
            msg = "casesFrom goes with a glob that has {}"
            raise ValueError(msg)
        return self


class MakeStep(Strict):
    """One make target of a stage."""

    target: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Make target.")
    per_benchmark: bool = Field(default=False, description='Run once a benchmark with BENCHMARKS="<name>".')
    scope: Literal["Private", "Shared"] = Field(
        default="Private", description="Shared: its outcome lies on scratch, and runs that share it do it once."
    )
    publish_tree: bool = Field(default=False, description="Keep the built code tree on scratch for later runs.")
    retries: int = Field(default=0, ge=0, le=10, description="Further tries, for downloads.")
    fetches: bool = Field(
        default=False,
        description="What it leaves comes from the network: offline it must be there already, and is only looked at.",
    )
    always: bool = Field(default=False, description="Done in every pod of the run, whether or not it was done before.")
    postconditions: dict[str, tuple[Postcondition, ...]] = Field(
        default_factory=dict, description="By benchmark; the key `*` is for all."
    )


class StageSpec(Strict):
    """One init container."""

    name: StageName = Field(description="Name of the container.")
    steps: tuple[MakeStep, ...] = Field(description="Make targets in order.")


class Prebuild(Strict):
    """What the tree's own prebuild puts into an image, as data: run once for a Snapshot, verified for an Image.

    `make prebuild` of the rendered Makefile.docker copies `files` and `scripts` to a folder of their own, without
    the lines of the scripts that only call one of `leave_out`, and runs the scripts there by bash in order, then
    `commands`.
    """

    folder: TreePath = Field(description="Folder of the tree that holds scripts and files.")
    files: tuple[TreePath, ...] = Field(
        default=(), description="Files that the scripts read, as patterns in the folder."
    )
    scripts: tuple[TreePath, ...] = Field(min_length=1, description="Scripts in order.")
    leave_out: tuple[Identifier, ...] = Field(
        default=(), description="Shell functions of the scripts that are not called: they serve other benchmarks only."
    )
    environment: dict[Identifier, Line] = Field(default_factory=dict, description="Environment of the scripts.")
    commands: tuple[tuple[Line, ...], ...] = Field(default=(), description="Commands after the scripts, one argv each.")
    programs: tuple[Line, ...] = Field(default=(), description="Programs that it brings.")
    python_modules: tuple[Line, ...] = Field(default=(), description="Python modules that it brings, by import name.")
    paths: tuple[Line, ...] = Field(default=(), description="Absolute path patterns of files that it brings.")


class SuiteBenchmark(Strict):
    """A benchmark that the suite has."""

    scenarios: tuple[Scenario, ...] = Field(min_length=1, description="Scenarios it has, in running order.")
    variants: dict[ConfigVersion, str] = Field(description="Official name by configVersion, such as bert-99.9.")
    audits: tuple[AuditTest, ...] = Field(default=(), description="Compliance tests it has.")
    max_q_scenarios: tuple[Scenario, ...] = Field(default=(), description="Scenarios that have MaxQ values.")


class SystemSpec(Strict):
    """A system under test."""

    harness_name: Identifier | None = Field(
        default=None, description="Name in the harness's list of systems. Default: the same."
    )
    gpu_product: str | None = Field(default=None, description="GPU name as nvidia-smi prints it, without vendor.")
    gpu_count: int = Field(default=0, ge=0, description="Number of GPUs that the system has.")
    make_arguments: tuple[str, ...] = Field(
        default=(), description="Make arguments for the containers that see no GPU, such as SM=80."
    )


class CodeSource(Strict):
    """Where the code tree comes from."""

    path: str | None = Field(default=None, description="Folder of the image.")
    git_url: str | None = Field(default=None, description="Git repository.")
    git_commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$", description="Full commit id.")
    sub_path: str = Field(default="", description="Folder of the repository that is the tree.")

    @model_validator(mode="after")
    def _one_source(self) -> CodeSource:
        if (self.path is None) == (self.git_url is None) or (self.git_url is None) != (self.git_commit is None):
            msg = "set path, or gitUrl together with gitCommit"
            raise ValueError(msg)
        return self


class Suite(Strict):
    """A version of a benchmark harness with NVIDIA's make contract."""

    name: ShortDnsName = Field(description="Name used in spec.suite.")
    image: str = Field(description="Default container image.")
    code: CodeSource = Field(description="Code tree.")
    systems: dict[Identifier, SystemSpec] = Field(description="Systems it knows, by name.")
    benchmarks: dict[BenchmarkName, SuiteBenchmark] = Field(description="Benchmarks it has.")
    config_versions: tuple[ConfigVersion, ...] = Field(description="Config versions it can run.")
    refused_config_versions: dict[ConfigVersion, str] = Field(
        default_factory=dict, description="Config versions it cannot run, with the reason."
    )
    config_fields: dict[FieldName, FieldType] = Field(
        description="Fields that the harness's config classes have, beyond benchmark, scenario and system."
    )
    config_rules: dict[FieldName, ConfigRule] = Field(
        default_factory=dict, description="What more holds of a config field, so that the harness takes the values."
    )
    uses_gpu: bool = Field(description="Whether preflight and run request GPUs and a driver is needed.")
    requires_scratch: bool = Field(description="Whether spec.scratch must name a lasting volume.")
    run_as_root: bool = Field(description="Whether the image needs uid 0.")
    shm_bytes: int = Field(default=0, ge=0, description="Size of /dev/shm in bytes; 0 leaves the runtime's default.")
    memlock: bool = Field(default=False, description="Whether IPC_LOCK is needed.")
    prebuild: Prebuild | None = Field(
        default=None, description="What the tree's own prebuild installs that later stages need. Unset: nothing."
    )
    offline_git: dict[str, str] = Field(
        default_factory=dict,
        description="Git repositories that the stages clone, by URL, with the name of each below scratch/offline/git.",
    )
    offline_wheels: tuple[str, ...] = Field(
        default=(), description="Python wheels that the stages fetch, as file patterns in scratch/offline/wheels."
    )
    engine_files: str = Field(
        default="*",
        description="Pattern of an engine's file name below build/engines/<system>/<benchmark>/<scenario>/.",
    )
    device_paths: tuple[str, ...] = Field(
        default=(), description="Device files of the node that securityProfile HarnessParity brings in."
    )
    keeps_entrypoint: bool = Field(
        default=False, description="Whether the image's entrypoint must run (args, no command)."
    )
    tools: tuple[str, ...] = Field(description="Programs that preflight looks for.")
    scratch_min_free_bytes: int = Field(default=0, ge=0, description="Free space that preflight asks for, in bytes.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment of every make call.")
    make_arguments: tuple[str, ...] = Field(
        default=(), description="Arguments of every make call, for what the environment cannot set in a Makefile."
    )
    stages: tuple[StageSpec, ...] = Field(description="Init containers that run make, in order.")

    @model_validator(mode="after")
    def _stages_in_order(self) -> Suite:
        names = [stage.name for stage in self.stages]
        if names != list(STAGE_ORDER):
            msg = f"stages must be {', '.join(STAGE_ORDER)}, in this order"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _variants_for_all_versions(self) -> Suite:
        for name, benchmark in self.benchmarks.items():
            absent = [version.value for version in self.config_versions if version not in benchmark.variants]
            if absent:
                msg = f"benchmark {name} has no variant for config version {', '.join(absent)}"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _rules_of_fields(self) -> Suite:
        unknown = sorted(set(self.config_rules) - set(self.config_fields))
        if unknown:
            msg = f"configRules has {', '.join(unknown)}, which configFields has not"
            raise ValueError(msg)
        return self

    def variant(self, benchmark: str, config_version: ConfigVersion) -> str:
        """Return the official name of a benchmark at a config version, such as bert-99.9.

        Raises:
            KeyError: the suite has no such benchmark or it has no variant for the config version.
        """
        return self.benchmarks[benchmark].variants[config_version]
