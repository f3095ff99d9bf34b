"""Puts windows, views and unlabelled rows beside the training rows, in front of the teacher's pass."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import KIND_COLUMN, ORIGIN_COLUMN
from hf_lelp.data.encoding import Processor
from hf_lelp.data.rows import all_keys, column_values, transform_of, with_columns
from hf_lelp.transfer.made import KIND_FEATURE, Transfer, made_of
from hf_lelp.transfer.origins import ROW, UNLABELLED, Origins, tell_of_unknown_tokens
from hf_lelp.transfer.views import IMAGE_KINDS, TEXT_KINDS

logger = logging.getLogger(__name__)

DEFAULT_VIEWS = {"text": ("delete", "crop"), "image": IMAGE_KINDS}


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
    """Put windows, views and unlabelled rows behind a dataset's rows.

    Nothing is made of a row of the evaluation data, and of equal rows it is made once. Unlabelled and made rows are
    left out, and counted in the log, where they are empty or stand in the training or evaluation data already.

    Args:
        dataset: training rows, N of them, raw.
        transfer: what to make.
        unlabelled: further rows with the same input columns; windows and views are made of them too.
        evaluation: data whose rows the student must not learn from.

    Returns:
        The N rows as they are, the unlabelled ones, and what was made of both. `row_origin`, int64, is the index of the
        row that it was made of: of equal rows the first one's, of unlabelled rows N and more. `row_kind` says what it
        is, one of `KINDS`. Windows and unlabelled rows have no label; views keep their row's.

    Raises:
        ValueError: if the columns cannot be cut or altered so, or a kind of view is unknown.
    """
    form = transform_of(dataset)
    columns, own_rows = list(transfer.columns), len(dataset)
    rows = _marked(dataset.with_format(None), ROW)
    kinds = _check(rows, transfer)
    unlabelled = None if unlabelled is None else _as_unlabelled(unlabelled, rows, transfer)
    if unlabelled:
        rows = concatenate_datasets([rows, _marked(unlabelled, UNLABELLED)])
    keys, known = all_keys(rows.select_columns(columns)), _keys_of(evaluation, columns, rows)
    origins, seen = _first_of_equals(keys), np.isin(keys, known)
    rows = with_columns(rows, Dataset.from_dict({ORIGIN_COLUMN: origins}))
    if seen[:own_rows].any():
        logger.warning(
            f"{seen[:own_rows].sum():,} of {own_rows:,} training rows are evaluation rows too: the student's figures"
            " are too good"
        )
    if transfer.windows > 1 or transfer.views:
        sources = np.flatnonzero(~seen & (origins == np.arange(len(rows))))
        made = made_of(rows.select(sources), transfer, kinds)
        rows = concatenate_datasets([rows, made])
        keys = np.concatenate([keys, all_keys(made.select_columns(columns))])
    rows = _without_known(rows, keys, known)
    found = Origins.taken_from(rows)[1]
    assert found is not None
    if isinstance(transfer.processing_class, PreTrainedTokenizerBase):
        tell_of_unknown_tokens(rows, found, columns, transfer.processing_class)
    logger.info(f"transfer: {len(rows):,} rows to learn from ({found})")
    return rows if form is None else rows.with_transform(form)


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
        {KIND_COLUMN: np.full(len(dataset), kind)}, features=Features({KIND_COLUMN: KIND_FEATURE})
    )
    return with_columns(dataset, column)


def _as_unlabelled(unlabelled: Dataset, dataset: Dataset, transfer: Transfer) -> Dataset:
    """Return the rows that hold something, with the input columns alone, as the training rows have them."""
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
            values = column_values(rows, name)
            filled &= np.array([value is not None and bool(str(value).strip()) for value in values], dtype=bool)
        else:
            filled &= ~np.asarray(column_values(rows.with_format("arrow"), name).is_null(), dtype=bool)
    if not filled.all():
        logger.warning(f"{(~filled).sum():,} of {len(rows):,} unlabelled rows are empty, and left out")
        rows = rows.select(np.flatnonzero(filled))
    return rows.cast(Features({name: dataset.features[name] for name in transfer.columns}))


def _first_of_equals(keys: NDArray[np.void]) -> NDArray[np.int64]:
    """Return for each row the first that holds the same, (n,)."""
    _, first, same = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[same], dtype=np.int64)


def _keys_of(evaluation: Iterable[Dataset], columns: list[str], like: Dataset) -> NDArray[np.void]:
    """Hash the rows of the evaluation data as those of `like` are hashed."""
    features = Features({name: like.features[name] for name in columns})
    keys = [all_keys(rows.with_format(None).select_columns(columns).cast(features)) for rows in evaluation]
    return np.concatenate([np.empty(0, dtype="V16"), *keys])


def without_rows_of(unlabelled: Dataset, held_back: Dataset, columns: Sequence[str]) -> Dataset:
    """Leave out unlabelled rows that equal one that is held back, and must not be learned from.

    Args:
        unlabelled: raw; without these columns it comes back as it is, and is refused later.
        held_back: raw, with the columns.
        columns: that the student reads.
    """
    if not {*columns} <= {*unlabelled.column_names}:
        return unlabelled
    equal = np.isin(_keys_of([unlabelled], list(columns), held_back), all_keys(held_back.select_columns(list(columns))))
    if not equal.any():
        return unlabelled
    logger.warning(f"{equal.sum():,} unlabelled rows are left out: they equal rows that are held back")
    return unlabelled.select(np.flatnonzero(~equal))


def _without_known(rows: Dataset, keys: NDArray[np.void], known: NDArray[np.void]) -> Dataset:
    """Leave out rows that the evaluation data holds, or that were there before.

    The others have no row of a file any more, so that no error names a wrong one.

    Args:
        rows: with their kinds and origins. The data's own come first, and stay.
        keys: of them, (n,).
        known: keys of the evaluation data.
    """
    found = Origins.taken_from(rows)[1]
    assert found is not None
    added = ~found.own
    seen = added & np.isin(keys, known)
    again = added & ~seen & (_first_of_equals(keys) != np.arange(len(rows)))
    left_out = seen | again
    if not left_out.any():
        return rows
    reasons = {"in the evaluation data": seen.sum(), "there already": again.sum()}
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    logger.warning(f"transfer: left out {Origins(found.origins[left_out], found.kinds[left_out])}: {told}")
    kept = rows.select(np.flatnonzero(added & ~left_out))
    own = rows.select(range(int(found.own.sum())))
    return concatenate_datasets([own, kept.flatten_indices()]) if len(kept) else own
