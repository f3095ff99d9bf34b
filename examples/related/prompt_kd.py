"""PromptKD: a soft prompt makes the teacher easier to follow (Kim, Jang and Yang 2024, arXiv 2402.12842).

    python -m examples.related.prompt_kd      # with one seed; a number behind it is how many

A student is trained briefly. Then vectors in front of the teacher's input (a soft prompt, of PEFT) are tuned: the
teacher is to answer as that student does, but not to leave its own answers. Teacher and prompt are frozen, its columns
made once, and a new student is distilled from them as ever. Only the teacher's columns differ from plain distillation.

Simplified: for classifiers, where the paper generates texts; the prompt is tuned once, not by turns with the student;
the teacher's own answers have a fixed weight; the final student starts anew. It needs PEFT (`pip install peft`).
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from examples.related.common import compare, demo_rows, settings, trained_accuracy
from examples.vader import MAX_LENGTH, quiet
from hf_lelp import LELPTrainer, Teacher
from hf_lelp.data.columns import LOGITS_COLUMN
from hf_lelp.losses import distillation_loss

VECTORS = 8
ANCHOR = 1.0  # weight of the teacher's own answers; chosen, not searched for
STEPS, LEARNING_RATE, BATCH_SIZE = 40, 3e-3, 32
ROWS, TEST_ROWS = 1000, 1000


def prompted(model: PreTrainedModel, cls_token: int, vectors: int = VECTORS) -> PeftModel:
    """Put a soft prompt before a classifier's input; nothing else of it is trained.

    Each vector starts as the embedding of the first token. A classifier that reads the first position thus finds there
    what it expects.

    Args:
        model: the teacher, changed in place as PEFT does.
        cls_token: the token that begins its texts.
        vectors: length of the prompt.
    """
    words: Any = model.get_input_embeddings()
    start = words.weight[cls_token].detach().float()
    wrapped = get_peft_model(model, PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=vectors))
    for name, parameter in wrapped.named_parameters():
        parameter.requires_grad_("prompt_encoder" in name)
        if parameter.requires_grad:
            parameter.data.copy_(start.expand_as(parameter))
    assert isinstance(wrapped, PeftModel)
    return wrapped


def prompt_loss(logits: Tensor, student: Tensor, teacher: Tensor, anchor: float = ANCHOR) -> Tensor:
    """CE(student, prompted teacher) + anchor · CE(teacher, prompted teacher), of each row, (N,).

    Args:
        logits: of the teacher with its prompt, (N, C).
        student: logits of the brief student, (N, C).
        teacher: logits of the teacher without a prompt, (N, C).
        anchor: weight of the second part.
    """
    followed = distillation_loss(logits, student.softmax(-1))
    return followed + anchor * distillation_loss(logits, teacher.softmax(-1))


def tune_prompt(
    model: PeftModel,
    tokenizer: Any,
    texts: list[str],
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    max_length: int = MAX_LENGTH,
    seed: int = 0,
) -> list[float]:
    """Tune the prompt towards what a student can follow; return each step's loss.

    Args:
        model: of `prompted`.
        tokenizer: of the teacher.
        texts: N training texts.
        student: logits of the brief student for them, (N, C), in the model's order of classes.
        teacher: logits of the teacher without a prompt, (N, C).
        steps: of AdamW.
        learning_rate: of AdamW.
        max_length: tokens of a text.
        seed: of the rows drawn.
    """
    generator, losses = np.random.default_rng(seed), []
    prompt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(prompt, lr=learning_rate, weight_decay=0.0)
    model.eval()  # without dropout: it is the frozen teacher that is prompted
    for _ in range(steps):
        rows = generator.choice(len(texts), min(BATCH_SIZE, len(texts)), replace=False)
        some = [texts[row] for row in rows]
        inputs = tokenizer(some, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        logits = model(**inputs.to(prompt[0].device)).logits.float()
        followed, anchored = (torch.as_tensor(values[rows]).to(logits) for values in (student, teacher))
        loss = prompt_loss(logits, followed, anchored).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_room(model: PreTrainedModel, vectors: int, max_length: int) -> None:
    """Check that the prompt and the longest text fit into the teacher.

    Raises:
        ValueError: if they do not.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and vectors + max_length > positions:
        raise ValueError(
            f"A prompt of {vectors} vectors and texts of {max_length} tokens make {vectors + max_length} positions, and"
            f" this {type(model).__name__} has {positions}. Set max_length to {positions - vectors} or less."
        )


def friendly_teacher(teacher: Teacher, data: Dataset, student: LELPTrainer, **tuning: Any) -> Teacher:
    """Return a teacher with a prompt tuned towards a brief student, ready for `dataset.map` or `LELPTrainer`.

    Args:
        teacher: of texts, in one column.
        data: training rows with the teacher's logits.
        student: a trainer after a brief training.
        **tuning: settings of `tune_prompt`.

    Raises:
        ValueError: if the teacher has no room for the prompt.
    """
    max_length = int(teacher.max_length or MAX_LENGTH)
    check_room(teacher.model, VECTORS, max_length)
    inverse = np.argsort(teacher.class_order)  # from the data's order of classes to the model's
    answers = np.asarray(student.predict(data.select_columns(["text"])).predictions)[:, inverse]
    logits = np.asarray(data[:][LOGITS_COLUMN], dtype=np.float32)[:, inverse]
    tokenizer: Any = teacher.processing_class
    model = prompted(teacher.model, tokenizer.cls_token_id)
    tune_prompt(model, tokenizer, list(data["text"]), answers, logits, max_length=max_length, **tuning)
    return Teacher(
        model.requires_grad_(False),  # type: ignore[arg-type]  # PEFT's wrapper serves as the model that it wraps
        tokenizer,
        input_columns=teacher.input_columns,
        max_length=max_length,
        batch_size=teacher.batch_size,
        class_order=teacher.class_order,
    )


@quiet()
def main(seeds: int = 1) -> None:
    """Print accuracies of students of the plain teacher and of the prompted one, on the demo's data."""
    raw, test, teacher = demo_rows(ROWS, TEST_ROWS)

    def trainer(data: Dataset, seed: int, folder: str | Path, epochs: int) -> LELPTrainer:
        args = settings(folder, seed, num_train_epochs=epochs, learning_rate=5e-4, max_length=MAX_LENGTH)
        return LELPTrainer("new:2x128", args, train_dataset=data, processing_class=teacher.processing_class)

    plain = raw.map(teacher, batched=True)
    with tempfile.TemporaryDirectory() as folder:
        brief = trainer(plain, 0, folder, epochs=1)
        brief.train()
        friendly = friendly_teacher(teacher, plain, brief)
        followed = raw.map(friendly, batched=True)
        labels = np.asarray(raw["label"])
        for name, data in (("teacher", plain), ("with its prompt", followed)):
            answers = np.asarray(data[:][LOGITS_COLUMN]).argmax(-1)
            print(f"{name}: accuracy {100 * np.mean(answers == labels):.1f} on the training rows")
        compare(
            {
                "kd": lambda seed: trained_accuracy(trainer(plain, seed, folder, 8), test),
                "PromptKD": lambda seed: trained_accuracy(trainer(followed, seed, folder, 8), test),
            },
            seeds,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
