"""accuracy.txt of every benchmark, and MLCommons' thresholds."""

from __future__ import annotations

import pytest

from mlperf_operator.results.accuracy import merged_accuracy, parse_accuracy
from mlperf_operator.results.model import Accuracy
from mlperf_operator.results.targets import Bounds, bounds_of

HASH = "\nhash=0123456789abcdef\n"
LLM = "{'rouge1': 45.2, 'rouge2': '23.1', 'rougeL': 30.2, 'rougeLsum': 42.2, 'gen_len': 4137944, 'gen_num': 15000%s}"

FORMATS: list[tuple[str, str, dict[str, float]]] = [
    ("bert", '{"exact_match": 83.0, "f1": 90.38}\nReading examples...', {"F1": 90.38}),
    ("bert in single quotes", "{'exact_match': 83.0, 'f1': 90.38}", {"F1": 90.38}),
    (
        "3d-unet",
        "Running evaluation...\nAccuracy: mean = 0.8617, kidney = 0.9342, tumor = 0.79\nDone!",
        {"DICE": 0.8617},
    ),
    ("resnet50", "accuracy=76.038%, good=38019, total=50000", {"acc": 76.038}),
    ("a reference script", '{"accuracy": 76.038, "good": 38019}', {"acc": 76.038}),
    ("dlrm", "AUC=80.233%, accuracy=96.606%, good=86111793, total=89137319", {"AUC": 80.233}),
    ("retinanet", " Average Precision (AP) @[ IoU=0.50:0.95 ] = 0.374\nmAP=37.433%", {"mAP": 37.433}),
    ("rnnt and whisper", "Word Error Rate: 7.44%, accuracy=92.55%", {"WER_ACC": 92.55}),
    ("gnmt", "BLEU: 23.9", {"BLEU": 23.9}),
    ("gptj", LLM % "", {"ROUGE1": 45.2, "ROUGE2": 23.1, "ROUGEL": 30.2, "GEN_LEN": 4137944}),
    (
        "mixtral",
        LLM % ", 'gsm8k': 73.2, 'mbxp': 59.9, 'tokens_per_sample': 143.7",
        {"ROUGE1": 45.2, "ROUGE2": 23.1, "ROUGEL": 30.2, "gsm8k": 73.2, "mbxp": 59.9, "TOKENS_PER_SAMPLE": 143.7},
    ),
    (
        "deepseek-r1",
        "1.0\n0.0\n{'exact_match': 81.1, 'tokens_per_sample': 3818.7}",
        {"exact_match": 81.1, "TOKENS_PER_SAMPLE": 3818.7},
    ),
    ("stable-diffusion-xl", "{'FID_SCORE': 23.2, 'CLIP_SCORE': 31.7}", {"CLIP_SCORE": 31.7, "FID_SCORE": 23.2}),
    ("pointpainting", "mean_iou: 0.54", {"mIOU": 0.54}),
    ("interim values before the last", "accuracy=10%\naccuracy=76.5%", {"acc": 76.5}),
    ("a number in scientific form", "AUC=8.02e+01%", {"AUC": 80.2}),
    ("Windows line ends", "accuracy=76.038%, good=1\r\n", {"acc": 76.038}),
]


@pytest.mark.parametrize(("_case", "text", "values"), FORMATS, ids=[case[0] for case in FORMATS])
def test_each_benchmarks_format_is_read(_case: str, text: str, values: dict[str, float]) -> None:
    assert {item.name: item.value for item in parse_accuracy(text + HASH, None)} == values


def test_rouge_lsum_counts_for_llama3_1_8b_alone() -> None:
    assert parse_accuracy(LLM % "", "llama3.1-8b")[-1] == Accuracy("ROUGELSUM", 42.2, 35.43507, True)
    assert "ROUGELSUM" not in {item.name for item in parse_accuracy(LLM % "", "gptj-99")}


BOUNDS = [
    ("bert-99", "F1", Bounds(89.96526)),
    ("bert-99.9", "F1", Bounds(90.783126)),
    ("3d-unet-99", "DICE", Bounds(0.853083)),
    ("3d-unet-99.9", "DICE", Bounds(0.8608383)),
    ("resnet50", "acc", Bounds(75.6954)),
    ("dlrm-v2-99", "AUC", Bounds(79.5069)),
    ("dlrm-99.9", "AUC", Bounds(80.16975)),
    ("rnnt", "WER_ACC", Bounds(91.62252)),
    ("gptj-99.9", "GEN_LEN", Bounds(3615190.2)),
    ("llama2-70b-interactive-99.9", "ROUGE1", Bounds(44.3867688)),
    ("llama2-70b-99", "TOKENS_PER_SAMPLE", Bounds(265.005, 323.895)),
    ("llama3_1-8b", "ROUGELSUM", Bounds(35.43507)),
    ("stable-diffusion-xl", "CLIP_SCORE", Bounds(31.68631873, 31.81331801)),
    ("yolo-95", "mAP", Bounds(50.73)),
    ("bert", "F1", Bounds()),
    ("bert-99", "exact_match", Bounds()),
    ("resnet50-99", "acc", Bounds()),
    ("mixtral-8x7b", "ROUGE1", Bounds()),
    (None, "F1", Bounds()),
]


@pytest.mark.parametrize(("variant", "metric", "bounds"), BOUNDS)
def test_the_bounds_are_those_of_mlcommons(variant: str | None, metric: str, bounds: Bounds) -> None:
    assert bounds_of(variant, metric) == bounds


def test_an_answer_that_is_too_long_fails_and_the_limit_is_said() -> None:
    items, notes = merged_accuracy("{'FID_SCORE': 24.1, 'CLIP_SCORE': 31.7}", (), "stable-diffusion-xl")
    assert items == (
        Accuracy("CLIP_SCORE", 31.7, 31.68631873, True),
        Accuracy("FID_SCORE", 24.1, 23.01085758, False),
    )
    assert notes == ["FID_SCORE 24.1 is above MLCommons' upper limit 23.9500763"]


@pytest.mark.parametrize(("value", "passed"), [(89.96525, False), (89.96526, True), (90.874, True)])
def test_the_threshold_itself_passes(value: float, passed: bool) -> None:
    [item] = parse_accuracy(f'{{"exact_match": 80, "f1": {value}}}', "bert-99")
    assert item == Accuracy("F1", value, 89.96526, passed)


def test_3d_unet_up_to_v1_1_has_its_own_threshold() -> None:
    text = "Accuracy: mean = 0.85387, whole tumor = 0.9132, tumor core = 0.8684"
    assert parse_accuracy(text, "3d-unet-99.9") == (Accuracy("DICE", 0.85387, 0.852147, True),)


@pytest.mark.parametrize("text", ["", HASH + "oops", '{"f1": NaN}', "accuracy=nan%", "AUC=1e999%", "\x00\ufffd" * 99])
def test_a_file_without_a_known_accuracy_says_so(text: str) -> None:
    assert merged_accuracy(text, (), "bert-99") == ((), ["accuracy.txt holds no accuracy that is known here"])


def test_the_hash_alone_is_what_a_compliance_run_leaves() -> None:
    assert merged_accuracy(HASH, (), "bert-99") == ((), [])


def test_qwen3_vls_f1_is_not_that_of_bert() -> None:
    assert parse_accuracy('{"f1": 0.79}', "qwen3-vl-235b-a22b") == (Accuracy("F1_HIERARCHICAL", 0.79),)


@pytest.mark.parametrize("text", ["\n" * 3_000_000, "accuracy=" * 300_000, "accuracy" + '" :' * 900_000])
def test_a_file_made_to_be_slow_is_not(text: str) -> None:
    assert parse_accuracy(text, None) == ()


def test_no_file_is_no_accuracy() -> None:
    assert merged_accuracy(None, (), "bert-99") == ((), [])


def test_metadata_gives_the_threshold_of_what_accuracy_txt_confirms() -> None:
    said = (Accuracy("acc", 76.0381, 75.7, True),)
    assert merged_accuracy("accuracy=76.038%", said, "resnet50") == (said, [])


def test_of_two_accuracies_that_differ_the_files_own_is_judged() -> None:
    items, notes = merged_accuracy('{"exact_match": 1, "f1": 80.5}', (Accuracy("F1", 90.2, 89.96526, True),), "bert-99")
    assert items == (Accuracy("F1", 80.5, 89.96526, False),)
    assert notes == ["metadata.json says F1 90.2, accuracy.txt 80.5, which is taken"]


@pytest.mark.parametrize(("said", "passed"), [(None, False), (False, False)])
def test_a_threshold_that_metadata_lacks_is_mlcommons(said: bool | None, passed: bool) -> None:
    items, _ = merged_accuracy(None, (Accuracy("F1", 80.5, None, said),), "bert-99")
    assert items == (Accuracy("F1", 80.5, 89.96526, passed),)


def test_an_accuracy_that_failed_and_that_metadata_leaves_out_still_fails() -> None:
    text = "{'rouge1': 44.5, 'rouge2': 1.0, 'rougeL': 29.0}"
    items, notes = merged_accuracy(text, (Accuracy("ROUGE1", 44.5, 43.9, True),), "llama2-70b-99")
    assert [(item.name, item.passed) for item in items] == [("ROUGE1", True), ("ROUGE2", False)]
    assert notes == ["metadata.json leaves out ROUGE2 1 of accuracy.txt, which did not pass"]


@pytest.mark.parametrize(
    ("variant", "text", "item"),
    [
        ("e2e-rag-qna", "Accuracy: 34.5000", Accuracy("E2E_ACCURACY", 34.5, 33.95, passed=True)),
        ("e2e-rag-db", "Accuracy: 97.9", Accuracy("E2E_ACCURACY", 97.9, 98, passed=False)),
        ("gpt-oss-120b", "{'tokens_per_sample': 10999.5}", Accuracy("TOKENS_PER_SAMPLE", 10999.5, None, passed=False)),
        ("dlrm-v3", "metric/lifetime_ne/rating: 0.8675", Accuracy("DLRM_NE", 0.8675, 0.86600313, passed=True)),
        ("qwen3.6-27b", "mAP=85.3", Accuracy("mAP", 85.3, 85.3677, passed=False)),
    ],
)
def test_the_benchmarks_of_v6_1_are_held_against_their_targets(variant: str, text: str, item: Accuracy) -> None:
    assert parse_accuracy(text, variant) == (item,)
