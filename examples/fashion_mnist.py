"""Distils images end to end: from a CNN in colour at 32 × 32 to a small vision transformer in grey at 28 × 28.

    python -m examples.fashion_mnist                                    # data, teacher and student, once
    python run_distill.py --config examples/fashion_mnist.yaml

Fashion-MNIST (Zalando, MIT licence) comes from the Debian package `dataset-fashion-mnist`. Its ten kinds of clothing
become two classes, with lookalikes on opposite sides. The kinds stay in a column that no model reads.
"""

import gzip
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from transformers import (
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedConfig,
    ResNetConfig,
    ViTConfig,
    ViTImageProcessor,
    set_seed,
)

from examples.vader import atomically, quiet
from hf_lelp import LELPConfig
from hf_lelp.cli.distill import DistillArguments, distill

PACKAGE = "dataset-fashion-mnist"
SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
KINDS = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
ONE = ["t-shirt", "trouser", "pullover", "sandal", "ankle boot"]
LABELS = ["one", "other"]
FEATURES = Features(image=Image(), label=ClassLabel(names=LABELS), kind=ClassLabel(names=KINDS))
TRAIN_ROWS = 20_000
SEED = 0


def fetch(folder: Path) -> Path:
    """Return the package's file in `folder`; download it by apt-get if it is missing, and verify its sha256.

    Raises:
        RuntimeError: if it cannot be downloaded, or its sha256 differs.
    """
    path = folder / f"{PACKAGE}.deb"
    if not path.exists():
        with atomically(path) as unfinished:
            if shutil.which("apt-get") is not None:
                subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=unfinished.parent, check=False)
            found = [*unfinished.parent.glob("*.deb")]
            if not found:
                raise RuntimeError(
                    f"apt-get download {PACKAGE} failed. Get that package from a Debian mirror and place it at {path}."
                )
            found[0].rename(unfinished)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise RuntimeError(f"{path} has not the sha256 {SHA256}. Delete it to have it downloaded again.")
    return path


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX array: two zeros, the type (8: bytes), the number of axes, their lengths, the values."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no IDX file of bytes.")
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def to_dataset(images: np.ndarray, kinds: np.ndarray) -> Dataset:
    """Put images with their class and kind into a dataset."""
    labels = [LABELS[KINDS[kind] not in ONE] for kind in kinds]
    columns = {"image": [Pillow.fromarray(pixels) for pixels in images], "label": labels, "kind": kinds.tolist()}
    return Dataset.from_dict(columns, features=FEATURES)


def make_data(package: Path, train_file: Path, test_file: Path) -> None:
    """Write the first images of the training part and all of the test part as Parquet."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["dpkg", "-x", package, scratch], check=True)
        folder = Path(scratch) / "usr/share/datasets/fashion-mnist"
        for part, path, rows in (("train", train_file, TRAIN_ROWS), ("t10k", test_file, None)):
            images, kinds = (read_idx(folder / f"{part}-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
            with atomically(path) as unfinished:
                to_dataset(images[:rows], kinds[:rows]).to_parquet(unfinished)


def untrained(config: PreTrainedConfig, processor: BaseImageProcessor, folder: Path) -> int:
    """Save a model with random, seeded weights and its image processor; return its number of parameters."""
    set_seed(SEED)
    model = AutoModelForImageClassification.from_config(config)
    with atomically(folder) as unfinished:
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
    return int(model.num_parameters())


def train_teacher(start: Path, train_file: Path, test_file: Path, folder: Path) -> float:
    """Train the teacher on labels alone (method direct of run_distill.py); return its test accuracy."""
    arguments = DistillArguments(
        student_model=str(start), method=["direct"], train_file=str(train_file), eval_file=str(test_file)
    )
    with atomically(folder) as unfinished:
        config = LELPConfig(
            output_dir=str(unfinished),
            num_train_epochs=3,
            per_device_train_batch_size=64,
            learning_rate=2e-3,
            warmup_steps=0.1,
            weight_decay=0.01,
            seed=SEED,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            dataloader_pin_memory=False,
        )
        return float(distill(arguments, config)["results"]["direct"]["accuracy"])


@quiet()
def build(cache_dir: str | Path | None = None) -> Path:
    """Make what is missing of data, teacher and student, and return their folder."""
    cache = Path(cache_dir or "~/.cache/hf_lelp/fashion_mnist").expanduser()
    train_file, test_file = cache / "train.parquet", cache / "test.parquet"
    if not (train_file.exists() and test_file.exists()):
        make_data(fetch(cache / "downloads"), train_file, test_file)
    if not (cache / "student").exists():
        grey = ViTImageProcessor(size={"height": 28, "width": 28}, image_mean=[0.29], image_std=[0.35])
        vit = ViTConfig(
            image_size=28,
            patch_size=7,
            num_channels=1,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            num_labels=len(LABELS),  # type: ignore[call-arg]  # of every configuration
        )
        print(f"student: ViT 2 x 48, {untrained(vit, grey, cache / 'student'):,} parameters, untrained")
    if not (cache / "teacher").exists():
        colour = ViTImageProcessor(size={"height": 32, "width": 32})
        resnet = ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 1, 1],
            layer_type="basic",
            id2label=dict(enumerate(LABELS)),
            label2id={name: index for index, name in enumerate(LABELS)},
        )
        print(f"teacher: ResNet, {untrained(resnet, colour, cache / 'untrained_teacher'):,} parameters")
        accuracy = train_teacher(cache / "untrained_teacher", train_file, test_file, cache / "teacher")
        print(f"teacher: test accuracy {accuracy:.3f}")
    return cache


if __name__ == "__main__":
    print(f"assets: {build()}")
