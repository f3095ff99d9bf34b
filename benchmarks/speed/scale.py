"""Time, memory and disk by the number of rows: 100,000 to 1.6 million embeddings of 768 numbers, two classes.

    python -m benchmarks.speed.scale [--rows 100000 400000 1600000] [--folder FOLDER]

The teacher is synthetic, its pass costs next to nothing; texts, shards, fit, projection and the trainer are the real
ones. Every stage runs in a process of its own, which may not take more than 3 GB of private memory (RLIMIT_DATA). Two
figures are taken of it: anonymous memory, which is what the process itself holds, and all that is resident, in which
the pages of mapped files count too, though the kernel drops them when memory is short. Needs Linux and 3.3 kB of disk a
row, which are free again after each size; writes results/scale.json.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from benchmarks.places import RESULTS
from hf_lelp import ClassProjections, LELPConfig, LELPTrainer
from hf_lelp.classifiers import LinearHead
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.rows import column_values
from hf_lelp.losses import subclass_targets
from hf_lelp.projections.cache import fit_projections, projection_columns
from hf_lelp.storage.files import write_atomically
from hf_lelp.storage.row_index import RowIndex
from hf_lelp.teacher.columns import teacher_columns, teacher_folder

RESULT = RESULTS / "scale.json"
SIZE, CLASSES, DIRECTIONS = 768, 2, 8
WORDS = [f"word{index}" for index in range(1000)]
TEXT_ROWS = 65_536
STEPS = 50
STREAM_ROWS = 100_000  # the most that are streamed: datasets hands on a stream row by row
PRIVATE_BYTES = 3 * 10**9
MEGABYTE = 1e6


class SyntheticTeacher:
    """Random embeddings, the same for the same rows, and a random final layer; see `hf_lelp.TeacherLike`."""

    class_names: list[str] | None = None
    fingerprint = "synthetic"

    def __init__(self) -> None:
        self.input_columns = ["text"]
        weight = torch.randn(CLASSES, SIZE, generator=torch.Generator().manual_seed(0)) / SIZE**0.5
        self.head = LinearHead(2 * weight, torch.zeros(CLASSES), self.fingerprint)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Logits, (N, C), and embeddings, (N, D), of texts that begin with their row's number."""
        first, rows = int(batch["text"][0].split()[0]), len(batch["text"])
        embedding = np.random.default_rng(first).standard_normal((rows, SIZE), dtype=np.float32)
        return {LOGITS_COLUMN: embedding @ self.head.weight.numpy().T, EMBEDDING_COLUMN: embedding}


def write_texts(file: Path, rows: int) -> None:
    """Rows of their number and five words, and a label."""
    schema = pa.schema({"text": pa.string(), "label": pa.int64()})
    draw = np.random.default_rng(0)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, rows, TEXT_ROWS):
            count = min(TEXT_ROWS, rows - start)
            words = draw.integers(len(WORDS), size=(count, 5))
            texts = [f"{start + row} " + " ".join(WORDS[word] for word in words[row]) for row in range(count)]
            writer.write_table(pa.table({"text": texts, "label": draw.integers(CLASSES, size=count)}, schema))


def student() -> tuple[BertForSequenceClassification, PreTrainedTokenizerFast]:
    """As small as can be: reading its batches is what counts here."""
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[PAD]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        pad_token_id=1,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    return BertForSequenceClassification(config), tokenizer


def stage(name: str, folder: Path) -> Callable[[], object]:
    """What is timed, with everything before it done."""
    teacher = SyntheticTeacher()
    texts = Dataset.from_file(str(folder / "texts.arrow"))
    cache, labels = folder / "columns", np.asarray(column_values(texts.with_format("numpy"), "label"))
    if name == "stream":
        return lambda: train_on_stream(texts, teacher, folder)
    if name in ("teacher", "find"):
        return lambda: teacher_columns(texts, teacher, cache)
    if name == "index":
        return lambda: RowIndex(teacher_folder(teacher, cache))
    columns = teacher_columns(texts, teacher, cache)
    if name == "fit":
        return lambda: fit_projections(columns, labels, teacher.head, DIRECTIONS, cache_dir=cache)
    projections = fit_projections(columns, labels, teacher.head, DIRECTIONS, cache_dir=cache)
    if name == "project":
        return lambda: projection_columns(columns, projections, cache)
    assert name == "train"
    return lambda: train(folder, train_dataset=texts, teacher_model=teacher)


def train_on_stream(texts: Dataset, teacher: SyntheticTeacher, folder: Path) -> None:
    """Nothing is stored: the rows pass twice, for the fit and for training, and the teacher with them."""
    stream = IterableDataset.from_generator(lambda: iter(texts)).map(teacher, batched=True)
    projections = ClassProjections.fit(stream, teacher.head, DIRECTIONS)
    train(folder, train_dataset=stream.map(projections, batched=True), projections=projections)


def train(folder: Path, **arguments: Any) -> None:
    """Make a trainer, with all columns that it needs, and take its first steps."""
    model, tokenizer = student()
    config = LELPConfig(
        output_dir=str(folder / "out"),
        columns_cache_dir=str(folder / "columns"),
        num_subclasses=DIRECTIONS,
        check_teacher=False,
        max_steps=STEPS,
        per_device_train_batch_size=32,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    LELPTrainer(model, config, processing_class=tokenizer, **arguments).train()


STAGES = ("teacher", "find", "fit", "project", "train")
INDEX = "index"  # of all rows, which is loaded where a shard is missing; its memory comes on top of the process's own


class Memory:
    """The most of this process that was resident in a `with` block, by kind, in MB: a thread looks every 10 ms."""

    def __init__(self) -> None:
        self.peak: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self._look()

    def _look(self) -> None:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        now = {line[0][:-1]: int(line[1]) * 1024 / MEGABYTE for line in lines if line[0] in ("VmRSS:", "RssAnon:")}
        self.peak = {name: max(value, self.peak.get(name, 0.0)) for name, value in now.items()}


def run_stage(name: str, folder: Path) -> dict[str, float]:
    """Seconds and memory of one stage, in this process."""
    work = stage(name, folder)
    before = Memory()
    with before:
        pass
    with Memory() as memory:
        start, processor = time.perf_counter(), time.process_time()
        work()
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "anonymous_mb": memory.peak["RssAnon"],
        "more_anonymous_mb": memory.peak["RssAnon"] - before.peak["RssAnon"],
        "resident_mb": memory.peak["VmRSS"],
    }


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def float16_error(folder: Path) -> dict[str, float]:
    """The same columns in half the bytes: disk a row, and how far the targets move (τ = β = 1)."""
    teacher = SyntheticTeacher()
    texts = Dataset.from_file(str(folder / "texts.arrow"))
    labels = np.asarray(column_values(texts.with_format("numpy"), "label"))
    wide, narrow = (
        teacher_columns(texts, teacher, folder / "columns", dtype=dtype) for dtype in ("float32", "float16")
    )
    projections = fit_projections(wide, labels, teacher.head, DIRECTIONS, cache_dir=folder / "columns")
    targets = {}
    for dtype, columns in (("float32", wide), ("float16", narrow)):  # projected alike: the stored numbers alone differ
        projected = projection_columns(columns, projections, folder / "columns", dtype=dtype)
        raw = torch.from_numpy(column_values(projected.with_format("numpy"), PROJECTIONS_COLUMN))
        logits = torch.from_numpy(column_values(columns.with_format("numpy"), LOGITS_COLUMN))
        scores = torch.einsum("nck,cks->ncs", raw, projections.rotation(DIRECTIONS))
        targets[dtype] = subclass_targets(logits, scores)
    error = (targets["float16"] - targets["float32"]).abs()
    folders = {path.name: disk(path) for path in (folder / "columns" / "teacher").iterdir()}
    return {
        "disk_bytes_a_row": folders["synthetic-float16"] / len(texts),
        "disk_ratio": folders["synthetic-float16"] / folders["synthetic"],
        "largest_error_of_a_target": error.max().item(),
        "mean_error_of_a_target": error.mean().item(),
    }


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """All stages at one size, each in its own process."""
    write_texts(folder / "texts.arrow", rows)
    figures: dict[str, Any] = {"rows": rows}
    for name in [*STAGES, INDEX, *(["stream"] if rows <= STREAM_ROWS else [])]:
        command = [sys.executable, "-m", "benchmarks.speed.scale", "--stage", name, "--folder", str(folder)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=one_thread)
        figures[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{rows:,} rows, {name}: {figures[name]}", flush=True)
    for name in ("teacher", "projected"):
        figures[f"{name}_disk_bytes_a_row"] = disk(folder / "columns" / name) / rows
    return figures


def exponents(sizes: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """Slope of log seconds over log rows from 100,000 rows on, of each stage and of all together."""
    sizes = [size for size in sizes if size["rows"] >= 100_000] or sizes
    rows = np.log([size["rows"] for size in sizes])
    seconds = {name: [size[name][kind] for size in sizes] for name in STAGES}
    seconds["all stages"] = [sum(size[name][kind] for name in STAGES) for size in sizes]
    return {name: float(np.polyfit(rows, np.log(values), 1)[0]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 100_000, 400_000, 1_600_000])
    parser.add_argument("--folder", type=Path, help="for the files, which are removed (default: a temporary one)")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--stage", choices=[*STAGES, INDEX, "stream"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (PRIVATE_BYTES, PRIVATE_BYTES))
        print(json.dumps(run_stage(options.stage, options.folder)))
        return
    sizes: list[dict[str, Any]] = []
    halves = None
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            os.environ["HF_HOME"] = folder
            sizes.append(measure(rows, Path(folder)))
            halves = halves or float16_error(Path(folder))
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "columns": {"classes": CLASSES, "embedding": SIZE, "directions": DIRECTIONS, "dtype": "float32"},
        "sizes": sizes,
        # Of processor time too: on a busy machine the clock tells of the others.
        "exponents": {kind: exponents(sizes, kind) for kind in ("seconds", "processor_seconds") if len(sizes) > 1},
        "float16": halves,
    }
    write_atomically(options.result, lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))
    print(json.dumps({"exponents": result["exponents"], "float16": halves}, indent=1))


if __name__ == "__main__":
    main()
