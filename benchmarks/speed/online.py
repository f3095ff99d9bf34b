r"""The whole of a distillation, teacher's pass included, against running the teacher in every step.

    pip install --no-deps --target rivals textbrewer==0.2.1.post1 torchdistill==1.1.5 nvidia-modelopt==0.47.0 \
        tensorboard==2.21.0 absl-py omegaconf==2.3.0 antlr4-python3-runtime==4.9.3 nvidia-ml-py pulp==3.3.2
    python -m benchmarks.speed.online --rivals rivals

The same student (BERT 2 × 128), teacher (MiniLM-sized), texts, batches of 32 and AdamW everywhere, on one thread, with
random weights; each run in a process of its own, after its imports. *online KD* is a Trainer that runs the teacher.
TextBrewer is run as its documentation recommends and with its own cache of logits, which keeps batches as they were
first drawn. torchdistill imports torchvision for models that are not used here; placeholders take its place, because
PyPI's torchvision needs CUDA. ModelOpt's KDTrainer is made for language models: on a classifier it leaves out the last
row of every batch, which changes what is learnt and hardly the time.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import kl_div
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.places import RESULTS
from benchmarks.speed.common import Seconds, bert, forward_gigaflops, gigaflops, middle, ratio, write_result
from hf_lelp import LELPConfig, LELPTrainer, Teacher

STUDENT, TEACHER = "BERT 2 × 128", "MiniLM-sized, 6 × 384"
ROWS, BATCH, SHORTEST, LONGEST, TEMPERATURE = 192, 32, 8, 30, 2.0
EPOCHS = (1, 3, 10)

Mark = Callable[..., None]


def words(rows: int = ROWS, longest: int = LONGEST) -> tuple[Dataset, PreTrainedTokenizerFast]:
    """Random texts and a tokenizer of words."""
    rng = np.random.default_rng(0)
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    vocabulary |= {f"w{number}": number + 4 for number in range(5000)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    lengths = rng.integers(SHORTEST, longest, rows)
    texts = [" ".join(f"w{number}" for number in rng.integers(0, 5000, length)) for length in lengths]
    return Dataset.from_dict({"text": texts, "label": np.arange(rows) % 2}), tokenizer


def settings(folder: str, epochs: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": BATCH,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def tokens(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    return dataset.map(lambda batch: dict(tokenizer(batch["text"])), batched=True, remove_columns=["text", "label"])


class AtEpochs(TrainerCallback):
    """Calls `mark` when an epoch has ended."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.mark()


class OnlineTrainer(Trainer):
    """Plain KD with the teacher in every step."""

    teacher: PreTrainedModel

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """τ² · KL(teacher ‖ student)."""
        with torch.inference_mode():
            targets = (self.teacher(**inputs).logits / TEMPERATURE).softmax(-1)
        outputs = model(**inputs)
        log_q = (outputs.logits / TEMPERATURE).log_softmax(-1)
        loss = kl_div(log_q, targets.clone(), reduction="batchmean") * TEMPERATURE**2
        return (loss, outputs) if return_outputs else loss


# Each of these trains a student of its own and calls `mark` at the end of every epoch.


def ours(epochs: int, folder: str, mark: Mark, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    teacher = Teacher(bert(TEACHER, seed=1), tokenizer)
    arguments = LELPConfig(
        **settings(folder, epochs),
        columns_cache_dir=folder,
        check_teacher=False,  # it is random
        num_subclasses=8,
        temperature=TEMPERATURE,
        subclass_temperature=0.5,
    )
    LELPTrainer(
        bert(STUDENT),
        arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        teacher_model=teacher,
        callbacks=[AtEpochs(mark)],
    ).train()


def online(epochs: int, folder: str, mark: Mark, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    trainer = OnlineTrainer(
        bert(STUDENT),
        TrainingArguments(**settings(folder, epochs)),
        train_dataset=tokens(dataset, tokenizer),
        processing_class=tokenizer,
        callbacks=[AtEpochs(mark)],
    )
    trainer.teacher = bert(TEACHER, seed=1).eval()
    trainer.train()


def modelopt(epochs: int, folder: str, mark: Mark, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    from modelopt.torch.distill.plugins.huggingface import KDTrainer

    KDTrainer(
        model=bert(STUDENT),
        args=TrainingArguments(**settings(folder, epochs)),
        train_dataset=tokens(dataset, tokenizer),
        processing_class=tokenizer,
        callbacks=[AtEpochs(mark)],
        distill_args={"teacher_model": bert(TEACHER, seed=1), "temperature": TEMPERATURE},
    ).train()


def batches(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> DataLoader:
    pad = DataCollatorWithPadding(tokenizer)
    rows: Any = tokens(dataset, tokenizer)
    return DataLoader(rows, batch_size=BATCH, shuffle=True, collate_fn=lambda some: dict(pad(some)))


def textbrewer(
    epochs: int, folder: str, mark: Mark, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, cached: bool = False
) -> None:
    from textbrewer import BasicDistiller, DistillationConfig, GeneralDistiller, TrainingConfig

    def adaptor(_: Any, outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits}

    student = bert(STUDENT).train()
    distiller = (BasicDistiller if cached else GeneralDistiller)(
        TrainingConfig(device="cpu", output_dir=folder, log_dir=None),
        DistillationConfig(temperature=TEMPERATURE, hard_label_weight=0, is_caching_logits=cached),
        bert(TEACHER, seed=1).eval(),
        student,
        adaptor,
        adaptor,
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-5, weight_decay=0.0)
    with distiller:
        distiller.train(optimizer, batches(dataset, tokenizer), num_epochs=epochs, max_grad_norm=1.0, callback=mark)


def textbrewer_cached(
    epochs: int, folder: str, mark: Mark, dataset: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    textbrewer(epochs, folder, mark, dataset, tokenizer, cached=True)


class Placeholders(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports of torchvision give modules that hold whatever is asked for."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """For torchvision and what is in it."""
        if fullname.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        """An empty module."""

        class Placeholder(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return type(name, (torch.nn.Module,), {})

        return Placeholder(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def torchdistill(epochs: int, folder: str, mark: Mark, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    teacher, student = bert(TEACHER, seed=1).eval(), bert(STUDENT)
    from torchdistill.core.distillation import DistillationBox

    side = {
        "forward_proc": "forward_batch_only_as_kwargs",
        "forward_hook": {"input": [], "output": ["classifier"]},
    }
    logits = {f"{who}_module_{what}": v for who in ("student", "teacher") for what, v in _LOGITS.items()}
    loss = {"key": "KDLoss", "kwargs": {**logits, "temperature": TEMPERATURE, "alpha": None, "beta": 1.0}}
    configuration = {
        "num_epochs": epochs,
        "teacher": {**side, "requires_grad": False},
        "student": dict(side),
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 5e-5, "weight_decay": 0.0}, "max_grad_norm": 1.0},
    }
    box = DistillationBox(teacher, student, {}, configuration, torch.device("cpu"), None, False, 1)
    box.train_data_loader = batches(dataset, tokenizer)
    for epoch in range(epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch in box.train_data_loader:
            box.pre_forward_process()
            box.post_forward_process(box.forward_process(dict(batch), targets=None, supp_dict=None))
        box.post_epoch_process()
        mark()


_LOGITS = {"path": "classifier", "io": "output"}

RUNS: dict[str, Callable[..., None]] = {
    "LELP (ours)": ours,
    "online KD": online,
    "TextBrewer": textbrewer,
    "TextBrewer, cached logits": textbrewer_cached,
    "torchdistill": torchdistill,
    "ModelOpt KDTrainer": modelopt,
}
IMPORTS = {
    "TextBrewer": "textbrewer",
    "TextBrewer, cached logits": "textbrewer",
    "torchdistill": "torchdistill.core.distillation",
    "ModelOpt KDTrainer": "modelopt.torch.distill.plugins.huggingface",
}


def run(name: str, epochs: int, rows: int) -> list[Seconds]:
    """Train in this process; the time since the start at the end of every epoch."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    if name == "torchdistill":
        sys.meta_path.insert(0, Placeholders())
        for part in ("datasets", "models", "transforms"):
            importlib.import_module(f"torchvision.{part}")
    if name in IMPORTS:
        importlib.import_module(IMPORTS[name])
    dataset, tokenizer = words(rows)
    ends: list[Seconds] = []
    start = Seconds(time.perf_counter(), time.process_time())

    def mark(**_: Any) -> None:
        ends.append(Seconds(time.perf_counter() - start.wall, time.process_time() - start.cpu))

    with tempfile.TemporaryDirectory() as folder:
        RUNS[name](epochs, folder, mark, dataset, tokenizer)
    return ends


def run_apart(name: str, epochs: int, rows: int, rivals: Path | None) -> list[Seconds]:
    """`run` in a fresh process that finds the other packages."""
    paths = [os.environ.get("PYTHONPATH", ""), *([str(rivals.resolve())] if rivals else [])]
    options = ["--run", name, "--epochs", str(epochs), "--rows", str(rows)]
    command = [sys.executable, "-m", "benchmarks.speed.online", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return [Seconds(*end) for end in json.loads(done.stdout.splitlines()[-1])]


def main(
    names: Sequence[str],
    rivals: Path | None = None,
    epochs: Sequence[int] = EPOCHS,
    rows: int = ROWS,
    rounds: int = 2,
    folder: Path = RESULTS,
) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    ends: dict[str, list[list[Seconds]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            ends[name].append(run_apart(name, max(epochs), rows, rivals))
    count = sum(len(text.split()) + 2 for text in words(rows)[0]["text"])
    rate = gigaflops()
    student, teacher = (forward_gigaflops(bert(size), count) / rate for size in (STUDENT, TEACHER))
    table: list[dict[str, str | float]] = []
    for name, runs in ends.items():
        row: dict[str, str | float] = {"what": name}
        once = name == "LELP (ours)" or "cached" in name
        for epoch in epochs:
            at = [one[epoch - 1] for one in runs]
            base = [one[epoch - 1] for one in ends["LELP (ours)"]]
            label = f"{epoch} epoch{'s' if epoch > 1 else ''}"
            row |= {f"{label}, s": middle(at).cpu, f"{label}, times ours": ratio(at, base).cpu}
        floor = max(epochs) * 3 * student + (1 if once else max(epochs)) * teacher
        table.append(row | {f"floor of {max(epochs)} epochs, s": floor})
    write_result("speed_online", table, folder, gigaflops=rate, rounds=rounds, rows_of_data=rows, tokens=count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, help="folder with the other packages (default: without them)")
    parser.add_argument("--run", choices=RUNS, help="train with one of them in this process, and print its times")
    parser.add_argument("--epochs", type=int, default=max(EPOCHS))
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options.run, options.epochs, options.rows)))
    else:
        main([name for name in RUNS if options.rivals or name not in IMPORTS], options.rivals)
