"""Compares the students that a recipe makes, on two tasks: accuracy, size, and texts a second on one CPU thread.

    python -m examples.students

Sentiment is the demo's (`examples.vader`); subjects are 20 Newsgroups, computing and science against the rest. On each,
every student learns from the same teacher by plain distillation, from the same texts. One more row is a second round:
a student, cut from the teacher, teaches a smaller one. All speeds are measured in turns at the end, in one run.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PrinterCallback

from examples.vader import MAX_LENGTH, SEED, build_demo, load_split, quiet
from hf_lelp import LELPConfig, LELPTrainer, Teacher, load_student
from hf_lelp.data.encoding import batches
from hf_lelp.markdown import markdown_table
from hf_lelp.student.learning_rate import starting_rate

OUT = Path("out/students")
RECIPES = ("layers:0,3,5", "layers:2", "new:2x128", "static")
ASSISTANT, SMALLEST = "layers:0,3,5", "new:2x128"
ROWS = {"sentiment": (2000, 1000), "subjects": (1000, 1000)}  # to train on, and to test on
EPOCHS = {"layers": 2, "new": 4, "static": 10}
TIMED, ROUNDS = 128, 4
SUBJECTS = ["rest", "computing and science"]


def sentiment(cache: Path) -> tuple[Dataset, Dataset]:
    """The demo's texts."""
    train, test = (
        load_split(cache / f"{part}.parquet").select_columns(["text", "label"]) for part in ("train", "test")
    )
    return train, test


def subjects() -> tuple[Dataset, Dataset]:
    """Texts of 20 Newsgroups, and whether they are of computing or science."""
    from benchmarks.evidence.suite.store import DOWNLOADS
    from benchmarks.evidence.suite.texts import labels_of, read_corpus

    corpus = read_corpus("newsgroups", DOWNLOADS)
    labels = labels_of(corpus.names, "comp_sci")
    made = [Dataset.from_dict({"text": part.texts, "label": labels[part.classes]}) for part in corpus[:2]]
    train, test = (part.cast_column("label", ClassLabel(names=SUBJECTS)) for part in made)
    return train, test


def train(model: Any, teacher: Any, data: Dataset, folder: Path, *, epochs: int, tokenizer: Any = None) -> Path:
    """Train a student by plain distillation, or without a teacher on labels, and save it."""
    if (folder / "config.json").exists():
        return folder
    config = LELPConfig(
        output_dir=str(folder),
        num_subclasses=1,
        alpha=1.0 if teacher is None else 0.0,
        max_length=MAX_LENGTH,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        warmup_steps=0.1,  # below 1: a share of all steps
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        seed=SEED,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    torch.manual_seed(SEED)
    trainer = LELPTrainer(model, config, train_dataset=data, teacher_model=teacher, processing_class=tokenizer)
    trainer.args.learning_rate = starting_rate(trainer.model)
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train()
    trainer.save_model()
    print(f"{folder}: trained in {time.perf_counter() - started:.0f} s", flush=True)
    return folder


def teacher_of_subjects(minilm: Path, data: Dataset) -> Path:
    """Fine-tune MiniLM on the labels, its word embeddings frozen, as the demo's teacher was."""
    folder = OUT / "subjects" / "teacher"
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=len(SUBJECTS))
    model.bert.embeddings.requires_grad_(False)
    return train(model, None, data, folder, epochs=2, tokenizer=AutoTokenizer.from_pretrained(minilm))


def inputs_of(tokenizer: Any, texts: list[str], rows: int = 32) -> list[tuple[Any, dict[str, torch.Tensor]]]:
    return list(batches(tokenizer, {"text": texts}, ["text"], MAX_LENGTH, rows))


@torch.inference_mode()
def accuracy(model: PreTrainedModel, tokenizer: Any, test: Dataset) -> float:
    right = 0
    for places, inputs in inputs_of(tokenizer, test["text"]):
        right += int((model(**inputs).logits.argmax(-1).numpy() == np.array(test["label"])[places]).sum())
    return right / len(test)


@torch.inference_mode()
def speeds(models: dict[str, PreTrainedModel], tokenizer: Any, texts: list[str]) -> dict[str, float]:
    """Texts a second of each model, from tokens to logits: the best of some rounds, in which all take turns."""
    inputs = inputs_of(tokenizer, texts)
    best = dict.fromkeys(models, np.inf)
    for _ in range(ROUNDS):
        for name, model in models.items():
            started = time.perf_counter()
            for _, batch in inputs:
                model(**batch)
            best[name] = min(best[name], time.perf_counter() - started)
    return {name: len(texts) / seconds for name, seconds in best.items()}


def students_of(task: str, data: tuple[Dataset, Dataset], teacher: Path) -> dict[str, dict[str, float]]:
    """Train all students of a task, and measure them beside their teacher."""
    train_data, test = (part.shuffle(SEED).select(range(rows)) for part, rows in zip(data, ROWS[task], strict=True))
    guide = Teacher.from_pretrained(teacher, max_length=MAX_LENGTH)
    folders = {"teacher": teacher}
    for recipe in RECIPES:
        folder = OUT / task / recipe.replace(":", "_")
        folders[recipe] = train(recipe, guide, train_data, folder, epochs=EPOCHS[recipe.partition(":")[0]])
    assistant = Teacher.from_pretrained(folders[ASSISTANT], max_length=MAX_LENGTH)
    second = f"{SMALLEST}, taught by {ASSISTANT}"
    folders[second] = train(SMALLEST, assistant, train_data, OUT / task / "second_round", epochs=EPOCHS["new"])
    models = {
        name: (load_student(folder) if name != "teacher" else guide.model).float().eval()
        for name, folder in folders.items()
    }
    timed = speeds(models, guide.processing_class, test["text"][:TIMED])
    return {
        name: {
            "accuracy": accuracy(model, guide.processing_class, test),
            "parameters": model.num_parameters(),
            "texts_per_second": timed[name],
        }
        for name, model in models.items()
    }


def main() -> None:
    """Print one table over both tasks, and write it to out/students."""
    torch.set_num_threads(1)
    cache = build_demo()
    with quiet():
        results = {"sentiment": students_of("sentiment", sentiment(cache), cache / "teacher")}
        print(results, flush=True)
        texts = subjects()
        teacher = teacher_of_subjects(cache / "minilm", texts[0].shuffle(SEED).select(range(ROWS["subjects"][0])))
        results["subjects"] = students_of("subjects", texts, teacher)
    (OUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    header = ["", "MB", *(f"{task}: {figure}" for task in results for figure in ("accuracy", "texts/s"))]
    body = [
        [
            name,
            f"{4 * first['parameters'] / 1e6:.0f}",
            *(
                cell
                for figures in results.values()
                for cell in (f"{100 * figures[name]['accuracy']:.1f}", f"{figures[name]['texts_per_second']:,.0f}")
            ),
        ]
        for name, first in results["sentiment"].items()
    ]
    print(markdown_table(header, body))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
