"""Trains an MLP student over frozen sentence embeddings, one of the paper's settings, on the demo's data.

    python -m examples.frozen_embeddings

A frozen sentence model (all-MiniLM-L6-v2) turns every text into 384 numbers, once. The student reads these and trains
in seconds, so several seeds cost little. The teacher, the demo's, reads the texts.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from examples.vader import (
    LABELS,
    MAX_LENGTH,
    MINILM,
    SILENT,
    atomically,
    build_demo,
    fetch,
    load_split,
    quiet,
    unpack_minilm,
)
from hf_lelp import LELPConfig, LELPTrainer, Teacher
from hf_lelp.data.columns import LOGITS_COLUMN

SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {"direct": {"alpha": 1.0}, "kd": {"num_subclasses": 1}, "lelp": {}}


class EmbeddingConfig(PreTrainedConfig):
    """Sizes of an `EmbeddingClassifier`."""

    model_type = "embedding_mlp"
    embedding_size: int = 384
    hidden_size: int = 128


class EmbeddingClassifier(PreTrainedModel):
    """A hidden layer and a final linear layer over a given embedding."""

    config_class = EmbeddingConfig
    main_input_name = "features"

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__(config)
        self.hidden = nn.Linear(config.embedding_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, int(config.num_labels or 0))
        self.post_init()

    def forward(self, features: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        """Map (N, embedding_size) to logits, (N, C)."""
        return SequenceClassifierOutput(logits=self.classifier(torch.relu(self.hidden(features))))


# So it is loaded, and named on its card, like any model of transformers.
AutoConfig.register(EmbeddingConfig.model_type, EmbeddingConfig)
AutoModelForSequenceClassification.register(EmbeddingConfig, EmbeddingClassifier)


class SentenceEmbedder(BaseEstimator):
    """A frozen sentence model, also usable as a step of a scikit-learn pipeline.

    Args:
        folder: of the model and its tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()

    def __reduce__(self) -> tuple[Any, ...]:
        return SentenceEmbedder, (self.folder,)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, texts: Sequence[str], labels: Sequence[int] | None = None) -> "SentenceEmbedder":
        """Do nothing: the model is frozen."""
        return self

    @torch.inference_mode()
    def transform(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Compute the mean of each text's token embeddings, scaled to length √D, (N, D)."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        embedding = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            some = [texts[row] for row in rows]
            tokens = self._tokenizer(some, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
            mask = tokens["attention_mask"].unsqueeze(-1)
            mean = (self._model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)
            embedding[rows] = nn.functional.normalize(mean).numpy() * mean.shape[1] ** 0.5
        return embedding


def minilm(cache: Path) -> Path:
    """Return the folder of the pretrained sentence model that the demo's teacher was made from."""
    if not (cache / "minilm").exists():
        with atomically(cache / "minilm") as unfinished:
            unpack_minilm(fetch(**MINILM, folder=cache / "downloads"), unfinished)
    return cache / "minilm"


def train(method: str, seed: int, cache: Path, train_data: Dataset, test_data: Dataset) -> tuple[float, Any]:
    """Train one student; return its accuracy and predictions on the test data."""
    with tempfile.TemporaryDirectory() as folder:
        config = LELPConfig(
            output_dir=folder,
            student_head="auxiliary",  # the other form needs a class of transformers itself
            num_train_epochs=10,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            seed=seed,
            **SILENT,
            **METHODS[method],
        )
        torch.manual_seed(seed)
        student = EmbeddingClassifier(EmbeddingConfig(num_labels=len(LABELS)))  # type: ignore[call-arg]  # of every configuration
        trainer = LELPTrainer(
            student,
            config,
            train_dataset=train_data,
            eval_dataset=test_data,
            teacher_model=str(cache / "teacher"),
        )
        trainer.train()
        prediction = trainer.predict(test_data)
        trainer.save_model()
    assert prediction.metrics is not None
    return prediction.metrics["test_accuracy"], np.asarray(prediction.predictions).argmax(-1)


def main() -> None:
    """Print every method's accuracy, mean and range over the seeds, and its agreement with the teacher."""
    cache = build_demo()
    embedder = SentenceEmbedder(minilm(cache))
    with quiet():
        train_data, test_data = (
            load_split(cache / f"{part}.parquet").map(
                lambda batch: {"features": embedder.transform(batch["text"])}, batched=True
            )
            for part in ("train", "test")
        )
        teacher = Teacher.from_pretrained(str(cache / "teacher"))
        answers = test_data.map(teacher, batched=True).with_format("numpy")[:][LOGITS_COLUMN].argmax(-1)
        labels = np.array(test_data["label"])
        print(f"teacher: accuracy {np.mean(answers == labels):.3f} on {len(labels):,} test texts")
        for method in METHODS:
            runs = [train(method, seed, cache, train_data, test_data) for seed in SEEDS]
            accuracies = [accuracy for accuracy, _ in runs]
            agreement = np.mean([np.mean(own == answers) for _, own in runs])
            print(
                f"{method}: accuracy {np.mean(accuracies):.3f} ({min(accuracies):.3f} to {max(accuracies):.3f},"
                f" {len(SEEDS)} seeds), agrees with the teacher {agreement:.3f}"
            )


if __name__ == "__main__":
    main()
