"""Says where training rows come from, and splits them accordingly."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_lelp.data.columns import KIND_COLUMN, LOGITS_COLUMN, ORIGIN_COLUMN
from hf_lelp.data.rows import column_values

logger = logging.getLogger(__name__)

ROW, WINDOW, VIEW, UNLABELLED = range(4)
KINDS = ("row", "window", "view", "unlabelled")
FAR = 0.2  # below the mean confidence in the data's own rows
MORE_UNKNOWN = 0.1  # above the share of unknown tokens in the data's own rows
LOOKED_AT = 1000  # rows of each kind: they show a share well enough


@dataclass(frozen=True)
class Origins:
    """Where each of N rows comes from.

    Attributes:
        origins: index of the row that it was made of, (N,).
        kinds: what it is, indices of `KINDS`, (N,).
    """

    origins: NDArray[np.int64]
    kinds: NDArray[np.int64]

    @classmethod
    def taken_from(cls, dataset: Dataset) -> "tuple[Dataset, Origins | None]":
        """Return a dataset without its two columns of origins, and what they say; `None` where it has none."""
        names = [ORIGIN_COLUMN, KIND_COLUMN]
        kinds = getattr(dataset.features.get(KIND_COLUMN), "names", None)
        if ORIGIN_COLUMN not in dataset.column_names or kinds != [*KINDS]:  # the user's own may be called so too
            return dataset, None
        values = dataset.with_format(None).select_columns(names).with_format("numpy")[:]
        return dataset.remove_columns(names), cls(values[ORIGIN_COLUMN], values[KIND_COLUMN])

    @property
    def own(self) -> NDArray[np.bool_]:
        """Whether each row is one of the data itself, (N,)."""
        return self.kinds == ROW

    def count(self) -> dict[str, int]:
        """Return how many rows there are of each kind that occurs."""
        found = np.bincount(self.kinds, minlength=len(KINDS))
        return {name: int(count) for name, count in zip(KINDS, found, strict=True) if count}

    def __str__(self) -> str:
        """Write down the counts."""
        return counted(self.count())

    def split(self, rows: int, seed: int, part: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hold back rows for validation together with all that was made of them.

        Args:
            rows: of the data itself to hold back, about: equal rows go together.
            seed: of the choice.
            part: of several choices with a seed: no two hold back the same row, unless an equal one.

        Returns:
            Indices of the rows to train on, and of those held back: rows of the data itself alone. What was made of
            the latter is in neither.
        """
        own = np.flatnonzero(self.own)
        order = np.random.default_rng(seed).permutation(len(own))
        held_back = np.isin(self.origins, self.origins[own[order[part * rows : (part + 1) * rows]]])
        return np.flatnonzero(~held_back), np.flatnonzero(held_back & self.own)

    def sample(self, rows: int, seed: int) -> NDArray[np.int64]:
        """Draw rows of the data itself with all that was made of them; return these and all unlabelled ones' indices.

        Args:
            rows: of the data itself to draw.
            seed: of the choice.
        """
        own = np.flatnonzero(self.own)
        drawn = own[np.random.default_rng(seed).permutation(len(own))[len(own) - rows :]]
        made_of_own = np.isin(self.origins, self.origins[own])
        kept = ~made_of_own | np.isin(self.origins, self.origins[drawn])
        kept[np.setdiff1d(own, drawn)] = False
        return np.flatnonzero(kept)

    def confidence(self, logits: NDArray[np.floating]) -> dict[str, float]:
        """Return the teacher's mean confidence, its highest probability, on each kind of row that occurs.

        Args:
            logits: of the teacher, (N, C).
        """
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        highest = 1 / shifted.sum(-1)
        return {name: float(highest[self.kinds == KINDS.index(name)].mean()) for name in self.count()}


def counted(rows: Mapping[str, int]) -> str:
    """Write down how many rows there are of each kind."""
    return ", ".join(f"{n:,} {kind}{'' if n == 1 or kind == KINDS[UNLABELLED] else 's'}" for kind, n in rows.items())


def tell_of_confidence(dataset: Dataset, origins: Origins) -> None:
    """Say how sure the teacher is of each kind of row; warn where it is far less sure than of the data's own rows.

    Args:
        dataset: with the teacher's logits.
        origins: of its rows.
    """
    sure = origins.confidence(np.asarray(column_values(dataset.with_format("numpy"), LOGITS_COLUMN)))
    figures = ", ".join(f"{name} {value:.2f}" for name, value in sure.items())
    logger.info(f"transfer: the teacher's mean confidence by kind of row: {figures}")
    strange = [name for name, value in sure.items() if value < sure[KINDS[ROW]] - FAR]
    if strange:
        logger.warning(
            f"The teacher is far less sure of {' and '.join(strange)} than of the data's own rows ({figures}). If they"
            " are about something else, the student learns guesses from them."
        )


def tell_of_unknown_tokens(
    dataset: Dataset, origins: Origins, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Warn where the student's tokenizer knows far fewer tokens of the unlabelled rows than of the data's own.

    Args:
        dataset: with the texts.
        origins: of its rows.
        columns: of texts.
        tokenizer: of the student.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return
    shares = {}
    for kind in (ROW, UNLABELLED):
        rows = np.flatnonzero(origins.kinds == kind)[:LOOKED_AT]
        texts = [value for name in columns for value in column_values(dataset.select(rows), name)]
        if not texts or not all(isinstance(text, str) for text in texts):
            return
        # verbose=False: nothing is cut here, and it would warn of texts longer than the student reads.
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        tokens = [token for ids in encoded for token in ids]
        shares[KINDS[kind]] = tokens.count(unknown) / max(len(tokens), 1)
    if shares[KINDS[UNLABELLED]] > shares[KINDS[ROW]] + MORE_UNKNOWN:
        logger.warning(
            f"{shares[KINDS[UNLABELLED]]:.0%} of the tokens of the unlabelled rows are unknown to the student, and"
            f" {shares[KINDS[ROW]]:.0%} of those of the data's own rows. They may be in another language or alphabet."
        )
