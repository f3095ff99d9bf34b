"""Image tasks: pairs of Fashion-MNIST images under a random binary label, and lookalikes on opposite sides."""

import math
from functools import partial
from typing import Any

import numpy as np
from datasets import Array3D, Dataset, Features, Value, concatenate_datasets

from benchmarks.evidence.suite.image_teacher import image_teacher, retrained_teacher
from benchmarks.evidence.suite.images import Images, balanced_labels, fashion_mnist, normalised, pairs
from benchmarks.evidence.suite.models import resnet
from benchmarks.evidence.suite.store import DOWNLOADS, Part, assemble, kept
from hf_lelp.compare.task import Task

PAIRS_ROWS = {"train": 20_000, "evaluation": 10_000}
LOOKALIKES = (0, 1, 2, 5, 9)  # T-shirt, trousers, pullover, sandal, boot; against dress, coat, shirt, sneaker, bag


def fashion_pairs(
    classes: int = 10,
    student: str = "tiny",
    rows: int | None = None,
    seed: int = 0,
    num_labels: int = 2,
    teacher_epochs: int = 16,
    stage: int | None = None,
    dropout: float = 0.0,
    subclasses: int | None = None,
) -> Task:
    """Two images side by side; the label is a random balanced part of the pairs of classes, which are K² fine classes.

    Args:
        classes: K, of Fashion-MNIST's ten.
        student: a size of `models.RESNETS`.
        rows: training rows; `None` is all 20,000.
        seed: of the choice of rows.
        num_labels: C, the number of parts.
        teacher_epochs: passes of the teacher's training; few leave it less sure of the training data.
        stage: of the teacher's three, whose output is the embedding; `None` is what its final layer reads.
        dropout: of that embedding, in the teacher's training.
        subclasses: adds the column of a teacher retrained with so many of each class, for Subclass Distillation.
    """
    corpus = kept(f"corpora/fashion_pairs_{classes}", partial(pairs_corpus, classes))
    labels = balanced_labels(classes**2, seed=0, num_labels=num_labels)
    make = partial(
        image_teacher,
        corpus.train,
        corpus.evaluation,
        labels,
        parts=2,
        epochs=teacher_epochs,
        stage=stage,
        dropout=dropout,
    )
    variant = "" if num_labels == 2 else f"_labels_{num_labels}"
    variant += "" if teacher_epochs == 16 else f"_epochs_{teacher_epochs}"
    variant += "" if stage is None else f"_stage_{stage}"
    variant += f"_dropout_{dropout}" if dropout else ""
    teacher = kept(f"teachers/fashion_pairs_{classes}{variant}", make)
    if subclasses is not None:
        make = partial(
            retrained_teacher, corpus.train, corpus.evaluation, labels, parts=2, epochs=16, subclasses=subclasses
        )
        retrained = kept(f"teachers/fashion_pairs_{classes}_subclasses_{subclasses}", make)
        teacher = teacher._replace(train=concatenate_datasets([teacher.train, retrained.train], axis=1))
    return image_task(corpus, teacher, student, rows, seed, epochs=8)


def fashion_lookalikes(student: str = "tiny", rows: int | None = None, seed: int = 0) -> Task:
    """One image; five of the ten classes against those that look like them. Arguments as for `fashion_pairs`."""
    corpus = kept("corpora/fashion", _fashion_corpus)
    labels = np.isin(np.arange(10), LOOKALIKES).astype(np.int64)
    teacher = kept(
        "teachers/fashion_lookalikes",
        partial(image_teacher, corpus.train, corpus.evaluation, labels, parts=1, epochs=8),
    )
    return image_task(corpus, teacher, student, rows, seed, epochs=4)


def image_task(corpus: Part, teacher: Part, student: str, rows: int | None, seed: int, epochs: int) -> Task:
    """The task for a ResNet. With fewer rows it sees each more often: the steps fall as the root of the rows."""
    settings: dict[str, Any] = {
        "learning_rate": 1.2e-2,  # the best for plain distillation at τ = 4 of 1e-3 to 2.4e-2
        "num_train_epochs": math.ceil(epochs * math.sqrt(len(corpus.train) / (rows or len(corpus.train)))),
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 500,
        "warmup_steps": 0.1,  # below 1: a share of all steps
        "weight_decay": 0.01,
    }
    assert teacher.head is not None
    task = {"student": partial(resnet, student, len(teacher.head.weight)), "settings": settings}
    return assemble(corpus, teacher, ["pixel_values"], rows=rows, seed=seed, **task)


def pairs_corpus(classes: int) -> Part:
    train, test = fashion_mnist(DOWNLOADS / "fashion-mnist")
    return Part(
        _image_dataset(pairs(train, classes, PAIRS_ROWS["train"], seed=0)),
        _image_dataset(pairs(test, classes, PAIRS_ROWS["evaluation"], seed=1)),
    )


def _fashion_corpus() -> Part:
    train, test = fashion_mnist(DOWNLOADS / "fashion-mnist")
    return Part(_image_dataset(train), _image_dataset(test))


def _image_dataset(images: Images) -> Dataset:
    """`pixel_values`, normalised, and `fine_label`."""
    pixels = normalised(images.pixels)
    features = Features(pixel_values=Array3D(pixels.shape[1:], "float32"), fine_label=Value("int64"))
    return Dataset.from_dict({"pixel_values": pixels, "fine_label": images.classes}, features=features)
