"""A small problem whose class projections are known, for tests of the fit and of its artefact."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_lelp.classifiers import LinearHead
from hf_lelp.projections.class_projections import ClassProjections

N, C, D, S = 150, 3, 10, 4


def make_embedding(rows: int = N, seed: int = 0) -> np.ndarray:
    """Three clouds, each with its own centre and axes of clearly falling length."""
    rng = np.random.default_rng(seed)
    shapes = [np.linalg.qr(rng.normal(size=(D, D)))[0] * 0.75 ** np.arange(D)[:, None] for _ in range(C)]
    centres = rng.normal(size=(C, D))
    return np.stack([centres[n % C] + rng.normal(size=D) @ shapes[n % C] for n in range(rows)]).astype(np.float32)


def make_head(embedding: np.ndarray) -> LinearHead:
    """A final layer with random weights, by which no class is much commoner than another."""
    weight = torch.randn(C, D, generator=torch.Generator().manual_seed(1))
    return LinearHead(weight, -weight @ torch.from_numpy(embedding.mean(0)), "a teacher")


def make_dataset(embedding: np.ndarray, head: LinearHead, **columns: Any) -> Dataset:
    logits = embedding @ head.weight.numpy().T + head.bias.numpy()
    return Dataset.from_dict({"teacher_embedding": embedding, "teacher_logits": logits, **columns})


EMBEDDING = make_embedding()
HEAD = make_head(EMBEDDING)
LOGITS = EMBEDDING @ HEAD.weight.numpy().T + HEAD.bias.numpy()
LABELS = np.arange(N) % C
DATASET = make_dataset(EMBEDDING, HEAD, label=LABELS)
FITTED = ClassProjections.fit(DATASET, HEAD, S)
