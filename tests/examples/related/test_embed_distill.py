"""EmbedDistill of examples/related, on tiny models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel

from examples.related.embed_distill import DOCUMENTS, QUERIES, DualTeacher, EmbedTrainer, pairs, prepared, student
from examples.vader import Snippet
from hf_lelp import LELPTrainer

SIZE = len(tiny.WORDS)


def counts(texts: list[str]) -> np.ndarray:
    """An embedding that a student can learn: how often each word comes."""
    return np.array([[text.split().count(word) + 0.01 for word in tiny.WORDS] for text in texts])


def data(rows: int = 64) -> Dataset:
    # Each document has words of its own.
    snippets = []
    for number in range(8):
        for text in tiny.texts(6, seed=number, shortest=3, longest=6):
            own = tiny.WORDS[2 * number]
            snippets.append(Snippet("nyt", str(number), f"{own} {own} {text}", "positive"))
    return pairs(snippets, rows)


def trained(folder: Path, kind: type[LELPTrainer], asymmetric: bool, size: int = SIZE) -> tuple[Any, Dataset]:
    raw = data()
    teacher = DualTeacher(counts, raw)
    taught = raw.map(teacher, batched=True)
    rows = prepared(taught, tiny.tokenizer(), asymmetric=asymmetric, length=10)
    args = runs.config(
        folder, num_subclasses=1, max_steps=48, optim="adamw_torch", learning_rate=1e-2, logging_strategy="no"
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tiny.tokenizer()), num_attention_heads=2, **shape)
    model = student(BertModel(config, add_pooling_layer=False), size, teacher)
    run = kind(model=model, args=args, train_dataset=rows)
    run.train()
    return run, rows


def test_pairs_are_of_one_document_or_of_two() -> None:
    rows = data(40)
    assert rows["label"].count(1) == 20
    for row in rows:
        owners = [text.split()[0] for text in (row["query"], row["document"])]
        assert (owners[0] == owners[1]) == bool(row["label"]) and row["query"] != row["document"]


def test_a_teacher_s_logits_follow_the_cosine() -> None:
    raw = data(40)
    columns = DualTeacher(counts, raw)(raw[:])
    cosine = (columns[QUERIES] * columns[DOCUMENTS]).sum(-1)
    margin = columns["teacher_logits"][:, 1] - columns["teacher_logits"][:, 0]
    assert np.corrcoef(cosine, margin)[0, 1] == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(columns[QUERIES], axis=-1), 1, rtol=1e-5)
    assert np.mean((margin > 0) == np.array(raw["label"])) > 0.8


def test_a_student_starts_near_its_teacher() -> None:
    raw = data(40)
    teacher = DualTeacher(counts, raw)
    columns = teacher(raw[:])
    config = BertConfig(
        vocab_size=len(tiny.tokenizer()),
        num_attention_heads=2,
        hidden_size=16,
        num_hidden_layers=1,
        intermediate_size=32,
    )
    model = student(BertModel(config, add_pooling_layer=False), 16, teacher).eval()
    # It reads a cosine as the teacher does,
    cosine = torch.tensor((columns[QUERIES] * columns[DOCUMENTS]).sum(-1, keepdims=True))
    torch.testing.assert_close(model.classifier(cosine), torch.tensor(columns["teacher_logits"]), rtol=1e-4, atol=1e-4)
    # and its embedding is the mean of the encoder's last layer.
    ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
    mean = model.tower.bert(ids, mask).last_hidden_state[:, :3].mean(1)
    torch.testing.assert_close(model.tower(ids, mask), torch.nn.functional.normalize(mean, dim=-1))


@pytest.mark.parametrize("asymmetric", [False, True])
def test_a_student_embeds_as_its_teacher_does(asymmetric: bool, tmp_path: Path) -> None:
    likeness = []
    for kind in (LELPTrainer, EmbedTrainer):
        run, rows = trained(tmp_path, kind, asymmetric)
        with torch.no_grad():
            own = run.model.eval().tower(rows[:]["input_ids"], rows[:]["attention_mask"])
        likeness.append((own * rows[:][QUERIES]).sum(-1).mean().item())
    assert likeness[1] > likeness[0] + 0.2
    assert 0 <= run.evaluate(rows.remove_columns(["teacher_logits", QUERIES, DOCUMENTS]))["eval_accuracy"] <= 1


def test_the_distance_is_that_of_both_sides(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, EmbedTrainer, False)
    batch = next(iter(run.get_eval_dataloader(run.train_dataset)))
    run.model.eval()
    losses = []
    for run.embedding_weight in (0.0, 1.0):
        losses.append(run.compute_loss(run.model, dict(batch)).item())
    with torch.no_grad():
        sides = [
            run.model.tower(batch[f"{ids}_ids"], batch[mask])
            for ids, mask in (("input", "attention_mask"), ("document", "document_mask"))
        ]
    distances = [
        (own - batch[name]).square().sum(-1).mean().item()
        for own, name in zip(sides, (QUERIES, DOCUMENTS), strict=True)
    ]
    assert losses[1] - losses[0] == pytest.approx(sum(distances), rel=1e-4)


def test_embeddings_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"embeddings have {SIZE} numbers and the student's 5: .*embedding_size={SIZE}"
    ):
        trained(tmp_path, EmbedTrainer, False, size=5)
