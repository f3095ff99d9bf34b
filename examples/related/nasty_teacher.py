"""Trains a teacher that is right and teaches badly (Ma et al. 2021, arXiv 2105.07381), and compares as its user would.

    python -m examples.related.nasty_teacher      # with ω = 0.1; a number behind it is another ω

A *nasty teacher* is self-undermining. It keeps the cross-entropy with the labels low, and its answers away from those
of a normal teacher: CE(y, z) − ω τ² KL(softmax(z / τ) ‖ softmax(z' / τ)), z' of the frozen normal one. The data is
scikit-learn's digits, ten classes, which need no download. With two classes little is left to be nasty with: a wrong
class has no second one beside it.

Simplified: small MLPs in place of ResNets, AdamW, a larger ω, and students that see no label (α = 0), as in
`hf-lelp compare`. What to look for is the warning below the second table: it finds the teacher out.
"""

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ViTImageProcessor,
    set_seed,
)

from examples.vader import quiet
from hf_lelp import LELPConfig
from hf_lelp.compare.comparison import CompareArguments, compare
from hf_lelp.markdown import markdown_table

OMEGA, TEMPERATURE = 0.1, 4.0  # ω, τ
TEST_ROWS = 600
NAMES = [str(digit) for digit in range(10)]
FEATURES = Features(image=Image(), label=ClassLabel(names=NAMES))
MEAN, DEVIATION = 0.5, 0.5


def digits(seed: int = 0) -> tuple[Dataset, Dataset]:
    """Draw training and test rows: images of 8 × 8 pixels and the digit."""
    pixels, labels = load_digits(return_X_y=True)
    images = [Pillow.fromarray((rows.reshape(8, 8) * 15).astype(np.uint8)) for rows in pixels]
    data = Dataset.from_dict({"image": images, "label": labels.tolist()}, features=FEATURES).shuffle(seed=seed)
    return data.select(range(TEST_ROWS, len(data))), data.select(range(TEST_ROWS))


def mlp(units: int) -> PreTrainedModel:
    """Make a residual MLP over all pixels: a ConvNeXt whose only patch is the whole image."""
    return ConvNextForImageClassification(
        ConvNextConfig(
            num_channels=1,
            image_size=8,
            patch_size=8,
            num_stages=1,
            hidden_sizes=[units],
            depths=[1],
            layer_scale_init_value=0.0,  # none
            id2label=dict(enumerate(NAMES)),
            label2id={name: index for index, name in enumerate(NAMES)},
        )
    )


def processor() -> ViTImageProcessor:
    """Make the processor of all models here."""
    size = {"height": 8, "width": 8}
    return ViTImageProcessor(do_resize=False, size=size, image_mean=[MEAN], image_std=[DEVIATION])


def pixels_of(data: Dataset) -> Tensor:
    """Return all images as `pixel_values`, (N, 1, 8, 8)."""
    images = np.stack([np.asarray(image, dtype=np.float32) for image in data["image"]])
    return torch.from_numpy((images[:, None] / 255 - MEAN) / DEVIATION)


def nasty_loss(logits: Tensor, labels: Tensor, normal_logits: Tensor, omega: float, temperature: float) -> Tensor:
    """CE(y, z) − ω τ² KL(softmax(z / τ) ‖ softmax(z' / τ)), the mean over the batch.

    Args:
        logits: z, (N, C), of the teacher that is trained.
        labels: y, (N,).
        normal_logits: z', (N, C), of a normal teacher.
        omega: ω, how much of its sense it gives up.
        temperature: τ.
    """
    own, normal = ((z / temperature).log_softmax(-1) for z in (logits, normal_logits))
    distance = nn.functional.kl_div(normal, own, log_target=True, reduction="batchmean")
    return nn.functional.cross_entropy(logits, labels) - omega * temperature**2 * distance


def train(
    model: PreTrainedModel, data: Dataset, epochs: int, normal: PreTrainedModel | None = None, omega: float = OMEGA
) -> PreTrainedModel:
    """Train a teacher on labels, away from the answers of `normal` if there is one."""
    pixels, labels = pixels_of(data), torch.tensor(data["label"])
    batches = [rows for _ in range(epochs) for rows in torch.randperm(len(pixels)).split(64)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=len(batches))
    model.train()
    for rows in batches:
        logits = model(pixel_values=pixels[rows]).logits
        if normal is None:
            loss = nn.functional.cross_entropy(logits, labels[rows])
        else:
            with torch.no_grad():
                others = normal(pixel_values=pixels[rows]).logits
            loss = nasty_loss(logits, labels[rows], others, omega, TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: PreTrainedModel, data: Dataset) -> float:
    """Compute the share of right answers."""
    return float((model(pixel_values=pixels_of(data)).logits.argmax(-1) == torch.tensor(data["label"])).float().mean())


def compared(
    teacher: PreTrainedModel, folder: Path, *, units: int = 8, seeds: int = 3, **settings: Any
) -> dict[str, Any]:
    """Compare labels alone with plain distillation, as `hf-lelp compare` does; return the summary of all rows.

    Args:
        teacher: to distil.
        folder: with train.parquet and test.parquet; models and report go there.
        units: of the student.
        seeds: runs of each method.
        **settings: of `LELPConfig`.
    """
    set_seed(0)
    for name, model in (("teacher", teacher), ("student", mlp(units))):
        model.save_pretrained(folder / name)
        processor().save_pretrained(folder / name)
    arguments = CompareArguments(
        teacher_model=str(folder / "teacher"),
        student_model=str(folder / "student"),
        train_file=str(folder / "train.parquet"),
        eval_file=str(folder / "test.parquet"),
        methods=["direct", f"kd:temperature={TEMPERATURE:g}"],
        seeds=seeds,
    )
    defaults = {"num_train_epochs": 20, "learning_rate": 5e-3, "per_device_train_batch_size": 64}
    places = {"output_dir": str(folder / "compared"), "columns_cache_dir": str(folder / "columns")}
    config = LELPConfig(**{**defaults, **settings, **places}, use_cpu=True, report_to="none", disable_tqdm=True)
    return dict(compare(arguments, config)["all rows"])


def main(omega: float = OMEGA) -> None:
    """Train a normal and a nasty teacher, and compare with each."""
    body = []
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        train_data, test_data = digits()
        set_seed(0)
        normal = train(mlp(64), train_data, epochs=20)
        nasty = train(copy.deepcopy(normal), train_data, epochs=20, normal=normal, omega=omega)
        for name, teacher in (("normal", normal), ("nasty", nasty)):
            folder = Path(scratch) / name
            folder.mkdir()
            train_data.to_parquet(folder / "train.parquet")
            test_data.to_parquet(folder / "test.parquet")
            methods = compared(teacher, folder)["methods"]
            accuracies = [accuracy(teacher, test_data), *(figures["accuracy"]["mean"] for figures in methods.values())]
            (found,) = (figures["above_labels"] for figures in methods.values() if "above_labels" in figures)
            cells = [f"{100 * value:.1f}" for value in accuracies]
            body.append([name, *cells, f"{found['mean']:+.1f}", {"worse": "yes"}.get(found["finding"], "no")])
    header = ["teacher", "its accuracy", "labels alone", "distilled", "difference", "warned of"]
    print(f"\n{markdown_table(header, body)}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
