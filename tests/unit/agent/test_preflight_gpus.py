"""What preflight finds of driver and GPUs, over what nvidia-smi and the kernel say when well and when broken."""

from __future__ import annotations

import pytest

from mlperf_operator.agent.wrapper import preflight
from mlperf_operator.agent.wrapper.preflight import Answer
from unit.agent.standin_gpus import A100, Gpus, row, rows

KERNEL = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc 12\n"
)
OPEN_KERNEL = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.161.08  Release Build  (dvs-builder@U16-I3)  Thu\n"
)
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n\n"
)
LOST = "Unable to determine the device handle for GPU0000:07:00.0: Unknown Error\n"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54\n"
FELL_OFF = "the GPU failed or fell off the bus: see the Xid messages in the node's dmesg, then reset or replace it"
REMEDY = "set driver.version to what the node has, or let the operator install it (driver.policy Ensure)"


class TestSmi:
    """nvidia-smi's rows, good and bad."""

    def test_the_system_as_it_should_be(self) -> None:
        assert preflight.smi_findings(Answer(0, rows()), A100) == []

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (rows(1), ["1 GPUs are visible and the system has 2"]),
            ("", ["0 GPUs are visible and the system has 2"]),
            (
                row() + LOST,
                [f"nvidia-smi says: {LOST.strip()}; {FELL_OFF}", "1 GPUs are visible and the system has 2"],
            ),
            (
                row() + row(1, name="NVIDIA A100-SXM4-80GB"),
                [
                    "the GPUs are of different products: NVIDIA A100-SXM4-40GB, NVIDIA A100-SXM4-80GB",
                    "GPU 1: is NVIDIA A100-SXM4-80GB and the system has A100-SXM4-40GB",
                ],
            ),
            (row() + row(1, mig="Enabled"), ["GPU 1: MIG is on; turn it off with nvidia-smi -mig 0"]),
            (
                row() + row(1, limit="225.00"),
                ["GPU 1: is limited to 225 W and its default is 400 W; nvidia-smi -pl 400 sets it"],
            ),
            (
                rows(mode="Prohibited"),
                ["GPU 0, 1: its compute mode is Prohibited; nvidia-smi -c DEFAULT sets it back"],
            ),
            (
                row(mode="Exclusive_Process") + row(1),
                ["GPU 0: its compute mode is Exclusive_Process; nvidia-smi -c DEFAULT sets it back"],
            ),
            (
                row(ecc="Disabled", errors="[N/A]") + row(1, errors="3"),
                [
                    "GPU 0: ECC is off, and MLPerf asks for it in datacenter systems; nvidia-smi -e 1 and a reset turn "
                    "it on",
                    "GPU 1: has 3 uncorrectable ECC errors; reset or replace it",
                ],
            ),
        ],
    )
    def test_what_differs_is_said(self, text: str, found: list[str]) -> None:
        assert preflight.smi_findings(Answer(0, text), A100) == found

    @pytest.mark.parametrize(
        "unknown",
        [
            {"limit": "[N/A]", "default": "[N/A]"},
            {"limit": "[Not Supported]"},
            {"default": "[Unknown Error]"},
            {"mig": "[N/A]", "mode": "[N/A]", "ecc": "[N/A]", "errors": "[N/A]"},
            {"limit": "400"},
        ],
    )
    def test_what_nvidia_smi_does_not_know_is_no_finding(self, unknown: dict[str, str]) -> None:
        assert preflight.smi_findings(Answer(0, rows(2, **unknown)), A100) == []

    @pytest.mark.parametrize(
        ("answer", "found"),
        [
            (
                Answer(18, MISMATCH),
                "nvidia-smi ended with 18: Failed to initialize NVML: Driver/library version mismatch NVML library "
                "version: 550.54; the node's driver was changed under its loaded module: load the new module, or "
                "reboot the node",
            ),
            (
                Answer(9, NO_DRIVER),
                f"nvidia-smi ended with 9: {NO_DRIVER.strip()}; load the driver on the node: modprobe nvidia",
            ),
            (
                Answer(6, "No devices were found\n"),
                "nvidia-smi ended with 6: No devices were found; the container was given no GPU, or none of them "
                "works: see the node's dmesg",
            ),
            (Answer(255, "", LOST), f"nvidia-smi ended with 255: {LOST.strip()}; {FELL_OFF}"),
            (
                Answer(2, 'Field "compute_mode" is not a valid field to query.\n\n'),
                'nvidia-smi ended with 2: Field "compute_mode" is not a valid field to query.',
            ),
            (Answer(None), "nvidia-smi does not answer within 120 s; see the Xid messages in the node's dmesg"),
        ],
    )
    def test_its_refusal_is_told_in_its_own_words_with_what_to_do(self, answer: Answer, found: str) -> None:
        assert preflight.smi_findings(answer, A100) == [found]

    def test_a_sentence_with_as_many_commas_as_a_row_is_no_gpu(self) -> None:
        found = preflight.smi_findings(Answer(0, rows() + "a, b, c, d, e, f, g, h, i\n"), A100)
        assert found == ["nvidia-smi says: a, b, c, d, e, f, g, h, i"]

    def test_what_it_said_before_it_failed_counts(self) -> None:
        found = preflight.smi_findings(Answer(15, row(mig="Enabled") + LOST), A100)
        assert found == [
            f"nvidia-smi ended with 15: {LOST.strip()}; {FELL_OFF}",
            "1 GPUs are visible and the system has 2",
            "GPU 0: MIG is on; turn it off with nvidia-smi -mig 0",
        ]


class TestDriver:
    """The driver's version, against a branch or an exact version."""

    @pytest.mark.parametrize(
        ("version", "wanted", "fits"),
        [
            ("550.54.14", "550", True),
            ("550.54.14", "550.54", True),
            ("550.54.14", "550.54.14", True),
            ("550.135", "550.135", True),
            ("535.161.08", "550", False),
            ("5501.10", "550", False),
            ("550.541.1", "550.54", False),
            ("550.54.14", "550.54.1", False),
            ("550.54", "550.54.14", False),
            ("535.161.08", None, True),
        ],
    )
    def test_it_is_compared_part_by_part(self, version: str, wanted: str | None, *, fits: bool) -> None:
        told = f"the driver is {version} and the run wants {wanted}; {REMEDY}"
        assert preflight.driver_findings([version], wanted) == ([] if fits else [told])

    def test_none_at_all_is_told_unless_nobody_asks(self) -> None:
        assert preflight.driver_findings([], None) == []
        (found,) = preflight.driver_findings([], "550")
        assert found.startswith("no driver's version is to be seen and the run wants 550")

    def test_several_are_told_and_each_is_compared(self, gpus: Gpus) -> None:
        gpus.smi(row() + row(1, driver="535.161.08"))
        gpus.cuda()
        found, facts = preflight.look_at_gpus(A100)
        assert found == [
            "drivers of several versions are at work: 535.161.08, 550.54.14",
            f"the driver is 535.161.08 and the run wants 550; {REMEDY}",
        ]
        assert facts == {"product": "NVIDIA A100-SXM4-40GB", "count": 2}

    @pytest.mark.parametrize(
        ("text", "version"), [(KERNEL, "550.54.14"), (OPEN_KERNEL, "535.161.08"), ("NVRM version: none\n", None)]
    )
    def test_the_kernel_tells_it_too(self, gpus: Gpus, text: str, version: str | None) -> None:
        assert preflight.kernel_driver() is None
        gpus.kernel.write_text(text)
        assert preflight.kernel_driver() == version

    def test_the_kernel_is_asked_where_nvidia_smi_does_not_answer(self, gpus: Gpus) -> None:
        gpus.smi(MISMATCH, 18)
        gpus.cuda(init=803)
        gpus.kernel.write_text(OPEN_KERNEL)
        found, facts = preflight.look_at_gpus(A100)
        assert found[0] == f"the driver is 535.161.08 and the run wants 550; {REMEDY}"
        assert [text.partition(":")[0] for text in found[1:]] == [
            "nvidia-smi ended with 18",
            "CUDA cannot be initialised",
        ]
        assert facts == {"driver": "535.161.08"}


class TestToolkit:
    """What the container has of the driver, which is the container toolkit's work."""

    def test_neither_means_that_the_toolkit_did_nothing(self, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus.no_cuda()
        monkeypatch.setenv("PATH", "/no/such/folder")
        (found, *_), facts = preflight.look_at_gpus(A100)
        assert found.startswith("the container has no nvidia-smi and no libcuda.so.1 (nvidia-smi: No such file")
        assert "libcuda.so.1: file too short); NVIDIA Container Toolkit did not put the driver into it" in found
        assert "gpuRuntimeClass" in found
        assert facts == {}

    def test_it_is_one_finding_and_the_driver_another(self, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus.no_cuda()
        monkeypatch.setenv("PATH", "/no/such/folder")
        _, driver = preflight.look_at_gpus(A100)[0]
        assert "see whether the node has one loaded" in driver

    def test_only_one_of_them_means_a_capability_that_the_image_does_not_ask_for(self, gpus: Gpus) -> None:
        gpus.smi(rows())
        gpus.no_cuda()
        (found,), facts = preflight.look_at_gpus(A100)
        assert found.startswith("the container has no libcuda.so.1 (")
        assert "NVIDIA_DRIVER_CAPABILITIES of the image must have compute" in found
        assert facts["driver"] == "550.54.14"
