"""What is computed of subclasses and slices, on rows of which the answer is known."""

import json
import math
from dataclasses import replace

import explored
import numpy as np
import pytest
from scipy.stats import binomtest

from hf_lelp.explore.page import MOST_BYTES, notes_of, page_of
from hf_lelp.explore.probe import probe
from hf_lelp.explore.report import report_of
from hf_lelp.explore.slices import confident_errors, find_slices, furthest_apart, interval
from hf_lelp.explore.subclasses import Words, effective_number, shares, typical_rows


def test_shares_and_the_effective_number() -> None:
    assert shares(np.array([0, 0, 1, 3]), 4).tolist() == [0.5, 0.25, 0, 0.25]
    assert effective_number(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_number(np.array([1.0, 0, 0])) == 1
    assert effective_number(shares(np.array([], dtype=int), 3)) == 0


def test_typical_rows_are_the_likeliest() -> None:
    scores = np.array([[0.0, 5.0], [0.0, 1.0], [4.0, 5.0], [0.0, 3.0]])
    assert typical_rows(scores, 1, np.array([0, 1, 2, 3]), 3) == [0, 3, 1]


def test_words_by_the_formula_of_the_paper() -> None:
    texts = ["red red apple"] * 6 + ["green apple"] * 4 + ["red pear"] * 3
    rows, others = np.arange(6), np.arange(6, 13)
    found = dict(Words(texts).setting_apart(rows, others, 5, least=-99))
    # Counted by rows: red 6 against 3, apple 6 against 4; all words 12 against 14, and 26 as the prior.
    prior = {"red": 9 * 12 / 26, "apple": 10 * 12 / 26}
    for word, (ours, theirs) in {"red": (6, 3), "apple": (6, 4)}.items():
        a = prior[word]
        ratio = math.log((ours + a) / (12 + 12 - ours - a)) - math.log((theirs + a) / (14 + 12 - theirs - a))
        assert found[word] == pytest.approx(ratio / math.sqrt(1 / (ours + a) + 1 / (theirs + a)))
    assert "pear" not in [word for word, _ in Words(texts).setting_apart(rows, others, 5)]
    assert Words(["a b", "?"]).setting_apart(np.array([0]), np.array([1]), 5) == []


def test_a_probe_tells_an_embedding_that_knows_from_one_that_does_not() -> None:
    generator = np.random.default_rng(0)
    scores, classes = generator.normal(size=(600, 3)), np.arange(600) % 2
    knows = scores @ generator.normal(size=(3, 5)) + 0.01 * generator.normal(size=(600, 5))
    fits = np.arange(600) < 300
    assert probe(knows, scores, classes, fits, 2)["r2"] > 0.99
    nothing = probe(generator.normal(size=(600, 5)), scores, classes, fits, 2)
    assert nothing["r2"] < 0.05 and nothing["rows"] == 300
    assert probe(knows, scores[:, :1], classes, fits, 2)["r2"] is None  # one subclass
    assert probe(knows[:30], scores[:30], classes[:30], fits[:30], 2)["classes"] == [None, None]


def test_wilson_s_interval() -> None:
    for right, rows, error in ((15, 50, 0.05), (0, 7, 0.001), (9, 9, 0.05)):
        known = binomtest(right, rows).proportion_ci(1 - error, method="wilson")
        assert interval(right, rows, error) == pytest.approx((known.low, known.high), abs=1e-12)
    assert interval(0, 0) == (0, 1)


def test_by_chance_a_slice_is_seldom_named_and_a_true_one_stays() -> None:
    generator = np.random.default_rng(1)
    slice_of, classes = np.arange(4000) % 10, np.zeros(4000, dtype=int)
    named = 0
    for _ in range(20):
        right = {"teacher": generator.random(4000) < 0.8}
        chooses = generator.random(4000) < 0.5
        found = find_slices(slice_of, classes, right, chooses)
        named += any(one["models"]["teacher"]["worse"] for one in found)
    assert named <= 4  # 5 in 100 are expected
    right = {"teacher": np.full(4000, True), "kd": generator.random(4000) < np.where(slice_of == 3, 0.5, 0.9)}
    first, *others = find_slices(slice_of, classes, right, chooses)
    assert (
        first["slice"] == 3
        and first["lost"] == pytest.approx(200, abs=40) == first["rows"] - right["kd"][slice_of == 3].sum()
    )
    assert first["models"]["kd"]["worse"] and first["models"]["kd"]["stays"]
    assert not any(one["models"]["kd"]["worse"] for one in others)


def test_a_slice_of_the_choosing_rows_alone_is_not_confirmed() -> None:
    chooses = np.arange(400) < 200
    slice_of = np.arange(400) % 2
    right = {"teacher": ~(chooses & (slice_of == 1) & (np.arange(400) % 4 > 1))}
    (first, _) = find_slices(slice_of, np.zeros(400, dtype=int), right, chooses)
    measured = first["models"]["teacher"]
    assert measured["worse"] and measured["stays"] is False and measured["checked_accuracy"] == 1


def test_rows_worth_a_look() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.99, 0.01]])
    labels = np.array([1, 1, 1, -100])
    assert confident_errors(probabilities, labels, labels != -100, 5) == [0, 2]
    others = np.array([[0.4, 0.6], [0.9, 0.1], [0.7, 0.3], [1.0, 0.0]])
    assert furthest_apart(probabilities, others, 5) == [1, 0]


class TestReport:
    def test_it_finds_what_is_there(self) -> None:
        report = report_of(explored.rows())
        (first, *_) = report["slices"]
        assert (first["class"], first["slice"]) == (0, 1)
        assert first["models"]["lelp"]["worse"] and first["models"]["lelp"]["stays"]
        assert report["look"]["errors"] == [0] and report["look"]["apart"]["kd"][0] == 0
        told = {name: one["probe"]["r2"] for name, one in report["summary"]["students"].items()}
        assert told["lelp"] > told["kd"] + 0.5
        assert report["subclasses"][2]["words"][0][0] == explored.WORDS[2]
        assert report["summary"]["classes"][0]["effective_subclasses"] == pytest.approx(4)
        assert report["summary"]["classes"][0]["variance_held"] == pytest.approx(0.5)
        assert len(report["group_slices"]) == 4
        json.dumps(report, allow_nan=False)

    def test_many_rows_are_sampled_and_the_page_stays_small(self) -> None:
        few = explored.rows(400)
        many = np.arange(100_000) % 400
        students = {name: replace(one, logits=one.logits[many], embedding=None) for name, one in few.students.items()}
        arrays = {name: getattr(few, name)[many] for name in ("labels", "teacher", "directions", "scores")}
        texts = [f"語 {'longtext' * 40} {row}" for row in range(len(many))]
        report = report_of(replace(few, **arrays, students=students, texts=texts, groups=None))
        page = page_of(report, title="Many", json_name="explore.json")
        assert len(page.encode()) < MOST_BYTES
        assert "6,000 are drawn at random" in page and [panel["of"] for panel in report["map"]] == [50_000] * 2
        smaller = page_of(report, title="Many", json_name="explore.json", most=500_000)
        assert len(smaller.encode()) < 500_000

    def test_a_hostile_text_is_only_shown(self) -> None:
        hostile = explored.HOSTILE
        texts = [hostile] * 400
        names = {"kd " + hostile: explored.rows().students["kd"]}
        report = report_of(
            explored.rows(texts=texts, classes=[hostile, "b"], groups=[hostile, "x"] * 200, students=names)
        )
        page = page_of(report, title=hostile, json_name="explore.json")
        assert page.count("<script") == 2 and page.count("</script>") == 2 and "<img" not in page and "<b>" not in page
        start = page.index('id="data">') + len('id="data">')
        data = json.loads(page[start : page.index("</script>", start)])
        assert data["rows"]["0"]["text"] == hostile and data["classes"][0] == hostile


class TestWhatIsMissing:
    def test_without_students(self) -> None:
        report = report_of(explored.rows(students=False))
        assert "the page compares teacher and labels" in " ".join(notes_of(report))
        assert report["models"] == ["teacher"] and abs(sum(one["lost"] for one in report["slices"])) <= 1
        assert "Teacher and" not in page_of(report, title="t", json_name="j")

    def test_without_labels_it_is_agreement_alone(self) -> None:
        report = report_of(explored.rows(labels=np.full(400, -100)))
        assert report["against"] == "teacher" and report["look"]["errors"] == [] and report["summary"]["accuracy"] == {}
        assert "Agreement with the teacher, as there are no labels" in page_of(report, title="t", json_name="j")

    def test_with_one_subclass_no_text_and_no_group(self) -> None:
        rows = explored.rows(subclasses=1, texts=None, groups=None)
        report = report_of(replace(rows, directions=rows.directions[:, :1]))
        assert "Each class has one subclass (num_subclasses=1)" in " ".join(notes_of(report))
        assert "The rows have no text" in " ".join(notes_of(report))
        assert {row["y"][0] for row in report["map"]} == {0.0}
        page_of(report, title="t", json_name="j")

    def test_with_a_thousand_subclasses(self) -> None:
        report = report_of(explored.rows(2000, subclasses=500))
        assert len(report["subclasses"]) == 1000
        page = page_of(report, title="t", json_name="j")
        assert len(page.encode()) < MOST_BYTES and "<details" in page and " open>" not in page

    def test_with_projections_of_an_earlier_version(self) -> None:
        rows = explored.rows(projections=replace(explored.projections(), total_variance=None))
        report = report_of(rows)
        assert "An earlier version fitted the projections" in " ".join(notes_of(report))
