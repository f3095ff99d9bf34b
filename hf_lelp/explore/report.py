"""Puts together what is known of rows, subclasses and slices, as a dictionary that JSON can hold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lelp.explore.probe import probe
from hf_lelp.explore.rows import Explored
from hf_lelp.explore.slices import confident_errors, find_slices, furthest_apart
from hf_lelp.explore.subclasses import Words, effective_number, shares, typical_rows
from hf_lelp.markdown import printable

FORMAT_VERSION = 1
MOST_POINTS = 6000  # on the maps of all classes together
MOST_PICTURES = 1200  # the same of images, whose thumbnails take more space than texts
MOST_TYPICAL, TYPICAL_OF_ALL = 6, 1200  # rows shown of a subclass, and of all
WORDS, LOOK = 8, 15
LONGEST = {"map": 140, "list": 300}  # characters of a text


def report_of(rows: Explored, seed: int = 0) -> dict[str, Any]:
    """Compute what the page shows.

    Args:
        rows: that nobody trained on.
        seed: of the rows that choose slices (one half, drawn at random), and of the sample on the map.

    Returns:
        `summary`, `subclasses`, `slices`, `group_slices`, `look`, `map` and `rows`; docs/understand/explore.md
        describes them.
    """
    generator = np.random.default_rng(seed)
    chooses = generator.permutation(len(rows)) < len(rows) / 2
    right, against = rightly_answered(rows)
    scored = rows.labelled if against == "labels" else np.full(len(rows), True)
    subclasses = _subclasses(rows)
    slices = find_slices(
        rows.subclass_of[scored],
        rows.class_of[scored],
        {name: values[scored] for name, values in right.items()},
        chooses[scored],
    )
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "classes": rows.classes,
        "models": [*right],
        "against": against,
        "summary": _summary(rows, chooses),
        "subclasses": subclasses,
        "slices": slices,
        "group_slices": [],
        "groups": None,
        "look": _look(rows),
        "map": _map(rows, generator),
    }
    if rows.numbered_groups is not None:
        report["groups"], groups = rows.numbered_groups
        report["group_slices"] = find_slices(
            groups[scored],
            rows.class_of[scored],
            {name: values[scored] for name, values in right.items()},
            chooses[scored],
        )
    return report | {"rows": _shown(rows, report)}


def rightly_answered(rows: Explored) -> tuple[dict[str, NDArray[np.bool_]], str]:
    """Return whether each model has each row right, (N,), and against what: "labels", or "teacher" without any."""
    if rows.labelled.any():
        return {name: answer == rows.labels for name, answer in rows.answers.items()}, "labels"
    return {name: answer == rows.answers["teacher"] for name, answer in rows.answers.items()}, "teacher"


def _summary(rows: Explored, chooses: NDArray[np.bool_]) -> dict[str, Any]:
    num_subclasses = rows.scores.shape[1]
    held = rows.projections.variance_share(num_subclasses)
    classes = []
    for index, name in enumerate(rows.classes):
        of_class = shares(rows.subclass_of[rows.class_of == index], num_subclasses)
        classes.append(
            {
                "name": name,
                "rows": int((rows.class_of == index).sum()),
                "fitted_rows": int(rows.projections.count[index]),
                "effective_subclasses": effective_number(of_class),
                "variance_held": None if held is None else float(held[index]),
            }
        )
    right, _ = rightly_answered(rows)
    labelled = rows.labelled
    students: dict[str, dict[str, Any]] = {}
    for name, student in rows.students.items():
        agreement = float((rows.answers[name] == rows.answers["teacher"]).mean())
        students[name] = {"agreement": agreement, "probe": None}
        if student.embedding is not None:
            students[name]["probe"] = probe(student.embedding, rows.scores, rows.class_of, chooses, len(rows.classes))
    return {
        "rows": len(rows),
        "labelled_rows": int(labelled.sum()),
        "num_subclasses": num_subclasses,
        "classes": classes,
        "accuracy": {name: float(values[labelled].mean()) for name, values in right.items()} if labelled.any() else {},
        "students": students,
    }


def _subclasses(rows: Explored) -> list[dict[str, Any]]:
    num_subclasses = rows.scores.shape[1]
    count = max(1, min(MOST_TYPICAL, TYPICAL_OF_ALL // (num_subclasses * len(rows.classes))))
    words = None if rows.texts is None else Words(list(rows.texts))
    found = []
    for index in range(len(rows.classes)):
        of_class = rows.class_of == index
        share = shares(rows.subclass_of[of_class], num_subclasses)
        for subclass in range(num_subclasses):
            ours = np.flatnonzero(of_class & (rows.subclass_of == subclass))
            others = np.flatnonzero(of_class & (rows.subclass_of != subclass))
            one: dict[str, Any] = {
                "class": index,
                "subclass": subclass,
                "rows": len(ours),
                "share": float(share[subclass]),
                "typical": typical_rows(rows.scores, subclass, ours, count),
                "words": [] if words is None else words.setting_apart(ours, others, WORDS),
                "groups": [],
            }
            if rows.numbered_groups is not None and len(ours):
                names, groups = rows.numbered_groups
                counts = np.bincount(groups[ours], minlength=len(names))
                order = np.argsort(-counts, kind="stable")[:5]
                one["groups"] = [(names[group], float(counts[group] / len(ours))) for group in order]
            found.append(one)
    return found


def _look(rows: Explored) -> dict[str, Any]:
    ours = rows.probabilities
    return {
        "errors": confident_errors(ours["teacher"], rows.labels, rows.labelled, LOOK),
        "apart": {name: furthest_apart(ours["teacher"], ours[name], LOOK) for name in rows.students},
    }


def _map(rows: Explored, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Sample rows for a panel a class: where they lie on the class's two leading directions."""
    most = MOST_PICTURES if rows.images is not None else MOST_POINTS
    panels = []
    for index in range(len(rows.classes)):
        ours = np.flatnonzero(rows.class_of == index)
        wanted = max(50, most // len(rows.classes))
        shown = np.sort(generator.permutation(ours)[:wanted])
        places = rows.directions[shown, :2]
        if places.shape[1] < 2:  # one direction: the rows lie on a line
            places = np.pad(places, ((0, 0), (0, 1)))
        panels.append(
            {
                "class": index,
                "of": len(ours),
                "row": shown.tolist(),
                "x": [float(f"{value:.4g}") for value in places[:, 0]],
                "y": [float(f"{value:.4g}") for value in places[:, 1]],
            }
        )
    return panels


def listed_rows(report: dict[str, Any]) -> set[int]:
    """Return the rows that a report's lists name: the typical ones, and those worth a look."""
    typical = {row for one in report["subclasses"] for row in one["typical"]}
    return typical | {row for part in (report["look"]["errors"], *report["look"]["apart"].values()) for row in part}


def mapped_rows(panels: list[dict[str, Any]]) -> set[int]:
    """Return the rows that the panels of a map show."""
    return {row for panel in panels for row in panel["row"]}


def _shown(rows: Explored, report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Describe every row that any part of the report names, by its number as text."""
    listed, mapped = listed_rows(report), mapped_rows(report["map"])
    found = {}
    for row in sorted(listed | mapped):
        one: dict[str, Any] = {"subclass": int(rows.subclass_of[row]), "answers": {}}
        if rows.texts is not None:
            longest = LONGEST["list" if row in listed else "map"]
            text = printable(rows.texts[row])
            one["text"] = text if len(text) <= longest else f"{text[: longest - 1]}…"
        if rows.labelled[row]:
            one["label"] = int(rows.labels[row])
        if rows.numbered_groups is not None:
            one["group"] = int(rows.numbered_groups[1][row])
        for name, answer in rows.answers.items():
            one["answers"][name] = [int(answer[row]), round(float(rows.probabilities[name][row].max()), 3)]
        found[str(row)] = one
    return found
