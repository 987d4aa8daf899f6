"""What a run's objects are made from: suite, images, the files for its pods, and its rendered configuration."""

from __future__ import annotations

from importlib import resources

from mlperf_operator.api.v1alpha1 import MLPerfRun
from mlperf_operator.children_policy import ChildrenPolicy
from mlperf_operator.cluster import CONFIG_MAPS, Cluster
from mlperf_operator.gpu_config_schema import SystemConfig
from mlperf_operator.observed import Blocked
from mlperf_operator.plan import Inputs
from mlperf_operator.resources.job import Images
from mlperf_operator.resources.overrides import override_files, user_configs
from mlperf_operator.settings import Settings
from mlperf_operator.suites import Suite


class NotReadyError(Exception):
    """Something that the run names is not there yet."""

    def __init__(self, blocked: Blocked) -> None:
        super().__init__(blocked.message)
        self.blocked = blocked


def read_agent_files() -> dict[str, str]:
    """Return the files that every run's pod gets, by name: all of agent/wrapper."""
    folder = resources.files("mlperf_operator.agent.wrapper")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".py") and file.name != "__init__.py")
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in names}


class InputsReader:
    """Gathers the inputs of a run."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._agent_files = read_agent_files()
        self.children_policy = ChildrenPolicy(cluster, settings.children_policy)

    def images(self, run: MLPerfRun, suite: Suite) -> Images:
        """Return the images of the run's containers."""
        return Images(
            harness=run.spec.image or suite.image,
            operator=self._settings.image,
            pull_policy=self._settings.image_pull_policy,
            gpu_runtime_class=self._settings.gpu_runtime_class,
        )

    async def read(self, run: MLPerfRun, suite: Suite) -> Inputs:
        """Return what the run's objects are made from.

        Raises:
            NotReadyError: its ConfigMap is not there yet.
            ConfigError: its configuration values are wrong.
            ApiError: the API server failed.
        """
        return Inputs(
            suite=suite,
            images=self.images(run, suite),
            agent_files=self._agent_files,
            override_files=await self._render(run, suite),
        )

    async def _render(self, run: MLPerfRun, suite: Suite) -> dict[str, str]:
        return override_files(run, suite, await self._user_configs(run, suite))

    async def _user_configs(self, run: MLPerfRun, suite: Suite) -> list[SystemConfig]:
        reference = run.spec.gpu_config.config_map_ref if run.spec.gpu_config else None
        if reference is None:
            return []
        found = await self._cluster.get(CONFIG_MAPS, run.metadata.namespace, reference.name)
        if found is None:
            message = f"gpuConfig names ConfigMap {reference.name}, which is not there; create it"
            raise NotReadyError(Blocked("ConfigMapNotFound", message))
        texts = {f"{reference.name}/{key}": text for key, text in (found.get("data") or {}).items()}
        return user_configs(texts, suite, run.spec.system, f"ConfigMap {reference.name}")
