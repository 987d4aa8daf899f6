"""Judges what was seen on a host: every finding at once, the most fundamental first. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import Facts, Smi
from mlperf_operator.catalogue import Target
from mlperf_operator.driver_report import Reason

_GOOD_FABRIC = ("Completed", "N/A", "[N/A]", "Not Supported")
"""N/A and Not Supported: before Hopper, without NVLink, or one GPU alone."""


def findings(facts: Facts, target: Target) -> list[DriverError]:
    """Return what is not as it should be; in mode Verify, which wants no version, what does not fit together."""
    if not facts.gpus:
        return [DriverError(Reason.NO_GPU, "there is no NVIDIA GPU on the PCI bus")]
    return [*_module(facts, target), *_smi(facts), *_fabric(facts), *_toolkit(facts, target)]


def _module(facts: Facts, target: Target) -> Iterator[DriverError]:
    wanted = target.driver.version if target.driver is not None and target.mode != "Verify" else None
    if facts.loaded is None:
        if facts.nouveau:
            yield DriverError(Reason.NOUVEAU_LOADED, "the kernel module nouveau has the GPUs")
        yield DriverError(
            Reason.DRIVER_NOT_LOADED,
            "the kernel module nvidia is not loaded" + (f" and {wanted} is wanted" if wanted else ""),
        )
    elif wanted is not None and facts.loaded != wanted:
        yield DriverError(Reason.DRIVER_MISMATCH, f"the loaded driver is {facts.loaded} and {wanted} is wanted")


def _smi(facts: Facts) -> Iterator[DriverError]:
    if facts.smi is None or facts.loaded is None:
        return
    said = f": {facts.smi.error}" if facts.smi.error else ""
    seen = len(facts.smi.gpus)
    if not seen:
        yield DriverError(Reason.SMI_FAILED, f"nvidia-smi shows no GPU{said}")
    elif seen != facts.gpus:
        yield DriverError(Reason.GPU_MISSING, f"nvidia-smi shows {seen} of {facts.gpus} GPUs on the PCI bus{said}")
    elif said:
        yield DriverError(Reason.SMI_FAILED, f"nvidia-smi shows every GPU and says{said}")
    if seen and facts.smi.driver != facts.loaded:
        text = f"nvidia-smi says driver {facts.smi.driver} and the loaded module is {facts.loaded}"
        yield DriverError(Reason.SMI_FAILED, text)


def _fabric(facts: Facts) -> Iterator[DriverError]:
    if facts.loaded is None:
        return
    if facts.nvswitches:
        yield from _fabric_manager(facts, facts.loaded)
    if facts.nvswitches_unseen:
        text = f"the driver does not see {facts.nvswitches_unseen} of the NVSwitches on the PCI bus"
        yield DriverError(Reason.FABRIC_NOT_READY, text)
    states = _bad_states(facts.smi)
    if states:
        yield DriverError(Reason.FABRIC_NOT_READY, f"the NVLink fabric is not ready: {', '.join(states)}")
    if facts.nvswitches and facts.links_down:
        # All 96 links of 8 GPUs would leave no room for anything else.
        shown, more = facts.links_down[:8], len(facts.links_down) - 8
        rest = f" and {more} more" if more > 0 else ""
        yield DriverError(Reason.FABRIC_NOT_READY, f"NVLinks are down: {', '.join(shown)}{rest}")


def _bad_states(smi: Smi | None) -> list[str]:
    gpus = smi.gpus if smi is not None else ()
    return [f"GPU {gpu.index} says {gpu.fabric_state}" for gpu in gpus if gpu.fabric_state not in _GOOD_FABRIC]


def _fabric_manager(facts: Facts, loaded: str) -> Iterator[DriverError]:
    manager = facts.fabric_manager
    if manager.version is None:
        text = f"there are {facts.nvswitches} NVSwitches and no fabric manager of a version that it tells"
        yield DriverError(Reason.FABRIC_MANAGER_MISSING, text)
        return
    if manager.version != loaded:
        text = f"the fabric manager is {manager.version} and the loaded driver {loaded}: they must be equal"
        yield DriverError(Reason.FABRIC_MANAGER_MISMATCH, text)
    if not manager.active:
        words = f": {manager.detail}" if manager.detail else ""
        yield DriverError(Reason.FABRIC_MANAGER_FAILED, f"the service nvidia-fabricmanager does not run{words}")


def _toolkit(facts: Facts, target: Target) -> Iterator[DriverError]:
    if target.toolkit is not None and not facts.runtime_configured:
        text = f"{target.toolkit.containerd_config} has no runtime nvidia whose program is there"
        yield DriverError(Reason.TOOLKIT_MISSING, text)
