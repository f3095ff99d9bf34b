"""Distils from a scikit-learn pipeline: frozen sentence embeddings and logistic regression.

    python -m examples.sklearn_teacher

`hf_lelp.TeacherLike` is all that LELP asks of a teacher: logits that are a linear map of an embedding. Here only the
regression is fitted, on few texts. Data and student are the demo's.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from transformers import AutoTokenizer

from examples.frozen_embeddings import SentenceEmbedder, minilm
from examples.vader import LABELS, SEED, SILENT, build_demo, load_split, quiet
from hf_lelp import LELPConfig, LELPTrainer
from hf_lelp.classifiers import LinearHead
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN

TRAIN_TEXTS, TEST_TEXTS = 3000, 2000


class SklearnTeacher:
    """A fitted pipeline that ends in a linear classifier; the steps before it make the embedding.

    Args:
        pipeline: fitted on class indices, so that its classes are in the data's order.
        column: the column that it reads.
        class_names: of its classes.
    """

    def __init__(self, pipeline: Pipeline, column: str, class_names: Sequence[str]) -> None:
        self.input_columns, self.class_names = [column], list(class_names)
        self.fingerprint = joblib.hash([pipeline, column])
        self._embedder, classifier = pipeline[:-1], pipeline[-1]
        weight, bias = classifier.coef_, classifier.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps only the difference of their logits
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        self.head = LinearHead(torch.tensor(weight).float(), torch.tensor(bias).float(), self.fingerprint)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        embedding = self._embedder.transform(batch[self.input_columns[0]]).astype(np.float32)
        logits = embedding @ self.head.weight.numpy().T + self.head.bias.numpy()
        return {LOGITS_COLUMN: logits, EMBEDDING_COLUMN: embedding}


@quiet()
def main() -> None:
    """Fit the teacher, and train a new student by direct, kd and lelp."""
    cache = build_demo()
    train = load_split(cache / "train.parquet").shuffle(SEED).select(range(TRAIN_TEXTS))
    test = load_split(cache / "test.parquet").shuffle(SEED).select(range(TEST_TEXTS))
    pipeline = make_pipeline(SentenceEmbedder(minilm(cache)), LogisticRegression(max_iter=1000))
    teacher = SklearnTeacher(pipeline.fit(train["text"][:], train["label"][:]), "text", LABELS)
    answers = teacher({"text": test["text"][:]})[LOGITS_COLUMN].argmax(-1)
    print(f"teacher: accuracy {np.mean(answers == np.array(test['label'])):.3f} on {len(test):,} test texts")
    for method, settings in {"direct": {"alpha": 1.0}, "kd": {"num_subclasses": 1}, "lelp": {}}.items():
        with tempfile.TemporaryDirectory() as folder:
            config = LELPConfig(
                output_dir=folder,
                num_train_epochs=6,
                per_device_train_batch_size=32,
                learning_rate=5e-4,
                warmup_steps=0.1,
                max_length=64,
                train_sampling_strategy="group_by_length",
                **SILENT,
                **settings,  # type: ignore[arg-type]
            )
            trainer = LELPTrainer(
                "new:2x128",
                config,
                train_dataset=train,
                eval_dataset=test,
                teacher_model=teacher,
                processing_class=AutoTokenizer.from_pretrained(minilm(cache)),
            )
            trainer.train()
            figures = trainer.evaluate()
        agreement = np.mean(np.asarray(trainer.predict(test).predictions).argmax(-1) == answers)
        print(f"{method}: accuracy {figures['eval_accuracy']:.3f}, agrees with the teacher {agreement:.3f}")


if __name__ == "__main__":
    main()
