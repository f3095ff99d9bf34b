"""Describes pseudo-subclasses: how many there are in effect, their most typical rows, and the words that tell."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

LEAST_ROWS = 3  # of those set apart with a word, for the word to count
MOST_WORDS = 20_000  # of the vocabulary, the commonest
TOKEN = r"(?u)\b\w[\w'’]*\w\b"  # two characters or more, with apostrophes inside


def shares(subclasses: NDArray[np.integer], num_subclasses: int) -> NDArray[np.float64]:
    """Return the share of each pseudo-subclass, (S,), among the rows of a class, (n,); 0 where there is no row."""
    counts = np.bincount(subclasses, minlength=num_subclasses)
    return counts / max(counts.sum(), 1)


def effective_number(of_class: NDArray[np.floating]) -> float:
    """Return exp(entropy) of shares, (S,): S where all are alike, 1 where one has all; 0 of no rows."""
    present = of_class[of_class > 0]
    return float(np.exp(-(present * np.log(present)).sum())) if len(present) else 0.0


def typical_rows(scores: NDArray[np.floating], subclass: int, rows: NDArray[np.integer], count: int) -> list[int]:
    """Return the rows of a subclass whose probability of it, softmax over its class's scores, is highest.

    Args:
        scores: (N, S), of all rows.
        subclass: s.
        rows: numbers of the rows of the subclass.
        count: at most so many.
    """
    probability = softmax(scores[rows], axis=-1)[:, subclass]
    return [int(row) for row in rows[np.argsort(-probability, kind="stable")[:count]]]


class Words:
    """Counts in which rows a word is, and finds those that set rows apart from others.

    The measure is the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin'
    Words", equations 15, 16, 19 and 22). The prior of a word is the number of all rows that it is in, scaled to as many
    words as the smaller side has; a word's z-score is its log-odds ratio over its standard deviation.

    Args:
        texts: of N rows.
    """

    def __init__(self, texts: list[str]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer  # slow to import

        counter = CountVectorizer(
            binary=True, min_df=min(LEAST_ROWS, len(texts)), max_features=MOST_WORDS, token_pattern=TOKEN
        )
        try:
            self._counts = counter.fit_transform(texts).tocsr()
            self._words = counter.get_feature_names_out()
        except ValueError:  # no word is in so many rows
            self._counts, self._words = None, np.array([])

    def setting_apart(
        self, rows: NDArray[np.integer], rest: NDArray[np.integer], count: int, least: float = 2.0
    ) -> list[tuple[str, float]]:
        """Return the words of the largest z-scores of some rows against others, with these scores.

        Args:
            rows: numbers of the rows.
            rest: numbers of the rows that they are set apart from.
            count: at most so many words.
            least: z-score that a word needs.
        """
        if self._counts is None or not len(rows) or not len(rest):
            return []
        ours, theirs, prior = (
            np.asarray(self._counts[chosen].sum(0)).ravel().astype(float) for chosen in (rows, rest, slice(None))
        )
        if not ours.sum() or not theirs.sum():
            return []
        prior *= min(ours.sum(), theirs.sum()) / prior.sum()
        ratio = np.zeros(len(prior))
        for counts, sign in ((ours, 1), (theirs, -1)):
            total = counts.sum() + prior.sum()
            others = np.maximum(total - counts - prior, np.finfo(float).tiny)  # 0 where there is one word
            ratio += sign * (np.log(counts + prior) - np.log(others))
        z = ratio / np.sqrt(1 / (ours + prior) + 1 / (theirs + prior))
        z[ours < LEAST_ROWS] = -np.inf  # with so small a prior, one row would do
        best = np.argsort(-z, kind="stable")[:count]
        return [(str(self._words[word]), float(z[word])) for word in best if z[word] >= least]
