"""A line a stage: while it runs where there is no terminal, and one in the end."""

import pytest

from hf_lelp.storage import progress
from hf_lelp.storage.progress import duration, stage


class Clock:
    """A time that goes on by 20 seconds at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 20
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress, "time", Clock())


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("Running the teacher", 4000) as advance:
        for _ in range(4):
            advance(1000)
    assert capsys.readouterr().err.splitlines() == [
        "Running the teacher: 2,000 of 4,000 rows, 50 rows/s, 40 s left",
        "Running the teacher: 4,000 rows in 1:40 min (40 rows/s)",
    ]


def test_without_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("Fitting", None, unit="step") as advance:
        advance(50)
        advance(50)
    assert capsys.readouterr().err.splitlines() == [
        "Fitting: 100 steps, 2 steps/s",
        "Fitting: 100 steps in 1:00 min (2 steps/s)",
    ]


def test_nothing_where_it_is_not_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with stage("Running the teacher", 10, quiet=True) as advance:
        advance(10)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with stage("Running the teacher", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_a_stage_that_fails_leaves_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), stage("Running the teacher", 10) as advance:
        advance(4)
        raise KeyError
    assert capsys.readouterr().err == "Running the teacher: 4 rows in 40 s (0 rows/s)\n"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 61, 7500)] == ["0 s", "59 s", "1:01 min", "2:05:00 h"]
