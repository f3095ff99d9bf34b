"""Trains on data of which 5% are positive: with and without weights of the classes, calibrated, with a threshold.

    python -m examples.imbalance

The data is the demo's, without most of its positive texts, in training and test alike. The student is an MLP over 384
numbers a text (TF-IDF and a truncated SVD), so that twelve of them train soon. A fifth of the training rows is held
back for the temperature and the threshold. Pictures go to out/imbalance.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PrinterCallback

from examples.frozen_embeddings import EmbeddingClassifier, EmbeddingConfig
from examples.vader import LABELS, SILENT, build_demo, load_split, quiet
from hf_lelp import LELPConfig, LELPTrainer
from hf_lelp.calibration.settled import draw, hold_back, measured, settle
from hf_lelp.markdown import markdown_table

POSITIVES = 0.05
AIM = "f1"
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {"direct": {"alpha": 1.0}, "lelp": {}}


def imbalanced(data: Dataset, share: float = POSITIVES, seed: int = 0) -> Dataset:
    """Drop positive rows at random until they are a share of all."""
    labels = np.array(data["label"])
    negatives, positives = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    wanted = round(len(negatives) * share / (1 - share))
    kept = np.random.default_rng(seed).permutation(positives)[:wanted]
    return data.select(np.sort(np.concatenate([negatives, kept])))


def train(method: str, weights: Any, seed: int, cache: Path, train_data: Dataset, test_data: Dataset) -> dict[str, Any]:
    """Train a student, settle its temperature and threshold on rows held back, and measure it on the test rows."""
    train_data, held = hold_back(train_data, 0.2, seed)
    with tempfile.TemporaryDirectory() as folder:
        config = LELPConfig(
            output_dir=folder,
            student_head="auxiliary",  # the other form needs a class of transformers itself
            class_weights=weights,
            num_train_epochs=6,
            per_device_train_batch_size=128,
            learning_rate=2e-3,
            seed=seed,
            **SILENT,
            check_teacher=False,  # always answering "negative" would have 95% right
            **METHODS[method],
        )
        torch.manual_seed(seed)
        student = EmbeddingClassifier(EmbeddingConfig(num_labels=len(LABELS)))  # type: ignore[call-arg]  # of every configuration
        trainer = LELPTrainer(student, config, train_dataset=train_data, teacher_model=str(cache / "teacher"))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        found = trainer.predict(held)
        known, truth = np.asarray(found.predictions), np.asarray(found.label_ids)
        settled = settle(trainer.model, known, truth, calibrate=True, threshold=AIM)
        answers = trainer.predict(test_data)
    logits, labels = np.asarray(answers.predictions), np.asarray(answers.label_ids)
    result = measured(settled, logits, labels, trainer.model.config)
    if seed == SEEDS[0]:
        place = Path("out/imbalance") / f"{method}-{'balanced' if weights else 'plain'}"
        draw(result, logits, labels, trainer.model.config, place)
    result["average_precision"] = average_precision_score(labels, expit(logits[:, 1] - logits[:, 0]))
    return result


def main() -> None:
    """Print what weights, temperature and threshold do, on average over the seeds."""
    cache = build_demo()
    with quiet():
        train_data, test_data = (imbalanced(load_split(cache / f"{part}.parquet")) for part in ("train", "test"))
        reader = make_pipeline(TfidfVectorizer(sublinear_tf=True), TruncatedSVD(384, random_state=0), StandardScaler())
        reader.fit(train_data["text"])
        train_data, test_data = (
            data.map(lambda batch: {"features": reader.transform(batch["text"]).astype(np.float32)}, batched=True)
            for data in (train_data, test_data)
        )
        for part, data in (("training", train_data), ("test", test_data)):
            print(f"{sum(data['label'])} of {len(data):,} {part} rows are positive", flush=True)
        body = []
        for method in METHODS:
            for weights in (None, "balanced"):
                runs = [train(method, weights, seed, cache, train_data, test_data) for seed in SEEDS]
                figures = [
                    [
                        one["average_precision"],
                        one["before"]["ece"],
                        one["after"]["ece"],
                        one["at_half"]["f1"],
                        one["at_threshold"]["f1"],
                        one["at_threshold"]["recall"],
                        one["at_threshold"]["precision"],
                    ]
                    for one in runs
                ]
                name = f"{method}, {weights or 'none'}"
                body.append([name, *(f"{100 * value:.1f}" for value in np.mean(figures, axis=0))])
    header = ["method, class_weights", "average precision", "calibration error", "calibrated", "F1 at 0.5"]
    print(markdown_table([*header, "F1 at the threshold", "recall", "precision"], body))


if __name__ == "__main__":
    main()
