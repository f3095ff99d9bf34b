"""Fine-tuning all-MiniLM-L6-v2 as a teacher of texts, and its columns."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.evidence.suite.store import CACHE, Part, once
from examples.vader import atomically, cpu_multiplies_bfloat16, quiet, svm_accuracy
from hf_lelp.data.columns import KIND_COLUMN, LOGITS_COLUMN, ORIGIN_COLUMN
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import with_columns
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.teacher import Teacher
from hf_lelp.transfer.made import Transfer
from hf_lelp.transfer.rows import transfer_rows

MAX_LENGTH = 64
BATCH = 32


class TextTeacher(NamedTuple):
    """A fine-tuned classifier's folder, the rows that it was trained on and is judged by, and a report."""

    folder: Path
    train: Dataset
    evaluation: Dataset
    report: dict[str, Any]

    def load(self) -> Teacher:
        """Load the classifier with its tokenizer."""
        return Teacher.from_pretrained(self.folder, max_length=MAX_LENGTH)


def text_teacher(
    name: str,
    corpus: Part,
    labels: NDArray[np.int64],
    minilm: Path,
    *,
    steps: int,
    labelled: int | None = None,
    seed: int = 0,
) -> TextTeacher:
    """Fine-tune MiniLM, its word embeddings frozen, unless the cache has it.

    Args:
        name: under which it is kept.
        corpus: with `text` and `fine_label`.
        labels: of each fine class.
        minilm: folder of the pretrained model.
        steps: of training, with 32 texts each.
        labelled: training texts whose label may be seen, the same number of each label; all others have no label, for
            the student either. `None` is all.
        seed: of the new layer, the order and the choice of labelled texts.
    """
    folder = CACHE / "models" / name
    train, evaluation = (_labelled(part, labels) for part in (corpus.train, corpus.evaluation))
    if labelled is not None:
        train = _hide_labels(train, labelled, seed)
    seen = train.filter(lambda label: label != NO_LABEL, input_columns="labels")

    @quiet()
    def make() -> None:
        set_seed(seed)
        tokenizer = AutoTokenizer.from_pretrained(minilm)
        tokenizer.model_max_length = MAX_LENGTH
        model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=int(labels.max()) + 1)
        model.bert.embeddings.requires_grad_(False)
        started = time.perf_counter()
        _fit(model, tokenizer, seen, steps, seed)
        report = {"seconds": round(time.perf_counter() - started, 1), "parameters": model.num_parameters()}
        if cpu_multiplies_bfloat16():
            model.to(torch.bfloat16)  # as examples.vader does: half the time of the pass over all texts
        with atomically(folder) as unfinished:
            model.save_pretrained(unfinished)  # the model in memory still has the trainer's autocast around it
            tokenizer.save_pretrained(unfinished)
            (unfinished / "training.json").write_text(json.dumps(report))

    once(folder, make)
    report = {"train_rows": len(seen), "steps": steps, **json.loads((folder / "training.json").read_text())}
    return TextTeacher(folder, train, evaluation, report)


@quiet()
def teacher_part(teacher: TextTeacher) -> Part:
    """Run the teacher over all texts of the corpus, and judge it."""
    model = teacher.load()
    train_columns, evaluation_columns = (
        with_columns(part.select_columns("labels"), columns_of(part, model))
        for part in (teacher.train, teacher.evaluation)
    )
    seen = teacher.train.filter(lambda label: label != NO_LABEL, input_columns="labels")
    report = {
        "model": "all-MiniLM-L6-v2",
        **teacher.report,
        "train_accuracy": _accuracy(train_columns),
        "test_accuracy": _accuracy(evaluation_columns),
        "tfidf_svm_test_accuracy": round(_svm_accuracy(seen, teacher.evaluation), 4),
        "tfidf_svm_test_accuracy_first_words": round(_svm_accuracy(_cut(seen), _cut(teacher.evaluation)), 4),
    }
    return Part(train_columns, evaluation_columns, model.head, report)


@quiet()
def transfer_part(
    teacher: TextTeacher, corpus: Part, tokenizer: PreTrainedTokenizerBase, windows: int, views: int
) -> Part:
    """Make windows and views of the training texts, and run the teacher over them too.

    Args:
        teacher: with the training texts and their labels.
        corpus: of the same texts.
        tokenizer: of the student.
        windows: of a text at most.
        views: of a text at most.

    Returns:
        The training texts with what was made of them: tokens, `fine_label`, `labels` and the teacher's columns.
    """
    texts = concatenate_datasets([teacher.train, corpus.train.select_columns("fine_label")], axis=1)
    wanted = Transfer(["text"], "labels", tokenizer, MAX_LENGTH, windows=windows, views=views)
    rows = transfer_rows(texts, wanted, evaluation=[corpus.evaluation.select_columns("text")])
    columns = columns_of(rows, teacher.load())
    rows = rows.map(
        lambda batch: {
            **tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH, return_token_type_ids=False),
            "labels": [NO_LABEL if label is None else label for label in batch["labels"]],
        },
        batched=True,
        remove_columns=["text", ORIGIN_COLUMN, KIND_COLUMN],
    )
    train = with_columns(rows, columns)
    return Part(train, teacher.evaluation)


def columns_of(texts: Dataset, teacher: Teacher) -> Dataset:
    """What the teacher says of these texts, kept by the row as the library keeps it."""
    return teacher_columns(texts, teacher, CACHE / "columns")


def _fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: Dataset, steps: int, seed: int) -> None:
    tokens = train.map(
        lambda batch: dict(tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH)),
        batched=True,
        remove_columns="text",
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            learning_rate=1.5e-4,
            warmup_steps=0.1,  # below 1: a share of all steps
            weight_decay=0.01,
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="group_by_length",
            use_cpu=not torch.cuda.is_available(),
            bf16=cpu_multiplies_bfloat16(),
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(model=model, args=arguments, train_dataset=tokens, processing_class=tokenizer).train()


def _labelled(texts: Dataset, labels: NDArray[np.int64]) -> Dataset:
    return texts.select_columns("text").add_column("labels", labels[texts["fine_label"]])


def _hide_labels(train: Dataset, labelled: int, seed: int) -> Dataset:
    """`train` with `labelled` labels left, as many of each, and −100 in the other rows."""
    labels = np.array(train["labels"])
    order = np.random.default_rng(seed).permutation(len(labels))
    values = np.unique(labels)
    shown = np.concatenate([order[labels[order] == value][: labelled // len(values)] for value in values])
    hidden = np.full_like(labels, NO_LABEL)
    hidden[shown] = labels[shown]
    return train.remove_columns("labels").add_column("labels", hidden)


def _accuracy(columns: Dataset) -> float:
    """Of the rows with a label."""
    arrays = columns.with_format("numpy")
    labels = arrays["labels"][:]
    right = arrays[LOGITS_COLUMN][:].argmax(1) == labels
    return round(float(right[labels != NO_LABEL].mean()), 4)


def _svm_accuracy(train: Dataset, evaluation: Dataset) -> float:
    return svm_accuracy(*(part.rename_column("labels", "label") for part in (train, evaluation)))


def _cut(texts: Dataset) -> Dataset:
    """The first words of each text, about as many as the teacher reads."""
    return texts.map(lambda text: {"text": " ".join(text.split()[: MAX_LENGTH - 2])}, input_columns="text")
