"""accuracy.txt: what the benchmarks' accuracy scripts print, and MLCommons' thresholds.

Names and patterns follow the accuracy metrics of MLCommons' submission checker.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from mlperf_operator.results.detail import finite
from mlperf_operator.results.model import Accuracy, same

_NUMBER = r"'?(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"


def _quoted(key: str) -> re.Pattern[str]:
    return re.compile(rf"['\"]{key}['\"]:\s*{_NUMBER}")


_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("F1", _quoted("f1")),
    ("DICE", re.compile(r"Accuracy:\s*mean\s*=\s*" + _NUMBER)),
    ("AUC", re.compile(r"\bAUC=" + _NUMBER)),
    ("mAP", re.compile(r"(?:\bmAP=|'Total':\s*)" + _NUMBER)),
    ("WER_ACC", re.compile(r"Word Error Rate:[^\n]{0,200}accuracy=" + _NUMBER)),
    ("BLEU", re.compile(r"\bBLEU:\s*" + _NUMBER)),
    ("meanAcc", _quoted("mean-accuracy")),
    ("ROUGE1", _quoted("rouge1")),
    ("ROUGE2", _quoted("rouge2")),
    ("ROUGEL", _quoted("rougeL")),
    ("gsm8k", _quoted("gsm8k")),
    ("mbxp", _quoted("mbxp")),
    ("exact_match", _quoted("exact_match")),
    ("TOKENS_PER_SAMPLE", _quoted("tokens_per_sample")),
    ("CLIP_SCORE", _quoted("CLIP_SCORE")),
    ("FID_SCORE", _quoted("FID_SCORE")),
    ("vbench_score", _quoted("vbench_score")),
    ("mIOU", re.compile(r"\bmean_iou:\s*" + _NUMBER)),
    ("DLRM_NE", re.compile(r"metric/lifetime_ne/rating:\s*" + _NUMBER)),
    ("DLRM_ACC", re.compile(r"metric/lifetime_accuracy/rating:\s*" + _NUMBER)),
    ("DLRM_AUC", re.compile(r"metric/lifetime_gauc/rating:\s*" + _NUMBER)),
)
_PLAIN = re.compile(r"^\s*(?:\{\"accuracy|accuracy)[\": ]*=?\s*" + _NUMBER, re.MULTILINE)
_GEN_LEN = _quoted("gen_len")
_ROUGE_LSUM = _quoted("rougeLsum")

_BRATS = re.compile(r"whole tumor")

_TARGETS: dict[tuple[str, str], float] = {("bert", "F1"): 90.874, ("3d-unet", "DICE"): 0.86170}
"""Accuracy of the reference models (submission checker, accuracy-target), of which a result must reach a share."""

_BRATS_DICE = 0.853
"""3d-unet up to v1.1, on BraTS 2019 (submission checker, v0.7 to v1.1)."""

_SHARES = {"99": 0.99, "99.9": 0.999}


def parse_accuracy(text: str, variant: str | None) -> tuple[Accuracy, ...]:
    """Return the accuracy metrics in the text, held against MLCommons' threshold where it is known."""
    values = {name: number for name, pattern in _PATTERNS if (number := _last(pattern, text)) is not None}
    if "F1" in values:
        # The score of bert is F1; the exact match that its script prints beside it has no target.
        values.pop("exact_match", None)
    if not values and (plain := _last(_PLAIN, text)) is not None:
        values["acc"] = plain
    if "ROUGE1" in values and "TOKENS_PER_SAMPLE" not in values:
        values |= {"GEN_LEN": length} if (length := _last(_GEN_LEN, text)) is not None else {}
        # Only llama3.1-8b has a target for it (submission checker, v5.1).
        if (variant or "").startswith("llama3.1-8b") and (score := _last(_ROUGE_LSUM, text)) is not None:
            values["ROUGELSUM"] = score
    brats = _BRATS.search(text) is not None
    return tuple(judged(name, value, threshold_of(variant, name, brats=brats)) for name, value in values.items())


def merged_accuracy(
    text: str | None, said: Sequence[Accuracy], variant: str | None
) -> tuple[tuple[Accuracy, ...], list[str]]:
    """Return the accuracy by accuracy.txt and metadata.json, and where they differ, one sentence each."""
    notes = []
    parsed = parse_accuracy(text, variant) if text is not None else ()
    if text is not None and not parsed:
        notes.append("accuracy.txt holds no accuracy that is known here")
    if not said:
        return parsed, notes
    by_name = {item.name.lower(): item for item in parsed}
    items = []
    for item in said:
        threshold = item.threshold if item.threshold is not None else threshold_of(variant, item.name)
        logged = by_name.get(item.name.lower())
        if logged is not None and not same(logged.value, item.value):
            notes.append(
                f"metadata.json says {item.name} {item.value:g}, accuracy.txt {logged.value:g}, which is taken"
            )
            items.append(judged(item.name, logged.value, threshold))
            continue
        reached = judged(item.name, item.value, threshold).passed
        items.append(Accuracy(item.name, item.value, threshold, reached if item.passed is None else item.passed))
    return tuple(items), notes


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    """Return the number that a pattern finds last: the scripts print interim values too."""
    found = deque(pattern.finditer(text), maxlen=1)
    return finite(float(found[0][1])) if found else None


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
