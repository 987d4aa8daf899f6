"""A submission's description of its system: what node.json says, then what the submitter adds.

Fields are those of MLCommons' submission checker (mlcommons/inference, tools/submission/submission_checker.py at v4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

IDENTITY = ("division", "submitter", "status", "system_name", "system_type")

NEEDED = (
    *IDENTITY,
    *("number_of_nodes", "host_processor_model_name", "host_processors_per_node", "host_processor_core_count"),
    *("host_memory_capacity", "host_memory_configuration", "host_storage_capacity", "host_storage_type"),
    *("host_networking", "host_network_card_count", "host_networking_topology", "accelerators_per_node"),
    *("accelerator_model_name", "accelerator_memory_capacity", "accelerator_host_interconnect"),
    *("accelerator_memory_configuration", "accelerator_interconnect", "cooling", "framework", "operating_system"),
    "other_software_stack",
)
"""Fields that must say something."""

MAY_BE_EMPTY = (
    *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect", "accelerator_frequency"),
    *("accelerator_interconnect_topology", "accelerator_on-chip_memories", "hw_notes", "sw_notes"),
    "system_type_detail",
)
"""Fields that must be there."""


def describe(
    node: Mapping[str, Any], metadata: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the description, and the fields that still have to say something.

    Args:
        node: node.json of the run.
        metadata: metadata.json of a performance result, for the version of the framework.
        given: What the submitter says, which wins.
    """
    fields: dict[str, Any] = dict.fromkeys((*NEEDED, *MAY_BE_EMPTY), "")
    fields |= {
        "number_of_nodes": 1,
        **_host(node),
        **_accelerators(node.get("gpus") or []),
        **_software(node, metadata),
    }
    fields |= {name: value for name, value in given.items() if value not in (None, "")}
    return dict(sorted(fields.items())), [name for name in NEEDED if not fields[name]]


def _host(node: Mapping[str, Any]) -> dict[str, Any]:
    cpu, memory = node.get("cpu") or {}, node.get("memoryBytes")
    return {
        "host_processor_model_name": cpu.get("model", ""),
        "host_processors_per_node": cpu.get("sockets", ""),
        "host_processor_core_count": cpu.get("coresPerSocket", ""),
        "host_memory_capacity": f"{round(memory / 2**30)} GB" if isinstance(memory, int) else "",
    }


def _accelerators(gpus: list[Mapping[str, str]]) -> dict[str, Any]:
    if not gpus:
        return {}
    first = gpus[0]
    generation, width = first.get("pcie.link.gen.max"), first.get("pcie.link.width.max")
    memory = first.get("memory.total", "")
    return {
        "accelerators_per_node": len(gpus),
        "accelerator_model_name": first.get("name", ""),
        "accelerator_memory_capacity": f"{round(int(memory) / 1024)} GB" if memory.isdigit() else "",
        "accelerator_host_interconnect": f"PCIe Gen{generation} x{width}" if generation and width else "",
        "accelerator_frequency": f"{first['clocks.max.sm']} MHz" if first.get("clocks.max.sm") else "",
    }


def _software(node: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    versions, gpus = node.get("versions") or {}, node.get("gpus") or [{}]
    framework = [
        _named("TensorRT", metadata.get("tensorrt_version") or versions.get("TRT_VERSION")),
        _named("CUDA", versions.get("CUDA_VERSION")),
    ]
    more = [_named("cuDNN", versions.get("CUDNN_VERSION")), _named("Driver", gpus[0].get("driver_version"))]
    kernel = node.get("kernel")
    return {
        "framework": ", ".join(_said(framework)),
        "other_software_stack": ", ".join(_said([*framework, *more])),
        "operating_system": node.get("imageOs", ""),
        "sw_notes": f"measured in a container on Kubernetes; kernel of the node {kernel}" if kernel else "",
    }


def _named(name: str, value: object) -> str:
    return f"{name} {value}" if value else ""


def _said(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if part]
