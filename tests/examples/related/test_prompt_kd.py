"""PromptKD of examples/related, on tiny models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch

from examples.related.prompt_kd import check_room, friendly_teacher, prompt_loss, prompted, tune_prompt
from hf_lelp import LELPTrainer, Teacher
from hf_lelp.data.columns import LOGITS_COLUMN

TUNING: dict[str, Any] = {"steps": 30, "learning_rate": 0.05}


def test_the_prompt_alone_is_tuned_towards_the_student() -> None:
    model, tokenizer, texts = runs.teacher_model(), tiny.tokenizer(), tiny.texts(40)
    with torch.no_grad():
        teacher = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    student = np.where(np.arange(40)[:, None] % 2 == 0, teacher, -teacher)  # half of its answers are others
    wrapped = prompted(model, tokenizer.cls_token_id, vectors=4)
    trained = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    assert len(trained) == 1 and "prompt_encoder" in trained[0]
    before = runs.weights(wrapped)
    start = before[trained[0]]
    assert start.shape == (4, 16) and torch.equal(start, model.get_input_embeddings().weight[2].expand(4, 16))
    losses = tune_prompt(wrapped, tokenizer, texts, student, teacher, **TUNING)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    after = runs.weights(wrapped)
    assert [name for name in after if not torch.equal(before[name], after[name])] == [
        name for name in after if "prompt_encoder" in name
    ]


def test_the_loss_is_least_between_student_and_teacher() -> None:
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    shares = (student.softmax(-1) + teacher.softmax(-1)) / 2
    best = prompt_loss(shares.log(), student, teacher)
    for logits in (student, teacher):
        assert prompt_loss(logits, student, teacher) > best
    assert prompt_loss(teacher, student, teacher, anchor=9.0) < prompt_loss(student, student, teacher, anchor=9.0)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_student_learns_from_the_prompted_teacher_s_columns(order: list[int], tmp_path: Path) -> None:
    guide = Teacher(runs.teacher_model(), tiny.tokenizer(), max_length=14, class_order=order)
    data = runs.data(48).map(guide, batched=True)
    args = runs.config(tmp_path, num_subclasses=1, check_teacher=False)
    made: dict[str, Any] = {"args": args, "processing_class": tiny.tokenizer()}
    brief = LELPTrainer(runs.student(), train_dataset=data, **made)
    brief.train()
    friendly = friendly_teacher(guide, data, brief, **TUNING)
    assert friendly.fingerprint != guide.fingerprint
    followed = data.remove_columns([LOGITS_COLUMN, "teacher_embedding", "teacher_fingerprint"]).map(
        friendly, batched=True
    )
    # The columns are those of the model with its prompt, and it answers more like the brief student than before.
    inputs = tiny.tokenizer()(list(data["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = friendly.model(**inputs).logits[:, order]
    np.testing.assert_allclose(followed[:][LOGITS_COLUMN], expected, atol=1e-4)
    answers = torch.as_tensor(brief.predict(runs.data(48)).predictions).softmax(-1)
    distances = [
        -(answers * torch.tensor(rows[:][LOGITS_COLUMN]).log_softmax(-1)).sum(-1).mean().item()
        for rows in (followed, data)
    ]
    assert distances[0] < distances[1]
    LELPTrainer(runs.student(), train_dataset=followed, **made).train()


def test_a_prompt_without_room_is_refused() -> None:
    check_room(runs.teacher_model(), 8, 56)
    with pytest.raises(ValueError, match=r"8 vectors and texts of 57 tokens make 65 positions.*has 64.*to 56 or less"):
        check_room(runs.teacher_model(), 8, 57)
