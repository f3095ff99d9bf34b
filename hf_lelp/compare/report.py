"""Summarises the runs of a comparison, and writes them as JSON, tables and plots."""

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lelp.compare.plots import plot_comparison
from hf_lelp.compare.run import Run
from hf_lelp.compare.statistics import paired_difference, pooled_intervals
from hf_lelp.markdown import markdown_table
from hf_lelp.storage.files import write_json, write_text
from hf_lelp.transfer.origins import counted

logger = logging.getLogger(__name__)

FIGURES = ("accuracy", "macro_f1", "ece", "teacher_agreement", "train_seconds")


def comparison_table(summary: dict[str, Any]) -> str:
    """Tabulate one task's methods, a line each, in Markdown; a note below explains the intervals.

    Args:
        summary: result of `summarise`.
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
    added = f" (and {counted(summary['added_rows'])})" if "added_rows" in summary else ""
    return (
        f"{markdown_table(header, body)}\n\n{summary['train_rows']:,} training rows{added}, {rows:,} evaluation rows,"
        f" {seeds} seed{'s' if seeds > 1 else ''}. ▲ and ▼: the two intervals together leave out 0."
        + (" One seed shows no finding." if seeds == 1 else "")
        + _diverged(summary["methods"])
        + (
            f" The intervals over seeds take one variance for all methods ({freedom} degrees of freedom)."
            if (freedom := summary.get("degrees_of_freedom")) is not None
            else ""
        )
        + "".join(f"\n\n{warning}" for warning in below_labels_warning(summary))
    )


def below_labels_warning(summary: dict[str, Any]) -> list[str]:
    """Say which methods distil below labels alone, by how much and with which intervals; nothing, if none does.

    A teacher can be right and teach badly, on purpose even (Ma et al. 2021, arXiv 2105.07381).

    Args:
        summary: result of `summarise`.
    """
    below = {
        method: figures["above_labels"]
        for method, figures in summary["methods"].items()
        if figures.get("above_labels", {}).get("finding") == "worse"
    }
    if not below:
        return []
    said = []
    for method, difference in below.items():
        _, seeds, examples = difference_cells(difference)
        said.append(f"{method} by {-difference['mean']:.2f} points ({seeds} over seeds, {examples} over examples)")
    return [
        f"**Warning: below labels alone, beyond the noise: {'; '.join(said)}.** The teacher's word is then worth less"
        " than the labels. Look at its accuracy on these rows, try another temperature, or take the method direct."
    ]


def difference_cells(difference: dict[str, Any]) -> list[str]:
    """Format a `paired_difference` as three cells: its mean, with ▲ or ▼ for a finding, and the two intervals."""
    mark = {"better": " ▲", "worse": " ▼"}.get(difference["finding"], "")
    intervals = (difference["over_seeds"], difference["over_examples"])
    return [
        f"{difference['mean']:+.2f}{mark}",
        *("–" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}" for interval in intervals),
    ]


def _diverged(methods: dict[str, Any]) -> str:
    """Say which students gave logits that are not finite."""
    seeds = {method: figures["diverged"] for method, figures in methods.items() if "diverged" in figures}
    if not seeds:
        return ""
    found = "; ".join(f"{method} with seed {', '.join(map(str, of))}" for method, of in seeds.items())
    return f" Diverged, and counted as always giving the first class: {found}."


def _spread(std: float | None) -> str:
    return "–" if std is None else f"{100 * std:.2f}"


def _percent_of_mean(figures: dict[str, Any], key: str) -> str:
    return f"{100 * figures[key]['mean']:.1f}" if key in figures else "–"


def summarise(runs: Sequence[Run], methods: Sequence[str], reference: str) -> dict[str, Any]:
    """Summarise one task's figures by method, and each method's difference to the reference.

    Args:
        runs: of all methods with the same seeds.
        methods: in the order of the report.
        reference: one of them.

    Returns:
        `reference`, `seeds`, `train_rows`, where there are others `added_rows`, `evaluation_rows`, with two seeds
        `degrees_of_freedom`, and `methods`. `methods` has by name: the mean and standard deviation over the seeds of
        each of `FIGURES`, the accuracy of each seed, the settings, what "auto" chose, the seeds whose student
        `diverged`, and `difference` (`paired_difference`). Where labels alone are among them, each other method has
        `above_labels`, the difference to these.
    """
    by_method = {method: [run for run in runs if run.method == method] for method in methods}
    correct = {method: np.stack([run.correct for run in of_method]) for method, of_method in by_method.items()}
    table: dict[str, Any] = {}
    pooled, freedom = _pooled(correct, reference)
    # α = 1, whatever the method is called.
    labels = next((name for name, of in by_method.items() if of[0].figures["settings"].get("alpha") == 1), None)
    over_labels = _pooled(correct, labels)[0] if labels is not None else {}
    for method, of_method in by_method.items():
        figures: dict[str, Any] = {"accuracies": [float(row.mean()) for row in correct[method]]}
        for name in FIGURES:
            values = [run.figures[name] for run in of_method if name in run.figures]
            if values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                figures[name] = {"mean": float(np.mean(values)), "std": spread}
        if method != reference:
            figures["difference"] = paired_difference(correct[method], correct[reference], pooled.get(method))
        if labels is not None and of_method[0].figures["settings"].get("alpha") != 1:
            figures["above_labels"] = paired_difference(correct[method], correct[labels], over_labels.get(method))
        figures["settings"] = {k: v for k, v in of_method[0].figures["settings"].items() if k != "seed"}
        chosen = [trial for run in of_method for trial in run.figures.get("auto_trials", ()) if trial.get("chosen")]
        diverged = [run.seed for run in of_method if "rows_not_finite" in run.figures]
        if diverged:
            figures["diverged"] = diverged
        if chosen:
            figures["chosen"] = [{k: v for k, v in trial.items() if k != "chosen"} for trial in chosen]
        table[method] = figures
    return {
        "reference": reference,
        "seeds": sorted({run.seed for run in runs}),
        **{name: runs[0].figures[name] for name in ("train_rows", "added_rows") if name in runs[0].figures},
        "evaluation_rows": correct[reference].shape[1],
        **({"degrees_of_freedom": freedom} if freedom is not None else {}),
        "methods": table,
    }


def _pooled(
    correct: Mapping[str, NDArray[np.bool_]], reference: str
) -> tuple[dict[str, tuple[float, float]], int | None]:
    """Return intervals over seeds from the variance of all methods, where there are two seeds; else none."""
    methods = list(correct)
    if len(correct[reference]) != 2 or len(methods) < 2:
        return {}, None
    accuracies = np.array([100 * correct[method].mean(1) for method in methods])
    if np.ptp(accuracies[:, 0] - accuracies[:, 1]) < 1e-9:  # no spread by chance
        return {}, None
    intervals, freedom = pooled_intervals(accuracies, methods.index(reference))
    return dict(zip(methods, intervals, strict=True)), freedom


def publish(
    runs: Mapping[str, Sequence[Run]], methods: Sequence[str], reference: str, output_dir: Path
) -> dict[str, Any]:
    """Write the summaries of all tasks as JSON, Markdown and plots; print the tables.

    Args:
        runs: by task.
        methods: in the order of the report.
        reference: the method that others are compared to.
        output_dir: folder of the report.
    """
    summaries = {task: summarise(of_task, methods, reference) for task, of_task in runs.items()}
    text = "\n\n".join(f"### {task}\n\n{comparison_table(summary)}" for task, summary in summaries.items())
    write_json(output_dir / "comparison.json", summaries, indent=1)
    write_text(output_dir / "comparison.md", text + "\n")
    if find_spec("matplotlib") is None:
        logger.warning("No plots are drawn: they need matplotlib (pip install hf-lelp[demo])")
    else:
        plot_comparison(summaries, output_dir)
    print(f"\n{text}\n\nThe report is in {output_dir}")
    for task, summary in summaries.items():
        for warning in below_labels_warning(summary):
            logger.warning(f"{task}: {warning.replace('**', '').removeprefix('Warning: ')}")
    return summaries
