"""The parts of the evidence: what they are made of, which can be asked for, and what of them is kept."""

import json
from typing import Any

import forked
import pytest
from places import ROOT

from benchmarks.evidence.page import TITLES, altered_table, gains_table
from benchmarks.evidence.parts import PARTS, SUITE, TRIALS, Part
from benchmarks.places import RESULTS, UNDERSTAND
from hf_lelp.compare.methods import Method


def test_a_part_is_of_the_suite_or_a_trial() -> None:
    assert not SUITE.keys() & TRIALS.keys()
    assert PARTS.keys() == TITLES.keys()


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_methods_of_a_part_can_be_read_and_its_reference_is_among_them(part: Part) -> None:
    for method in part.methods.values():
        Method.parse(method).check()
    assert part.reference in part.methods


@pytest.mark.parametrize("name", PARTS)
def test_the_results_that_are_kept_are_of_the_part_as_it_is(name: str) -> None:
    part, kept = PARTS[name], json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert kept.keys() == part.tasks.keys()
    for summary in kept.values():
        assert summary["methods"].keys() == part.methods.keys()
        assert summary["seeds"] == [*range(part.seeds)] and summary["reference"] == part.reference


def test_the_page_of_tables_is_that_of_the_results_that_are_kept() -> None:
    page = (UNDERSTAND / "evidence_tables.md").read_text(encoding="utf-8")
    kept = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in PARTS}
    compared = [summaries for name, summaries in kept.items() if len(summaries) > 1 and len(PARTS[name].methods) > 1]
    tables = [gains_table(summaries) for summaries in compared]
    assert len(tables) > 15 and [table for table in tables if table not in page] == []


def test_what_altering_a_task_gains_is_paired_by_seed() -> None:
    def of(*accuracies: float) -> dict[str, Any]:
        figures = {"accuracies": list(accuracies), "accuracy": {"mean": sum(accuracies) / len(accuracies)}}
        return {"methods": {"KD": figures}}

    table = altered_table({"a, b": of(0.5, 0.6, 0.7), "a, b, windows": of(0.51, 0.62, 0.73), "other": of(0.1)})
    # Differences 1, 2 and 3: a mean of 2, and Student's t of two degrees of freedom times 1/√3 around it.
    (row,) = [line for line in table.splitlines() if "windows" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["a, b", "windows", "KD", "60.00", "62.00", "+2.00", "-0.48 to +4.48", "+1.00, +2.00, +3.00"]
    assert altered_table({"a": of(0.5), "b": of(0.6)}) == ""
    assert "–" in altered_table({"a": of(0.5), "a, b": of(0.6)})  # one seed has no interval


def test_an_unknown_part_is_refused_before_anything_runs() -> None:
    done = forked.run("-m", "benchmarks.evidence", "images", "nothing", cwd=ROOT)
    assert done.returncode == 2
    assert "no part nothing; there are suite, trials, images, " in done.stderr
