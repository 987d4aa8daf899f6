"""MLCommons' accuracy targets of the closed division, as far as they never changed.

Source: accuracy-target and accuracy-upper-limit of the submission checker (mlcommons/inference, tools/submission),
v1.0 to v6.1. Left out: mixtral-8x7b, whose targets differ between v4.1 and v5.0, qwen3-vl-235b-a22b, whose target
differs between scenarios since v6.1, and benchmarks whose script and target are not in the same unit (rgat,
pointpainting).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """What an accuracy must keep to; both ends are allowed, None is no bound."""

    lowest: float | None = None
    highest: float | None = None

    def allow(self, value: float) -> bool | None:
        """Return whether a value keeps to the bounds, None when there are none."""
        if self.lowest is None and self.highest is None:
            return None
        return (self.lowest is None or value >= self.lowest) and (self.highest is None or value <= self.highest)


_SHARES = {"95": 0.95, "99": 0.99, "99.9": 0.999}

_VARIED: dict[str, dict[str, float]] = {
    "bert": {"F1": 90.874},
    "3d-unet": {"DICE": 0.86170},
    "dlrm": {"AUC": 80.25},
    "dlrm-v2": {"AUC": 80.31},
    "gptj": {"ROUGE1": 42.9865, "ROUGE2": 20.1235, "ROUGEL": 29.9881},
    "llama2-70b": {"ROUGE1": 44.4312, "ROUGE2": 22.0352, "ROUGEL": 28.6162},
    "yolo": {"mAP": 53.4},
}
"""Accuracy of the reference models, of which a result must reach the share that its variant names: bert-99.9."""

_SINGLE: dict[str, dict[str, float]] = {
    "resnet50": {"acc": 76.46},
    "resnet": {"acc": 76.46},
    "retinanet": {"mAP": 37.55},
    "ssd-resnet34": {"mAP": 20.0},
    "ssd-large": {"mAP": 20.0},
    "ssd-mobilenet": {"mAP": 22.0},
    "ssd-small": {"mAP": 22.0},
    "rnnt": {"WER_ACC": 100 - 7.452},
    "whisper": {"WER_ACC": 100 - 2.0671},
    "llama3.1-405b": {"ROUGEL": 21.6666, "exact_match": 90.1335},
    "llama3.1-8b": {"ROUGE1": 38.7792, "ROUGE2": 15.9075, "ROUGEL": 24.4957, "ROUGELSUM": 35.793},
    "llama3.1-8b-edge": {"ROUGE1": 39.06, "ROUGE2": 16.1147, "ROUGEL": 24.6375, "ROUGELSUM": 36.124},
    "deepseek-r1": {"exact_match": 81.3582},
    "gpt-oss-120b": {"exact_match": 83.13},
    "wan-2.2-t2v-a14b": {"vbench_score": 70.48},
}
"""The same of benchmarks with one variant, which asks for 99 %."""

_LENGTHS: dict[str, dict[str, float]] = {
    "llama2-70b": {"TOKENS_PER_SAMPLE": 294.45},
    "llama3.1-405b": {"TOKENS_PER_SAMPLE": 684.68},
    "llama3.1-8b": {"GEN_LEN": 8167644},
    "llama3.1-8b-edge": {"GEN_LEN": 3051113},
    "deepseek-r1": {"TOKENS_PER_SAMPLE": 3886.2274},
}
"""Length of the reference models' answers, which a result's may differ from by a tenth."""

_BOUNDS: dict[tuple[str, str], Bounds] = {
    ("gptj", "GEN_LEN"): Bounds(lowest=4016878 * 0.9),
    ("dlrm-v3", "DLRM_NE"): Bounds(lowest=0.86600313),
    ("dlrm-v3", "DLRM_ACC"): Bounds(lowest=0.69581349),
    ("dlrm-v3", "DLRM_AUC"): Bounds(lowest=0.78584337),
    ("gpt-oss-120b", "TOKENS_PER_SAMPLE"): Bounds(highest=10998.9),
    ("e2e-rag-qna", "E2E_ACCURACY"): Bounds(lowest=33.95),
    ("e2e-rag-db", "E2E_ACCURACY"): Bounds(lowest=98),
    ("qwen3.6-27b", "mAP"): Bounds(lowest=85.3677),
    ("stable-diffusion-xl", "CLIP_SCORE"): Bounds(31.68631873, 31.81331801),
    ("stable-diffusion-xl", "FID_SCORE"): Bounds(23.01085758, 23.95007626),
}

_BRATS_DICE = 0.853
"""3d-unet up to v1.1, on BraTS 2019."""

_VARIANT = re.compile(r"(?P<benchmark>.+?)-(?P<share>9[59]|99\.9)$")


def bounds_of(variant: str | None, metric: str, *, brats: bool = False) -> Bounds:
    """Return the bounds of a variant's metric such as F1 of bert-99.9, without any when they are not known here."""
    benchmark, share = _parts(variant)
    if (fixed := _BOUNDS.get((benchmark, metric))) is not None:
        return fixed
    if (length := _LENGTHS.get(benchmark, {}).get(metric)) is not None:
        return Bounds(_rounded(length * 0.9), _rounded(length * 1.1))
    target = _VARIED.get(benchmark, {}).get(metric) if share else _SINGLE.get(benchmark, {}).get(metric)
    if target is None:
        return Bounds()
    if brats and metric == "DICE":
        target = _BRATS_DICE
    return Bounds(lowest=_rounded(target * _SHARES[share or "99"]))


def scores_of(variant: str | None) -> tuple[str, ...]:
    """Return the scores of a variant that have a target, such as F1 of bert-99; none when they are not known here."""
    benchmark, share = _parts(variant)
    return tuple((_VARIED if share else _SINGLE).get(benchmark, {}))


def _parts(variant: str | None) -> tuple[str, str | None]:
    name = (variant or "").replace("llama3_1", "llama3.1")
    found = _VARIANT.match(name)
    return (found["benchmark"].removesuffix("-interactive"), found["share"]) if found else (name, None)


def _rounded(number: float) -> float:
    # 90.874 * 0.99 is 89.96526, whatever binary arithmetic adds.
    return round(number, 8)
