"""Training a teacher of images, and its columns."""

import time

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from benchmarks.suite.models import resnet
from benchmarks.suite.store import Part, head_of
from examples.vader import cpu_multiplies_bfloat16
from hf_lelp.heads import check_embedding, find_heads, headless, joint_layer
from hf_lelp.projections import EMBEDDING_COLUMN, LOGITS_COLUMN

BATCH = 64


def image_teacher(
    train: Dataset, evaluation: Dataset, labels: NDArray[np.int64], *, parts: int, epochs: int, seed: int = 0
) -> Part:
    """Train a ResNet on the images' labels and run it over all of them.

    Args:
        train: with `pixel_values` and `fine_label`.
        evaluation: likewise.
        labels: of each fine class.
        parts: images side by side in each row; each is mirrored or not at random in training.
        epochs: passes over `train`.
        seed: of weights, order and mirroring.
    """
    pixels, evaluation_pixels = _pixels(train), _pixels(evaluation)
    train_labels, evaluation_labels = labels[train["fine_label"]], labels[evaluation["fine_label"]]
    set_seed(seed)
    model = resnet("teacher", num_labels=int(labels.max()) + 1).to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    started = time.perf_counter()
    _fit(model, pixels, torch.from_numpy(train_labels), parts, epochs)
    seconds = time.perf_counter() - started
    train_columns = _columns(model, pixels, train_labels)
    evaluation_columns = _columns(model, evaluation_pixels, evaluation_labels)
    report = {
        "model": "ResNet 32-64-128",
        "parameters": model.num_parameters(),
        "train_rows": len(train),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "train_accuracy": _accuracy(train_columns),
        "test_accuracy": _accuracy(evaluation_columns),
    }
    return Part(train_columns, evaluation_columns, head_of(model), report)


def mirrored(images: Tensor, parts: int) -> Tensor:
    """Images, (N, C, H, W), each of whose `parts` parts from left to right is mirrored with probability ½."""
    sides = images.unflatten(3, (parts, -1))
    flips = torch.rand(len(images), 1, 1, parts, 1) < 0.5
    return torch.where(flips, sides.flip(4), sides).flatten(3)


def _fit(model: PreTrainedModel, pixels: Tensor, labels: Tensor, parts: int, epochs: int) -> None:
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
        loss = nn.functional.cross_entropy(logits.float(), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def _columns(model: PreTrainedModel, pixels: Tensor, labels: NDArray[np.int64]) -> Dataset:
    """`labels`, `teacher_logits` and `teacher_embedding` of images."""
    model.eval()
    heads = find_heads(model, int(model.config.num_labels or 0))
    with headless(model, heads):
        embedding = torch.cat([model(pixel_values=batch).logits for batch in pixels.split(500)])
    check_embedding(model, heads, embedding[:500], {"pixel_values": pixels[:500]})
    logits = nn.functional.linear(embedding, *joint_layer(heads.values()))
    columns = {"labels": labels, LOGITS_COLUMN: logits.numpy(), EMBEDDING_COLUMN: embedding.numpy()}
    wide = {name: List(Value("float32"), length=columns[name].shape[1]) for name in (LOGITS_COLUMN, EMBEDDING_COLUMN)}
    return Dataset.from_dict(columns, features=Features({"labels": Value("int64"), **wide}))


def _accuracy(columns: Dataset) -> float:
    arrays = columns.with_format("numpy")
    return round(float((arrays[LOGITS_COLUMN][:].argmax(1) == arrays["labels"][:]).mean()), 4)


def _pixels(images: Dataset) -> Tensor:
    return images.with_format("torch")["pixel_values"][:]
