"""A small problem with a teacher's columns and a tiny student, for tests of the methods and their comparison."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Array3D, Dataset, Features, List, Value
from transformers import PreTrainedModel, ViTConfig, ViTForImageClassification

from hf_lelp.classifiers import LinearHead
from hf_lelp.compare.task import Task

CLASSES, FINE, SIZE = 2, 3, 8  # FINE groups of rows in each class
SETTINGS: dict[str, Any] = {
    "num_subclasses": 2,
    "per_device_train_batch_size": 16,
    "optim": "sgd",
    "learning_rate": 0.1,
    "max_steps": 2,
    "use_cpu": True,
}


def student() -> PreTrainedModel:
    """A vision transformer of one layer for pictures of 4 by 4 pixels, without dropout."""
    config = ViTConfig(
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        image_size=4,
        patch_size=4,
        num_channels=1,
        num_labels=CLASSES,
        initializer_range=0.5,
    )
    return ViTForImageClassification(config)


def task(rows: int = 64, *, seed: int = 0, **changes: Any) -> Task:
    """Pictures whose embeddings, as a teacher sees them, lie in `FINE` groups in each class; `fine` is the group."""
    generator = np.random.default_rng(0)
    weight, centres = generator.normal(size=(CLASSES, SIZE)), generator.normal(size=(CLASSES * FINE, SIZE))
    pixels = generator.normal(size=(SIZE, 16))
    head = LinearHead(torch.from_numpy(weight).float(), torch.zeros(CLASSES), f"teacher {seed}")
    train, evaluation = (_rows(rows, seed + number, weight, centres, pixels) for number in (0, 1000))
    evaluation = evaluation.remove_columns(["teacher_embedding", "fine"])
    return replace(Task(train, evaluation, head, student, settings=SETTINGS, fine_column="fine"), **changes)


def _rows(rows: int, seed: int, weight: np.ndarray, centres: np.ndarray, pixels: np.ndarray) -> Dataset:
    generator = np.random.default_rng(seed)
    group = np.arange(rows) % len(centres)
    embedding = centres[group] + 0.3 * generator.normal(size=(rows, SIZE))
    columns = {
        "pixel_values": (embedding @ pixels).reshape(rows, 1, 4, 4),
        "labels": group // FINE,
        "fine": group,
        "teacher_logits": embedding @ weight.T + 3 * np.eye(CLASSES)[group // FINE],
        "teacher_embedding": embedding,
    }
    features = Features(
        {
            "pixel_values": Array3D((1, 4, 4), "float32"),
            "labels": Value("int64"),
            "fine": Value("int64"),
            "teacher_logits": List(Value("float32"), length=CLASSES),
            "teacher_embedding": List(Value("float32"), length=SIZE),
        }
    )
    return Dataset.from_dict(columns, features=features)
