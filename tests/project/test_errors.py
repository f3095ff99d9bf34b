"""docs/reference/errors.md is whole: every error has a row, and the words of every row are expected by a test.

To add an error, add a row whose first cell is a piece of its message in backticks, … for a value, and a test that
expects those words.
"""

import re

from messages import VALUE, asserted, raised, rows


def test_every_error_has_a_row() -> None:
    table = [said for said, _, _ in rows()]
    missing = {place: message for place, message in raised().items() if not any(said in message for said in table)}
    assert len(raised()) > 100
    assert missing == {}


def test_every_row_is_of_an_error_and_says_something() -> None:
    messages = raised().values()
    assert [said for said, _, _ in rows() if not any(said in message for message in messages)] == []
    assert all(why and do for _, why, do in rows())
    assert len({said for said, _, _ in rows()}) == len(rows())


def test_the_words_of_every_row_are_expected_by_a_test() -> None:
    expected = asserted()
    patterns = {said: re.compile(".*".join(map(re.escape, said.split(VALUE)))) for said, _, _ in rows()}
    assert [said for said, words in patterns.items() if not any(map(words.search, expected))] == []
