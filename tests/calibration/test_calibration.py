"""One temperature, fitted and folded exactly; a threshold for each aim."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

from hf_lelp.calibration.temperature import cross_entropy, fit_temperature, fold_temperature, reliability
from hf_lelp.calibration.threshold import Aim, at_temperature, best_threshold, counts, decide
from hf_lelp.metrics import expected_calibration_error
from hf_lelp.student.answers import student_answers
from hf_lelp.student.heads import place_student_head
from hf_lelp.student.loading import load_student

ROWS = Dataset.from_dict({"text": tiny.texts(40)})


def overconfident(rows: int = 4000, factor: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `factor` times those of the true probabilities."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(rows, 3)) * 2
    true = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = (true.cumsum(-1) > generator.random((rows, 1))).argmax(-1)
    return logits * factor, labels


def test_the_temperature_is_the_one_that_was_put_in() -> None:
    logits, labels = overconfident()
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(2.5, rel=0.08)
    after = logits / found
    assert expected_calibration_error(after, labels) < 0.03 < 0.1 < expected_calibration_error(logits, labels)
    assert cross_entropy(after, labels) <= min(cross_entropy(logits / t, labels) for t in (found * 0.98, found * 1.02))
    unlabelled = np.where(np.arange(len(labels)) % 2, labels, -100)
    assert fit_temperature(logits, unlabelled) == fit_temperature(logits[1::2], labels[1::2])
    with pytest.raises(ValueError, match="rows held back have a label, and a temperature takes 50"):
        fit_temperature(logits[:49], labels[:49])


@pytest.mark.parametrize(("form", "temperature"), [("subclass", 1.0), ("subclass", 4.0), ("auxiliary", 4.0), ("", 1.0)])
def test_a_folded_temperature_divides_the_class_logits_exactly(form: str, temperature: float, tmp_path: Path) -> None:
    model = tiny.classifier(num_labels=2).eval()
    if form:
        place_student_head(model, 3, form, temperature)
        with torch.no_grad():
            for layer in (module for module in model.modules() if isinstance(module, torch.nn.Linear)):
                layer.bias.normal_()
    model.config.decision_threshold = 0.3
    before = student_answers(model, tiny.tokenizer(), ROWS, ["text"])
    answers = decide(before.logits, model.config)
    fold_temperature(model, 1.7)
    after = student_answers(model, tiny.tokenizer(), ROWS, ["text"])
    np.testing.assert_allclose(after.logits, before.logits / 1.7, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after.embedding, before.embedding)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    loaded = load_student(tmp_path)
    np.testing.assert_array_equal(student_answers(loaded, tiny.tokenizer(), ROWS, ["text"]).logits, after.logits)
    assert (decide(after.logits, loaded.config) == answers).all()


def test_answers_are_in_the_order_of_rows_and_of_the_data_s_classes() -> None:
    model = tiny.named(tiny.classifier()).eval()
    one = student_answers(model, tiny.tokenizer(), ROWS, ["text"])
    alone = [student_answers(model, tiny.tokenizer(), ROWS.select([row]), ["text"]).logits[0] for row in range(5)]
    np.testing.assert_allclose(one.logits[:5], alone, atol=1e-5)
    other = student_answers(model, tiny.tokenizer(), ROWS, ["text"], classes=tiny.LABEL_NAMES[::-1])
    np.testing.assert_array_equal(other.logits, one.logits[:, ::-1])


def test_reliability_has_the_rows_of_the_calibration_error() -> None:
    logits, labels = overconfident(500)
    bins = reliability(logits, labels)
    error = sum(one["rows"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 500
    assert error == pytest.approx(expected_calibration_error(logits, labels))


class TestThreshold:
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
    labels = np.array([1, 1, 0, 1, 0, 1, 0, 0])

    @pytest.mark.parametrize("aim", ["f1", "recall=0.9", "precision=0.7", "costs=1:5", "costs=5:1", "recall=0.5"])
    def test_none_of_all_others_is_better(self, aim: str) -> None:
        generator = np.random.default_rng(0)
        for _ in range(5):
            labels = generator.integers(0, 2, 60)
            probability = np.round(np.clip(0.25 * labels + generator.random(60) * 0.75, 0, 1), 2)  # with ties
            parsed, chosen = Aim.parse(aim), best_threshold(probability, labels, Aim.parse(aim))

            def worth(threshold: float, probability: Any = probability, labels: Any = labels, aim: Aim = parsed) -> Any:
                found = counts(probability, labels, threshold)
                said = probability >= threshold
                if aim.kind == "costs":
                    return -((said & (labels == 0)).sum() + aim.value * (~said & (labels == 1)).sum())
                other = {"recall": "precision", "precision": "recall", "f1": "f1"}[aim.kind]
                return found[other] if aim.kind == "f1" or found[aim.kind] >= aim.value else -1

            candidates = np.unique(probability)  # each answers at least one row with the second class
            assert worth(chosen) == pytest.approx(max(worth(value) for value in candidates))

    def test_a_threshold_is_between_two_rows(self) -> None:
        assert best_threshold(self.probability, self.labels, Aim.parse("precision=1")) == pytest.approx(0.75)
        assert counts(self.probability, self.labels, 0.75) == {
            "precision": 1.0,
            "recall": 0.5,
            "f1": pytest.approx(2 / 3),
            "accuracy": 0.75,
        }

    def test_without_a_threshold_the_likeliest_class_is_answered(self) -> None:
        logits = np.array([[0.0, 1.0], [2.0, 1.0]])
        config = tiny.classifier().config
        assert decide(logits, config).tolist() == [1, 0]
        config.decision_threshold = 0.2
        assert decide(logits, config).tolist() == [1, 1]
        assert at_temperature(0.5, 3) == pytest.approx(0.5) and at_temperature(0.2, 2) == pytest.approx(1 / 3)

    @pytest.mark.parametrize("text", ["f2", "recall", "recall=0", "recall=1.5", "costs=1", "costs=0:1", "f1=2", "=0.5"])
    def test_other_aims_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"threshold=.*: f1, recall=R, precision=P \(between 0 and 1\) or costs"):
            Aim.parse(text)

    def test_what_cannot_be_reached_is_said(self) -> None:
        with pytest.raises(ValueError, match=r"Of 3 labelled rows held back, 0 are of the second class"):
            best_threshold(np.ones(3), np.zeros(3, dtype=int), Aim.parse("f1"))
        labels = np.array([0, 0, 1, 0])
        with pytest.raises(ValueError, match=r"No threshold has a precision of 0.9 on the 4 rows held back; the most"):
            best_threshold(np.array([0.9, 0.8, 0.7, 0.6]), labels, Aim.parse("precision=0.9"))
