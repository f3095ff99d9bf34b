"""Draws the plots of a comparison; needs matplotlib (`pip install hf-lelp[demo]`)."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from hf_lelp.storage.files import write_atomically


def plot_comparison(summaries: dict[str, Any], folder: Path) -> None:
    """Draw `accuracy.png`, and `sizes.png` and `settings.png` if more than one size or setting was compared.

    Args:
        summaries: by task, results of `report.summarise`.
        folder: of the plots.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    _plot_accuracies(summaries, folder / "accuracy.png")
    if len({summary["train_rows"] for summary in summaries.values()}) > 1:
        _plot_sizes(summaries, folder / "sizes.png")
    axes = {axis: lines for axis in ("num_subclasses", "subclass_temperature") if (lines := _lines(summaries, axis))}
    if axes:
        _plot_settings(axes, folder / "settings.png")


def _plot_accuracies(summaries: dict[str, Any], path: Path) -> None:
    """Draw a panel for each task: the methods' mean accuracies, and the interval of the difference to the reference."""
    from matplotlib.figure import Figure

    labels = {
        name: "\n".join(wrap(name.replace(",", ", "), 36))
        for summary in summaries.values()
        for name in summary["methods"]
    }
    lines = max(sum(1 + labels[name].count("\n") for name in summary["methods"]) for summary in summaries.values())
    figure = Figure(figsize=(6.4 * len(summaries), 1.2 + 0.32 * lines), layout="constrained")
    panels = figure.subplots(1, len(summaries), squeeze=False)[0]
    for panel, (task, summary) in zip(panels, summaries.items(), strict=True):
        base = 100 * summary["methods"][summary["reference"]]["accuracy"]["mean"]
        over = "seeds" if len(summary["seeds"]) > 1 else "examples"
        for position, (_, figures) in enumerate(summary["methods"].items()):
            difference = figures.get("difference")
            low, high = (difference["over_seeds"] or difference["over_examples"]) if difference else (0, 0)
            colour = {"better": "tab:green", "worse": "tab:red"}.get(difference["finding"] if difference else "", "0.3")
            panel.plot([base + low, base + high], [position, position], color=colour, linewidth=2, alpha=0.5)
            panel.plot(
                [100 * value for value in figures["accuracies"]],
                [position] * len(figures["accuracies"]),
                "|",
                color="0.4",
                markersize=7,
            )
            panel.plot(100 * figures["accuracy"]["mean"], position, "o", color=colour)
        panel.axvline(base, color="0.8", zorder=0)
        panel.set_xlim(*_limits([v for figures in summary["methods"].values() for v in figures["accuracies"]], base))
        panel.set(
            yticks=range(len(summary["methods"])),
            yticklabels=[labels[name] for name in summary["methods"]],
            xlabel=f"accuracy, % (bar: 95% interval of the difference over {over})",
        )
        panel.set_title(task)
        panel.invert_yaxis()
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))


def _limits(accuracies: Sequence[float], base: float) -> tuple[float, float]:
    """Fit an axis to the dots, in points, with room for intervals of their size: wider ones run out of the picture."""
    values = [100 * value for value in accuracies] + [base]
    low, high = min(values), max(values)
    room = max(high - low, 1.0)
    return max(low - room, -0.5), min(high + room, 100.5)


def _plot_sizes(summaries: dict[str, Any], path: Path) -> None:
    """Draw the accuracy of each method against the number of training rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panel = figure.subplots()
    ordered = sorted(summaries.values(), key=lambda summary: summary["train_rows"])
    rows = [summary["train_rows"] for summary in ordered]
    for number, method in enumerate(ordered[0]["methods"]):
        figures = [summary["methods"][method]["accuracy"] for summary in ordered]
        means = np.array([100 * figure["mean"] for figure in figures])
        spread = np.array([100 * (figure["std"] or 0) for figure in figures])
        panel.errorbar(rows, means, yerr=spread, marker="o^sD"[number // 10 % 4], capsize=2, label=method)
    panel.set(ylabel="accuracy, % (± standard deviation over seeds)")
    panel.spines[["top", "right"]].set_visible(False)
    logarithmic_axis(panel, "training rows", rows)
    figure.legend(loc="outside right upper", frameon=False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))


def logarithmic_axis(panel: Any, label: str, values: Sequence[float]) -> None:
    """Make the x axis of a matplotlib panel logarithmic, with ticks at the values alone."""
    panel.set(xscale="log", xlabel=label)
    panel.set_xticks(values, [f"{value:,.10g}" for value in values])
    panel.minorticks_off()


def _lines(summaries: dict[str, Any], axis: str) -> dict[str, list[tuple[float, dict[str, float]]]]:
    """Group LELP's runs that differ in one setting alone into lines; name each line by its other settings that vary."""
    points: dict[str, list[tuple[float, dict[str, float]]]] = {}
    others: dict[str, dict[str, Any]] = {}
    for task, summary in summaries.items():
        for figures in summary["methods"].values():
            settings = figures["settings"]
            if settings["kind"] == "lelp" and "search" not in settings and axis in settings:
                rest = {"task": task, **{name: value for name, value in settings.items() if name != axis}}
                others[str(rest)] = rest
                points.setdefault(str(rest), []).append((settings[axis], figures["accuracy"]))
    lines = {line: sorted(of_line, key=lambda point: point[0]) for line, of_line in points.items() if len(of_line) > 1}
    telling = [
        name
        for name in dict.fromkeys(name for line in lines for name in others[line])
        if len({str(others[line].get(name)) for line in lines}) > 1
    ]

    def label(line: str) -> str:
        task = [others[line]["task"]] if "task" in telling else []
        return ", ".join(task + [f"{name} {others[line].get(name)}" for name in telling if name != "task"])

    return {label(line): of_line for line, of_line in lines.items()}


def _plot_settings(axes: dict[str, dict[str, list[tuple[float, dict[str, float]]]]], path: Path) -> None:
    """Draw a panel for each setting that varies: accuracy against the setting."""
    from matplotlib.figure import Figure

    symbols = {"num_subclasses": "S, subclasses per class", "subclass_temperature": "β, subclass temperature"}
    tallest = max(map(len, axes.values()))
    figure = Figure(figsize=(5.2 * len(axes), 3.6 + (0.22 * tallest if tallest > 1 else 0)), layout="constrained")
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for panel, (axis, lines) in zip(panels, axes.items(), strict=True):
        for label, points in lines.items():
            values, accuracies = zip(*points, strict=True)
            means = np.array([100 * accuracy["mean"] for accuracy in accuracies])
            spread = np.array([100 * (accuracy["std"] or 0) for accuracy in accuracies])
            panel.errorbar(values, means, yerr=spread, marker="o", capsize=2, label=label)
        ticks = sorted({value for points in lines.values() for value, _ in points})
        panel.set(ylabel="accuracy, % (± deviation over seeds)")
        logarithmic_axis(panel, symbols[axis], ticks)
        panel.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize="small")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
