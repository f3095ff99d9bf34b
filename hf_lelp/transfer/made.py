"""Makes windows and views of rows, in rows of their own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from PIL.Image import Image
from transformers import PreTrainedTokenizerBase

from hf_lelp.data.columns import KIND_COLUMN
from hf_lelp.data.encoding import Processor
from hf_lelp.data.rows import column_values, with_columns
from hf_lelp.transfer.origins import KINDS, VIEW, WINDOW
from hf_lelp.transfer.views import can_be_altered, views_of_image, views_of_text
from hf_lelp.transfer.windows import windows_of

ROWS_AT_ONCE = 256  # images in memory, which are mixed with each other
PLACE_COLUMN = "row_made_of"
KIND_FEATURE = ClassLabel(names=list(KINDS))


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


def made_of(rows: Dataset, transfer: Transfer, kinds: Sequence[str]) -> Dataset:
    """Make the windows and views of all rows.

    Only the input columns are read: images and sounds of other columns stay as they are stored.

    Args:
        rows: raw, with `row_kind`.
        transfer: what to make.
        kinds: of views, in turn.

    Returns:
        The windows and views alone, with the columns of `rows`; windows have no label.
    """
    if not len(rows):
        return rows
    inputs = rows.select_columns(list(transfer.columns))
    features = Features({**inputs.features, KIND_COLUMN: KIND_FEATURE, PLACE_COLUMN: Value("int64")})
    made = with_columns(inputs, Dataset.from_dict({PLACE_COLUMN: np.arange(len(rows))})).map(
        _made,
        batched=True,
        batch_size=ROWS_AT_ONCE,
        fn_kwargs={"transfer": transfer, "kinds": kinds},
        features=features,
        desc="Making windows and views",
    )
    if not len(made):
        return rows.select([])
    places, is_window = column_values(made, PLACE_COLUMN), np.asarray(column_values(made, KIND_COLUMN)) == WINDOW
    others = rows.select(places).remove_columns([*transfer.columns, KIND_COLUMN])
    for name in {transfer.label_column, "label", "labels"} & {*others.column_names}:
        labels = zip(column_values(others, name), is_window, strict=True)
        column = {name: [None if blank else label for label, blank in labels]}
        others = with_columns(others, Dataset.from_dict(column, features=Features({name: others.features[name]})))
    return with_columns(others, made.remove_columns(PLACE_COLUMN)).select_columns(rows.column_names)


def _made(batch: Mapping[str, list[Any]], transfer: Transfer, kinds: Sequence[str]) -> dict[str, list[Any]]:
    """Put the windows and views of a batch's rows in their place; for `Dataset.map`."""
    made: dict[str, list[Any]] = {name: [] for name in (*transfer.columns, KIND_COLUMN, PLACE_COLUMN)}

    def add(place: int, kind: int, inputs: Mapping[str, Any]) -> None:
        for name, value in {**inputs, KIND_COLUMN: kind, PLACE_COLUMN: batch[PLACE_COLUMN][place]}.items():
            made[name].append(value)

    first = batch[transfer.columns[0]]
    windows: list[list[str]] = [[]] * len(first)
    if transfer.windows > 1:
        assert isinstance(transfer.processing_class, PreTrainedTokenizerBase) and transfer.max_length is not None
        texts = [text or "" for text in first]
        windows = windows_of(texts, transfer.processing_class, transfer.max_length, transfer.windows)
    for place in range(len(first)):
        for window in windows[place]:
            add(place, WINDOW, {transfer.columns[0]: window})
        for view in _views(batch, place, transfer, kinds):
            add(place, VIEW, view)
    return made


def _views(
    batch: Mapping[str, list[Any]], place: int, transfer: Transfer, kinds: Sequence[str]
) -> Iterable[dict[str, Any]]:
    """Return altered copies of a row's input columns; none of a row that no model can take, which is refused later."""
    row = {name: batch[name][place] for name in transfer.columns}
    (first, *_), column = row.values(), batch[transfer.columns[0]]
    if not transfer.views or not all(isinstance(value, str | Image) for value in row.values()):
        return []
    if isinstance(first, Image):
        if not can_be_altered(first):
            return []
        others = [other for other in (*column[:place], *column[place + 1 :]) if can_be_altered(other)]
        return [
            {transfer.columns[0]: view} for view in views_of_image(first, others, kinds, transfer.views, transfer.seed)
        ]
    views = [
        views_of_text(text, kinds, transfer.views, transfer.seed, transfer.mask_token) or [text]
        for text in row.values()
    ]
    # Of two texts the one with fewer views, as a single word has none, stands beside several of the other's.
    count = max(map(len, views))
    copies = [{name: of[turn % len(of)] for name, of in zip(row, views, strict=True)} for turn in range(count)]
    return [copy for copy in copies if copy != row]
