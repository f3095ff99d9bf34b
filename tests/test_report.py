import numpy as np
import pytest

from hf_lelp.report import group_alignment, group_table, markdown_table, results_table


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
