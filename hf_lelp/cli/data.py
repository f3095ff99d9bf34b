"""Loads the training and evaluation rows that a command line names, from the Hub, a folder or a file."""

import logging
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError

from hf_lelp.data.rows import split_at_random

logger = logging.getLogger(__name__)

FILE_FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}
SEPARATORS = (";", "\t", "|", ",")  # of columns, when another one was expected

if TYPE_CHECKING:
    Names: TypeAlias = str | list[str]
else:
    Names = list[str]  # HfArgumentParser reads no union: `one_or_several` makes one name of a list of one


@dataclass(kw_only=True)
class DataArguments:
    """Which rows to train on and which to evaluate on.

    Raises:
        ValueError: if the data is missing, or named twice.
    """

    dataset_name: str | None = field(
        default=None, metadata={"help": "Data: a name on the Hub, or a folder for load_dataset."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of dataset_name."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str | None = field(
        default=None, metadata={"help": "Split to evaluate on (default: validation, test or a tenth)."}
    )
    train_file: str | None = field(
        default=None, metadata={"help": "Instead of dataset_name: a CSV, TSV, JSON, Parquet or text file."}
    )
    eval_file: str | None = field(
        default=None, metadata={"help": "The file to evaluate on (default: a tenth held out)."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on so many rows, drawn at random."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first so many rows."})

    def __post_init__(self) -> None:
        if (self.dataset_name is None) == (self.train_file is None):
            raise ValueError("The data is either dataset_name or train_file: give one of them.")


@dataclass(kw_only=True)
class TrainingDataArguments(DataArguments):
    """Which rows to train on, further ones without labels too, and which to evaluate on."""

    unlabelled_file: str | None = field(
        default=None,
        metadata={"help": "Further rows to train on; their labels are not read."},
    )


def one_or_several(names: Any) -> Any:
    """Return the only name of a list of one; all else comes as it is."""
    return names[0] if isinstance(names, list) and len(names) == 1 else names


def load_data(arguments: DataArguments, seed: int) -> tuple[Dataset, Dataset]:
    """Load the training and evaluation rows.

    Raises:
        ValueError: if a file is missing, damaged or of an unknown format, a split is missing, or there are no rows.
    """
    if arguments.train_file is not None:
        train = load_file(arguments.train_file)
        evaluation = None if arguments.eval_file is None else load_file(arguments.eval_file)
    else:
        assert arguments.dataset_name is not None
        splits = load_dataset(expand(arguments.dataset_name), arguments.dataset_config)
        assert isinstance(splits, DatasetDict)
        named = [arguments.eval_split] if arguments.eval_split else ["validation", "test"]
        eval_split = next((name for name in named if name in splits and name != arguments.train_split), None)
        if arguments.train_split not in splits or (arguments.eval_split and eval_split is None):
            raise ValueError(
                f"{arguments.dataset_name} has the splits {', '.join(splits)}; set train_split, eval_split."
            )
        train, evaluation = splits[arguments.train_split], splits[eval_split] if eval_split else None
    if evaluation is None:
        train, evaluation = split_at_random(train, 0.1, seed)
        logger.warning(f"No evaluation data: {len(evaluation)} rows, drawn at random, are held out for it")
    if arguments.max_train_samples is not None and arguments.max_train_samples < len(train):
        train = train.shuffle(seed=seed).select(range(arguments.max_train_samples))
    if arguments.max_eval_samples is not None:
        evaluation = evaluation.select(range(min(arguments.max_eval_samples, len(evaluation))))
    for name, dataset in (("training", train), ("evaluation", evaluation)):
        if not len(dataset):
            raise ValueError(f"The {name} data has no rows.")
    return train, evaluation


def load_unlabelled(arguments: TrainingDataArguments) -> Dataset | None:
    """Load the rows of `unlabelled_file`, or `None`.

    Raises:
        ValueError: as `load_data`.
    """
    return None if arguments.unlabelled_file is None else load_file(arguments.unlabelled_file)


def expand_all(names: str | list[str] | None) -> Any:
    """Expand one name or several, see `expand`; `None` stays."""
    return [expand(name) for name in names] if isinstance(names, list) else names and expand(names)


def expand(name: str) -> str:
    """Expand a path that starts with ~; return any other name as it is.

    Raises:
        ValueError: if the name can only be a path and nothing is there.
    """
    path = str(Path(name).expanduser()) if name.startswith("~") else name
    if (path.startswith((".", "/")) or path.count("/") > 1) and not Path(path).exists() and not glob(path):
        raise ValueError(f"{name}: there is no such folder or file.")
    return path


def load_file(name: str) -> Dataset:
    """Load the rows of a file, in their order.

    Raises:
        ValueError: if it is missing, damaged or of an unknown format.
    """
    path = Path(expand(name))
    if path.suffix not in FILE_FORMATS:
        raise ValueError(f"{name}: the format is told by the ending, one of {', '.join(FILE_FORMATS)}.")
    if not path.is_file() and not glob(str(path)):
        raise ValueError(f"{name}: there is no such file.")
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    kind = FILE_FORMATS[path.suffix]
    try:
        dataset = load_dataset(kind, data_files=str(path), split="train", **options)
    except (DatasetGenerationError, ValueError) as error:
        reason = str(error.__cause__ or error).strip()
        raise ValueError(f"{name} cannot be read as {kind}: {reason}") from error
    (first, *others) = dataset.column_names or [""]
    separator = next((sign for sign in SEPARATORS if sign in first), None) if kind == "csv" and not others else None
    if separator is not None:
        raise ValueError(
            f"{name} has one column, {first!r}: its columns seem to be separated by {separator!r}. Write it with"
            " commas, or with tabs as a .tsv file."
        )
    return dataset
