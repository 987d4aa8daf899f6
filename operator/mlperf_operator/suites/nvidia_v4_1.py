"""NVIDIA's MLPerf Inference v4.1 submission, the last with both bert and 3d-unet.

Source: mlcommons/inference_results_v4.1, closed/NVIDIA (README, Makefile.const, Makefile.data, Makefile.build).
"""

from __future__ import annotations

from mlperf_operator.api.v1alpha1 import AuditTest, ConfigVersion, Scenario
from mlperf_operator.suites.model import (
    CodeSource,
    MakeStep,
    Postcondition,
    Prebuild,
    StageSpec,
    Suite,
    SuiteBenchmark,
    SystemSpec,
)
from mlperf_operator.suites.nvidia_v4_1_fields import CONFIG_FIELDS, CONFIG_RULES

MIB = 1024**2
GIB = 1024**3
_AMPERE = ("SM=80", "NVSI_ARCH=Ampere")
_TRITON = "the v4.1 tree cannot build its Triton backend for A100 (BUILD_TRITON=0 in Makefile.docker)"

# RunAuditHandler.is_exempt (code/actionhandler/run_audit.py): TEST04 and TEST06 do nothing for bert and 3d-unet.
_AUDITS = (AuditTest.TEST01, AuditTest.TEST05)

# What each step leaves: code/*/tensorrt/{download_data,download_model}.sh and preprocess_data.py. Every path is written
# out: what fails is removed before a retry, and must not be another benchmark's.
_BERT_DATA = (Postcondition(glob="/scratch/data/squad/dev-v1.1.json", md5="3e85deb501d4e538b6bc56f786231552"),)
# Checksums as in mlcommons/mlperf-automations, script/get-ml-model-bert-large-squad and get-ml-model-3d-unet-kits19.
_BERT_MODELS = (
    Postcondition(glob="/scratch/models/bert/bert_large_v1_1.onnx", md5="819b25b19cd8e59080c10892689750ca"),
    Postcondition(glob="/scratch/models/bert/bert_large_v1_1_fake_quant.onnx", md5="45f88ffb2915362242703c85c38ec2d4"),
    Postcondition(glob="/scratch/models/bert/vocab.txt", min_bytes=200_000),
)
# One sequence of 384 tokens for each of SQuAD's 10833 features.
_BERT_TENSORS = tuple(
    Postcondition(glob=f"/scratch/preprocessed_data/squad_tokenized/{name}.npy", npy_shape=(10833, 384))
    for name in ("input_ids", "input_mask", "segment_ids")
)
_KITS = "/scratch/data/KiTS19"
# mlcommons/inference, vision/medical_imaging/3d-unet-kits19/meta: 43 cases for inference, of which 00400 is made from
# 00185, and 20 others for calibration. wget leaves the lists empty when it fails.
_KITS_LISTS = {"inference": 43, "calibration": 20}
_UNET_DATA = (
    *(Postcondition(glob=f"{_KITS}/{part}_cases.json", json_length=length) for part, length in _KITS_LISTS.items()),
    *(
        Postcondition(
            glob=f"{_KITS}/kits19/data/{{}}/{kind}.nii.gz", cases_from=f"{_KITS}/{part}_cases.json", gzip=True
        )
        for part in _KITS_LISTS
        for kind in ("imaging", "segmentation")
    ),
)
_UNET_MODELS = (
    Postcondition(glob="/scratch/models/3d-unet-kits19/3dUNetKiTS19.onnx", md5="82f0618fde78f9839e7c712274019b4a"),
)
_KITS_TENSORS = "/scratch/preprocessed_data/KiTS19"
_UNET_TENSORS = (
    *(
        Postcondition(glob=f"{_KITS_TENSORS}/{part}/{kind}/{{}}.npy", cases_from=f"{_KITS}/{part}_cases.json")
        for part, kind in (("inference", "int8"), ("calibration", "fp32"))
    ),
    Postcondition(glob=f"{_KITS_TENSORS}/inference/int8/*.npy", min_count=43),
    Postcondition(glob=f"{_KITS_TENSORS}/calibration/fp32/*.npy", min_count=20),
    Postcondition(glob=f"{_KITS_TENSORS}/etc/gaussian_patches.npy"),
    Postcondition(glob=f"{_KITS_TENSORS}/reference/preprocessed_files.pkl"),
)

# Makefile.build, code/harness/CMakeLists.txt, code/plugin/*/CMakeLists.txt: what bert and 3d-unet load, and the scripts
# of MLCommons that judge accuracy (code/common/accuracy_checker.py) and audits (code/common/auditing.py).
_MLCOMMONS = "/work/build/inference"
_BUILT = tuple(
    Postcondition(glob=path)
    for path in (
        f"{_MLCOMMONS}/loadgen/build/libmlperf_loadgen.a",
        "/work/build/bin/harness_bert",
        "/work/build/bin/harness_3dunet",
        "/work/build/plugins/pixelShuffle3DPlugin/libpixelshuffle3dplugin.so",
        "/work/build/plugins/conv3D1X1X1K4Plugin/libconv3D1X1X1K4Plugin.so",
        "/work/build/plugins/conv3D3X3X3C1K32Plugin/libconv3D3X3X3C1K32Plugin.so",
        f"{_MLCOMMONS}/language/bert/accuracy-squad.py",
        # Of the submodule, which accuracy-squad.py imports from.
        f"{_MLCOMMONS}/language/bert/DeepLearningExamples/*/LanguageModeling/BERT/tokenization.py",
        f"{_MLCOMMONS}/compliance/nvidia/TEST01/run_verification.py",
        f"{_MLCOMMONS}/compliance/nvidia/TEST05/run_verification.py",
        "/work/build/power-dev/ptd_client_server/client.py",
    )
)

# docker/release/Dockerfile, which is what the tree's own prebuild builds. install_mxeval_deps (PHP, JDK, Go, Swift and
# more) serves mixtral alone, and a dead URL in it ends the script.
_PREBUILD = Prebuild(
    folder="docker/common",
    files=("requirements.x86_64.*.txt",),
    scripts=("install_apt_deps.sh", "install_pip_deps.sh", "install_misc_deps.sh"),
    leave_out=("install_mxeval_deps",),
    environment={"ENV": "release", "BUILD_CONTEXT": "x86_64", "ARCH": "x86_64", "DEBIAN_FRONTEND": "noninteractive"},
    commands=tuple(
        ("update-alternatives", "--install", f"/usr/bin/{name}", name, f"/usr/bin/{name}-{version}", version)
        for version in ("9", "11")
        for name in ("gcc", "g++")
    ),
    programs=("numactl", "ccache"),
    python_modules=("onnx", "transformers", "typeguard", "nibabel"),
    paths=("/usr/local/lib/libglog.so*", "/usr/local/lib/libgflags.so*", "/usr/include/boost/version.hpp"),
)

NVIDIA_V4_1 = Suite(
    name="nvidia-v4.1",
    image="nvcr.io/nvidia/mlperf/mlperf-inference:mlpinf-v4.1-cuda12.4-pytorch24.04-ubuntu22.04-x86_64-release",
    # The image holds the environment, not the code.
    code=CodeSource(
        git_url="https://github.com/mlcommons/inference_results_v4.1",
        git_commit="198fc46799b3328b36ee4bcbdebfa2db5a8e6183",
        sub_path="closed/NVIDIA",
    ),
    systems={
        "A100_SXM4_40GBx8": SystemSpec(gpu_product="A100-SXM4-40GB", gpu_count=8, make_arguments=_AMPERE),
        "A100_SXM4_40GBx1": SystemSpec(gpu_product="A100-SXM4-40GB", gpu_count=1, make_arguments=_AMPERE),
        # The tree has it under another name than nvidia-smi.
        "A100_SXM4_80GBx8": SystemSpec(
            harness_name="A100_SXM_80GBx8", gpu_product="A100-SXM4-80GB", gpu_count=8, make_arguments=_AMPERE
        ),
    },
    benchmarks={
        "bert": SuiteBenchmark(
            scenarios=(Scenario.OFFLINE, Scenario.SERVER, Scenario.SINGLE_STREAM),
            variants={ConfigVersion.DEFAULT: "bert-99", ConfigVersion.HIGH_ACCURACY: "bert-99.9"},
            audits=_AUDITS,
        ),
        "3d-unet": SuiteBenchmark(
            scenarios=(Scenario.OFFLINE, Scenario.SINGLE_STREAM),
            variants={ConfigVersion.DEFAULT: "3d-unet-99", ConfigVersion.HIGH_ACCURACY: "3d-unet-99.9"},
            audits=_AUDITS,
            max_q_scenarios=(Scenario.OFFLINE,),
        ),
    },
    config_versions=(ConfigVersion.DEFAULT, ConfigVersion.HIGH_ACCURACY),
    refused_config_versions={ConfigVersion.TRITON: _TRITON, ConfigVersion.HIGH_ACCURACY_TRITON: _TRITON},
    config_fields=CONFIG_FIELDS,
    config_rules=CONFIG_RULES,
    uses_gpu=True,
    requires_scratch=True,
    run_as_root=True,
    shm_bytes=32 * GIB,
    memlock=True,
    prebuild=_PREBUILD,
    offline_git={
        "https://github.com/mlcommons/inference.git": "inference.git",
        "https://github.com/mlcommons/power-dev.git": "power-dev.git",
        "https://github.com/NVIDIA/DeepLearningExamples.git": "DeepLearningExamples.git",
    },
    # pip builds LoadGen's wheel apart from what is installed: its build system is fetched too (loadgen/pyproject.toml).
    offline_wheels=("setuptools-*.whl", "wheel-*.whl", "pybind11-2.11.1-*.whl"),
    engine_files="*.plan",
    device_paths=("/dev/fuse",),
    keeps_entrypoint=True,
    # numactl comes with docker/common/install_apt_deps.sh: looked for where the image must have it already.
    tools=("make", "bash", "git", "wget", "ps", "lscpu", "numactl", "nvidia-cuda-mps-control"),
    scratch_min_free_bytes=800 * GIB,
    environment={"EXTERNAL_USER": "1"},
    # `ARCH := $(shell uname -p)` in Makefile.const, which says "unknown" where the image is not Ubuntu.
    make_arguments=("ARCH=x86_64",),
    stages=(
        StageSpec(name="prebuild", steps=(MakeStep(target="prebuild"), MakeStep(target="link_dirs", always=True))),
        StageSpec(
            name="download-data",
            steps=(
                MakeStep(
                    target="download_data",
                    per_benchmark=True,
                    scope="Shared",
                    retries=3,
                    fetches=True,
                    postconditions={"bert": _BERT_DATA, "3d-unet": _UNET_DATA},
                ),
            ),
        ),
        StageSpec(
            name="download-model",
            steps=(
                MakeStep(
                    target="download_model",
                    per_benchmark=True,
                    scope="Shared",
                    retries=3,
                    fetches=True,
                    postconditions={"bert": _BERT_MODELS, "3d-unet": _UNET_MODELS},
                ),
            ),
        ),
        StageSpec(
            name="preprocess-data",
            steps=(
                MakeStep(
                    target="preprocess_data",
                    per_benchmark=True,
                    scope="Shared",
                    postconditions={"bert": _BERT_TENSORS, "3d-unet": _UNET_TENSORS},
                ),
            ),
        ),
        StageSpec(
            name="build",
            steps=(MakeStep(target="build", scope="Shared", publish_tree=True, postconditions={"*": _BUILT}),),
        ),
    ),
)
