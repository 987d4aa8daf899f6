"""Everything that an administrator may set, read from the environment (prefix MLPERF_OPERATOR_) and two YAML files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as EnvironmentValueError

from mlperf_operator.catalogue import DriverSettings
from mlperf_operator.grants import ParityGrant
from mlperf_operator.host_paths import lies_under
from mlperf_operator.suites import BUILT_IN, Suite

_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
"""Name of a Kubernetes object."""

_NAMESPACE = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class SettingsError(Exception):
    """The administrator's settings cannot be used; the message says which and why."""


class Settings(BaseSettings):
    """The operator's settings. Lists are comma-separated in the environment."""

    model_config = SettingsConfigDict(env_prefix="MLPERF_OPERATOR_", frozen=True, extra="ignore")

    namespace: str = Field(default="mlperf-system", description="The operator's own namespace, which holds its Lease.")
    identity: str = Field(default="", description="Holder name in the Lease; the pod's name.")
    image: str = Field(default="mlperf-operator:latest", description="The operator's image, which `collect` runs in.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="Pull policy of the run's containers."
    )
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Secrets in the operator's namespace that its driver pods pull the image with."
    )
    gpu_runtime_class: str = Field(
        default="", description="RuntimeClass of pods with GPUs. Empty: NVIDIA's runtime is the nodes' default."
    )
    suite_images: dict[str, str] = Field(
        default_factory=dict, description="JSON object: default image by suite, instead of the suite's own."
    )
    suites_file: Path | None = Field(default=None, description="YAML list of further suites.")
    driver_file: Path | None = Field(
        default=None, description="YAML of DriverSettings. Unset: drivers are not managed, and runs verify theirs."
    )
    driver_owner: str = Field(
        default="", description="ConfigMap of the operator's namespace with which its driver pods go. Empty: none."
    )
    children_policy: str = Field(
        default="",
        description="Binding of the admission policy that keeps a run's labels for the operator. Empty: none.",
    )
    allowed_host_paths: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Prefixes that spec.scratch.hostPath and spec.results.hostPath may lie under."
    )
    allowed_images: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Prefixes that spec.image may start with. Empty: only the suites' own images."
    )
    allowed_code_claims: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Claims, as namespace/name, that spec.code.claimName may name. Empty: none.",
    )
    allow_runtime_class_access: bool = Field(
        default=False, description="Whether gpu.access RuntimeClass, which no quota counts, is possible."
    )
    allowed_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Namespaces whose runs are accepted. Empty: all but the operator's own."
    )
    harness_parity: dict[str, ParityGrant] = Field(
        default_factory=dict,
        description="JSON object: by namespace what runs with securityProfile HarnessParity may have there. Empty: the "
        "profile is not possible.",
    )
    allowed_upload_endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="S3 endpoints that spec.upload may name. Empty: no uploads."
    )
    allowed_upload_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Secrets, as namespace/name, that spec.upload may name. Empty: any of the run's namespace.",
    )
    workers: int = Field(default=16, ge=1, le=256, description="Runs reconciled at the same time.")
    health_port: int = Field(default=8081, ge=1, le=65535, description="Port of /healthz and /readyz.")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Port of /metrics. 0: none.")
    tracing_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="OTLP receiver (HTTP) that gets a trace of each finished run, as scheme://host:port. Empty: none.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR."
    )
    resync_seconds: float = Field(default=600, gt=0, description="Every run is looked at again this often, jittered.")
    lease_duration_seconds: int = Field(default=15, ge=3, description="Time after which a silent leader has lost.")
    lease_renew_deadline_seconds: float = Field(default=10, gt=0, description="A leader that cannot renew gives up.")
    lease_retry_seconds: float = Field(default=2, gt=0, description="Pause between tries to renew or to acquire.")

    @field_validator(
        *("allowed_host_paths", "allowed_images", "allowed_code_claims", "allowed_upload_endpoints"),
        *("allowed_namespaces", "allowed_upload_secrets", "image_pull_secrets"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_host_paths")
    @classmethod
    def _absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/") or ".." in path.split("/") or not path.strip("/."):
                msg = f"{path} is no absolute path of a folder below /"
                raise ValueError(msg)
        return paths

    @field_validator("allowed_code_claims", "allowed_upload_secrets")
    @classmethod
    def _namespaced(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        kind = "claim" if info.field_name == "allowed_code_claims" else "Secret"
        for name in names:
            if not re.fullmatch(f"{_NAME}/{_NAME}", name):
                msg = f"{name!r} is no namespace/name of a {kind}"
                raise ValueError(msg)
        return names

    @field_validator("allowed_namespaces")
    @classmethod
    def _namespaces(cls, namespaces: tuple[str, ...]) -> tuple[str, ...]:
        for namespace in namespaces:
            _check_namespace(namespace)
        return namespaces

    @field_validator("harness_parity")
    @classmethod
    def _by_namespace(cls, grants: dict[str, ParityGrant]) -> dict[str, ParityGrant]:
        for namespace in grants:
            _check_namespace(namespace)
        return grants

    @model_validator(mode="after")
    def _no_path_above_those_of_privileged_runs(self) -> Settings:
        # A subPath may follow links within its volume, so a volume must not hold what its runs are not to reach.
        kept = [(namespace, path) for namespace, grant in self.harness_parity.items() for path in grant.host_paths]
        for outer in self.allowed_host_paths:
            for namespace, path in kept:
                if lies_under(path, outer) and not lies_under(outer, path):
                    msg = (
                        f"allowed_host_paths has {outer}, from which a run could reach {path} by a link, which "
                        f"harness_parity keeps for namespace {namespace}; name folders beside each other"
                    )
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _lease_times_in_order(self) -> Settings:
        if not self.lease_retry_seconds < self.lease_renew_deadline_seconds < self.lease_duration_seconds:
            msg = "lease_retry_seconds < lease_renew_deadline_seconds < lease_duration_seconds must hold"
            raise ValueError(msg)
        return self

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: one of them is wrong.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError(_problems(error)) from error
        except EnvironmentValueError as error:
            raise SettingsError(f"{error}: {error.__cause__}") from error

    def suites(self) -> dict[str, Suite]:
        """Return the suites by name, the administrator's beside the built-in ones, with their images replaced.

        Raises:
            SettingsError: the suites file cannot be read, or a suite in it is wrong or has a built-in's name.
        """
        known = dict(BUILT_IN)
        for suite in _read_suites(self.suites_file) if self.suites_file else ():
            if suite.name in BUILT_IN:
                raise SettingsError(f"{self.suites_file}: {suite.name} is built in; give the suite another name")
            known[suite.name] = suite
        unknown = sorted(set(self.suite_images) - set(known))
        if unknown:
            raise SettingsError(f"suite images name {', '.join(unknown)}; possible: {', '.join(sorted(known))}")
        return {
            name: suite.model_copy(update={"image": self.suite_images.get(name, suite.image)})
            for name, suite in known.items()
        }

    def driver(self) -> DriverSettings | None:
        """Return what the administrator set about drivers, or None where drivers are not managed.

        Raises:
            SettingsError: the driver file cannot be read, or something in it is wrong; the message names the entry.
        """
        return _driver_settings(self.driver_file) if self.driver_file else None


def _check_namespace(name: str) -> None:
    if not re.fullmatch(_NAMESPACE, name):
        msg = f"{name!r} is no name of a namespace"
        raise ValueError(msg)


def _problems(error: ValidationError) -> str:
    prefix = Settings.model_config["env_prefix"]
    return "; ".join(f"{_variable(prefix, p['loc'])}: {p['msg']}" for p in error.errors())


def _variable(prefix: str, loc: tuple[int | str, ...]) -> str:
    return ".".join([f"{prefix}{loc[0]}".upper(), *map(str, loc[1:])]) if loc else "settings"


def _read_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _read_suites(path: Path) -> list[Suite]:
    documents = _read_yaml(path) or []
    if not isinstance(documents, list):
        raise SettingsError(f"{path}: must be a list of suites")
    return [_suite(path, document) for document in documents]


def _suite(path: Path, document: object) -> Suite:
    try:
        return Suite.model_validate(document)
    except ValidationError as error:
        name = document.get("name", "a suite") if isinstance(document, dict) else "a suite"
        wrong = [f"{_field(loc)}: {text}" for loc, text in _causes(error)]
        raise SettingsError(f"{path}: {name}: {'; '.join(wrong)}") from error


def _driver_settings(path: Path) -> DriverSettings:
    document = _read_yaml(path) or {}
    try:
        return DriverSettings.model_validate(document)
    except ValidationError as error:
        wrong = [f"{_place(loc, document)}: {text}" for loc, text in _causes(error)]
        raise SettingsError(f"{path}: {'; '.join(wrong)}") from error


def _causes(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Return places and messages without what merely follows: a list of wrong items also counts as empty."""
    found = [(p["loc"], p["msg"]) for p in error.errors()]
    return [(loc, text) for loc, text in found if not any(len(o) > len(loc) and o[: len(loc)] == loc for o, _ in found)]


def _place(loc: tuple[int | str, ...], document: object) -> str:
    """Name a driver by its version, anything else by the way to it: an index alone says little."""
    match loc, document:
        case ("drivers", int(index), *rest), {"drivers": [*drivers]} if isinstance(drivers[index], dict):
            named = drivers[index].get("version") or drivers[index].get("branch") or f"number {index + 1}"
            return f"driver {named}: {_field(rest)}"
    return _field(loc)


def _field(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc) or "it"
