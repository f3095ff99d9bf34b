"""DPK: a part of the teacher's feature map given to the student as prior knowledge (Qiu et al. 2023, arXiv 2206.06067).

    python -m examples.related.dpk      # with one seed; a number behind it is how many

The teacher's last feature map becomes a column in float16. In training, some places of the student's map are replaced
by the teacher's. A small decoder is to make the teacher's whole map of the mixture. The wider the gap between the two
maps (1 − CKA of the batch), the more places are given. Decoder and projection are thrown away afterwards.

Simplified: the last stage alone; one encoder layer of transformers as the decoder; the loss counts the places that the
student fills itself; the student's places are averaged to the teacher's grid. The data is that of
examples/fashion_mnist.py.
"""

import math
import sys
import tempfile
from typing import Any

import torch
from datasets import Array3D, Dataset
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from examples.fashion_mnist import build
from examples.related.common import OutputOf, compare, settings, trained_accuracy
from examples.vader import load_split, quiet
from hf_lelp import LELPTrainer, Teacher
from hf_lelp.data.encoding import encode, pad

FEATURES = "teacher_features"
WEIGHT = 1.0  # of the features' loss; chosen, not searched for
TRAIN_ROWS, TEST_ROWS = 4000, 4000
MOST_BYTES = 2 * 2**30  # that the column may take


def on_grid(output: Tensor, size: int | None = None) -> Tensor:
    """Turn a map, (N, C, H, W), or tokens behind a class token, (N, 1 + P², C), into places, (N, size², C)."""
    if output.ndim == 3:
        side = math.isqrt(output.shape[1] - 1)
        output = output[:, 1:].transpose(1, 2).unflatten(-1, (side, side))
    if size is not None:
        output = nn.functional.adaptive_avg_pool2d(output, size)
    return output.flatten(2).transpose(1, 2)


class LastFeatures:
    """Adds the column `teacher_features` in `dataset.map(..., batched=True)`: the map before the pooling.

    Args:
        teacher: of images.
        part: the module of its model that gives the map, (N, C, H, W).
    """

    def __init__(self, teacher: Teacher, part: nn.Module) -> None:
        self.teacher, self.output = teacher, OutputOf(part)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Return the teacher's columns of n images, and their maps, (n, C, H, W), float16."""
        teacher = self.teacher
        inputs = pad(teacher.processing_class, encode(teacher.processing_class, batch, teacher.input_columns, None))
        with torch.inference_mode():  # a pass of its own: the teacher's call may make several
            teacher.model(**{name: values.to(teacher.model.device) for name, values in inputs.items()})
        maps = self.output().cpu().half().numpy()
        return teacher(batch) | {FEATURES: maps}


def check_disk(rows: int, shape: tuple[int, ...], most: int = MOST_BYTES) -> int:
    """Say how many bytes the column will take, before it is made, and return them.

    Raises:
        ValueError: if they are more than `most`.
    """
    size = rows * math.prod(shape) * 2
    if size > most:
        raise ValueError(
            f"{FEATURES} of {rows:,} rows of shape {shape} in float16 takes {size / 2**30:.1f} GiB, and at most"
            f" {most / 2**30:.1f} GiB are allowed. Take fewer rows, a smaller map, or raise MOST_BYTES."
        )
    print(f"{FEATURES}: {rows:,} rows of shape {shape} in float16 take {size / 2**20:.1f} MiB on disk")
    return size


def cka(one: Tensor, other: Tensor) -> Tensor:
    """Compute linear CKA, the likeness of two sets of features of the same N ≥ 4 rows, without the bias of few rows.

    Args:
        one: (N, D).
        other: (N, E).

    Returns:
        A number up to 1, around 0 for features that have nothing in common (Song et al. 2012, equation 5).
    """
    kernels = [features.double() @ features.double().T for features in (one, other)]
    kernels = [kernel - kernel.diag().diag() for kernel in kernels]
    n = len(one)

    def hsic(first: Tensor, second: Tensor) -> Tensor:
        sums = first.sum() * second.sum() / ((n - 1) * (n - 2)) - 2 * (first.sum(0) * second.sum(0)).sum() / (n - 2)
        return (first * second).sum() + sums

    own = hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])
    return hsic(*kernels) / own.clamp(min=1e-24).sqrt()


class Prior(nn.Module):
    """Mixes two maps, and makes the teacher's of the mixture.

    Args:
        student: size of the student's features.
        teacher: of the teacher's, a multiple of 4.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.projection = nn.Linear(student, teacher)
        self.decoder = nn.TransformerEncoderLayer(teacher, 4, 2 * teacher, dropout=0.0, batch_first=True)
        self.answer = nn.Linear(teacher, teacher)

    def forward(self, own: Tensor, taught: Tensor) -> tuple[Tensor, float]:
        """Compute each row's loss, (N,), and the share of places given.

        Args:
            own: places of the student, (N, P, student).
            taught: of the teacher, (N, P, teacher), standardised.
        """
        projected, places = self.projection(own), taught.shape[1]
        gap = 1.0
        if len(own) > 3:
            gap = float((1 - cka(projected.detach().flatten(1), taught.flatten(1))).clamp(0, 1))
        given = min(round(gap * places), places - 1)  # the student fills one place at least
        order = torch.rand(taught.shape[:2], device=taught.device).argsort(-1).argsort(-1)
        is_given = (order < given).unsqueeze(-1)
        made = self.answer(self.decoder(torch.where(is_given, taught, projected)))
        squares = ((made - taught).square().mean(-1) * ~is_given.squeeze(-1)).sum(-1) / (places - given)
        return squares, given / places


class PriorTrainer(LELPTrainer):
    """Plain distillation, and the features' loss; the training data has `teacher_features`.

    Args:
        part: the module of the student that gives its features, as `on_grid` takes them.
        feature_size: of these.
        feature_weight: of the features' loss.
        **kwargs: arguments of `LELPTrainer`; the student gets a module `prior`, which `without_prior` takes off.

    Raises:
        ValueError: if the teacher's map is not square.
    """

    own_columns = (FEATURES,)

    def __init__(
        self, *, model: PreTrainedModel, part: str, feature_size: int, feature_weight: float = WEIGHT, **kwargs: Any
    ) -> None:
        taught = torch.as_tensor(kwargs["train_dataset"].with_format("numpy")[:1024][FEATURES]).float()
        channels, *sides = taught.shape[1:]
        if len(sides) != 2 or sides[0] != sides[1]:
            raise ValueError(f"{FEATURES} has the shape {tuple(taught.shape[1:])}; (channels, side, side) is expected.")
        self.mean, self.spread = taught.mean((0, 2, 3)), taught.std((0, 2, 3)).clamp(min=1e-3)
        self.side, self.feature_weight = sides[0], feature_weight
        model.add_module("prior", Prior(feature_size, channels))  # here, so that the optimizer trains it
        self.given: list[float] = []
        super().__init__(model=model, **kwargs)
        self.features = OutputOf(self.model.get_submodule(part))

    def _loss_columns(self) -> list[str]:
        return [*super()._loss_columns(), FEATURES]

    def distillation_losses(self, class_logits: Tensor, other: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Add the squared distance of the decoder's map to the teacher's, (N,)."""
        plain = super().distillation_losses(class_logits, other, columns)
        taught = (on_grid(columns[FEATURES]) - self.mean.to(other)) / self.spread.to(other)
        prior: Any = self.model.prior
        losses, given = prior(on_grid(self.features(), self.side), taught)
        self.given.append(given)
        return plain + self.feature_weight * losses

    def without_prior(self) -> PreTrainedModel:
        """Return the student without the module that training alone needed, to be saved."""
        del self.model.prior
        return self.model


def with_features(dataset: Dataset, teacher: Teacher, part: nn.Module) -> Dataset:
    """Add the teacher's columns and its map in float16; say first what it takes, and refuse too much."""
    make = LastFeatures(teacher, part)
    shape = make(dataset[:1])[FEATURES].shape[1:]
    check_disk(len(dataset), shape)
    rows = dataset.map(make, batched=True, batch_size=64)
    return rows.cast_column(FEATURES, Array3D(shape, "float16"))


@quiet()
def main(seeds: int = 1) -> None:
    """Print accuracies of plain distillation and DPK: from a ResNet to a vision transformer."""
    cache = build()
    train, test = (load_split(cache / f"{part}.parquet") for part in ("train", "test"))
    train, test = train.select(range(TRAIN_ROWS)), test.select(range(TEST_ROWS))
    teacher = Teacher.from_pretrained(str(cache / "teacher"), input_columns=["image"])
    train = with_features(train, teacher, teacher.model.get_submodule("resnet.encoder.stages.2"))

    def run(dpk: bool, seed: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            common: dict[str, Any] = {
                "model": AutoModelForImageClassification.from_pretrained(cache / "student"),
                "args": settings(folder, seed, num_train_epochs=8, learning_rate=2e-3, per_device_train_batch_size=64),
                "train_dataset": train,
                "processing_class": AutoImageProcessor.from_pretrained(cache / "student"),
            }
            trainer = PriorTrainer(part="vit.layernorm", feature_size=48, **common) if dpk else LELPTrainer(**common)
            accuracy = trained_accuracy(trainer, test)
        if isinstance(trainer, PriorTrainer):
            print(
                f"given: {trainer.given[0]:.2f} of the places in the first batch, {trainer.given[-1]:.2f} in the last"
            )
        return accuracy

    compare({"kd": lambda seed: run(False, seed), "DPK": lambda seed: run(True, seed)}, seeds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
