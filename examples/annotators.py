"""Distils what annotators said: no teacher model, the shares of their votes are the targets.

    python -m examples.annotators

VADER's ground truth comes with the rating that each of at least ten people gave a text. The share of them who rated it
above 0 is its probability of being positive; a rating of 0 counts as half a vote for each side. Three students learn
from the same texts: from the majority's label alone (direct), from the shares (kd), and from the shares with the
embeddings of a sentence model beside them (lelp). A student is an MLP over the embeddings of that sentence model, so
several seeds cost little. The test's labels are the majority's.
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset
from transformers import set_seed

from examples.frozen_embeddings import EmbeddingClassifier, EmbeddingConfig, minilm
from examples.vader import DOMAINS, LABELS, MAX_LENGTH, SILENT, VADER, build_demo, fetch, parse, quiet
from hf_lelp import LELPConfig, LELPTrainer
from hf_lelp.data.columns import EMBEDDING_COLUMN
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.encoder import Encoder

DOMAIN = "movie"
TRAIN_TEXTS, TEST_TEXTS = 1500, 1000
SEEDS = (0, 1, 2, 3, 4)
SOFT: dict[str, Any] = {"soft_label_columns": ["votes_negative", "votes_positive"], "teacher_scores": "probabilities"}
METHODS: dict[str, dict[str, Any]] = {"direct": {"alpha": 1.0}, "kd": {**SOFT, "num_subclasses": 1}, "lelp": SOFT}


def read_votes(sdist: Path) -> Dataset:
    """The rated texts of one domain: text, label, and the share of the annotators' votes for each class."""
    with tarfile.open(sdist) as outer:
        (nested,) = (member for member in outer if member.name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(nested).read())) as inner:  # type: ignore[union-attr]
            files = {Path(member.name).name: member for member in inner}
            names = DOMAINS[DOMAIN], DOMAINS[DOMAIN].replace("GroundTruth", "anonDataRatings")
            truth, ratings = (inner.extractfile(files[name]).read().decode("utf-8") for name in names)  # type: ignore[union-attr]
    votes = {line.split("\t")[0]: json.loads(line.split("\t")[3]) for line in ratings.split("\n") if line.strip()}
    rows = []
    for snippet in parse(DOMAIN, truth):
        given = np.array(votes[snippet.document])
        share = float(np.mean((given > 0) + 0.5 * (given == 0)))
        shares = {"votes_negative": 1 - share, "votes_positive": share}
        rows.append({"text": snippet.text, "label": LABELS.index(snippet.label), **shares})
    return Dataset.from_list(rows).cast_column("label", ClassLabel(names=LABELS))


def with_features(texts: Dataset, encoder: Encoder, cache: Path) -> Dataset:
    """Add the encoder's embedding of each text, scaled to length √D: what the students read."""
    columns = teacher_columns(texts, encoder, cache)
    embedding = np.asarray(columns.with_format("numpy")[EMBEDDING_COLUMN][:])
    embedding *= embedding.shape[1] ** 0.5 / np.linalg.norm(embedding, axis=1, keepdims=True)
    return texts.add_column("features", list(embedding))


def train(method: str, seed: int, encoder: Path, cache: Path, train_data: Dataset, test_data: Dataset) -> Any:
    """Train one student, and return its figures on the test texts."""
    settings = {**METHODS[method], **({"embedding_model": str(encoder)} if method == "lelp" else {})}
    with tempfile.TemporaryDirectory() as folder:
        config = LELPConfig(
            output_dir=folder,
            columns_cache_dir=str(cache),
            num_train_epochs=20,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            teacher_max_length=MAX_LENGTH,
            **SILENT,
            student_head="auxiliary",
            seed=seed,
            **settings,
        )
        set_seed(seed)
        model = EmbeddingClassifier(EmbeddingConfig(num_labels=len(LABELS)))  # type: ignore[call-arg]
        trainer = LELPTrainer(model, config, train_dataset=train_data, eval_dataset=test_data)
        trainer.train()
        return trainer.evaluate()


@quiet()
def main() -> None:
    """Train each method with each seed, and print the mean accuracy and calibration error."""
    cache = build_demo()
    encoder, columns = minilm(cache), cache / "annotators"
    parts = read_votes(fetch(**VADER, folder=cache / "downloads")).train_test_split(test_size=0.4, seed=0)
    reader = Encoder.from_pretrained(str(encoder), max_length=MAX_LENGTH)
    train_data, test_data = (
        with_features(parts[name].select(range(rows)), reader, columns)
        for name, rows in (("train", TRAIN_TEXTS), ("test", TEST_TEXTS))
    )
    undecided = np.mean(np.abs(np.array(train_data["votes_positive"]) - 0.5) < 0.25)
    print(f"{len(train_data):,} texts; of {undecided:.0%} each side has more than a quarter of the votes")
    runs = {
        method: [train(method, seed, encoder, columns, train_data, test_data) for seed in SEEDS] for method in METHODS
    }
    for method, figures in runs.items():
        accuracy, error = (np.array([100 * run[f"eval_{name}"] for run in figures]) for name in ("accuracy", "ece"))
        gain = accuracy - np.array([100 * run["eval_accuracy"] for run in runs["kd"]])
        print(
            f"{method}: accuracy {accuracy.mean():.1f}, {gain.mean():+.2f} beside kd (deviation over seeds"
            f" {gain.std(ddof=1):.2f}), calibration error {error.mean():.1f}"
        )


if __name__ == "__main__":
    main()
