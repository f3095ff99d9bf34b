"""Runs of the trainer on more rows than the data has."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from datasets import Dataset

from hf_lelp.data.columns import KIND_COLUMN, ORIGIN_COLUMN
from hf_lelp.transfer.origins import Origins, tell_of_confidence

LONG = [" ".join([*tiny.WORDS[start:], *tiny.WORDS[:start]]) for start in range(16)]


def data(rows: int = 80) -> Dataset:
    """Some of the texts are longer than the student reads."""
    raw = runs.data(rows)
    return Dataset.from_dict({**raw.to_dict(), "text": [*LONG, *raw["text"][len(LONG) :]]})


def test_a_run_learns_from_windows_views_and_unlabelled_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = Dataset.from_dict({"text": ["dull plot dull actor", "sharp story bright film"]})
    with caplog.at_level(logging.INFO, "hf_lelp"):
        run = runs.trained(
            tmp_path,
            arguments={"train_dataset": data(), "eval_dataset": runs.data(20, seed=9), "transfer_dataset": more},
            windows=2,
            views=1,
            max_length=10,
        )
    assert run.prepared.origins is not None
    counts = run.prepared.origins.count()
    assert counts["row"] == 80 and counts["window"] >= 16 and counts["unlabelled"] == 2 and counts["view"] > 20
    assert len(run.train_dataset) == sum(counts.values())
    assert not {ORIGIN_COLUMN, KIND_COLUMN} & {*run.train_dataset.column_names}
    assert "teacher's mean confidence by kind of row: row 0." in caplog.text
    assert (
        f"{len(run.train_dataset):,}: 80 rows, {counts['window']} windows"
        in run.student_card().settings["training examples"]
    )
    assert "loss" in run.state.log_history[0]


def test_auto_holds_rows_back_with_what_was_made_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("hf_lelp.trainer.fit_student", lambda make, args, train, test: seen.append((train, test)) or 1)
    with pytest.raises(AttributeError):  # no logits to judge: the rows are enough
        runs.trainer(
            runs.config(tmp_path, temperature="auto", num_subclasses=1, views=3), train_dataset=data().repeat(2)
        )
    train, test = ([tuple(ids) for ids in part["input_ids"]] for part in seen[0])
    assert len(test) >= 32 and len(train) > 128
    assert not {*test} & {*train}


def test_labels_alone_learn_from_views_and_leave_the_rest(tmp_path: Path) -> None:
    run = runs.trainer(
        runs.config(tmp_path, alpha=1.0, windows=2, views=1, max_length=10),
        train_dataset=data(),
        transfer_dataset=Dataset.from_dict({"text": ["dull plot dull actor"]}),
    )
    assert run.prepared.origins is not None and run.prepared.origins.count().keys() == {"row", "view"}
    assert -100 not in run.train_dataset["labels"]


def test_prepared_rows_are_refused(tmp_path: Path) -> None:
    prepared, projections = runs.prepared()
    with pytest.raises(ValueError, match="Windows, views and unlabelled rows are put beside raw rows") as raised:
        runs.trainer(runs.config(tmp_path, views=1), train_dataset=prepared, projections=projections)
    assert "This training data has teacher_logits, " in str(raised.value)
    with pytest.raises(ValueError, match="This training data is a IterableDataset"):
        args = runs.config(tmp_path, views=1, max_steps=1, alpha=1.0)
        runs.trainer(args, train_dataset=data().to_iterable_dataset(), teacher_model=None)


@pytest.mark.parametrize("more", [["good movie"], {"train": 1}])
def test_unlabelled_rows_are_a_dataset(tmp_path: Path, more: Any) -> None:
    with pytest.raises(ValueError, match=f"transfer_dataset is a {type(more).__name__}, and a datasets.Dataset"):
        runs.trainer(runs.config(tmp_path), train_dataset=data(), transfer_dataset=more)


def test_soft_labels_say_nothing_of_unlabelled_rows(tmp_path: Path) -> None:
    raw = data().map(lambda row: {"p_0": 0.3, "p_1": 0.7})
    soft: dict[str, Any] = {"soft_label_columns": ["p_0", "p_1"], "teacher_scores": "probabilities"}
    args = runs.config(tmp_path, num_subclasses=1, **soft)
    with pytest.raises(ValueError, match="p_0, p_1 hold soft labels of the data's own rows"):
        runs.trainer(args, train_dataset=raw, teacher_model=None, transfer_dataset=raw)


def test_evaluation_alone_makes_no_rows(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path, views=1), train_dataset=None, eval_dataset=runs.data(20, seed=9))
    assert run.evaluate()["eval_loss"] > 0


def test_prepared_tokens_are_told_of_in_clear_words(tmp_path: Path) -> None:
    raw = data().map(lambda row: tiny.tokenizer()(row["text"]))
    with pytest.raises(ValueError, match=r"input_ids.*\) has tokens, or there is no processing class"):
        runs.trainer(runs.config(tmp_path, views=1), train_dataset=raw)


def test_evaluation_data_that_cannot_be_compared_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stream = runs.data(20, seed=9).to_iterable_dataset()
    runs.trainer(runs.config(tmp_path, views=1), train_dataset=data(), eval_dataset=stream)
    assert "Evaluation data without text, such as a stream or tokens, cannot be compared" in caplog.text


def test_both_must_read_what_is_made(tmp_path: Path) -> None:
    raw = data().add_column("other", data()["text"])
    args = runs.config(tmp_path, views=1, input_columns=["text"], teacher_input_columns=["other"])
    with pytest.raises(ValueError, match=r"The teacher reads other and the student text.*are made of what both read"):
        runs.trainer(args, train_dataset=raw)


def test_a_teacher_that_guesses_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    guide = runs.teacher()
    logits = guide({"text": LONG})["teacher_logits"]
    columns = Dataset.from_dict({"teacher_logits": np.concatenate([logits * 100, logits * 0])})
    tell_of_confidence(columns, Origins(np.arange(32), np.repeat([0, 3], 16)))
    assert "far less sure of unlabelled than of the data's own rows (row 1.00, unlabelled 0.50)" in caplog.text
