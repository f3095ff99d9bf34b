"""The parts of the examples that can be tried without their data and models."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Image
from places import ROOT
from transformers import AutoModelForSequenceClassification

from examples import architectures, fashion_mnist, imbalance
from examples.frozen_embeddings import EmbeddingClassifier, EmbeddingConfig, SentenceEmbedder
from hf_lelp import LELPTrainer
from hf_lelp.cli.distill import PROGRAM
from hf_lelp.compare import comparison
from hf_lelp.compare.methods import Method

RUNS = sorted({*ROOT.glob("examples/*.yaml")} - {ROOT / "examples/compare.yaml"})


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_settings_are_known(path: Path) -> None:
    arguments, config = PROGRAM.parse(["--config", str(path)])
    assert arguments.method == ["direct", "kd", "lelp"] and config.num_subclasses == 8


def test_settings_of_the_comparison_are_known() -> None:
    arguments, config = comparison.PROGRAM.parse(["--config", str(ROOT / "examples/compare.yaml")])
    assert arguments.reference in arguments.methods and config.max_length == 64
    for method in arguments.methods:
        Method.parse(method).check()


def test_positives_become_rare() -> None:
    data = runs.data(400)
    rare = imbalance.imbalanced(data)
    assert rare["label"].count(0) == data["label"].count(0)
    assert np.mean(rare["label"]) == pytest.approx(0.05, abs=0.003)


# ---- Fashion-MNIST ----


def test_idx_files_are_read(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = b"\0\0\x08\x03" + np.array(images.shape, ">i4").tobytes()
    (tmp_path / "images.gz").write_bytes(gzip.compress(header + images.tobytes()))
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "images.gz"), images)
    (tmp_path / "floats.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01\0\0\0\0"))
    with pytest.raises(ValueError, match="no IDX file of bytes"):
        fashion_mnist.read_idx(tmp_path / "floats.gz")


def test_kinds_become_two_classes() -> None:
    kinds = np.arange(10, dtype=np.uint8)
    data = fashion_mnist.to_dataset(np.zeros((10, 28, 28), dtype=np.uint8), kinds)
    assert isinstance(data.features["image"], Image) and data[3]["image"].size == (28, 28)
    assert sum(label == 0 for label in data["label"]) == 5
    names = {
        data.features["kind"].int2str(kind): label for kind, label in zip(data["kind"], data["label"], strict=True)
    }
    assert names["t-shirt"] == 0 and names["shirt"] == 1  # lookalikes


def test_another_file_than_the_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset-fashion-mnist.deb").write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="has not the sha256 39e172fe"):
        fashion_mnist.fetch(tmp_path)


# ---- Frozen embeddings ----


def test_sentences_are_embedded_in_their_order(tmp_path: Path) -> None:
    runs.teacher_model().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    embedder, texts = SentenceEmbedder(tmp_path), tiny.texts(20)
    embedding = embedder.transform(texts, batch_size=6)
    alone = np.concatenate([embedder.transform([text]) for text in texts])
    np.testing.assert_allclose(embedding, alone, atol=1e-5)
    np.testing.assert_allclose((embedding**2).sum(1), 16, rtol=1e-5)


def test_a_student_of_one_s_own_reads_embeddings(tmp_path: Path) -> None:
    data = runs.data()
    features = np.random.default_rng(0).normal(size=(runs.ROWS, 6)).astype(np.float32)
    data = data.add_column("features", features.tolist())
    student = EmbeddingClassifier(EmbeddingConfig(embedding_size=6, hidden_size=4))
    args = runs.config(tmp_path, student_head="auxiliary")
    run = LELPTrainer(
        student,
        args,
        train_dataset=data,
        eval_dataset=data,
        teacher_model=runs.teacher_model(),
        teacher_processing_class=tiny.tokenizer(),
    )
    run.train()
    expected = run.predict(data).predictions
    run.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(args.output_dir).eval()
    with torch.no_grad():
        np.testing.assert_allclose(loaded(torch.tensor(features)).logits, expected, atol=1e-5)
    assert "AutoModelForSequenceClassification" in (Path(args.output_dir) / "README.md").read_text()


# ---- Other architectures ----


@pytest.mark.parametrize("name", architectures.configurations())
def test_every_architecture_is_made(name: str, tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    parameters = architectures.make(architectures.configurations()[name], tmp_path / "teacher", tmp_path / name)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
    assert model.num_parameters() == parameters and model.config.id2label == {0: "negative", 1: "positive"}
    inputs = tiny.tokenizer()(tiny.texts(3), padding=True, return_tensors="pt")
    del inputs["token_type_ids"]
    assert model(**inputs).logits.shape == (3, 2)
