"""Puts windows, views and unlabelled rows beside the training rows, in front of the teacher's pass."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import KIND_COLUMN, ORIGIN_COLUMN
from hf_lelp.data.encoding import Processor
from hf_lelp.data.rows import all_keys, column_values, transform_of, with_columns
from hf_lelp.transfer.origins import KINDS, ROW, UNLABELLED, VIEW, WINDOW, Origins, tell_of_unknown_tokens
from hf_lelp.transfer.views import IMAGE_KINDS, TEXT_KINDS, views_of_image, views_of_text
from hf_lelp.transfer.windows import windows_of

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 256  # images in memory, which are mixed with each other
DEFAULT_VIEWS = {"text": ("delete", "crop"), "image": IMAGE_KINDS}


@dataclass(frozen=True)
class Transfer:
    """Which rows to make beside those that are there.

    Attributes:
        columns: that teacher and student read.
        label_column: of the data; windows and unlabelled rows have no label in it.
        processing_class: of the student.
        max_length: tokens that the student reads; `None` is no limit.
        windows: of a text at most; 1 is the text alone.
        views: altered copies of a row at most.
        view_kinds: of them, in turn; see `views_of_text` and `views_of_image`. `None` is "delete" and "crop" for texts.
        mask_token: that teacher and student share, for the kind "mask".
        seed: of the views.
    """

    columns: Sequence[str]
    label_column: str
    processing_class: Processor | None = None
    max_length: int | None = None
    windows: int = 1
    views: int = 0
    view_kinds: Sequence[str] | None = None
    mask_token: str | None = None
    seed: int = 0


def transfer_of(
    args: LELPConfig,
    *,
    columns: Sequence[str],
    label_column: str,
    processing_class: Processor | None,
    max_length: int | None,
    teacher_columns: Sequence[str] | None,
    mask_token: str | None,
) -> Transfer:
    """Say which rows to make, as a run's settings ask for them.

    Args:
        args: settings of the run. At `alpha` 1 windows teach nothing, as they have no label, and none are made.
        columns: that the student reads.
        label_column: of the data.
        processing_class: of the student.
        max_length: tokens that the student reads.
        teacher_columns: that the teacher reads; `None` without one.
        mask_token: the teacher's.

    Raises:
        ValueError: if teacher and student read different columns: both must see what is made.
    """
    if teacher_columns is not None and [*teacher_columns] != [*columns]:
        raise ValueError(
            f"The teacher reads {', '.join(teacher_columns)} and the student {', '.join(columns)}. Windows, views and"
            " unlabelled rows are made of what both read: set input_columns alone."
        )
    own = getattr(processing_class, "mask_token", None)
    return Transfer(
        columns,
        label_column,
        processing_class,
        max_length,
        args.windows if args.alpha < 1 else 1,
        args.views,
        args.view_kinds,
        own if teacher_columns is None or own == mask_token else None,
        args.seed,
    )


def transfer_rows(
    dataset: Dataset, transfer: Transfer, unlabelled: Dataset | None = None, evaluation: Iterable[Dataset] = ()
) -> Dataset:
    """Put windows, views and unlabelled rows beside a dataset's rows.

    Made rows are left out, and counted in the log, where they are empty or stand in the training or evaluation data
    already.

    Args:
        dataset: training rows, N of them, raw.
        transfer: what to make.
        unlabelled: further rows with the same input columns; windows and views are made of them too.
        evaluation: data whose rows the student must not learn from.

    Returns:
        The rows, each followed by its windows and views. `row_origin`, int64, is the index of the row that it was
        made of: of equal rows the first one's, of unlabelled rows N and more. `row_kind` says what it is, one of
        `KINDS`. Windows and unlabelled rows have no label; views keep their row's.

    Raises:
        ValueError: if the columns cannot be cut or altered so, or a kind of view is unknown.
    """
    form = transform_of(dataset)
    dataset = dataset.with_format(None)
    kinds = _check(dataset, transfer)
    dataset = _marked(dataset, ROW)
    if unlabelled is not None:
        dataset = concatenate_datasets([dataset, _as_unlabelled(unlabelled, dataset, transfer)])
    origins = _first_of_equals(dataset.select_columns(list(transfer.columns)))
    dataset = with_columns(dataset, Dataset.from_dict({ORIGIN_COLUMN: origins}))
    if transfer.windows > 1 or transfer.views:
        dataset = dataset.map(
            _expanded,
            batched=True,
            batch_size=ROWS_AT_ONCE,
            fn_kwargs={"transfer": transfer, "kinds": kinds},
            features=dataset.features,
            desc="Making windows and views",
        )
    dataset = _without_known(dataset, transfer, evaluation)
    found = Origins.taken_from(dataset)[1]
    assert found is not None
    if isinstance(transfer.processing_class, PreTrainedTokenizerBase):
        tell_of_unknown_tokens(dataset, found, transfer.columns, transfer.processing_class)
    logger.info(f"transfer: {len(dataset):,} rows to learn from ({found})")
    return dataset if form is None else dataset.with_transform(form)


def _check(dataset: Dataset, transfer: Transfer) -> Sequence[str]:
    """Return the kinds of views to make, where the columns hold what can be cut and altered."""
    features = [dataset.features[name] for name in transfer.columns]
    texts = all(isinstance(feature, Value) and "string" in feature.dtype for feature in features)
    images = len(features) == 1 and isinstance(features[0], ImageFeature)
    named = ", ".join(transfer.columns)
    if transfer.windows > 1 and not (
        len(features) == 1
        and texts
        and transfer.max_length is not None
        and isinstance(transfer.processing_class, PreTrainedTokenizerBase)
    ):
        raise ValueError(
            f"windows={transfer.windows} cuts one column of texts by the tokens of a student with a longest input. It"
            f" reads {named} (max_length={transfer.max_length}). Leave windows out, or set input_columns or max_length."
        )
    if not transfer.views:
        return ()
    if not texts and not images:
        raise ValueError(f"views={transfer.views} alters texts or images, and {named} holds neither. Leave views out.")
    possible = TEXT_KINDS if texts else IMAGE_KINDS
    kinds = transfer.view_kinds or DEFAULT_VIEWS["text" if texts else "image"]
    unknown = [kind for kind in kinds if kind not in possible]
    if unknown:
        raise ValueError(f"view_kinds={' '.join(kinds)}: of {named} one or more of {', '.join(possible)} can be made.")
    if "mask" in kinds and transfer.mask_token is None:
        raise ValueError("view_kinds has 'mask', and teacher and student share no mask token. Use delete and crop.")
    return kinds


def _marked(dataset: Dataset, kind: int) -> Dataset:
    column = Dataset.from_dict(
        {KIND_COLUMN: np.full(len(dataset), kind)}, features=Features({KIND_COLUMN: ClassLabel(names=list(KINDS))})
    )
    return with_columns(dataset, column)


def _as_unlabelled(unlabelled: Dataset, dataset: Dataset, transfer: Transfer) -> Dataset:
    """Give rows without labels the columns of the training rows."""
    missing = [name for name in transfer.columns if name not in unlabelled.column_names]
    if missing:
        raise ValueError(
            f"The unlabelled data has no {', '.join(missing)} (it has {', '.join(unlabelled.column_names)}), which"
            " teacher and student read. Rename its columns, or set input_columns."
        )
    rows = unlabelled.with_format(None).select_columns(list(transfer.columns))
    filled = np.ones(len(rows), dtype=bool)
    for name in transfer.columns:
        if isinstance(rows.features[name], Value):
            filled &= [value is not None and bool(str(value).strip()) for value in column_values(rows, name)]
    if not filled.all():
        logger.warning(f"{(~filled).sum():,} of {len(rows):,} unlabelled rows are empty, and left out")
        rows = rows.select(np.flatnonzero(filled))
    rows = rows.cast(Features({name: dataset.features[name] for name in transfer.columns}))
    return _marked(rows, UNLABELLED).select_columns([*transfer.columns, KIND_COLUMN])


def _first_of_equals(rows: Dataset) -> NDArray[np.int64]:
    """Return for each row the first that holds the same, (n,)."""
    _, first, same = np.unique(all_keys(rows), return_index=True, return_inverse=True)
    return np.asarray(first[same], dtype=np.int64)


def _expanded(batch: Mapping[str, list[Any]], transfer: Transfer, kinds: Sequence[str]) -> dict[str, list[Any]]:
    """Put windows and views behind each row of a batch; for `Dataset.map`."""
    rows = len(batch[KIND_COLUMN])
    made: dict[str, list[Any]] = {name: [] for name in batch}

    def add(place: int, kind: int, values: Mapping[str, Any]) -> None:
        for name in made:
            made[name].append(values.get(name, batch[name][place]))
        made[KIND_COLUMN][-1] = kind

    windows: list[list[str]] = [[]] * rows
    if transfer.windows > 1:
        assert isinstance(transfer.processing_class, PreTrainedTokenizerBase) and transfer.max_length is not None
        texts = batch[transfer.columns[0]]
        windows = windows_of(texts, transfer.processing_class, transfer.max_length, transfer.windows)
    for place in range(rows):
        add(place, batch[KIND_COLUMN][place], {})
        for window in windows[place]:
            add(place, WINDOW, {transfer.columns[0]: window, transfer.label_column: None})
        for view in _views(batch, place, transfer, kinds):
            add(place, VIEW, view)
    return made


def _views(
    batch: Mapping[str, list[Any]], place: int, transfer: Transfer, kinds: Sequence[str]
) -> Iterable[dict[str, Any]]:
    """Return altered copies of a row's input columns."""
    if not transfer.views:
        return []
    first = batch[transfer.columns[0]]
    if not isinstance(first[place], str):
        others = [*first[:place], *first[place + 1 :]]
        views = views_of_image(first[place], others, kinds, transfer.views, transfer.seed)
        return [{transfer.columns[0]: view} for view in views]
    of_columns = [
        views_of_text(batch[name][place], kinds, transfer.views, transfer.seed, transfer.mask_token)
        for name in transfer.columns
    ]
    return [dict(zip(transfer.columns, values, strict=True)) for values in zip(*of_columns, strict=False)]


def _without_known(dataset: Dataset, transfer: Transfer, evaluation: Iterable[Dataset]) -> Dataset:
    """Leave out made rows that the evaluation data or the training rows hold, or that were made before."""
    columns = list(transfer.columns)
    kinds, origins = (column_values(dataset.with_format("numpy"), name) for name in (KIND_COLUMN, ORIGIN_COLUMN))
    keys = all_keys(dataset.select_columns(columns))
    evaluated = [
        all_keys(
            rows.with_format(None)
            .select_columns(columns)
            .cast(Features({name: dataset.features[name] for name in columns}))
        )
        for rows in evaluation
        if {*columns} <= {*rows.column_names}
    ]
    seen = np.isin(keys, np.concatenate(evaluated)) if evaluated else np.zeros(len(keys), dtype=bool)
    made = kinds != ROW
    if (seen & ~made).any():
        logger.warning(
            f"{(seen & ~made).sum():,} of {(~made).sum():,} training rows are evaluation rows too: the student's"
            " figures are too good"
        )
    seen |= made & np.isin(origins, origins[seen & made])  # and all else that was made of such a row
    again = np.isin(keys, keys[~made])
    _, first = np.unique(keys, return_index=True)
    again[np.setdiff1d(np.arange(len(keys)), first)] = True
    left_out = made & (seen | again)
    evaluated_ones, twice = (made & seen).sum(), (made & again & ~seen).sum()
    if left_out.any():
        reasons = [f"{evaluated_ones:,} are evaluation rows"] if evaluated_ones else []
        reasons += [f"{twice:,} are there already"] if twice else []
        of_kinds = Origins(origins[left_out], kinds[left_out])
        logger.warning(f"transfer: left out {of_kinds}: {', '.join(reasons)}")
    return dataset.select(np.flatnonzero(~left_out)) if left_out.any() else dataset
