import math
import sys
from pathlib import Path

import evaluate
import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainingArguments

from hf_lelp import metrics as metrics_module
from hf_lelp.metrics import FewClassMetrics, compute_metrics, expected_calibration_error, few_class_metrics

METRICS_FILE = str(Path(metrics_module.__file__))

# Top classes 0, 0, 1, 1 with confidences .9, .6, .8, .7 against labels 0, 1, 1, 1.
LOGITS = np.log([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
LABELS = np.array([0, 1, 1, 1])
EXPECTED = {
    "accuracy": 3 / 4,
    # Class 0: precision 1/2, recall 1, F1 2/3. Class 1: precision 1, recall 2/3, F1 4/5.
    "macro_f1": (2 / 3 + 4 / 5) / 2,
    # TP 2, TN 1, FP 0, FN 1: (2·1 - 0·1) / sqrt(2·3·1·2).
    "mcc": 2 / math.sqrt(12),
    # Each confidence falls in a bin of its own: gaps .1, .6, .2, .3.
    "ece": (0.1 + 0.6 + 0.2 + 0.3) / 4,
}


def ece_by_loop(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """The definition of Guo et al., one bin at a time."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total = 0.0
    for b in range(num_bins):
        inside = [i for i, p in enumerate(probabilities) if b / num_bins < max(p) <= (b + 1) / num_bins]
        if inside:
            accuracy = sum(int(np.argmax(probabilities[i])) == labels[i] for i in inside) / len(inside)
            confidence = sum(max(probabilities[i]) for i in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


def test_values_worked_out_by_hand() -> None:
    assert few_class_metrics(LOGITS, LABELS) == pytest.approx(EXPECTED)


def test_every_value_is_a_plain_float() -> None:
    assert {type(value) for value in few_class_metrics(LOGITS, LABELS, LOGITS).values()} == {float}


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_ece_equals_the_loop(num_classes: int, scale: float) -> None:
    rng = np.random.default_rng(num_classes)
    logits = scale * rng.normal(size=(500, num_classes))
    labels = rng.integers(num_classes, size=500)
    assert expected_calibration_error(logits, labels) == pytest.approx(ece_by_loop(logits, labels), abs=1e-12)


def test_ece_of_certain_answers_is_the_error_rate() -> None:
    logits = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, 1e4], [-1e4, 1e4]])
    assert few_class_metrics(logits, [0, 1, 1, 1])["ece"] == pytest.approx(1 / 4)


def test_macro_f1_counts_a_class_that_never_occurs() -> None:
    logits = np.eye(3)[[0, 1]]
    assert few_class_metrics(logits, [0, 1])["macro_f1"] == pytest.approx(2 / 3)


@pytest.mark.filterwarnings("error")
def test_one_class_only_is_scored_without_a_warning() -> None:
    scores = few_class_metrics(np.array([[2.0, 1.0], [3.0, 1.0]]), [0, 0])
    assert (scores["accuracy"], scores["macro_f1"], scores["mcc"]) == (1.0, 0.5, 0.0)


def test_unlabelled_rows_are_left_out_of_all_but_the_agreement() -> None:
    logits = np.concatenate([LOGITS, [[5.0, 0.0], [0.0, 5.0]]])
    teacher_logits = logits.copy()
    teacher_logits[-1] = [1.0, 0.0]
    scores = few_class_metrics(logits, [*LABELS, -100, -100], teacher_logits)
    assert scores == pytest.approx(EXPECTED | {"teacher_agreement": 5 / 6})


def test_without_any_label_only_the_agreement_is_left() -> None:
    unlabelled = np.full(4, -100)
    assert few_class_metrics(LOGITS, unlabelled) == {}
    assert few_class_metrics(LOGITS, unlabelled, -LOGITS) == {"teacher_agreement": 0.0}


@pytest.mark.parametrize(
    ("logits", "labels", "teacher_logits", "message"),
    [
        (LOGITS[:, 0], LABELS, None, r"logits have shape \(4,\)"),
        (LOGITS[:, :1], LABELS, None, r"logits have shape \(4, 1\)"),
        (LOGITS[:0], LABELS[:0], None, r"logits have shape \(0, 2\)"),
        (LOGITS, LABELS[:3], None, "3 labels for 4 rows"),
        (LOGITS, LABELS[:, None], None, r"labels have shape \(4, 1\)"),
        (LOGITS, LABELS.astype(float), None, "type float64"),
        (LOGITS, [0, 1, 2, 1], None, "Label 2 in row 2"),
        (LOGITS, [0, 1, 1, -1], None, "Label -1 in row 3"),
        (np.where([[0], [1], [0], [1]], np.nan, LOGITS), LABELS, None, "^logits hold NaN.*2 of 4 rows, first in row 1"),
        (np.where([[0], [0], [1], [0]], np.inf, LOGITS), LABELS, None, "^logits hold NaN or infinite.*row 2"),
        (LOGITS, LABELS, np.where([[0], [0], [0], [1]], np.nan, LOGITS), "^teacher_logits hold NaN.*row 3"),
        (LOGITS, LABELS, LOGITS[:3], r"teacher_logits have shape \(3, 2\)"),
        (LOGITS, LABELS, np.ones((4, 3)), r"teacher_logits have shape \(4, 3\)"),
    ],
)
def test_wrong_input_is_named(logits, labels, teacher_logits, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_class_metrics(logits, labels, teacher_logits)


@pytest.mark.parametrize("predictions", [LOGITS, LOGITS.astype(np.float32), (LOGITS, np.ones((4, 3, 2)))])
def test_compute_metrics_takes_logits_or_a_tuple_that_starts_with_them(predictions) -> None:
    scores = compute_metrics(EvalPrediction(predictions=predictions, label_ids=LABELS))
    assert scores == pytest.approx(EXPECTED, abs=1e-6)


def test_compute_metrics_in_a_trainer(tmp_path: Path) -> None:
    class Echo(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            logits = self.weight * inputs
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    rows = [{"inputs": x, "labels": int(y)} for x, y in zip(LOGITS.astype(np.float32), LABELS, strict=True)]
    args = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=3, report_to="none", dataloader_pin_memory=False
    )
    scores = Trainer(Echo(), args, eval_dataset=rows, compute_metrics=compute_metrics).evaluate()
    assert {key: scores[f"eval_{key}"] for key in EXPECTED} == pytest.approx(EXPECTED, abs=1e-6)


@pytest.mark.parametrize("load", [FewClassMetrics, lambda: evaluate.load(METRICS_FILE)], ids=["class", "evaluate.load"])
class TestEvaluateModule:
    def test_compute(self, load) -> None:
        scores = load().compute(predictions=LOGITS, references=LABELS, teacher_logits=LOGITS)
        assert scores == pytest.approx(EXPECTED | {"teacher_agreement": 1.0})

    def test_the_teacher_is_optional(self, load) -> None:
        assert load().compute(predictions=LOGITS.tolist(), references=LABELS.tolist()) == pytest.approx(EXPECTED)

    def test_batches(self, load) -> None:
        metric = load()
        for rows in (slice(0, 3), slice(3, 4)):
            metric.add_batch(predictions=LOGITS[rows], references=LABELS[rows])
        assert metric.compute(teacher_logits=-LOGITS) == pytest.approx(EXPECTED | {"teacher_agreement": 0.0})

    def test_errors_pass_through(self, load) -> None:
        broken = LOGITS.copy()
        broken[2, 0] = np.nan
        with pytest.raises(ValueError, match="row 2"):
            load().compute(predictions=broken, references=LABELS)
        with pytest.raises(ValueError, match="Label 7 in row 1"):
            load().compute(predictions=LOGITS, references=[0, 7, 1, 1])


def test_the_file_loads_offline_where_the_package_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    for name in [name for name in sys.modules if name.split(".")[0] == "hf_lelp"]:
        monkeypatch.setitem(sys.modules, name, None)
    copy = tmp_path / "metrics.py"
    # `evaluate` names a module by its contents: a new line keeps it from finding the one loaded above.
    copy.write_text(Path(METRICS_FILE).read_text(encoding="utf-8") + "\nCOPY = True\n", encoding="utf-8")
    assert evaluate.load(str(copy)).compute(predictions=LOGITS, references=LABELS) == pytest.approx(EXPECTED)


class TestForTrainer:
    """A search outlives one model: what Trainer survives, its default metrics survive."""

    @pytest.mark.parametrize(
        ("predictions", "labels"),
        [(np.full((4, 2), np.nan), LABELS), (LOGITS[:, :1], LABELS), (LOGITS, LABELS[:3]), ({"a": LOGITS}, LABELS)],
    )
    def test_what_cannot_be_known_is_nan(self, predictions, labels, caplog: pytest.LogCaptureFixture) -> None:
        scores = compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels))
        assert scores.keys() == EXPECTED.keys() and all(np.isnan(list(scores.values())))
        assert "The metrics of this evaluation are not known: " in caplog.text

    def test_predicted_classes(self) -> None:
        scores = compute_metrics(EvalPrediction(predictions=LOGITS.argmax(-1), label_ids=LABELS))
        assert scores == pytest.approx({name: EXPECTED[name] for name in ("accuracy", "mcc")})

    @pytest.mark.parametrize("rest", [(), (np.ones((2, 3)),)])
    def test_lists_of_batches(self, rest) -> None:
        batches = [(LOGITS[:3], *rest), (LOGITS[3:], *rest)] if rest else [LOGITS[:3], LOGITS[3:]]
        scores = compute_metrics(EvalPrediction(predictions=batches, label_ids=[LABELS[:3], LABELS[3:]]))
        assert scores == pytest.approx(EXPECTED)
