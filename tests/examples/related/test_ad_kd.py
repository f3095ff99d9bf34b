"""AD-KD of examples/related, on tiny models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from transformers import PreTrainedModel

from examples.related.ad_kd import (
    ATTRIBUTIONS,
    Attributions,
    AttributionTrainer,
    check_same_tokens,
    integrated_gradients,
    shape_over_tokens,
)
from hf_lelp import Teacher

LENGTH = 10


def tokens(rows: int) -> dict[str, torch.Tensor]:
    return dict(tiny.tokenizer()(tiny.texts(rows, longest=6), padding=True, return_tensors="pt"))


def test_attributions_add_up_to_what_the_tokens_change() -> None:
    model, inputs = runs.teacher_model().eval(), tokens(5)
    classes = torch.tensor([0, 1, 1, 0, 1])
    vectors = integrated_gradients(model, inputs, classes, steps=60)
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    with torch.no_grad():
        probability, empty = (
            model(inputs_embeds=point, **others).logits.softmax(-1).gather(-1, classes[:, None]).squeeze(-1)
            for point in (embedded, torch.zeros_like(embedded))
        )
    torch.testing.assert_close(vectors.sum((-1, -2)), probability - empty, atol=2e-3, rtol=0)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_column_is_of_the_class_that_the_teacher_gives(order: list[int]) -> None:
    guide = Teacher(runs.teacher_model(), tiny.tokenizer(), max_length=LENGTH, class_order=order)
    texts = tiny.texts(5, longest=6)
    column = Attributions(guide)({"text": texts})[ATTRIBUTIONS]
    assert column.shape == (5, LENGTH)
    inputs = tokens(5)
    own = guide.model(**inputs).logits.argmax(-1)
    expected = shape_over_tokens(integrated_gradients(guide.model, inputs, own))
    np.testing.assert_allclose(column[:, : expected.shape[1]], expected, atol=1e-5)
    padding = inputs["attention_mask"].numpy() == 0
    assert padding.any() and (column[:, : expected.shape[1]][padding] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(column, axis=-1), 1, rtol=1e-5)


def trainer(folder: Path, model: PreTrainedModel, weight: float, **settings: Any) -> AttributionTrainer:
    guide = runs.teacher(max_length=LENGTH)
    data = runs.data(64).map(guide, batched=True).map(Attributions(guide), batched=True)
    args = runs.config(folder, num_subclasses=1, max_length=LENGTH, **settings)
    return AttributionTrainer(
        attribution_weight=weight, model=model, args=args, train_dataset=data, processing_class=tiny.tokenizer()
    )


def test_a_student_learns_the_attributions(tmp_path: Path) -> None:
    distances = []
    learning: dict[str, Any] = {"max_steps": 24, "optim": "adamw_torch", "learning_rate": 0.01}
    for weight in (0.0, 20.0):
        run = trainer(tmp_path, runs.student(dropout=False), weight, logging_strategy="no", **learning)
        run.train()
        losses = []
        for run.attribution_weight in (1.0, 0.0):
            batch = next(iter(run.get_eval_dataloader(run.train_dataset)))
            losses.append(run.compute_loss(run.model, batch).item())
        distances.append(losses[0] - losses[1])
    assert 0 < distances[1] < 0.8 * distances[0]


def test_a_teacher_s_own_attributions_have_no_distance(tmp_path: Path) -> None:
    model = runs.teacher_model()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    run, plain = (trainer(tmp_path, model, weight) for weight in (1.0, 0.0))
    batch = next(iter(run.get_train_dataloader()))
    classes = batch["teacher_logits"].argmax(-1)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    embedded = model.get_input_embeddings()(inputs.pop("input_ids"))
    probability = model(inputs_embeds=embedded, **inputs).logits.softmax(-1).gather(-1, classes[:, None]).sum()
    batch[ATTRIBUTIONS] = shape_over_tokens(torch.autograd.grad(probability, embedded)[0] * embedded).detach()
    losses = [each.compute_loss(model.train(), dict(batch)).item() for each in (run, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(("tokenizer", "max_length"), [("gpt2", LENGTH), ("bert", 4)])
def test_a_student_that_reads_other_tokens_is_refused(tokenizer: str, max_length: int) -> None:
    guide, data = runs.teacher(max_length=LENGTH), runs.data(8)
    check_same_tokens(guide, tiny.tokenizer(), data, LENGTH)
    with pytest.raises(ValueError, match=r"Row \d: the teacher reads the tokens .* and the student .*token by token"):
        check_same_tokens(guide, tiny.tokenizer(tokenizer), data, max_length)
