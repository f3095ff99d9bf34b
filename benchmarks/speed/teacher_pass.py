"""The teacher's pass over texts, against a bare loop and a naive map. `python -m benchmarks.speed.teacher_pass`.

The teacher of the demo, a fine-tuned all-MiniLM-L6-v2 (6 layers × 384), over 20 Newsgroups and VADER, long texts and
short ones, shuffled together; one thread, float32. *ours*: `teacher_columns` with an empty cache: hashes of
rows and weights, tokenizing, forward, checks, Arrow file. *bare loop*: tokens made beforehand, batches by length over
all rows, the forward alone, results dropped. *naive map*: `dataset.map` of tokenizing with padding to the maximum
length and the forward, in the rows' order.

What the pass does besides the model should hide behind a device. No device is needed to see it: a model that sleeps as
long as one would take lets everything else go on meanwhile, as a GPU does.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, concatenate_datasets
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks.evidence.suite.store import DOWNLOADS
from benchmarks.evidence.suite.texts import read_corpus
from benchmarks.places import RESULTS
from benchmarks.speed.common import (
    forward_gigaflops,
    gigaflops,
    in_turn,
    middle,
    ratio,
    targets,
    total_variation,
    write_result,
)
from examples.vader import build_demo
from hf_lelp import ClassProjections, Teacher
from hf_lelp.teacher.columns import teacher_columns

LONG, SHORT = 150, 450
MAX_LENGTH, BATCH = 128, 64
# Of the sleeping model: what BERT-large's 0.6 gigaflops a token take at 6 teraflops a second.
SECONDS_A_TOKEN, EMBEDDING = 1e-4, 1024
LONG_ASLEEP, SHORT_ASLEEP, ROUNDS_ASLEEP = 3_000, 9_000, 1  # six shards


def texts(long: int = LONG, short: int = SHORT) -> Dataset:
    """Texts of both kinds in random order."""
    kinds = [(name, count) for name, count in (("newsgroups", long), ("vader", short))]
    parts = [Dataset.from_dict({"text": read_corpus(name, DOWNLOADS).train.texts[:count]}) for name, count in kinds]
    return concatenate_datasets(parts).shuffle(seed=0).flatten_indices()


def padded(tokenizer: PreTrainedTokenizerBase, tokens: list[list[int]], batch: int = BATCH) -> Iterator[BatchEncoding]:
    """Batches of similar length."""
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    for start in range(0, len(order), batch):
        rows = [tokens[row] for row in order[start : start + batch]]
        yield tokenizer.pad({"input_ids": rows}, return_tensors="pt")


def bare(model: PreTrainedModel, batches: Iterable[BatchEncoding]) -> None:
    """The forward alone."""
    with torch.inference_mode():
        for batch in batches:
            model(**{name: values.to(model.device) for name, values in batch.items()})


def naive(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset) -> None:
    """As it is often written."""

    def run(batch: dict[str, Any]) -> dict[str, Any]:
        inputs = tokenizer(
            batch["text"], padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        with torch.no_grad():
            outputs = model(**inputs, output_hidden_states=True)
        return {"logits": outputs.logits.numpy(), "embedding": outputs.hidden_states[-1][:, 0].numpy()}

    dataset.map(run, batched=True, batch_size=BATCH, new_fingerprint="naive", load_from_cache_file=False)


def half_precision(columns: Dataset, half: Dataset, teacher: Teacher) -> list[dict[str, str | float]]:
    """What running the teacher in bfloat16 does to the targets, as total variation, half the sum of differences."""
    projections = ClassProjections.fit(columns, teacher.head, 8)
    one, other = (targets(part, projections) for part in (columns, half))
    subclasses = total_variation(one, other)
    classes = total_variation(one.sum(-1), other.sum(-1))
    return [
        {
            "targets": name,
            "mean": values.mean().item(),
            "99 of 100 rows": values.quantile(0.99).item(),
            "max": values.max().item(),
        }
        for name, values in (("classes", classes), ("8 pseudo-subclasses of each class", subclasses))
    ]


class Asleep(BertForSequenceClassification):
    """Takes the time of a device, and hardly any of the processor's; its logits are a linear map of an embedding."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Sleep for each token, padding too."""
        time.sleep(input_ids.numel() * SECONDS_A_TOKEN)
        return SequenceClassifierOutput(logits=self.classifier(self.bert.embeddings.word_embeddings(input_ids[:, 0])))


def hidden_behind(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Compare passes with a sleeping model to the model alone, over batches that lie in memory."""
    model = Asleep(BertConfig(vocab_size=len(tokenizer), hidden_size=EMBEDDING, num_hidden_layers=0)).eval()
    tokens = tokenizer(dataset["text"][:], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    batches = list(padded(tokenizer, tokens))

    def passes(pipelined: bool) -> None:
        with tempfile.TemporaryDirectory() as cache:
            teacher = Teacher(model, tokenizer, max_length=MAX_LENGTH, batch_size=BATCH)
            teacher.pipelined = pipelined
            teacher_columns(dataset, teacher, cache)

    jobs = {
        "batches in memory": lambda: bare(model, batches),
        "ours": lambda: passes(True),
        "ours, one step after the other": lambda: passes(False),
    }
    times = in_turn(jobs, ROUNDS_ASLEEP)
    rows: list[dict[str, str | float]] = []
    for name, seconds in times.items():
        relative = ratio(times["batches in memory"], seconds)
        rows.append(
            {
                "pass": name,
                "s, wall": middle(seconds).wall,
                "processor, s": middle(seconds).cpu,
                "as fast as batches in memory": relative.wall,
            }
        )
    write_result(
        "speed_teacher_asleep", rows, folder, rounds=ROUNDS_ASLEEP, texts=len(dataset), tokens=sum(map(len, tokens))
    )


def main(
    dataset: Dataset | None = None,
    model_folder: Path | None = None,
    rounds: int = 3,
    folder: Path = RESULTS,
    asleep_only: bool = False,
) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    many = texts(LONG_ASLEEP, SHORT_ASLEEP) if dataset is None else dataset
    dataset = texts() if dataset is None else dataset
    model_folder = build_demo() / "teacher" if model_folder is None else model_folder
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.model_max_length = model.config.max_position_embeddings
    hidden_behind(many, tokenizer, folder)
    if asleep_only:
        return
    teacher = Teacher(model, tokenizer, max_length=MAX_LENGTH, batch_size=BATCH)
    tokens = tokenizer(dataset["text"][:], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    kept: list[Dataset] = []

    def ours() -> None:
        with tempfile.TemporaryDirectory() as cache:
            fresh = Teacher(model, tokenizer, max_length=MAX_LENGTH, batch_size=BATCH)
            kept[:] = [Dataset(teacher_columns(dataset, fresh, cache).with_format("arrow")[:])]

    jobs: dict[str, Callable[[], object]] = {
        "ours": ours,
        "bare loop": lambda: bare(model, padded(tokenizer, tokens)),
        "naive map": lambda: naive(model, tokenizer, dataset),
    }
    times = in_turn(jobs, rounds)
    count = sum(map(len, tokens))
    rate = gigaflops()
    floor = forward_gigaflops(model, count) / rate
    rows: list[dict[str, str | float]] = []
    for name, seconds in times.items():
        relative = ratio(seconds, times["ours"])
        rows.append(
            {
                "pass": name,
                "s": middle(seconds).cpu,
                "tokens a second": count / middle(seconds).cpu,
                "times ours": relative.cpu,
                "times ours, wall": relative.wall,
                "floor, s": floor,
            }
        )
    write_result("speed_teacher", rows, folder, gigaflops=rate, rounds=rounds, texts=len(dataset), tokens=count)

    model.to(torch.bfloat16)
    half = Teacher(model, tokenizer, max_length=MAX_LENGTH, batch_size=BATCH)
    halves: list[Dataset] = []

    def in_half() -> None:
        with tempfile.TemporaryDirectory() as cache:
            halves[:] = [Dataset(teacher_columns(dataset, half, cache).with_format("arrow")[:])]

    seconds = in_turn({"half": in_half}, rounds)["half"]
    write_result(
        "speed_teacher_bf16",
        half_precision(kept[0], halves[0], teacher),
        folder,
        seconds=middle(seconds).cpu,
        times_as_fast=middle(times["ours"]).cpu / middle(seconds).cpu,
        gigaflops=gigaflops(torch.bfloat16),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asleep_only", action="store_true", help="Measure the sleeping model alone.")
    main(asleep_only=parser.parse_args().asleep_only)
