"""Results as tables of text."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lelp.markdown import cell


def results_table(results: dict[str, dict[str, Any]], rows: int) -> str:
    """The figures of teacher and students, a line each, as a Markdown table.

    Args:
        results: figures by name of the model; a figure that is missing is shown as –.
        rows: evaluation examples, for the interval under the table.
    """
    columns = {
        "accuracy": lambda r: _percent(r, "accuracy"),
        "macro-F1": lambda r: _percent(r, "macro_f1"),
        "calibration error": lambda r: _percent(r, "ece"),
        "agrees with teacher": lambda r: _percent(r, "teacher_agreement"),
        "parameters": lambda r: _count(r["parameters"]),
        "examples/s": lambda r: f"{r['examples_per_second']:,.0f}",
        "training": lambda r: f"{r['train_seconds']:.0f} s" if "train_seconds" in r else "–",
    }
    body = [[name, *(show(result) for show in columns.values())] for name, result in results.items()]
    table = markdown_table(["", *columns], body)
    accuracies = [result["accuracy"] for result in results.values() if "accuracy" in result]
    if not accuracies:
        return table
    return (
        f"{table}\n\n{rows:,} evaluation examples: each accuracy alone is known to"
        f" ±{100 * half_interval(accuracies, rows):.1f} points (95%)."
        " One seed; differences within that are not findings."
    )


def comparison_table(summary: dict[str, Any]) -> str:
    """One task's methods, a line each, as a Markdown table with what the intervals mean under it.

    Args:
        summary: result of `compare.summarise`.
    """
    reference = summary["reference"]
    header = ["", "accuracy", "± seeds", f"− {reference}", "95% over seeds", "95% over examples"]
    header += ["macro-F1", "calibration error", "agrees with teacher", "training"]
    body = []
    for method, figures in summary["methods"].items():
        difference = figures.get("difference")
        body.append(
            [
                method,
                f"{100 * figures['accuracy']['mean']:.2f}",
                _spread(figures["accuracy"]["std"]),
                *(difference_cells(difference) if difference else ["–"] * 3),
                *(_percent_of_mean(figures, name) for name in ("macro_f1", "ece", "teacher_agreement")),
                f"{figures['train_seconds']['mean']:.0f} s",
            ]
        )
    seeds, rows = len(summary["seeds"]), summary["evaluation_rows"]
    return (
        f"{markdown_table(header, body)}\n\n{summary['train_rows']:,} training rows, {rows:,} evaluation rows,"
        f" {seeds} seed{'s' if seeds > 1 else ''}. ▲ and ▼: the two intervals together leave out 0."
        + (" One seed shows no finding." if seeds == 1 else "")
    )


def difference_cells(difference: dict[str, Any]) -> list[str]:
    """A `paired_difference` as three cells: its mean with ▲ or ▼ for a finding, and the two intervals."""
    mark = {"better": " ▲", "worse": " ▼"}.get(difference["finding"], "")
    intervals = (difference["over_seeds"], difference["over_examples"])
    return [
        f"{difference['mean']:+.2f}{mark}",
        *("–" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}" for interval in intervals),
    ]


def half_interval(accuracies: list[float], rows: int) -> float:
    """Half the width of the widest of the accuracies' normal 95% intervals, each measured on `rows` examples."""
    return max(1.96 * float(np.sqrt(p * (1 - p) / rows)) for p in accuracies)


def group_alignment(
    classes: NDArray[np.integer],
    subclasses: NDArray[np.integer],
    groups: NDArray[Any],
    class_names: list[str],
    num_subclasses: int,
) -> dict[str, Any]:
    """How far pseudo-subclasses follow groups that the teacher never saw.

    Args:
        classes: (N,), class of each example.
        subclasses: (N,), its pseudo-subclass within the class, 0 to S − 1.
        groups: (N,), its group.
        class_names: of the C classes.
        num_subclasses: S.

    Returns:
        The group names, and by class the counts, (S, groups), and the adjusted mutual information of subclass and
        group: 1 where one tells the other, about 0 for a random partition.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # slow to import

    names, index = np.unique(groups, return_inverse=True)
    by_class = {}
    for position, class_name in enumerate(class_names):
        of_class = classes == position
        counts = np.zeros((num_subclasses, len(names)), dtype=int)
        np.add.at(counts, (subclasses[of_class], index[of_class]), 1)
        by_class[class_name] = {
            "counts": counts.tolist(),
            "adjusted_mutual_information": float(adjusted_mutual_info_score(subclasses[of_class], index[of_class])),
        }
    return {"groups": [str(name) for name in names], "classes": by_class}


def group_table(alignment: dict[str, Any]) -> str:
    """`group_alignment` as a Markdown table: of each pseudo-subclass, the share of each group."""
    body = []
    for class_name, result in alignment["classes"].items():
        counts = np.array(result["counts"])
        total = counts.sum(0)
        name = cell(class_name)
        body.append([f"{name}, all", f"{total.sum():,}", *_shares(total)])
        for subclass, row in enumerate(counts):
            body.append([f"{name}, {subclass}", f"{row.sum():,}", *_shares(row)])
    scores = ", ".join(
        f"{cell(name)} {result['adjusted_mutual_information']:.3f}" for name, result in alignment["classes"].items()
    )
    return (
        f"{markdown_table(['pseudo-subclass', 'examples', *map(cell, alignment['groups'])], body)}\n\n"
        f"Adjusted mutual information with the groups (0: chance, 1: the same): {scores}"
    )


def runtimes_table(results: list[dict[str, Any]]) -> str:
    """What `hf_lelp.export.runtimes.measure` returned, as a Markdown table; a figure that is missing stays a dash."""
    times = [key for key in results[0] if key.startswith("milliseconds_")]
    header = ["runtime", "MB", *[f"ms, batch of {key.removeprefix('milliseconds_')}" for key in times]]
    body = [
        [
            result["runtime"],
            f"{result['megabytes']:.1f}",
            *[f"{result[key]:.2f}" for key in times],
            f"{100 * result['agreement']:.1f}%",
            f"{100 * result['accuracy']:.1f}%" if "accuracy" in result else "–",
        ]
        for result in results
    ]
    return markdown_table([*header, "same answer", "accuracy"], body)


def markdown_table(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, body)])


def _spread(std: float | None) -> str:
    return "–" if std is None else f"{100 * std:.2f}"


def _percent_of_mean(figures: dict[str, Any], key: str) -> str:
    return f"{100 * figures[key]['mean']:.1f}" if key in figures else "–"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters / 1e3:.1f}k"


def _percent(result: dict[str, Any], key: str) -> str:
    return f"{100 * result[key]:.1f}" if key in result else "–"


def _shares(counts: NDArray[np.integer]) -> list[str]:
    return [f"{100 * share:.0f}%" for share in counts / max(counts.sum(), 1)]
