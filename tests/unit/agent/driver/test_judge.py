"""What is wrong with a host: every finding at once, and the report that says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlperf_operator.agent.driver import judge, report
from mlperf_operator.agent.driver.errors import DriverError
from mlperf_operator.agent.driver.facts import FabricManager, Facts
from mlperf_operator.driver_report import MAX_MESSAGE, REMEDIES, GpuUser, NodeReport, Reason, encode
from unit.agent.driver.facts_of import A100, VERSION, facts_of, gpu, smi_of, target_of

OTHER = "535.161.08"
WORDS = "request to query NVSwitch device information failed"


def reasons(facts: Facts, **target: Any) -> list[Reason]:
    return [error.reason for error in judge.findings(facts, target_of(**target))]


def test_a_healthy_node_has_no_finding() -> None:
    assert reasons(facts_of(), toolkit=True) == []
    assert reasons(facts_of(), mode="Verify") == []


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"gpus": 0}, Reason.NO_GPU, "no NVIDIA GPU"),
        ({"loaded": None}, Reason.DRIVER_NOT_LOADED, f"{VERSION} is wanted"),
        ({"smi": smi_of(0, error="No devices were found")}, Reason.SMI_FAILED, "no GPU: No devices were found"),
        ({"smi": smi_of(0)}, Reason.SMI_FAILED, "nvidia-smi shows no GPU"),
        ({"smi": smi_of(7, error="GPU is lost")}, Reason.GPU_MISSING, "7 of 8 GPUs on the PCI bus: GPU is lost"),
        ({"smi": smi_of(9)}, Reason.GPU_MISSING, "9 of 8"),
        ({"smi": smi_of(error="WARNING: infoROM is corrupted")}, Reason.SMI_FAILED, "infoROM is corrupted"),
        ({"smi": smi_of(driver=OTHER)}, Reason.SMI_FAILED, f"says driver {OTHER}"),
        ({"fabric_manager": FabricManager()}, Reason.FABRIC_MANAGER_MISSING, "6 NVSwitches"),
        ({"fabric_manager": FabricManager("550.54.15", active=True)}, Reason.FABRIC_MANAGER_MISMATCH, "550.54.15"),
        ({"fabric_manager": FabricManager(VERSION, detail=WORDS)}, Reason.FABRIC_MANAGER_FAILED, WORDS),
        ({"fabric_manager": FabricManager(VERSION)}, Reason.FABRIC_MANAGER_FAILED, "does not run"),
        ({"links_down": ("GPU 0: Link 3",)}, Reason.FABRIC_NOT_READY, "down: GPU 0: Link 3"),
        ({"runtime_configured": False}, Reason.TOOLKIT_MISSING, "/etc/containerd/config.toml"),
    ],
)
def test_each_fault_has_its_reason(changes: dict[str, Any], reason: Reason, words: str) -> None:
    [found] = judge.findings(facts_of(**changes), target_of(toolkit=True))
    assert found.reason is reason
    assert words in found.detail


def test_a_loaded_driver_of_another_version_is_a_mismatch_of_the_target_alone() -> None:
    other = facts_of(loaded=OTHER, smi=smi_of(driver=OTHER), fabric_manager=FabricManager(OTHER, active=True))
    [found] = judge.findings(other, target_of())
    assert (found.reason, found.detail) == (
        Reason.DRIVER_MISMATCH,
        f"the loaded driver is {OTHER} and {VERSION} is wanted",
    )
    assert reasons(other, mode="Verify") == []


def test_every_finding_is_told_and_the_most_fundamental_first() -> None:
    broken = facts_of(
        loaded=OTHER,
        smi=smi_of(7),
        fabric_manager=FabricManager(VERSION),
        links_down=("GPU 0: Link 3",),
        runtime_configured=False,
    )
    assert reasons(broken, toolkit=True) == [
        Reason.DRIVER_MISMATCH,
        Reason.GPU_MISSING,
        Reason.SMI_FAILED,
        Reason.FABRIC_MANAGER_MISMATCH,
        Reason.FABRIC_MANAGER_FAILED,
        Reason.FABRIC_NOT_READY,
        Reason.TOOLKIT_MISSING,
    ]


def test_nouveau_is_told_only_where_it_has_the_gpus() -> None:
    assert reasons(facts_of(loaded=None, nouveau=True)) == [Reason.NOUVEAU_LOADED, Reason.DRIVER_NOT_LOADED]
    assert reasons(facts_of(nouveau=True)) == []


def test_without_a_version_to_compare_a_missing_driver_is_all_that_is_told() -> None:
    [found] = judge.findings(facts_of(loaded=None), target_of("Verify"))
    assert found.detail == "the kernel module nvidia is not loaded"


def test_without_an_answer_of_nvidia_smi_nothing_is_said_about_it() -> None:
    assert reasons(facts_of(smi=None)) == []


@pytest.mark.parametrize("state", ["Completed", "N/A", "Not Supported", "[N/A]"])
def test_a_fabric_that_is_ready_or_not_there_is_no_finding(state: str) -> None:
    assert reasons(facts_of(gpus=1, smi=smi_of(gpus=(gpu(fabric_state=state),)))) == []


@pytest.mark.parametrize("state", ["In Progress", "Not Started", "Completed (Insufficient Resources)"])
def test_a_fabric_that_is_not_ready_is_named_by_gpu_even_without_nvswitch(state: str) -> None:
    facts = facts_of(gpus=2, nvswitches=0, smi=smi_of(gpus=(gpu(), gpu(1, fabric_state=state))))
    [found] = judge.findings(facts, target_of())
    assert found.reason is Reason.FABRIC_NOT_READY
    assert found.detail.endswith(f"GPU 1 says {state}")


def test_a_node_without_nvswitch_needs_no_fabric_manager_and_no_links() -> None:
    bare = facts_of(nvswitches=0, fabric_manager=FabricManager(), links_down=("GPU 0: every link",))
    assert reasons(bare) == []


def test_an_nvswitch_that_the_driver_does_not_see_is_a_finding() -> None:
    # Without its switches an A100 SXM4 node looks well to nvidia-smi, and no CUDA context can be made.
    blind = facts_of(nvswitches=0, nvswitches_unseen=6, fabric_manager=FabricManager())
    [found] = judge.findings(blind, target_of())
    assert found.reason is Reason.FABRIC_NOT_READY
    assert "does not see 6 of the NVSwitches" in found.detail


def test_many_links_are_counted() -> None:
    [found] = judge.findings(facts_of(links_down=tuple(f"GPU 0: Link {n}" for n in range(12))), target_of())
    assert found.detail.endswith("GPU 0: Link 7 and 4 more")


def test_a_healthy_nodes_report_says_what_matches() -> None:
    told = report.build(facts_of(), target_of(toolkit=True), None, changed=True, managed_by="mlperf-operator")
    assert told == NodeReport(
        ready=True,
        reason="Matched",
        message=f"driver {VERSION}, fabric manager {VERSION}, container toolkit and 8 GPUs match",
        changed=True,
        driver=VERSION,
        fabric_manager=VERSION,
        gpus=8,
        product=A100,
        managed_by="mlperf-operator",
    )


def test_a_fault_is_told_with_its_remedy() -> None:
    facts = facts_of(loaded=None, product=None, nvswitches=0)
    error = DriverError(Reason.HEADERS_MISSING, "/lib/modules/5.15/build is not there")
    told = report.build(facts, target_of(), error, changed=False, managed_by=None)
    assert (told.ready, told.reason) == (False, "KernelHeadersMissing")
    assert told.message == f"/lib/modules/5.15/build is not there. Next: {REMEDIES[Reason.HEADERS_MISSING]}"
    assert (told.driver, told.fabric_manager, told.product) == (None, None, None)


def test_all_findings_are_one_error_with_the_first_reason() -> None:
    users = (GpuUser(pid=1, command="x"),)
    found = [DriverError(Reason.GPU_IN_USE, "one", users=users), DriverError(Reason.SMI_FAILED, "two")]
    joined = report.joined(found)
    assert joined is not None
    assert (joined.reason, joined.detail, joined.users) == (Reason.GPU_IN_USE, "one; two", users)
    assert report.joined([]) is None


@pytest.mark.parametrize(
    "text", ["x" * 9000, "é" * 9000, "\U0001f525" * 9000, '"' * 9000, "\x01" * 9000, "\ud800" * 9000]
)
def test_the_report_fits_a_termination_message_whatever_was_said(text: str, tmp_path: Path) -> None:
    users = tuple(GpuUser(pid=4194303 - n, command='"' * 15, pod_uid="0" * 36) for n in range(200))
    error = DriverError(Reason.GPU_IN_USE, text, users=users)
    told = report.build(replace(facts_of(), product=text), target_of(), error, changed=True, managed_by="host")
    file = tmp_path / "termination-log"
    report.write(told, file)
    assert 2000 < len(file.read_bytes()) <= 4096
    assert NodeReport.model_validate_json(file.read_text()) == told
    assert told.users[0] == users[0]
    assert told.message.endswith("…")


def test_a_text_is_cut_to_bytes_and_to_one_line() -> None:
    assert report.cut(" a\n\tb  c ") == "a b c"
    assert report.cut("x" * MAX_MESSAGE) == "x" * MAX_MESSAGE
    assert len(report.cut("é" * MAX_MESSAGE).encode()) <= MAX_MESSAGE


def test_the_reports_wire_form_has_no_empty_fields() -> None:
    told = report.build(facts_of(nvswitches=0), target_of(), None, changed=False, managed_by=None)
    assert not {"fabricManager", "managedBy"} & set(json.loads(encode(told)))
