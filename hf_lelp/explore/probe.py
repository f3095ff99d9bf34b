"""Measures how much of the pseudo-subclasses a student's embedding tells: a linear probe, on rows held out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PENALTIES = 10.0 ** np.arange(-2, 5)  # ridge; the best is chosen by leaving one row out
MOST_ROWS = 5000  # of a class that a probe is fitted on
LEAST_ROWS = 20  # of a class on either side


def probe(
    embedding: NDArray[np.floating],
    scores: NDArray[np.floating],
    classes: NDArray[np.integer],
    fits: NDArray[np.bool_],
    num_classes: int,
) -> dict[str, Any]:
    """Predict the teacher's subclass scores from a student's embedding, by ridge regression in each class.

    Students that never saw a subclass have an embedding too. So plain distillation, and training on labels alone, are
    compared with LELP.

    Args:
        embedding: of the student, (N, E).
        scores: of each row's own class, (N, S).
        classes: class of each row, (N,).
        fits: rows that the probe is fitted on, (N,); it is measured on the others.
        num_classes: C.

    Returns:
        `r2`, the share of the scores' variance within the class that the probe explains on rows held out, `accuracy`,
        how often it names the subclass there, `commonest`, how often the class's commonest subclass is right, and
        `rows`, the rows held out: all four over all classes and, in `classes`, of each. `None` where a class has too
        few rows, or one subclass.
    """
    of_classes: list[dict[str, float] | None] = []
    for index in range(num_classes):
        ours = classes == index
        fitted, held_out = np.flatnonzero(ours & fits)[:MOST_ROWS], np.flatnonzero(ours & ~fits)
        enough = min(len(fitted), len(held_out)) >= LEAST_ROWS and scores.shape[1] > 1
        of_classes.append(_of_class(embedding, scores, fitted, held_out) if enough else None)
    measured = [found for found in of_classes if found is not None]
    if not measured:
        return {"r2": None, "accuracy": None, "commonest": None, "rows": 0, "classes": of_classes}
    weights = np.array([found["rows"] for found in measured])
    mean = {
        name: float(np.average([found[name] for found in measured], weights=weights))
        for name in ("r2", "accuracy", "commonest")
    }
    return {**mean, "rows": int(weights.sum()), "classes": of_classes}


def _of_class(
    embedding: NDArray[np.floating],
    scores: NDArray[np.floating],
    fitted: NDArray[np.integer],
    held_out: NDArray[np.integer],
) -> dict[str, float]:
    from sklearn.linear_model import RidgeCV  # slow to import

    mean, deviation = embedding[fitted].mean(0), embedding[fitted].std(0)
    inputs = (embedding - mean) / np.where(deviation > 0, deviation, 1.0)
    model = RidgeCV(PENALTIES).fit(inputs[fitted], scores[fitted])
    predicted, true = model.predict(inputs[held_out]).reshape(len(held_out), -1), scores[held_out]
    explained = 1 - np.square(true - predicted).sum() / np.square(true - scores[fitted].mean(0)).sum()
    subclasses = true.argmax(-1)
    commonest = np.bincount(scores[fitted].argmax(-1)).argmax()
    return {
        "r2": float(explained),
        "accuracy": float((predicted.argmax(-1) == subclasses).mean()),
        "commonest": float((subclasses == commonest).mean()),
        "rows": len(held_out),
    }
