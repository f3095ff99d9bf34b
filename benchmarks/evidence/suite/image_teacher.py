"""Training a teacher of images, and its columns."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from benchmarks.evidence.suite.models import resnet
from benchmarks.evidence.suite.store import Part, head_of
from examples.vader import cpu_multiplies_bfloat16
from hf_lelp.classifiers import LinearHead, check_embedding, find_heads, headless, joint_layer
from hf_lelp.compare.baselines.clusterings import subclass_auxiliary_loss
from hf_lelp.compare.methods import SUBCLASS_LOGITS_COLUMN
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN

Loss = Callable[[Tensor, Tensor], Tensor]  # of outputs, (N, K), and labels, (N,)

BATCH = 64
AUXILIARY_TEMPERATURE = 1.0  # of Subclass Distillation's loss


def image_teacher(
    train: Dataset,
    evaluation: Dataset,
    labels: NDArray[np.int64],
    *,
    parts: int,
    epochs: int,
    stage: int | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    train_labels: NDArray[np.int64] | None = None,
) -> Part:
    """Train a ResNet on the images' labels and run it over all of them.

    Args:
        train: with `pixel_values` and `fine_label`.
        evaluation: likewise.
        labels: of each fine class.
        parts: images side by side in each row; each is mirrored or not at random in training.
        epochs: passes over `train`.
        stage: whose output, averaged over the image, is the embedding; `None` is what the final layer reads.
        dropout: share of what the final layer reads that is dropped in training.
        seed: of weights, order and mirroring.
        train_labels: of each training row, where they are not those of its fine class.
    """
    train_labels = labels[train["fine_label"]] if train_labels is None else train_labels
    evaluation_labels = labels[evaluation["fine_label"]]
    started = time.perf_counter()
    pixels = _pixels(train)
    num_labels = int(labels.max()) + 1
    model = _fitted(pixels, torch.from_numpy(train_labels), num_labels, parts, epochs, seed, dropout=dropout)
    seconds = time.perf_counter() - started
    train_columns = _columns(model, pixels, train_labels, stage)
    evaluation_columns = _columns(model, _pixels(evaluation), evaluation_labels, stage)
    accuracies = accuracy(train_columns), accuracy(evaluation_columns)
    head = head_of(model)
    if stage is not None:  # no linear layer reads this embedding
        size = train_columns.features[EMBEDDING_COLUMN].length
        head = LinearHead(torch.zeros(len(head.weight), size), head.bias, head.fingerprint)
    return Part(train_columns, evaluation_columns, head, _report(model, train, epochs, seconds, *accuracies))


def retrained_teacher(
    train: Dataset,
    evaluation: Dataset,
    labels: NDArray[np.int64],
    *,
    parts: int,
    epochs: int,
    subclasses: int,
    seed: int = 0,
) -> Part:
    """The teacher of Subclass Distillation: `subclasses` outputs a class, used by force of an auxiliary loss.

    Arguments as for `image_teacher`. The rows are `retrained_teacher_logits`, (C, S).
    """
    num_labels = int(labels.max()) + 1

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        classes = outputs.unflatten(1, (num_labels, subclasses)).logsumexp(-1)
        auxiliary = subclass_auxiliary_loss(outputs, AUXILIARY_TEMPERATURE).mean()
        return nn.functional.cross_entropy(classes, targets) + auxiliary

    started = time.perf_counter()
    pixels, train_labels = _pixels(train), torch.from_numpy(labels[train["fine_label"]])
    model = _fitted(pixels, train_labels, num_labels * subclasses, parts, epochs, seed, loss)
    seconds = time.perf_counter() - started
    columns, accuracies = [], []
    feature = List(List(Value("float32"), length=subclasses), length=num_labels)
    for images, data in ((pixels, train), (_pixels(evaluation), evaluation)):
        with torch.inference_mode():
            outputs = torch.cat([model(pixel_values=batch).logits for batch in images.split(500)])
        outputs = outputs.unflatten(1, (num_labels, subclasses))
        features = Features({SUBCLASS_LOGITS_COLUMN: feature})
        columns.append(Dataset.from_dict({SUBCLASS_LOGITS_COLUMN: outputs.numpy()}, features=features))
        right = outputs.logsumexp(-1).argmax(-1).numpy() == labels[data["fine_label"]]
        accuracies.append(round(float(right.mean()), 4))
    report = _report(model, train, epochs, seconds, *accuracies)
    return Part(columns[0], columns[1], report=report)


def _fitted(
    pixels: Tensor,
    labels: Tensor,
    outputs: int,
    parts: int,
    epochs: int,
    seed: int,
    loss: Loss = nn.functional.cross_entropy,
    dropout: float = 0.0,
) -> PreTrainedModel:
    set_seed(seed)
    model = resnet("teacher", num_labels=outputs)
    flat, layer = model.classifier  # type: ignore[misc]  # pooled features, and what reads them
    model.classifier = nn.Sequential(flat, nn.Dropout(dropout), layer)
    _fit(model, pixels, labels, parts, epochs, loss)
    return model.eval()


def _report(
    model: PreTrainedModel, train: Dataset, epochs: int, seconds: float, train_accuracy: float, test_accuracy: float
) -> dict[str, Any]:
    return {
        "model": "ResNet 32-64-128",
        "parameters": model.num_parameters(),
        "train_rows": len(train),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
    }


def mirrored(images: Tensor, parts: int) -> Tensor:
    """Images, (N, C, H, W), each of whose `parts` parts from left to right is mirrored with probability ½."""
    sides = images.unflatten(3, (parts, -1))
    flips = torch.rand(len(images), 1, 1, parts, 1) < 0.5
    return torch.where(flips, sides.flip(4), sides).flatten(3)


def _fit(
    model: PreTrainedModel,
    pixels: Tensor,
    labels: Tensor,
    parts: int,
    epochs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    batches = [order for _ in range(epochs) for order in torch.randperm(len(pixels)).split(BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=len(batches), pct_start=0.1, anneal_strategy="linear"
    )
    model.train()
    for rows in batches:
        images = mirrored(pixels[rows], parts).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_multiplies_bfloat16()):
            logits = model(pixel_values=images).logits
        optimizer.zero_grad()
        loss(logits.float(), labels[rows]).backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def _columns(model: PreTrainedModel, pixels: Tensor, labels: NDArray[np.int64], stage: int | None) -> Dataset:
    """`labels`, `teacher_logits` and `teacher_embedding` of images."""
    heads = find_heads(model, int(model.config.num_labels or 0))
    with headless(model, heads):
        embedding = torch.cat([model(pixel_values=batch).logits for batch in pixels.split(500)])
    check_embedding(model, heads, embedding[:500], {"pixel_values": pixels[:500]})
    logits = nn.functional.linear(embedding, *joint_layer(heads.values()))
    if stage is not None:
        batches = (model(pixel_values=batch, output_hidden_states=True) for batch in pixels.split(500))
        embedding = torch.cat([outputs.hidden_states[stage].mean((2, 3)) for outputs in batches])
    return answers(labels, logits.numpy(), embedding.numpy())


def answers(labels: NDArray[np.int64], logits: NDArray[np.float32], embedding: NDArray[np.float32]) -> Dataset:
    """`labels`, (N,), and a teacher's logits, (N, C), and embeddings, (N, D), as columns."""
    columns: dict[str, NDArray[Any]] = {"labels": labels, LOGITS_COLUMN: logits, EMBEDDING_COLUMN: embedding}
    wide = {name: List(Value("float32"), length=columns[name].shape[1]) for name in (LOGITS_COLUMN, EMBEDDING_COLUMN)}
    return Dataset.from_dict(columns, features=Features({"labels": Value("int64"), **wide}))


def accuracy(columns: Dataset) -> float:
    """The teacher's, in such columns."""
    arrays = columns.with_format("numpy")
    return round(float((arrays[LOGITS_COLUMN][:].argmax(1) == arrays["labels"][:]).mean()), 4)


def _pixels(images: Dataset) -> Tensor:
    return images.with_format("torch")["pixel_values"][:]
