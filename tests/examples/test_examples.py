"""The parts of the examples that can be tried without their data and models."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset, Image
from places import ROOT
from transformers import AutoModelForSequenceClassification

from examples import architectures, fashion_mnist, imbalance, ranking, several_teachers
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


# ---- Pairs to rank, and several teachers ----


def test_a_ranker_of_one_output_has_a_student_of_one_output(tmp_path: Path) -> None:
    texts, groups = tiny.texts(40), np.arange(40) % 4
    drawn = ranking.pairs(texts, groups, 20, np.array([True, False]))
    group_of = dict(zip((" ".join(text.split()[: ranking.WORDS]) for text in texts), groups, strict=True))
    same = [group_of[row["query"]] == group_of[row["passage"]] for row in drawn]
    assert [int(alike) for alike in same] == drawn["label"][:] == [1, 0] * 20
    base, tokenizer = tmp_path / "base", tiny.tokenizer()
    runs.teacher_model().bert.save_pretrained(base)
    teacher = ranking.make_teacher(base, tokenizer, drawn)
    assert teacher.one_output and teacher.head.weight.shape == (2, 32)
    student = ranking.train_student("lelp", 0, base, teacher, drawn, tmp_path / "student")
    assert student.config.num_labels == 1 and student.config.num_hidden_layers == 0
    assert ranking.scores(student, tokenizer, drawn).shape == (40,)


def test_the_reciprocal_rank_of_the_relevant_passage() -> None:
    labels = [0, 1, *[0] * 8, 1, *[0] * 9]
    found = np.array([*range(10), *range(10)], dtype=float)  # the second is 9th of ten, the first 10th
    expected = 100 * np.mean([1 / 9, 1 / 10])
    assert ranking.reciprocal_rank(found, Dataset.from_dict({"label": labels})) == pytest.approx(expected)


def test_the_teacher_of_words_is_a_linear_map_of_its_directions() -> None:
    data = runs.data(60)
    teacher = several_teachers.teacher_of_words(data, directions=4)
    answers = teacher(data[:10])
    assert answers["teacher_embedding"].shape == (10, 4) and teacher.class_names == several_teachers.LABELS
    linear = answers["teacher_embedding"] @ teacher.head.weight.numpy().T + teacher.head.bias.numpy()
    np.testing.assert_allclose(answers["teacher_logits"], linear, atol=1e-6)
