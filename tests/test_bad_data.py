"""A dataset of every kind of benchmarks/bad_data.py: a correct run, or an error of our own before any training."""

import pytest

from benchmarks import bad_data


@pytest.mark.parametrize(
    ("group", "kind"), [(group, kind) for group, kinds in bad_data.KINDS.items() for kind in kinds]
)
def test_correct_or_refused(group: str, kind: str) -> None:
    counts = bad_data.campaign(bad_data.KINDS[group][kind], 1)
    assert {outcome for _, outcome in counts} <= {bad_data.CORRECT, bad_data.REFUSED} and counts


def test_the_campaign_sees_what_is_wrong() -> None:
    # Good labels said to be bad, and others than the data has.
    data = bad_data.runs.data(32)
    with pytest.raises(AssertionError, match="bad data was taken"):
        bad_data.outcome(bad_data.Case("labels", data))
    with pytest.raises(AssertionError, match="other labels"):
        bad_data.outcome(bad_data.Case("labels", data, [1 - label for label in data["label"]]))
    with pytest.raises(AssertionError, match="AttributeError"):
        bad_data.outcome(bad_data.Case("labels", data, arguments={"model": object()}))
