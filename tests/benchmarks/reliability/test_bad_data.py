"""A dataset of every kind of reliability/bad_data.py: a correct run, or an error of our own before any training."""

import pytest
import runs
import tiny
from datasets import Dataset

from benchmarks.reliability.bad_data import KINDS, campaign
from benchmarks.reliability.bad_data_case import CORRECT, REFUSED, SURE, Case, outcome
from benchmarks.reliability.bad_data_inputs import HARD_TEXTS


@pytest.mark.parametrize(("group", "kind"), [(group, kind) for group, kinds in KINDS.items() for kind in kinds])
def test_correct_or_refused(group: str, kind: str) -> None:
    # Hypothesis begins with the simplest example, which is seldom the worst.
    counts = campaign(KINDS[group][kind], 1 if kind == "imbalance" else 2)
    assert {found for _, found in counts} <= {CORRECT, REFUSED} and counts


def test_every_hard_text_at_once() -> None:
    texts = [*tiny.texts(SURE), *HARD_TEXTS]
    labels = [row % 2 for row in range(len(texts))]
    case = Case("texts: hard", Dataset.from_dict({"text": texts, "label": labels}), labels)
    assert outcome(case) == CORRECT


def test_the_campaign_sees_what_is_wrong() -> None:
    # Good labels said to be bad, and others than the data has.
    data = runs.data(32)
    with pytest.raises(AssertionError, match="bad data was taken"):
        outcome(Case("labels", data))
    with pytest.raises(AssertionError, match="other labels"):
        outcome(Case("labels", data, [1 - label for label in data["label"]]))
    with pytest.raises(AssertionError, match="AttributeError"):
        outcome(Case("labels", data, data["label"], arguments={"callbacks": [object()]}))
