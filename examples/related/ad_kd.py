"""AD-KD: a student that also learns which tokens its teacher's answer rests on (Wu et al. 2023, arXiv 2305.10010).

    python -m examples.related.ad_kd      # with one seed; a number behind it is how many

A token's attribution is the length of its vector of integrated gradients: how much its embedding moves the teacher's
probability of its own class. They become a column, once. The student's gradient × input for that class is to have the
same shape over the tokens. So both sides must read the same tokens, and others are refused.

Simplified: the teacher's own class alone, not every class (the paper's several views); all dimensions of the
embedding, not the largest K; the student's attributions take one gradient, at the input.
"""

import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from examples.related.common import OutputOf, compare, demo_rows, settings, trained_accuracy
from examples.vader import MAX_LENGTH, quiet
from hf_lelp import LELPTrainer, Teacher
from hf_lelp.data.columns import LOGITS_COLUMN

ATTRIBUTIONS = "teacher_attributions"
STEPS = 2  # points of the integral
WEIGHT = 1.0  # of the attributions' loss; chosen, not searched for
ROWS, TEST_ROWS = 1000, 1000


def integrated_gradients(model: Any, inputs: dict[str, Tensor], classes: Tensor, steps: int = STEPS) -> Tensor:
    """Integrate the gradient of a class's probability from embeddings of zeros to those of the tokens.

    Args:
        model: a classifier that takes `inputs_embeds`.
        inputs: tokens of N texts, padded to length L.
        classes: one for each text, (N,).
        steps: points of the integral, at the middle of as many equal pieces.

    Returns:
        (N, L, D). A text's numbers add up to what its tokens change of the probability (completeness).
    """
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    embedded = model.get_input_embeddings()(inputs["input_ids"]).detach()
    total = torch.zeros_like(embedded)
    for step in range(steps):
        point = (embedded * ((step + 0.5) / steps)).requires_grad_()
        probability = model(inputs_embeds=point, **others).logits.float().softmax(-1)
        total += torch.autograd.grad(probability.gather(-1, classes[:, None]).sum(), point)[0]
    return embedded * total / steps


def shape_over_tokens(vectors: Tensor) -> Tensor:
    """Turn a vector a token, (N, L, D), into its length, and scale each text's lengths to norm 1: (N, L)."""
    return torch.nn.functional.normalize(torch.linalg.vector_norm(vectors.float(), dim=-1), dim=-1)


class Attributions:
    """Adds the column `teacher_attributions` in `dataset.map(..., batched=True)`, of `max_length` numbers a row.

    Args:
        teacher: of texts; it needs a `max_length`.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Return the attributions of n texts for the class that the teacher gives them, (n, max_length)."""
        teacher, model = self.teacher, self.teacher.model.requires_grad_(False)
        classes = torch.as_tensor(teacher(batch)[LOGITS_COLUMN]).argmax(-1)
        # `class_order` names the model's own index of each class.
        classes = torch.tensor(teacher.class_order)[classes].to(model.device)
        processor: Any = teacher.processing_class
        columns = [batch[name] for name in teacher.input_columns]
        tokens = processor(
            *columns, truncation=True, max_length=teacher.max_length, padding=True, return_tensors="pt"
        ).to(model.device)
        vectors = integrated_gradients(model, dict(tokens), classes)
        shape = shape_over_tokens(vectors * tokens["attention_mask"].unsqueeze(-1))
        padded = torch.nn.functional.pad(shape, (0, int(teacher.max_length or 0) - shape.shape[1]))
        return {ATTRIBUTIONS: padded.cpu().numpy()}


def check_same_tokens(
    teacher: Teacher, student: PreTrainedTokenizerBase, dataset: Dataset, max_length: int | None
) -> None:
    """Check that the student reads the tokens that the teacher's attributions are about.

    Raises:
        ValueError: naming the first row whose tokens differ.
    """
    processor: Any = teacher.processing_class
    for row, values in enumerate(zip(*(dataset[name] for name in teacher.input_columns), strict=True)):
        theirs, own = (
            tokenizer(*values, truncation=True, max_length=longest).tokens()
            for tokenizer, longest in ((processor, teacher.max_length), (student, max_length))
        )
        if theirs != own:
            raise ValueError(
                f"Row {row}: the teacher reads the tokens {theirs[:12]} and the student {own[:12]}. AD-KD compares"
                " attributions token by token. Take a student with the teacher's tokenizer and max_length."
            )


class AttributionTrainer(LELPTrainer):
    """Plain distillation, and the attributions' loss; the training data has `teacher_attributions`.

    Args:
        attribution_weight: of the attributions' loss.
        **kwargs: arguments of `LELPTrainer`.
    """

    own_columns = (ATTRIBUTIONS,)

    def __init__(self, *, attribution_weight: float = WEIGHT, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attribution_weight = attribution_weight
        self.model.set_attn_implementation("eager")  # fused attention has no second derivative
        self.embedded = OutputOf(self.model.get_input_embeddings())

    def _loss_columns(self) -> list[str]:
        return [*super()._loss_columns(), ATTRIBUTIONS]

    def distillation_losses(self, class_logits: Tensor, other: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Add the squared distance of both sides' attributions, each of norm 1 over the tokens; (N,)."""
        plain = super().distillation_losses(class_logits, other, columns)
        classes, embedded = columns[LOGITS_COLUMN].argmax(-1, keepdim=True), self.embedded()
        # The gradient of log p is that of p up to a factor, which the scaling takes out, and does not vanish near 1.
        answer = class_logits.log_softmax(-1).gather(-1, classes).sum()
        (gradient,) = torch.autograd.grad(answer, embedded, create_graph=True)
        own = shape_over_tokens(gradient * embedded)
        distance = (own - columns[ATTRIBUTIONS][:, : own.shape[1]]).square().sum(-1)
        return plain + self.attribution_weight * distance


@quiet()
def main(seeds: int = 1) -> None:
    """Print accuracies of plain distillation and AD-KD on the demo's data."""
    train, test, teacher = demo_rows(ROWS, TEST_ROWS)
    tokenizer: Any = teacher.processing_class
    check_same_tokens(teacher, tokenizer, train, MAX_LENGTH)  # the student reads the same
    # Texts of like length make batches with little padding.
    train = train.map(lambda row: {"size": len(row["text"])}).sort("size").map(teacher, batched=True)
    train = train.map(Attributions(teacher), batched=True, batch_size=32)

    def run(kind: type[LELPTrainer], seed: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            args = settings(folder, seed, num_train_epochs=8, learning_rate=5e-4, max_length=MAX_LENGTH)
            trainer = kind(model="new:2x128", args=args, train_dataset=train, processing_class=tokenizer)
            return trained_accuracy(trainer, test)

    compare({"kd": lambda seed: run(LELPTrainer, seed), "AD-KD": lambda seed: run(AttributionTrainer, seed)}, seeds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
