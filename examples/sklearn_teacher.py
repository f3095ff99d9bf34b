"""A teacher that is no neural network: TF-IDF, SVD and logistic regression teach a small BERT.

    python -m examples.sklearn_teacher

All that LELP asks of a teacher is in `hf_lelp.teacher_like.TeacherLike`: logits that are a linear map of an embedding.
Here the SVD is the embedding and the regression the map. The data and the student are those of the demo.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from examples.vader import LABELS, build_demo, load_split
from hf_lelp import LELPConfig, LELPTrainer
from hf_lelp.heads import LinearHead
from hf_lelp.projections import EMBEDDING_COLUMN, LOGITS_COLUMN


class SklearnTeacher:
    """A fitted pipeline that ends in a linear classifier; what comes before it makes the embedding.

    Args:
        pipeline: fitted on class indices, so that its classes are in the data's order.
        column: that it reads.
        class_names: of its classes.
    """

    def __init__(self, pipeline: Pipeline, column: str, class_names: Sequence[str]) -> None:
        self.input_columns, self.class_names = [column], list(class_names)
        self.fingerprint = joblib.hash([pipeline, column])
        self._embedder, classifier = pipeline[:-1], pipeline[-1]
        weight, bias = classifier.coef_, classifier.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps the difference of their logits alone
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        self.head = LinearHead(torch.tensor(weight).float(), torch.tensor(bias).float(), self.fingerprint)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        embedding = self._embedder.transform(batch[self.input_columns[0]]).astype(np.float32)
        logits = embedding @ self.head.weight.numpy().T + self.head.bias.numpy()
        return {LOGITS_COLUMN: logits, EMBEDDING_COLUMN: embedding}


def fit(texts: Sequence[str], labels: Sequence[int], dimensions: int = 256) -> Pipeline:
    """TF-IDF of words and pairs of words, its `dimensions` leading components, and a regression on them."""
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TruncatedSVD(dimensions, random_state=0),
        LogisticRegression(C=10, max_iter=1000),
    ).fit(texts, labels)


def main() -> None:
    """Fit the teacher, and train the demo's student by labels alone, plain distillation and LELP."""
    cache = build_demo()
    train, test = load_split(cache / "train.parquet"), load_split(cache / "test.parquet")
    teacher = SklearnTeacher(fit(train["text"], train["label"]), "text", LABELS)
    answers = teacher({"text": test["text"]})[LOGITS_COLUMN].argmax(-1)
    print(f"teacher: TF-IDF, SVD, logistic regression: accuracy {np.mean(answers == np.array(test['label'])):.3f}")
    for method, settings in {"direct": {"alpha": 1.0}, "kd": {"num_subclasses": 1}, "lelp": {}}.items():
        with tempfile.TemporaryDirectory() as folder:
            config = LELPConfig(
                output_dir=folder,
                num_train_epochs=2,
                per_device_train_batch_size=32,
                learning_rate=5e-4,
                warmup_steps=0.1,
                max_length=64,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **settings,  # type: ignore[arg-type]
            )
            trainer = LELPTrainer(
                str(cache / "student"), config, train_dataset=train, eval_dataset=test, teacher_model=teacher
            )
            trainer.train()
            figures = trainer.evaluate()
        agreement = np.mean(trainer.predict(test).predictions.argmax(-1) == answers)
        print(f"{method}: accuracy {figures['eval_accuracy']:.3f}, agrees with the teacher {agreement:.3f}")


if __name__ == "__main__":
    main()
