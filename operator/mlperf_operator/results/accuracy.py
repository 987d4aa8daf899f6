"""accuracy.txt: what the benchmarks' accuracy scripts print, and MLCommons' thresholds.

Names and patterns follow the accuracy metrics of MLCommons' submission checker.
"""

from __future__ import annotations

import re
from collections import deque

from mlperf_operator.results.model import Accuracy

_NUMBER = r"'?([0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("F1", re.compile(r"\"f1\":\s*" + _NUMBER)),
    ("DICE", re.compile(r"Accuracy:\s*mean\s*=\s*" + _NUMBER)),
    ("AUC", re.compile(r"\bAUC=" + _NUMBER + "%?")),
    ("mAP", re.compile(r"\bmAP=" + _NUMBER + "%?")),
    ("WER_ACC", re.compile(r"Word Error Rate:.*accuracy=" + _NUMBER)),
    ("BLEU", re.compile(r"\bBLEU:\s*" + _NUMBER)),
    ("ROUGE1", re.compile(r"['\"]rouge1['\"]:\s*" + _NUMBER)),
    ("ROUGE2", re.compile(r"['\"]rouge2['\"]:\s*" + _NUMBER)),
    ("ROUGEL", re.compile(r"['\"]rougeL['\"]:\s*" + _NUMBER)),
    ("gsm8k", re.compile(r"['\"]gsm8k['\"]:\s*" + _NUMBER)),
    ("mbxp", re.compile(r"['\"]mbxp['\"]:\s*" + _NUMBER)),
    ("exact_match", re.compile(r"'exact_match':\s*" + _NUMBER)),
    ("TOKENS_PER_SAMPLE", re.compile(r"['\"]tokens_per_sample['\"]:\s*" + _NUMBER)),
    ("CLIP_SCORE", re.compile(r"['\"]CLIP_SCORE['\"]:\s*" + _NUMBER)),
    ("FID_SCORE", re.compile(r"['\"]FID_SCORE['\"]:\s*" + _NUMBER)),
    ("mIOU", re.compile(r"\bmean_iou:\s*" + _NUMBER)),
)
_PLAIN = re.compile(r"^\s*(?:\{\"accuracy|accuracy)[\": ]*=?\s*" + _NUMBER, re.MULTILINE)
_GEN_LEN = re.compile(r"['\"]gen_len['\"]:\s*" + _NUMBER)

_BRATS = re.compile(r"whole tumor")

_TARGETS: dict[tuple[str, str], float] = {("bert", "F1"): 90.874, ("3d-unet", "DICE"): 0.86170}
"""Accuracy of the reference models (submission checker, accuracy-target), of which a result must reach a share."""

_BRATS_DICE = 0.853
"""3d-unet up to v1.1, on BraTS 2019 (submission checker, v0.7 to v1.1)."""

_SHARES = {"99": 0.99, "99.9": 0.999}


def parse_accuracy(text: str, variant: str | None) -> tuple[Accuracy, ...]:
    """Return the accuracy metrics in the text, held against MLCommons' threshold where it is known."""
    values = {name: float(found[1]) for name, pattern in _PATTERNS if (found := _last(pattern, text)) is not None}
    if not values and (plain := _last(_PLAIN, text)) is not None:
        values["acc"] = float(plain[1])
    if "ROUGE1" in values and "TOKENS_PER_SAMPLE" not in values and (length := _last(_GEN_LEN, text)) is not None:
        values["GEN_LEN"] = float(length[1])
    brats = _BRATS.search(text) is not None
    return tuple(judged(name, value, threshold_of(variant, name, brats=brats)) for name, value in values.items())


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def judged(name: str, value: float, threshold: float | None) -> Accuracy:
    """Return the metric with its verdict."""
    return Accuracy(name, value, threshold, None if threshold is None else value >= threshold)


def threshold_of(variant: str | None, metric: str, *, brats: bool = False) -> float | None:
    """Return MLCommons' threshold of a variant such as bert-99.9, None when it is not known here."""
    benchmark, _, share = (variant or "").rpartition("-")
    target = _BRATS_DICE if brats and metric == "DICE" else _TARGETS.get((benchmark, metric))
    if target is None or share not in _SHARES:
        return None
    return round(target * _SHARES[share], 8)
