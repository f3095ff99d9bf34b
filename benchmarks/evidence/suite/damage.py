"""Tasks whose training labels are wrong in part, or whose second class is rare, for teacher and student alike.

A teacher is trained for each damage. The test rows stay right, and balanced. The teacher of texts is made in a minute:
it reads all words as TF-IDF, and its student a frozen sentence embedding.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neural_network import MLPClassifier

from benchmarks.evidence.suite.image_tasks import image_task, pairs_corpus
from benchmarks.evidence.suite.image_teacher import accuracy, answers, image_teacher
from benchmarks.evidence.suite.images import balanced_labels
from benchmarks.evidence.suite.models import embedding_mlp
from benchmarks.evidence.suite.store import Part, assemble, kept
from benchmarks.evidence.suite.text_tasks import (
    SHARED_SETTINGS,
    STUDENTS,
    fine_names,
    minilm_folder,
    text_corpus,
    with_frozen_embeddings,
)
from benchmarks.evidence.suite.texts import labels_of
from hf_lelp.classifiers import LinearHead
from hf_lelp.compare.task import Task

TEACHER_UNITS = 128
CLASSES = 10  # of Fashion-MNIST, in pairs


class Damage(NamedTuple):
    """What is wrong with training labels of two classes.

    Attributes:
        wrong: share of the rows that have the other label.
        rarity: rows of the first class for each one of the second; `None` leaves them as they are.
    """

    wrong: float = 0.0
    rarity: int | None = None

    def __str__(self) -> str:
        return f"wrong_{self.wrong:g}" + ("" if self.rarity is None else f"_rarity_{self.rarity}")

    def of(self, labels: NDArray[np.int64], seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Damage labels, (N,), of 0 and 1: return the rows that are left, (M,), and the labels that they have, (M,)."""
        generator, rows = np.random.default_rng(seed), np.arange(len(labels))
        if self.rarity is not None:
            first, second = (np.flatnonzero(labels == value) for value in (0, 1))
            rows = np.sort(np.concatenate([first, generator.permutation(second)[: round(len(first) / self.rarity)]]))
        left = labels[rows]
        others = generator.permutation(len(left))[: round(self.wrong * len(left))]
        left[others] = 1 - left[others]
        return rows, left


def damaged_pairs(damage: Damage) -> Task:
    """`fashion_pairs` of 100 fine classes with such labels, for the small student."""
    corpus, labels = kept(f"corpora/fashion_pairs_{CLASSES}", partial(pairs_corpus, CLASSES)), balanced_labels(100, 0)
    rows, train_labels = damage.of(labels[corpus.train["fine_label"]])
    corpus = corpus._replace(train=corpus.train.select(rows))
    make = partial(
        image_teacher, corpus.train, corpus.evaluation, labels, parts=2, epochs=16, train_labels=train_labels
    )
    teacher = kept(f"teachers/fashion_pairs_{CLASSES}_{damage}", make)
    return image_task(corpus, teacher, "small", None, 0, epochs=8)


def damaged_newsgroups(damage: Damage) -> Task:
    """20 Newsgroups, parity, with such labels, for the MLP over frozen sentence embeddings."""
    minilm = minilm_folder()
    corpus = kept("corpora/newsgroups", partial(text_corpus, "newsgroups", minilm))
    corpus, labels = with_frozen_embeddings("newsgroups", corpus, minilm), labels_of(fine_names(corpus.train), "mod 2")
    rows, train_labels = damage.of(labels[corpus.train["fine_label"]])
    corpus = corpus._replace(train=corpus.train.select(rows))
    evaluation_labels = labels[corpus.evaluation["fine_label"]]
    make = partial(words_teacher, corpus, train_labels, evaluation_labels)
    teacher = kept(f"teachers/newsgroups_words_{damage}", make)
    settings: dict[str, Any] = {**SHARED_SETTINGS, **STUDENTS["mlp"]}
    return assemble(corpus, teacher, ["pixel_values"], student=partial(embedding_mlp, 2), settings=settings)


def words_teacher(corpus: Part, train_labels: NDArray[np.int64], evaluation_labels: NDArray[np.int64]) -> Part:
    """Fit an MLP of one hidden layer on TF-IDF of all words, stopped early, and run it over all texts.

    Args:
        corpus: with `text`.
        train_labels: 0 or 1, (N,).
        evaluation_labels: likewise, (M,).
    """
    started = time.perf_counter()
    reader = TfidfVectorizer(sublinear_tf=True, min_df=2)
    words = reader.fit_transform(corpus.train["text"][:])
    model = MLPClassifier((TEACHER_UNITS,), early_stopping=True, n_iter_no_change=3, random_state=0)
    model.fit(words, train_labels)
    seconds = time.perf_counter() - started
    # One output, z: logits −z/2 and z/2.
    (hidden, last), (hidden_bias, (bias,)) = model.coefs_, model.intercepts_
    weight = np.concatenate([-last.T, last.T]) / 2
    head = LinearHead(
        torch.tensor(weight).float(), torch.tensor([-bias, bias]).float() / 2, joblib.hash([model.coefs_, train_labels])
    )
    evaluation_words = reader.transform(corpus.evaluation["text"][:])
    columns = []
    for texts, labels in ((words, train_labels), (evaluation_words, evaluation_labels)):
        embedding = np.maximum(texts @ hidden + hidden_bias, 0).astype(np.float32)
        columns.append(answers(labels, embedding @ head.weight.numpy().T + head.bias.numpy(), embedding))
    report = {
        "model": f"TF-IDF, MLP of {TEACHER_UNITS}",
        "parameters": sum(array.size for array in (*model.coefs_, *model.intercepts_)),
        "train_rows": len(train_labels),
        "epochs": model.n_iter_,
        "seconds": round(seconds, 1),
        "train_accuracy": accuracy(columns[0]),
        "test_accuracy": accuracy(columns[1]),
    }
    return Part(columns[0], columns[1], head, report)
