"""A dataset of every kind of benchmarks/bad_data.py: a correct run, or an error of our own before any training."""

import pytest
import tiny
from datasets import Dataset

from benchmarks import bad_data


@pytest.mark.parametrize(
    ("group", "kind"), [(group, kind) for group, kinds in bad_data.KINDS.items() for kind in kinds]
)
def test_correct_or_refused(group: str, kind: str) -> None:
    # Hypothesis begins with the simplest example, which is seldom the worst.
    counts = bad_data.campaign(bad_data.KINDS[group][kind], 1 if kind == "imbalance" else 2)
    assert {outcome for _, outcome in counts} <= {bad_data.CORRECT, bad_data.REFUSED} and counts


def test_every_hard_text_at_once() -> None:
    texts = [*tiny.texts(bad_data.SURE), *bad_data.HARD_TEXTS]
    labels = [row % 2 for row in range(len(texts))]
    case = bad_data.Case("texts: hard", Dataset.from_dict({"text": texts, "label": labels}), labels)
    assert bad_data.outcome(case) == bad_data.CORRECT


def test_the_campaign_sees_what_is_wrong() -> None:
    # Good labels said to be bad, and others than the data has.
    data = bad_data.runs.data(32)
    with pytest.raises(AssertionError, match="bad data was taken"):
        bad_data.outcome(bad_data.Case("labels", data))
    with pytest.raises(AssertionError, match="other labels"):
        bad_data.outcome(bad_data.Case("labels", data, [1 - label for label in data["label"]]))
    with pytest.raises(AssertionError, match="AttributeError"):
        bad_data.outcome(bad_data.Case("labels", data, arguments={"model": object()}))
