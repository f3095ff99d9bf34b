from typing import Any

import numpy as np
import pytest

from hf_lelp.cli.groups import group_alignment, group_table
from hf_lelp.cli.results import results_table
from hf_lelp.compare.report import comparison_table
from hf_lelp.markdown import markdown_table


def test_markdown_table_aligns_columns() -> None:
    table = markdown_table(["", "accuracy"], [["teacher", "93.0"], ["kd", "9.1"]])
    assert table.splitlines() == [
        "|         | accuracy |",
        "|---------|---------:|",
        "| teacher |     93.0 |",
        "| kd      |      9.1 |",
    ]


def test_results_table_leaves_out_what_was_not_measured() -> None:
    results = {
        "teacher": {
            "accuracy": 0.9,
            "macro_f1": 0.8,
            "ece": 0.05,
            "parameters": 22_700_000,
            "examples_per_second": 1234.5,
        },
        "lelp": {"accuracy": 0.5, "parameters": 4_400_000, "examples_per_second": 10.0, "train_seconds": 61.4},
    }
    table = results_table(results, rows=100)
    teacher, lelp = table.splitlines()[2:4]
    assert [cell.strip() for cell in teacher.strip("|").split("|")] == [
        *("teacher", "90.0", "80.0", "5.0", "–", "22.7M", "1,234", "–")
    ]
    assert [cell.strip() for cell in lelp.strip("|").split("|")] == [
        "lelp",
        "50.0",
        "–",
        "–",
        "–",
        "4.4M",
        "10",
        "61 s",
    ]
    # The widest of the normal intervals: 1.96 · sqrt(.5 · .5 / 100).
    assert "±9.8 points" in table


def test_results_table_without_labels_claims_no_accuracy() -> None:
    assert "±" not in results_table({"lelp": {"parameters": 1, "examples_per_second": 1.0}}, rows=5)


def test_group_alignment_counts_and_scores() -> None:
    # Class 0: the subclass tells the group. Class 1: it does not.
    classes = np.repeat([0, 1], 400)
    groups = np.tile(["a", "b"], 400)
    subclasses = np.where(classes == 0, np.tile([2, 0], 400), np.tile([0, 0, 1, 1], 200))
    result = group_alignment(classes, subclasses, groups, ["no", "yes"], 3)
    assert result["groups"] == ["a", "b"]
    assert result["classes"]["no"]["counts"] == [[0, 200], [0, 0], [200, 0]]
    assert result["classes"]["yes"]["counts"] == [[100, 100], [100, 100], [0, 0]]
    assert result["classes"]["no"]["adjusted_mutual_information"] == pytest.approx(1)
    assert result["classes"]["yes"]["adjusted_mutual_information"] == pytest.approx(0, abs=0.01)

    lines = group_table(result).splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == ["no, 0", "200", "0%", "100%"]
    # A subclass without examples is shown, not divided by zero.
    assert [cell.strip() for cell in lines[4].strip("|").split("|")] == ["no, 1", "0", "0%", "0%"]


def compared(seeds: int = 3) -> dict[str, Any]:
    """What `compare.summarise` gives of three methods, the last one without a teacher's figures."""

    def figures(accuracy: float, std: float, **others: float) -> dict[str, Any]:
        values = {"accuracy": accuracy, "macro_f1": 0.5, "ece": 0.123, "teacher_agreement": 0.987, **others}
        result = {name: {"mean": value, "std": std if seeds > 1 else None} for name, value in values.items()}
        return {**result, "train_seconds": {"mean": 61.4, "std": 1.0}, "accuracies": [accuracy] * seeds}

    methods = {
        name: figures(*values) for name, values in {"direct": (0.7, 0.02), "kd": (0.75, 0), "lelp": (0.8, 0.01)}.items()
    }
    del methods["lelp"]["teacher_agreement"]
    worse = {"mean": -5.0, "over_seeds": (-6.0, -4.0), "over_examples": (-9.25, -0.5), "finding": "worse"}
    better = {"mean": 5.0, "over_seeds": (4.0, 6.0), "over_examples": (0.25, 9.5), "finding": "better"}
    for name, difference in (("direct", worse), ("lelp", better)):
        methods[name]["difference"] = difference if seeds > 1 else {**difference, "over_seeds": None, "finding": "none"}
    numbers = list(range(42, 42 + seeds))
    return {"reference": "kd", "seeds": numbers, "train_rows": 12345, "evaluation_rows": 2000, "methods": methods}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_comparison_table_shows_differences_and_marks_findings() -> None:
    table, note = comparison_table(compared()).split("\n\n")
    header, _, direct, kd, lelp = map(cells, table.splitlines())
    assert header == [
        *("", "accuracy", "± seeds", "− kd", "95% over seeds", "95% over examples"),
        *("macro-F1", "calibration error", "agrees with teacher", "training"),
    ]
    over = ["-6.00 to -4.00", "-9.25 to -0.50"]
    assert direct == ["direct", "70.00", "2.00", "-5.00 ▼", *over, "50.0", "12.3", "98.7", "61 s"]
    # The reference has no difference to itself; no spread at all is shown as such.
    assert kd == ["kd", "75.00", "0.00", "–", "–", "–", "50.0", "12.3", "98.7", "61 s"]
    over = ["+4.00 to +6.00", "+0.25 to +9.50"]
    assert lelp == ["lelp", "80.00", "1.00", "+5.00 ▲", *over, "50.0", "12.3", "–", "61 s"]
    assert note.startswith("12,345 training rows, 2,000 evaluation rows, 3 seeds. ▲ and ▼: the two intervals together")
    assert "One seed" not in note
    # Every line is as wide as the others.
    assert len({len(line) for line in table.splitlines()}) == 1


def test_comparison_table_of_one_seed_makes_no_finding() -> None:
    table, note = comparison_table(compared(seeds=1)).split("\n\n")
    direct = cells(table.splitlines()[2])
    assert direct[:6] == ["direct", "70.00", "–", "-5.00", "–", "-9.25 to -0.50"]
    assert "▲" not in table and "▼" not in table
    assert "1 seed. " in note and note.endswith("One seed shows no finding.")


def test_a_difference_that_is_no_finding_has_no_mark() -> None:
    summary = compared()
    summary["methods"]["lelp"]["difference"]["finding"] = "none"
    assert cells(comparison_table(summary).splitlines()[4])[3] == "+5.00"


def test_two_seeds_say_how_many_degrees_of_freedom() -> None:
    _, note = comparison_table({**compared(seeds=2), "degrees_of_freedom": 2}).split("\n\n")
    assert note.endswith("The intervals over seeds take one variance for all methods (2 degrees of freedom).")


def test_speeds_at_a_common_length_have_a_column_where_the_lengths_differ() -> None:
    figures = {"parameters": 1, "alike_length": 64, "examples_per_second_alike": 90.0}
    results = {
        "teacher": {**figures, "examples_per_second": 6.0, "max_length": 512},
        "lelp": {**figures, "examples_per_second": 900.0, "max_length": 64},
    }
    header, _, teacher, *_ = map(cells, results_table(results, 5).splitlines()[:4])
    assert (header[7], teacher[7]) == ("at 64 tokens", "90") and teacher[6] == "6"
    assert "cut at its own length in tokens: teacher 512, lelp 64" in results_table(results, 5)
    results["teacher"]["max_length"] = 64
    assert "at 64" not in results_table(results, 5).splitlines()[0]
