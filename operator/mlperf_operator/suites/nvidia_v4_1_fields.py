"""The fields of NVIDIA's v4.1 config classes that bert and 3d-unet use on A100, and where each may stand.

Source: closed/NVIDIA, code/common/fields.py (types, supported_benchmarks, supported_scenarios,
supported_power_settings); its registry refuses a class with a field that the workload lacks.
"""

from __future__ import annotations

from mlperf_operator.api.v1alpha1 import PowerSetting, Scenario
from mlperf_operator.suites.model import ConfigRule, FieldType

CONFIG_FIELDS: dict[str, FieldType] = {
    "active_sms": "Integer",
    "bert_opt_seqlen": "Integer",
    "end_on_device": "Boolean",
    "gpu_batch_size": "Map",
    "gpu_copy_streams": "Integer",
    "gpu_inference_streams": "Integer",
    "graphs_max_seqlen": "Integer",
    "instance_group_count": "Integer",
    "min_duration": "Integer",
    "min_query_count": "Integer",
    "offline_expected_qps": "Number",
    "power_limit": "Integer",
    "precision": "Word",
    "server_num_issue_query_threads": "Integer",
    "server_target_qps": "Number",
    "single_stream_expected_latency_ns": "Integer",
    "slice_overlap_patch_kernel_cg_impl": "Boolean",
    "soft_drop": "Number",
    "start_from_device": "Boolean",
    "use_cuda_thread_per_device": "Boolean",
    "use_graphs": "Boolean",
    "use_small_tile_gemm_plugin": "Boolean",
    "workspace_size": "Integer",
}

_BERT = ("bert",)
_UNET = ("3d-unet",)
_COUNT = ConfigRule(minimum=1)


def _rate(scenario: Scenario) -> ConfigRule:
    # The registry takes a class without it, but LoadGen then plans its queries for one a second.
    return ConfigRule(scenarios=(scenario,), required=True, minimum=0.001)


CONFIG_RULES: dict[str, ConfigRule] = {
    "active_sms": ConfigRule(minimum=1, maximum=100),
    "bert_opt_seqlen": ConfigRule(benchmarks=_BERT, minimum=1, maximum=384),
    "end_on_device": ConfigRule(benchmarks=_UNET),
    "gpu_batch_size": ConfigRule(required=True, minimum=1, keyed_by_benchmark=True),
    "gpu_copy_streams": _COUNT,
    "gpu_inference_streams": _COUNT,
    "graphs_max_seqlen": ConfigRule(benchmarks=_BERT, minimum=1, maximum=384),
    "instance_group_count": _COUNT,
    "offline_expected_qps": _rate(Scenario.OFFLINE),
    # What an A100 SXM4 can be set to (nvidia-smi -q -d POWER), in watts.
    "power_limit": ConfigRule(power_settings=(PowerSetting.MAX_Q,), required=True, minimum=100, maximum=400),
    # fp8 needs Hopper.
    "precision": ConfigRule(words=("int8", "fp16", "fp32")),
    "server_num_issue_query_threads": ConfigRule(scenarios=(Scenario.SERVER,)),
    "server_target_qps": _rate(Scenario.SERVER),
    "single_stream_expected_latency_ns": _rate(Scenario.SINGLE_STREAM),
    "slice_overlap_patch_kernel_cg_impl": ConfigRule(benchmarks=_UNET),
    "soft_drop": ConfigRule(benchmarks=_BERT, maximum=1),
    "use_cuda_thread_per_device": ConfigRule(benchmarks=_UNET),
    "use_small_tile_gemm_plugin": ConfigRule(benchmarks=_BERT),
}
