"""Chooses, for two classes, the probability from which a student answers the second one, for a stated aim.

The threshold is kept in the student's config.json as `decision_threshold`, with its aim beside it. `decide` applies it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_lelp.data.labels import NO_LABEL

THRESHOLD_NAME, AIM_NAME = "decision_threshold", "decision_threshold_aim"  # in config.json


@dataclass(frozen=True)
class Aim:
    """What a threshold is chosen for.

    Attributes:
        kind: "f1"; "recall" or "precision", at least `value` of it and the most of the other; or "costs".
        value: of the recall or precision; of costs, that of a missed second class in those of a false alarm.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Aim":
        """Read "f1", "recall=0.9", "precision=0.9" or "costs=1:5", a false alarm against a miss.

        Raises:
            ValueError: if it is none of these.
        """
        kind, _, given = text.partition("=")
        try:
            if kind == "f1" and not given:
                return cls(kind)
            if kind in ("recall", "precision") and 0 < float(given) <= 1:
                return cls(kind, float(given))
            if kind == "costs":
                alarm, miss = map(float, given.split(":"))
                if 0 < alarm < math.inf and 0 < miss < math.inf:
                    return cls(kind, miss / alarm)
        except ValueError:
            pass
        raise ValueError(
            f"threshold={text}: f1, recall=R, precision=P (between 0 and 1) or costs=ALARM:MISS are possible."
        )


def check_both_classes(labels: NDArray[np.integer]) -> None:
    """Refuse rows of one class, between which no threshold can choose.

    Args:
        labels: of rows held back, (N,), −100 for none.

    Raises:
        ValueError: if one of the two classes has no row.
    """
    second = labels[labels != NO_LABEL] == 1
    if second.all() or not second.any():
        raise ValueError(
            f"Of {len(second)} labelled rows held back, {second.sum()} are of the second class: a threshold needs both"
            " classes. Hold back a larger share."
        )


def counts(probability: NDArray[np.floating], labels: NDArray[np.integer], threshold: float) -> dict[str, float]:
    """Count what a threshold does: `precision`, `recall`, `f1` of the second class and `accuracy`; 0 where undefined.

    Args:
        probability: of the second class, (N,).
        labels: (N,), 0 or 1; −100 is left out.
        threshold: the second class is answered from this probability on.
    """
    labelled = labels != NO_LABEL
    said, true = probability[labelled] >= threshold, labels[labelled] == 1
    hits = int((said & true).sum())
    precision, recall = hits / max(int(said.sum()), 1), hits / max(int(true.sum()), 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "accuracy": float((said == true).mean())}


def best_threshold(probability: NDArray[np.floating], labels: NDArray[np.integer], aim: Aim) -> float:
    """Return the threshold that serves an aim best, halfway between two neighbouring probabilities.

    Args:
        probability: of the second class, (N,).
        labels: (N,), 0 or 1, of rows that the student did not train on; −100 is left out.
        aim: see `Aim`.

    Raises:
        ValueError: if one of the classes has no row, or no threshold reaches the aim.
    """
    check_both_classes(labels)
    labelled = labels != NO_LABEL
    probability, true = probability[labelled].astype(np.float64), labels[labelled] == 1
    order = np.argsort(-probability, kind="stable")
    ranked, hits = probability[order], np.cumsum(true[order])
    # After each run of equal probabilities: so many rows are answered with the second class.
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    said, hits = ends + 1, hits[ends]
    precision, recall, misses = hits / said, hits / true.sum(), true.sum() - hits
    score = {
        "f1": 2 * hits / (said + true.sum()),
        "recall": np.where(recall >= aim.value, precision, -1),
        "precision": np.where(precision >= aim.value, recall, -1),
        "costs": -((said - hits) + aim.value * misses),
    }[aim.kind]
    best = int(score.argmax())
    if aim.kind in ("recall", "precision") and score[best] < 0:
        raise ValueError(
            f"No threshold has a {aim.kind} of {aim.value} on the {len(true)} rows held back; the most is"
            f" {(precision if aim.kind == 'precision' else recall).max():.3f}. Lower it."
        )
    below = ranked[ends[best] + 1] if ends[best] + 1 < len(ranked) else 0.0
    return float((ranked[ends[best]] + below) / 2)


def at_temperature(threshold: float, temperature: float) -> float:
    """Return the threshold that gives the same answers after the logits were divided by a temperature."""
    return float(expit(_log_odds(threshold) / temperature))


def _log_odds(threshold: float) -> float:
    """Return by how much the second class's logit is above the first's at a threshold; finite at 0 and 1 too."""
    clipped = min(max(threshold, 1e-12), 1 - 1e-12)
    return math.log(clipped / (1 - clipped))


def deciding_logits(logits: NDArray[np.floating], config: Any) -> NDArray[np.floating]:
    """Return logits of which the largest is what `decide` answers: the second class's are shifted by the threshold's.

    Args:
        logits: (N, C), in the student's order of classes.
        config: of the student.
    """
    threshold = getattr(config, THRESHOLD_NAME, None)
    if threshold is None:
        return logits
    return logits - np.array([0.0, _log_odds(threshold)])


def decide(logits: NDArray[np.floating], config: Any) -> NDArray[np.int64]:
    """Return the class of each row: the likeliest, or by the threshold of the student's configuration if it has one.

    Args:
        logits: (N, C), in the student's order of classes.
        config: of the student.
    """
    return np.asarray(deciding_logits(logits, config).argmax(-1))
