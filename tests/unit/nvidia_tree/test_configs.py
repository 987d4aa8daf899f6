"""The stand-in's registry takes what we render, and refuses what NVIDIA's refuses."""

from __future__ import annotations

import pytest

from mlperf_operator.api.v1alpha1 import ConfigVersion
from unit.nvidia_tree.bench import SUITE, Bench, rendered, write

PAIRS = [f"{name}/{scenario.value}" for name, found in SUITE.benchmarks.items() for scenario in found.scenarios]
CUSTOM = "custom_configs/bert/Offline/custom.py"


@pytest.mark.parametrize("version", SUITE.config_versions)
def test_every_rendered_config_is_imported_and_found(ready: Bench, version: ConfigVersion) -> None:
    ready.render(configVersion=version.value)
    words = {"config_ver": "high_accuracy" if version is ConfigVersion.HIGH_ACCURACY else "default"}
    arguments = " ".join(f"--{key}={value}" for key, value in words.items())
    done = ready.make("generate_engines", f"RUN_ARGS={arguments} --benchmarks=bert,3d-unet")
    assert done.returncode == 0, done.stdout
    built = {path.parent.relative_to(ready.work / "build/engines").as_posix() for path in ready.work.rglob("*.plan")}
    assert built == {f"DGX-A100_A100-SXM4-40GBx8/{pair}" for pair in PAIRS}
    assert "No registered config" not in done.stdout


def test_max_q_has_a_config_of_its_own(ready: Bench) -> None:
    spec = {"benchmarks": [{"name": "3d-unet", "scenarios": ["Offline"]}], "powerSetting": "MaxQ"}
    ready.render(**spec)
    done = ready.pair("generate_engines", "3d-unet/Offline", config_ver="maxq")
    assert "custom_k_99_MaxQ.plan" in " ".join(path.name for path in ready.work.rglob("*.plan")), done.stdout
    assert "power_limit : " in done.stdout


def test_the_trees_own_configs_are_not_read_beside_ours(ready: Bench) -> None:
    (ready.overrides / CUSTOM).unlink()
    done = ready.pair("generate_engines", "bert/Offline")
    # Not a word, and no failure: so does the real tree.
    assert done.returncode == 0
    assert "No registered config" not in done.stdout
    assert not list(ready.work.rglob("*.plan"))


def test_a_config_of_another_version_only_is_told_and_no_failure(ready: Bench) -> None:
    done = ready.pair("generate_engines", "bert/Offline", config_ver="high_accuracy")
    assert done.returncode == 0
    text = "No registered config for bert.Offline.DGX-A100_A100-SXM4-40GBx8 for WorkloadSetting(custom_k_99_9_MaxP)"
    assert text in done.stdout


def test_registering_a_key_of_the_trees_own_again_is_an_error(ready: Bench) -> None:
    own = (ready.overrides / CUSTOM).read_text()
    write(ready.overrides, {CUSTOM: f"import configs.bert.Offline\n{own.partition(chr(10))[2]}"})
    done = ready.pair("generate_engines", "bert/Offline")
    assert done.returncode != 0
    assert "is already registered." in done.stdout


@pytest.mark.parametrize(
    ("wrong", "right", "text"),
    [
        ("    no_such_field = 1\n", "    scenario =", "impossible field no_such_field"),
        ("    gpu_batch_size = {'3d-unet': 1}\n", "    scenario =", "gpu_batch_size for"),
        ("    slice_overlap_patch_kernel_cg_impl = True\n", "    scenario =", "impossible field slice_overlap"),
    ],
)
def test_a_field_that_the_workload_lacks_is_refused(ready: Bench, wrong: str, right: str, text: str) -> None:
    lines = (ready.overrides / CUSTOM).read_text().splitlines(keepends=True)
    name = wrong.split("=", maxsplit=1)[0]
    kept = [line for line in lines if not line.startswith(name)]
    place = next(number for number, line in enumerate(kept) if line.startswith(right))
    write(ready.overrides, {CUSTOM: "".join([*kept[:place], wrong, *kept[place:]])})
    done = ready.pair("generate_engines", "bert/Offline")
    assert done.returncode != 0
    assert text in done.stdout


def test_a_missing_list_of_systems_stops_everything(ready: Bench) -> None:
    (ready.overrides / "custom_systems/custom_list.py").unlink()
    done = ready.pair("generate_engines", "bert/Offline")
    assert done.returncode != 0
    assert "custom_systems" in done.stdout


def test_the_rendered_files_are_the_requested_ones() -> None:
    files = rendered(benchmarks=[{"name": "bert", "scenarios": ["Offline"]}])
    assert CUSTOM in files
    assert not any("3d-unet" in name for name in files)
