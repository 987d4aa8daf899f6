"""accuracy.txt: what the benchmarks' accuracy scripts print, and MLCommons' thresholds.

Names and patterns follow the accuracy metrics of MLCommons' submission checker.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from mlperf_operator.results.detail import finite
from mlperf_operator.results.model import Accuracy, same
from mlperf_operator.results.targets import Bounds, bounds_of

_NUMBER = r"'?(-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"


@dataclass(frozen=True)
class _Pattern:
    """Where a number stands; one of the words is there too, which is far quicker to look for in a long text."""

    words: tuple[str, ...]
    number: re.Pattern[str]

    def last(self, text: str) -> float | None:
        """Return the number that is found last: the scripts print interim values too."""
        if not any(word in text for word in self.words):
            return None
        found = deque(self.number.finditer(text), maxlen=1)
        return finite(float(found[0][1])) if found else None


def _quoted(key: str) -> _Pattern:
    return _Pattern((f"{key}'", f'{key}"'), re.compile(rf"['\"]{key}['\"]:\s*{_NUMBER}"))


def _after(*words: str, then: str = r"\s*") -> _Pattern:
    return _Pattern(words, re.compile(rf"(?:{'|'.join(words)}){then}{_NUMBER}"))


_PATTERNS: tuple[tuple[str, _Pattern], ...] = (
    ("F1", _quoted("f1")),
    ("DICE", _after("Accuracy:", then=r"\s*mean\s*=\s*")),
    ("AUC", _Pattern(("AUC=",), re.compile(r"\bAUC=" + _NUMBER))),
    ("mAP", _Pattern(("mAP=", "'Total':"), re.compile(r"(?:\bmAP=|'Total':\s*)" + _NUMBER))),
    ("WER_ACC", _after("Word Error Rate:", then=r"[^\n]{0,200}accuracy=")),
    ("BLEU", _Pattern(("BLEU:",), re.compile(r"\bBLEU:\s*" + _NUMBER))),
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
    ("mIOU", _Pattern(("mean_iou:",), re.compile(r"\bmean_iou:\s*" + _NUMBER))),
    ("DLRM_NE", _after("metric/lifetime_ne/rating:")),
    ("DLRM_ACC", _after("metric/lifetime_accuracy/rating:")),
    ("DLRM_AUC", _after("metric/lifetime_gauc/rating:")),
)
_PLAIN = _Pattern(
    ("accuracy",),
    re.compile(r"^[ \t]*(?:\{\"accuracy|accuracy)[\": ]*+=?\s*+" + _NUMBER, re.MULTILINE),
)
_GEN_LEN = _quoted("gen_len")
_ROUGE_LSUM = _quoted("rougeLsum")

_END_TO_END = _after("Accuracy:")

_BRATS = re.compile(r"whole tumor")


def parse_accuracy(text: str, variant: str | None, *, compliance: bool = False) -> tuple[Accuracy, ...]:
    """Return the accuracy metrics in the text, held against MLCommons' threshold where it is known.

    A compliance test answers a part of the data set, which is compared with another run and has no threshold.
    """
    values = {name: number for name, pattern in _PATTERNS if (number := pattern.last(text)) is not None}
    if "F1" in values:
        # The score of bert is F1; the exact match that its script prints beside it has no target.
        values.pop("exact_match", None)
    if not values and (plain := _PLAIN.last(text)) is not None:
        values["acc"] = plain
    if "ROUGE1" in values and "TOKENS_PER_SAMPLE" not in values:
        values |= {"GEN_LEN": length} if (length := _GEN_LEN.last(text)) is not None else {}
        # Only llama3.1-8b has a target for it (submission checker, v5.1).
        if (variant or "").startswith(("llama3.1-8b", "llama3_1-8b")) and (score := _ROUGE_LSUM.last(text)) is not None:
            values["ROUGELSUM"] = score
    if (variant or "").startswith("e2e-rag") and (answers := _END_TO_END.last(text)) is not None:
        values["E2E_ACCURACY"] = answers
    if (variant or "").startswith("qwen3-vl") and "F1" in values:
        # Its script names it f1; the submission checker (v6.0) does not mix it up with that of bert.
        values["F1_HIERARCHICAL"] = values.pop("F1")
    brats = _BRATS.search(text) is not None
    bounds = {name: Bounds() if compliance else bounds_of(variant, name, brats=brats) for name in values}
    return tuple(judged(name, value, bounds[name]) for name, value in values.items())


def merged_accuracy(
    text: str | None, said: Sequence[Accuracy], variant: str | None, *, compliance: bool = False
) -> tuple[tuple[Accuracy, ...], list[str]]:
    """Return the accuracy by accuracy.txt and metadata.json, and where they differ, one sentence each."""
    parsed = parse_accuracy(text, variant, compliance=compliance) if text is not None else ()
    notes = [] if text is None or parsed or _is_only_hash(text) else [_UNKNOWN]
    if not said:
        return parsed, notes if compliance else [*notes, *_too_high(parsed, variant)]
    by_name = {item.name.lower(): item for item in parsed}
    items = []
    for item in said:
        bounds = bounds_of(variant, item.name) if item.threshold is None else Bounds(lowest=item.threshold)
        logged = by_name.get(item.name.lower())
        if logged is not None and not same(logged.value, item.value):
            notes.append(
                f"metadata.json says {item.name} {item.value:g}, accuracy.txt {logged.value:g}, which is taken"
            )
            items.append(judged(item.name, logged.value, bounds))
            continue
        passed = bounds.allow(item.value) if item.passed is None else item.passed
        items.append(Accuracy(item.name, item.value, bounds.lowest, passed))
    unsaid = _failed_but_unsaid(parsed, said)
    notes += [
        f"metadata.json leaves out {item.name} {item.value:g} of accuracy.txt, which did not pass" for item in unsaid
    ]
    return (*items, *unsaid), notes


def _failed_but_unsaid(parsed: Sequence[Accuracy], said: Sequence[Accuracy]) -> list[Accuracy]:
    names = {item.name.lower() for item in said}
    return [item for item in parsed if item.passed is False and item.name.lower() not in names]


_UNKNOWN = "accuracy.txt holds no accuracy that is known here"


def _is_only_hash(text: str) -> bool:
    """Whether there is nothing but LoadGen's hash line, as beside the accuracy logs of compliance runs."""
    words = text.split()
    return bool(words) and all(word.startswith("hash=") for word in words)


def _too_high(items: Sequence[Accuracy], variant: str | None) -> list[str]:
    limits = [(item, bounds_of(variant, item.name).highest) for item in items]
    return [
        f"{item.name} {item.value:.9g} is above MLCommons' upper limit {limit:.9g}"
        for item, limit in limits
        if limit is not None and item.value > limit
    ]


def judged(name: str, value: float, bounds: Bounds) -> Accuracy:
    """Return the metric with its verdict."""
    return Accuracy(name, value, bounds.lowest, bounds.allow(value))
