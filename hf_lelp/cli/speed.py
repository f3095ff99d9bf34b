"""Measures the size and speed of a model, the same way for teacher and student."""

import time
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.classifiers import logits_of
from hf_lelp.data.encoding import Processor, batches, encode, lengths_of, longest, on_device
from hf_lelp.storage.progress import stage
from hf_lelp.student.heads import saved_parameters
from hf_lelp.teacher.kinds.combined import parts_of
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher

ROWS, BATCH_SIZE = 512, 32
ROUNDS, ENOUGH_SECONDS = 2, 20.0  # a slow model is measured once


def size_and_speed(
    model: PreTrainedModel,
    processing_class: Processor,
    dataset: Dataset,
    input_columns: list[str],
    max_length: int | None,
    alike: int | None = None,
) -> dict[str, Any]:
    """Measure parameters, and examples per second from text, image or sound to logits, over the first rows.

    Texts are sorted by length, and each batch is padded to its longest text, whatever the model.

    Args:
        model: the classifier.
        processing_class: of the model.
        dataset: with the columns.
        input_columns: that the model reads.
        max_length: tokens or samples after which the model's own inputs are cut.
        alike: the length in tokens to measure at for comparison too.

    Returns:
        `parameters`; `examples_per_second`, the best of the rounds; `device`; for texts `max_length`; and, with
        `alike`, `examples_per_second_alike` and `alike_length`.
    """
    rows = dataset.select_columns(input_columns)[:ROWS]
    max_length = longest(processing_class, model, max_length)
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else ""
    result: dict[str, Any] = {
        "parameters": saved_parameters(model),
        "examples_per_second": _speed(model, processing_class, rows, input_columns, max_length),
        "device": device or f"CPU (threads: {torch.get_num_threads()})",
    }
    if isinstance(processing_class, PreTrainedTokenizerBase):
        result["max_length"] = max_length
    if alike is None or "max_length" not in result:
        return result
    speed = result["examples_per_second"]
    # Cut at the longer of the two lengths, the texts tell whether the other one changes anything.
    tokens = encode(processing_class, rows, input_columns, max(alike, max_length or alike))
    if alike != max_length and max(lengths_of(tokens)) > min(alike, max_length or alike):
        speed = _speed(model, processing_class, rows, input_columns, alike)
    return {**result, "examples_per_second_alike": speed, "alike_length": alike}


def teacher_size_and_speed(teacher: TeacherLike, dataset: Dataset, alike: int | None) -> dict[str, Any]:
    """Measure a teacher as `size_and_speed` does a model: several one after another, and soft labels not at all."""
    parts = [part for part in parts_of(teacher) if isinstance(part, Teacher)]
    measured = [
        size_and_speed(part.model, part.processing_class, dataset, part.input_columns, part.max_length, alike)
        for part in parts
    ]
    if len(measured) < 2:
        return measured[0] if measured else {}
    whole = {"parameters": sum(figures["parameters"] for figures in measured), "device": measured[0]["device"]}
    for name in ("examples_per_second", "examples_per_second_alike"):
        if all(name in figures for figures in measured):
            whole[name] = 1 / sum(1 / figures[name] for figures in measured)
    if "examples_per_second_alike" in whole:
        whole |= {"alike_length": alike, "max_length": max(figures["max_length"] for figures in measured)}
    return whole


@torch.inference_mode()
def _speed(
    model: PreTrainedModel, processing_class: Processor, rows: dict[str, Any], columns: list[str], length: int | None
) -> float:
    model.eval()
    count, best = len(rows[columns[0]]), 0.0
    started = time.perf_counter()
    with stage("Measuring speed", ROUNDS * count) as advance:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for places, inputs in batches(processing_class, rows, columns, length, BATCH_SIZE):
                logits_of(model(**{name: on_device(value, model) for name, value in inputs.items()})).cpu()
                advance(len(places))
            best = max(best, count / (time.perf_counter() - start))
            if time.perf_counter() - started > ENOUGH_SECONDS:
                break
    return best
