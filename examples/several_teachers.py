"""Distils two teachers that err on other texts: a fine-tuned MiniLM, and words alone.

    python -m examples.several_teachers

The first teacher is the demo's. The second is a scikit-learn pipeline: TF-IDF, its leading directions, and logistic
regression. Neither is told of the other. Students learn from each, and from both: from the mean of their logits. A
student is an MLP over the embeddings of a frozen sentence model, so several seeds cost little.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import set_seed

from examples.annotators import with_features
from examples.frozen_embeddings import EmbeddingClassifier, EmbeddingConfig, minilm
from examples.sklearn_teacher import SklearnTeacher
from examples.vader import LABELS, MAX_LENGTH, SEED, SILENT, build_demo, load_split, quiet
from hf_lelp import LELPConfig, LELPTrainer, Teacher, TeacherLike
from hf_lelp.data.columns import LOGITS_COLUMN
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.encoder import Encoder

TRAIN_TEXTS, TEST_TEXTS = 1500, 1500
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {"kd": {"num_subclasses": 1}, "lelp": {}}


def teacher_of_words(texts: Dataset, directions: int = 200) -> SklearnTeacher:
    """Fit the second teacher to the labels of texts."""
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        TruncatedSVD(directions, random_state=SEED),
        LogisticRegression(C=10, max_iter=1000),
    )
    return SklearnTeacher(words.fit(texts["text"][:], texts["label"][:]), "text", LABELS)


def train(
    method: str, seed: int, teachers: list[TeacherLike], cache: Path, train_data: Dataset, test: Dataset
) -> float:
    """Train one student, and return its accuracy on the test texts, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        config = LELPConfig(
            output_dir=folder,
            columns_cache_dir=str(cache),
            student_head="auxiliary",  # the other form needs a class of transformers itself
            num_train_epochs=20,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            seed=seed,
            **SILENT,
            **METHODS[method],
        )
        set_seed(seed)
        model = EmbeddingClassifier(EmbeddingConfig(num_labels=len(LABELS)))  # type: ignore[call-arg]
        taught_by = teachers if len(teachers) > 1 else teachers[0]
        trainer = LELPTrainer(model, config, train_dataset=train_data, eval_dataset=test, teacher_model=taught_by)
        trainer.train()
        return 100 * float(trainer.evaluate()["eval_accuracy"])


def logits(teacher: TeacherLike, texts: Dataset, cache: Path) -> NDArray[np.float32]:
    """Return a teacher's logits of the texts, (N, C)."""
    return np.asarray(teacher_columns(texts, teacher, cache).with_format("numpy")[LOGITS_COLUMN][:])


@quiet()
def main() -> None:
    """Print the accuracy of each teacher and of their mean, and of their students."""
    cache = build_demo()
    columns = cache / "several_teachers"
    whole = load_split(cache / "train.parquet")
    reader = Encoder.from_pretrained(str(minilm(cache)), max_length=MAX_LENGTH)
    train_data, test = (
        with_features(texts.select_columns(["text", "label"]).shuffle(SEED).select(range(rows)), reader, columns)
        for texts, rows in ((whole, TRAIN_TEXTS), (load_split(cache / "test.parquet"), TEST_TEXTS))
    )
    each: dict[str, TeacherLike] = {
        "MiniLM": Teacher.from_pretrained(cache / "teacher", max_length=MAX_LENGTH),
        "words": teacher_of_words(whole),
    }
    answers = {name: logits(teacher, test, columns) for name, teacher in each.items()}
    labels = np.array(test["label"])
    taught_by = {**{name: [teacher] for name, teacher in each.items()}, "both": list(each.values())}
    answers["both"] = np.mean(list(answers.values()), axis=0)
    for name, teachers in taught_by.items():
        line = f"{name}: {100 * np.mean(answers[name].argmax(-1) == labels):.1f}"
        for method in METHODS:
            found = [train(method, seed, teachers, columns, train_data, test) for seed in SEEDS]
            line += f"; its {method} students {np.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
