"""What LELPTrainer refuses: each message says what was found, what was expected and what to do."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import runs
import tiny
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Value
from torch import nn
from transformers import BertModel, TrainingArguments

from hf_lelp import ClassProjections, LELPTrainer, Teacher
from hf_lelp.data.columns import PROJECTIONS_MARK, TEACHER_MARK


def refused(folder: Path, *words: str, error: type[Exception] = ValueError, **arguments: Any) -> None:
    """Construction fails with a message that has the words, in this order."""
    settings = arguments.pop("settings", {})
    with pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, words))):
        runs.trainer(runs.config(folder, **settings), **arguments)


def test_other_number_of_classes(tmp_path: Path) -> None:
    three = tiny.dataset(tiny.classifier(num_labels=3), 60)
    refused(
        tmp_path,
        "teacher has 2 classes (negative, positive)",
        "data 3 (class 0, class 1, class 2) in its column 'label'",
        "fine-tuned on them, or map the labels",
        train_dataset=three,
    )


def test_names_that_cannot_settle_the_order(tmp_path: Path) -> None:
    raw = runs.data()
    renamed = raw.cast_column("label", ClassLabel(names=["thumbs down", "thumbs up"]))
    found = ("data's classes (thumbs down, thumbs up)", "teacher's (negative, positive)", "set teacher_class_order")
    refused(tmp_path, *found, train_dataset=renamed)
    # That advice works.
    run = runs.trainer(runs.config(tmp_path, teacher_class_order=[0, 1]), train_dataset=renamed)
    assert run.model.config.id2label == {0: "thumbs down", 1: "thumbs up"}


def test_a_teacher_below_the_majority_names_confusion_and_order(tmp_path: Path) -> None:
    raw = runs.data()
    wrong = tiny.named(runs.teacher_model(), ["LABEL_0", "LABEL_1"])
    with torch.no_grad():
        for parameter in wrong.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    labels, guesses = raw["label"], runs.class_logits(wrong, list(raw["text"]), tiny.tokenizer()).argmax(-1)
    counts = [[sum(y == i and g == j for y, g in zip(labels, guesses, strict=True)) for j in (0, 1)] for i in (0, 1)]
    rows = [word for row in counts for word in map(str, row)]
    accuracy = (counts[0][0] + counts[1][1]) / len(raw)
    found = (f"accuracy on the {len(raw)} labelled examples is {accuracy:.3f}", "Confusion", *rows)
    refused(tmp_path, *found, "teacher_class_order=[1, 0]", "if that is the right order, set it", teacher_model=wrong)
    ordered = runs.trainer(runs.config(tmp_path, teacher_class_order=[1, 0]), teacher_model=wrong)
    accuracy = (
        (torch.tensor(ordered.train_dataset[:]["teacher_logits"]).argmax(-1) == torch.tensor(list(labels)))
        .float()
        .mean()
    )
    assert accuracy > 0.8
    runs.trainer(runs.config(tmp_path, check_teacher=False), teacher_model=wrong)


def test_a_teacher_that_knows_nothing_is_advised_another(tmp_path: Path) -> None:
    raw = runs.data().select_columns(["text"])
    labels = [int(row % 10 == 0) for row in range(len(raw))]
    refused(
        tmp_path,
        "below the 0.896",
        "Use a teacher fine-tuned on this task",
        train_dataset=raw.add_column("label", labels),
    )


def test_more_subclasses_than_there_are_directions(tmp_path: Path) -> None:
    found = (
        "Class 0 has",
        "span 14 directions (16 dimensions, 2 of them read",
        "20 were asked for",
        "num_subclasses=14",
    )
    refused(tmp_path, *found, settings={"num_subclasses": 20}, train_dataset=runs.data(200))
    columns, projections = runs.prepared()
    for dataset in (columns, columns.remove_columns("teacher_projections")):
        with pytest.raises(ValueError, match=r"num_subclasses=4, but.*hold 2 directions.*num_directions=4"):
            runs.trainer(
                runs.config(tmp_path, num_subclasses=4),
                train_dataset=dataset,
                teacher_model=None,
                projections=projections,
            )


@pytest.mark.parametrize("head", ["subclass", "auxiliary"])
def test_an_optimizer_that_was_made_before_the_final_layer(tmp_path: Path, head: Any) -> None:
    student = runs.student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"The optimizer given does not hold .*weight.* of the student's .*Head"):
        runs.trainer(runs.config(tmp_path, student_head=head), model=student, optimizers=(optimizer, None))
    # Of a student with its layer, and of one that gets none, it may be given.
    for settings, model in ({"student_head": head}, student), ({"num_subclasses": 1}, runs.student()):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = runs.trainer(runs.config(tmp_path, **settings), model=model, optimizers=(optimizer, None))
        before = runs.weights(run.model)
        run.train()
        assert any(not value.equal(before[name]) for name, value in runs.weights(run.model).items())


@pytest.mark.parametrize(
    ("kind", "num_labels"), [("multi_label_classification", 2), ("regression", 2), ("regression", 0)]
)
def test_a_teacher_that_is_no_single_label_classifier(kind: str | None, num_labels: int) -> None:
    model = tiny.classifier(num_labels=num_labels)
    model.config.problem_type = kind
    with pytest.raises(ValueError, match=rf"and {num_labels} labels. LELP distils models that choose one of"):
        Teacher(model, tiny.tokenizer())


def test_metrics_by_batch_need_their_own_function(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_eval_metrics needs a compute_metrics that adds up batches"):
        runs.trainer(runs.config(tmp_path, batch_eval_metrics=True))


def test_an_empty_class(tmp_path: Path) -> None:
    raw = runs.data().filter(lambda row: row["label"] == 0)
    words = ("No example of class 1", "Check the labels")
    refused(tmp_path, *words, train_dataset=raw, settings={"check_teacher": False})


def test_embeddings_that_are_not_finite(tmp_path: Path) -> None:
    columns = runs.data().map(runs.teacher(), batched=True)
    broken = columns.map(
        lambda row, index: {"teacher_embedding": [float("nan")] * 16} if index == 5 else {}, with_indices=True
    )
    refused(tmp_path, "embedding of row 5 is not finite", "float32 (teacher_dtype)", train_dataset=broken)
    # A fit that is kept already does not hide it.
    runs.trainer(runs.config(tmp_path), train_dataset=columns)
    refused(tmp_path, "embedding of row 5 is not finite", train_dataset=broken)


@pytest.mark.parametrize("subclasses", [1, 2])
def test_a_teacher_that_fails_on_one_row(subclasses: int, tmp_path: Path) -> None:
    raw = Dataset.from_dict({"text": [*tiny.texts(60), "unheard of", *tiny.texts(9)], "label": [0, 1] * 35})
    guide = runs.teacher_model()
    with torch.no_grad():  # as an overflow would
        guide.bert.embeddings.word_embeddings.weight[tiny.tokenizer().unk_token_id] = float("nan")
    words = ("teacher logits of row 60 is not finite", "float32 (teacher_dtype)")
    settings = {"num_subclasses": subclasses, "check_teacher": False}
    refused(tmp_path, *words, train_dataset=raw, teacher_model=guide, settings=settings)


def test_two_columns_of_labels(tmp_path: Path) -> None:
    raw = runs.data()
    same = raw.add_column("labels", list(raw["label"]))
    run = runs.trainer(runs.config(tmp_path), train_dataset=same)
    assert list(run.train_dataset["labels"]) == list(raw["label"])
    other = raw.add_column("labels", [1 - label for label in raw["label"]])
    refused(tmp_path, "The data has 'label' and 'labels', and they differ", "set label_column", train_dataset=other)
    # That advice works.
    run = runs.trainer(runs.config(tmp_path, label_column="labels", check_teacher=False), train_dataset=other)
    assert list(run.train_dataset["labels"]) == list(other["labels"])


def test_tokens_of_another_tokenizer(tmp_path: Path) -> None:
    raw = runs.data()
    tokens = raw.add_column("input_ids", [[2, 5, 3]] * 50 + [[2, 30_000, 3]] * (len(raw) - 50))
    words = ("input_ids of row 50 go from 2 to 30000", "vocabulary from 0 to 19", "student's tokenizer")
    refused(tmp_path, *words, train_dataset=tokens)
    refused(tmp_path, *words, eval_dataset=tokens)


def test_marks_and_projections_that_are_something_else(tmp_path: Path) -> None:
    raw = runs.data()
    words = ("column teacher_fingerprint holds", "fingerprint of the teacher is expected", "Rename")
    refused(tmp_path, *words, train_dataset=raw.add_column("teacher_fingerprint", [7] * len(raw)))
    columns = runs.prepared()[0].remove_columns([PROJECTIONS_MARK, "teacher_projections"])
    wide = columns.add_column("teacher_projections", [[[0.0, 1.0]] * 3] * len(columns))
    words = ("teacher_projections has shape (3, 2) per row and the data 2 classes", "Make it again")
    refused(tmp_path, *words, train_dataset=wide, teacher_model=None)


def test_embeddings_beyond_float32(tmp_path: Path) -> None:
    columns = runs.data().map(runs.teacher(), batched=True)
    tiny_ones = columns.map(lambda row: {"teacher_embedding": [value * 1e-25 for value in row["teacher_embedding"]]})
    refused(tmp_path, "The variance of class 0's embeddings goes from", "beyond what float32", train_dataset=tiny_ones)


def test_a_teacher_without_final_linear_layer(tmp_path: Path) -> None:
    guide = runs.teacher_model()
    guide.classifier = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Bilinear(5, 5, 2))
    words = ("No final linear layer with 2 outputs in BertForSequenceClassification", "classifier.0 (5 outputs)")
    refused(tmp_path, *words, "AutoModelForSequenceClassification", teacher_model=guide)


def test_projections_of_another_teacher(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    other = tiny.named(tiny.classifier(seed=8))
    fingerprint = Teacher(other, tiny.tokenizer()).head.fingerprint
    words = (projections.teacher, fingerprint)
    settings = {"check_teacher": False}
    refused(
        tmp_path, *words, "Fit them for this teacher", teacher_model=other, projections=projections, settings=settings
    )
    # Columns tell who made them; without that mark the projections do.
    for dataset in (columns, columns.remove_columns([TEACHER_MARK, PROJECTIONS_MARK])):
        for ready in (dataset, dataset.remove_columns("teacher_projections")):
            with pytest.raises(ValueError, match=fingerprint) as raised:
                runs.trainer(
                    runs.config(tmp_path, **settings), train_dataset=ready, teacher_model=other, projections=projections
                )
            assert projections.teacher in str(raised.value)


def test_columns_of_other_projections(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    first = projections.fingerprint
    projections.directions[:, 0] *= -1
    words = (first, projections.fingerprint, "make the columns again")
    refused(tmp_path, *words, train_dataset=columns, teacher_model=None, projections=projections)
    wider = runs.prepared(num_directions=3)[1]
    unmarked = columns.remove_columns(PROJECTIONS_MARK)
    run = runs.trainer(runs.config(tmp_path), train_dataset=unmarked, teacher_model=None, projections=wider)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) per row, and these projections give \(2, 3\)"):
        run.train()
    none = runs.trainer(runs.config(tmp_path), train_dataset=unmarked, teacher_model=None)
    with pytest.raises(ValueError, match=r"pass projections=ClassProjections\.from_pretrained"):
        none.train()


def test_several_gpus_in_one_process(tmp_path: Path) -> None:
    args = runs.config(tmp_path)
    args._n_gpu = 2
    with pytest.raises(RuntimeError, match=r"2 GPUs in one process.*accelerate launch --num_processes 2"):
        runs.trainer(args)


def test_prepared_data_without_the_teacher_s_columns(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "no column teacher_logits (it has text, label)",
        "no teacher",
        "Pass teacher_model",
        teacher_model=None,
    )
    columns = runs.data().map(runs.teacher(), batched=True).remove_columns("teacher_embedding")
    words = ("no column teacher_projections", "ClassProjections.fit(dataset, teacher.head)")
    refused(tmp_path, *words, train_dataset=columns, teacher_model=None)
    refused(tmp_path, *words, train_dataset=columns)
    wrong = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "teacher_logits": [[0.0] * 3, [1.0] * 3]})
    words = "teacher_logits has 3 classes and the data 2: another teacher made the column"
    refused(tmp_path, words, train_dataset=wrong, teacher_model=None)


def test_a_collator_that_drops_the_teacher_s_columns(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    stream = columns.remove_columns("teacher_embedding").to_iterable_dataset()  # its columns go through the collator
    run = runs.trainer(runs.config(tmp_path), train_dataset=stream, teacher_model=None, projections=projections)
    collate = run.data_collator
    for column in ("teacher_logits", "teacher_projections"):
        run.data_collator = lambda rows, column=column: collate(
            [{name: value for name, value in row.items() if name != column} for row in rows]
        )
        with pytest.raises(ValueError, match=rf"no {column}.*data collator drops the column"):
            run.train()


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_alpha_without_labels(alpha: float, tmp_path: Path) -> None:
    raw = runs.data()
    for dataset in (raw.select_columns(["text"]), raw.select_columns(["text"]).add_column("label", [-100] * len(raw))):
        if alpha < 1:
            words = (f"alpha={alpha} gives weight to labels", "none in 'label'", "Set alpha=0, or label_column")
            refused(tmp_path, *words, settings={"alpha": alpha}, train_dataset=dataset)
    bare = raw.select_columns(["text"])
    for dataset in (bare, bare.to_iterable_dataset()):
        run = runs.trainer(runs.config(tmp_path, alpha=1.0), train_dataset=dataset, teacher_model=None)
        with pytest.raises(ValueError, match=r"alpha=1\.0 gives weight to labels, and a training batch has none"):
            run.train()


def test_not_a_lelp_config(tmp_path: Path) -> None:
    plain = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match="args is a TrainingArguments; LELPTrainer takes a LELPConfig"):
        LELPTrainer(runs.student(), plain, train_dataset=runs.data())  # type: ignore[arg-type]


def test_a_loss_function_of_one_s_own(tmp_path: Path) -> None:
    words = ("compute_loss_func has no place", "Use Trainer")
    refused(tmp_path, *words, compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs.logits.sum())


def test_a_teacher_that_was_never_trained_as_classifier(tmp_path: Path) -> None:
    BertModel(runs.teacher_model().config).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    words = ("no weights for classifier.bias, classifier.weight", "would be random", "fine-tune this checkpoint")
    refused(tmp_path, *words, teacher_model=str(tmp_path / "base"), teacher_processing_class=None)


def test_a_teacher_model_without_its_tokenizer(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "pass its tokenizer, image processor or feature extractor as teacher_processing_class",
        teacher_processing_class=None,
    )


def test_a_student_with_other_number_of_classes(tmp_path: Path) -> None:
    words = ("The student has 3 classes and the data 2", "num_labels=2")
    refused(tmp_path, *words, model=runs.student(num_labels=3))
    run_init = {"model_init": lambda: runs.student(num_labels=3)}
    refused(tmp_path, *words, **run_init)


def test_a_student_of_another_task(tmp_path: Path) -> None:
    runs.student(num_labels=3).save_pretrained(tmp_path / "student")
    words = ("student is a classifier with 3 classes and the data has 2", "Start from the model that it was fine-tuned")
    refused(tmp_path, *words, model=str(tmp_path / "student"))
    # Without a classification layer it is a beginning like any other.
    model = tiny.classifier(hidden_size=8, num_labels=3)
    model.config.architectures = None
    model.bert.save_pretrained(tmp_path / "base")
    run = runs.trainer(runs.config(tmp_path), model=str(tmp_path / "base"))
    assert run.model.config.num_labels == 2
    run.train()


def test_text_without_a_tokenizer(tmp_path: Path) -> None:
    words = (
        "has no input_ids (it has text, label",
        "pass the student's tokenizer, image processor or feature extractor",
    )
    refused(tmp_path, *words, processing_class=None)


def test_a_student_with_another_head(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path))
    words = ("SubclassHead with 2 subclasses", "with 3 was asked for", "keep its settings")
    refused(tmp_path, *words, model=run.model, settings={"num_subclasses": 3})


def test_a_text_that_is_none(tmp_path: Path) -> None:
    raw = runs.data()
    texts = [None if row == 50 else text for row, text in enumerate(raw["text"])]
    broken = Dataset.from_dict({"text": texts, "label": list(raw["label"])})
    words = ("Row 50 of", "None", "text column 'text'", "string was expected", "drop such rows")
    refused(tmp_path, *words, train_dataset=broken)
    refused(tmp_path, *words, train_dataset=broken, settings={"alpha": 1.0}, teacher_model=None)
    run = runs.trainer(runs.config(tmp_path))
    with pytest.raises(ValueError, match="Row 50 of"):
        run.evaluate(broken)


def test_no_telling_which_column_is_the_text(tmp_path: Path) -> None:
    raw = runs.data()
    two = raw.rename_column("text", "title").add_column("body", list(raw["text"]))
    words = ("Which column is the text?", "label", "of them text: title, body", "Set input_columns")
    refused(tmp_path, *words, train_dataset=two)
    refused(tmp_path, "of them text: none", train_dataset=raw.select_columns(["label"]))
    refused(tmp_path, "input_columns names txt", "has text, label", settings={"input_columns": ["txt"]})


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    raw = runs.data().cast_column("label", Value("int64"))
    shifted = raw.map(lambda row: {"label": row["label"] + 1})
    refused(tmp_path, "labels in 'label' are 1, 2", "must be 0 to 1", train_dataset=shifted)
    soft = raw.remove_columns("label").add_column("label", [0.3] * len(raw))
    refused(tmp_path, "holds 0.3", "Soft labels", train_dataset=soft)
    run = runs.trainer(runs.config(tmp_path))
    with pytest.raises(ValueError, match="label 2 is no class index: with 2 classes"):
        run.evaluate(shifted)


def test_the_classes_are_unknown(tmp_path: Path) -> None:
    stream = runs.data().select_columns(["text"]).to_iterable_dataset()
    runs.student().bert.save_pretrained(tmp_path / "base")  # without a final layer, which would tell
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    bare = {"model": str(tmp_path / "base"), "teacher_model": None, "settings": {"alpha": 1.0}}
    words = ("Neither a teacher nor labels in a column 'label'", "classes are unknown")
    refused(tmp_path, *words, **bare, train_dataset=None)
    refused(tmp_path, "a stream that does not name the classes of its column 'label'", **bare, train_dataset=stream)


def test_columns_in_another_order_of_classes(tmp_path: Path) -> None:
    swapped = tiny.named(runs.teacher_model(), ["positive", "negative"])
    columns = runs.data().map(Teacher(swapped, tiny.tokenizer()), batched=True)
    words = ("another order than the data's (negative, positive)", "Teacher(..., class_order=[1, 0])")
    refused(tmp_path, *words, train_dataset=columns, teacher_model=swapped)
    guide = Teacher(swapped, tiny.tokenizer(), class_order=[1, 0])
    columns = runs.data().map(guide, batched=True)
    projections = ClassProjections.fit(columns, guide.head, 2)
    settings = {"check_teacher": False}
    runs.trainer(
        runs.config(tmp_path, **settings), train_dataset=columns, teacher_model=guide, projections=projections
    ).train()


RAW = {"text": ["good", "bad"] * 8, "label": [1, 0] * 8}


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        ("train.csv", "A str is no dataset of raw rows: load the file"),
        (DatasetDict(train=Dataset.from_dict(RAW)), r"A DatasetDict is no .*: choose one of its splits \(train\)"),
        (pd.DataFrame(RAW), "A DataFrame is no dataset of raw rows: use datasets.Dataset.from_pandas"),
    ],
)
def test_rows_that_are_no_dataset(tmp_path: Path, rows: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        runs.trainer(runs.config(tmp_path), train_dataset=rows)
    with pytest.raises(ValueError, match=advice):
        runs.trainer(runs.config(tmp_path)).predict(rows)


def test_a_label_column_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = runs.data().rename_column("label", "sentiment")
    with pytest.raises(ValueError, match=r"no column 'lable' .* of the labels, or leave it out if there are none"):
        runs.trainer(runs.config(tmp_path, label_column="lable"), train_dataset=data)
    runs.student().save_pretrained(tmp_path / "student")
    for unlabelled in (data, data.add_column("label", [None] * len(data))):
        with pytest.raises(ValueError, match=r"learns from labels alone, and the training data has none in 'label'"):
            runs.trainer(runs.config(tmp_path, alpha=1), model=str(tmp_path / "student"), train_dataset=unlabelled)
    for _ in range(2):
        runs.trainer(runs.config(tmp_path), train_dataset=data)
    made = data.with_transform(lambda rows: {"text": rows["text"], "labels": [0] * len(rows["text"])})
    runs.trainer(runs.config(tmp_path, label_column="made"), train_dataset=made)
    assert caplog.text.count("no column 'label' (it has text, sentiment): all rows count as unlabelled") == 1
