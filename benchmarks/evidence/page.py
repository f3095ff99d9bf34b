"""Tables and plots of the evidence from benchmarks/results.

    python -m benchmarks.evidence.page             # writes docs/understand/evidence_tables.md

Only what is in the JSON files is shown; a part that was not run is not there.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.evidence.parts import KD_4, KD_AUTO, LELP_AUTO, LELP_WHITENED, PAPERS, PARTS, SUITE, TRIALS
from benchmarks.places import RESULTS, UNDERSTAND
from hf_lelp.compare.plots import logarithmic_axis
from hf_lelp.compare.report import comparison_table, difference_cells
from hf_lelp.compare.statistics import interval_over_seeds
from hf_lelp.markdown import markdown_table
from hf_lelp.storage.files import write_atomically

PICTURES = UNDERSTAND / "evidence"
MAIN_PARTS = ("images", "lookalikes", "mlp")
ALL_STUDENTS = (*MAIN_PARTS, "scratch", "pretrained", "pretrained_vader")
INTRODUCTION = (
    "Written by `python -m benchmarks.evidence.page` from benchmarks/results. What they mean:"
    " [evidence.md](evidence.md)."
    " ± is the standard deviation over seeds; differences are to KD with the τ chosen on validation (or, where that is"
    " not in the table, with τ = 4), in points, with 95% intervals over seeds and over test examples; ▲ and ▼: the"
    " two together leave out 0 (`hf_lelp.compare.statistics`)."
)
TITLES = {
    "images": "Images: a CNN teacher, a small CNN student",
    "mlp": "Texts: a fine-tuned MiniLM teacher, an MLP over frozen sentence embeddings",
    "weight": "Less weight of the subclasses",
    "scratch": "Texts: a fine-tuned MiniLM teacher, a BERT 2 × 128 from scratch",
    "pretrained": "Texts: a fine-tuned MiniLM teacher, MiniLM cut to two layers",
    "pretrained_vader": "Texts: a fine-tuned MiniLM teacher, MiniLM cut to two layers: sentiment",
    "pretrained_auto": "MiniLM cut to two layers: settings chosen on validation",
    "scratch_longer": "BERT 2 × 128 from scratch: longer training, and less weight of the subclasses",
    "pretrained_lighter": "MiniLM cut to two layers: less weight of the subclasses",
    "pretrained_longer": "MiniLM cut to two layers: longer training",
    "token_start": "BERT 2 × 128: token vectors that start as the teacher's",
    "token_start_rows": "The same, with 2,000 rows",
    "views": "Altered copies of 2,000 texts (BERT 2 × 128 with the teacher's token vectors)",
    "views_more": "Altered copies: more texts, and a third task",
    "views_all": "Altered copies of all texts",
    "related_tokens": "CRD and DIST (BERT 2 × 128 with such token vectors)",
    "packages": "Descriptions of Debian's packages: training rows (BERT 2 × 128 with such token vectors)",
    "glosses": "Glosses of WordNet: training rows (BERT 2 × 128 with the teacher's token vectors)",
    "glosses_start": "Glosses of WordNet: token vectors that start as the teacher's",
    "token_start_lelp": "BERT 2 × 128 with such token vectors: LELP",
    "transfer": "BERT 2 × 128 from scratch: further windows of the documents, at the same number of steps",
    "lookalikes": "Images: lookalikes on opposite sides, a CNN teacher, a tiny CNN student",
    "methods": "Other methods",
    "with_crd": "LELP with CRD (MLP student)",
    "robustness": "Wrong labels, and a rare class: texts, a teacher of words (MLP student)",
    "robustness_images": "Wrong labels, and a rare class: images",
    "related": "Later methods, CRD, and LELP with CRD (MLP student)",
    "weights": "Each method in three forms (MLP student)",
    "labels": "With labels",
    "learning_rate": "The student's learning rate",
    "settings": "Settings of LELP",
    "heads": "The paper's head and the auxiliary one",
    "subclasses": "How many subclasses, and of what (MLP student)",
    "variants": "Directions that the classes share, and whitening",
    "embeddings": "Embeddings of length 1, and of earlier layers of the teacher",
    "epochs": "Longer training",
    "teachers": "A teacher that was stopped earlier, or trained with dropout",
    "subclass_distillation": "Subclass Distillation: a teacher retrained to have subclasses",
    "hidden": "Fashion-MNIST pairs: how many fine classes two labels hide",
    "classes": "Fashion-MNIST pairs: 100 fine classes put together to n classes",
    "classes_texts": "20 Newsgroups, groups put together to n classes (MLP student)",
    "rows": "20 Newsgroups, parity: training rows (MLP student)",
    "few_labels": "A teacher of 1,000 labels, a student of all texts without labels (MLP student)",
    "reuters": "Reuters R8, skewed topics put together to n classes (MLP student)",
}
# Parts whose tasks are called "n …", and what n is.
AXES = {
    "hidden": "fine classes that two labels hide",
    "classes": "classes",
    "classes_texts": "classes",
    "rows": "training rows",
    "glosses": "training rows",
}


def main() -> None:
    """Write the tables and the plots of every part that has results."""
    results = {name: _read(name) for name in PARTS if (RESULTS / f"{name}.json").exists()}
    sections = ["# Evidence: tables", INTRODUCTION]
    main_tasks = {f"{task} ({part})": s for part in MAIN_PARTS for task, s in results.get(part, {}).items()}
    if main_tasks:
        sections += ["## LELP with settings chosen for it, against KD with the best τ", summary_table(main_tasks)]
        _draw(PICTURES / "gains.png", _gains, [main_tasks], height=1.2 + 0.35 * len(main_tasks))
        sections += ["![Gain over KD by task](evidence/gains.png)", without_search(results)]
    for name, summaries in results.items():
        sections.append(f"## {TITLES[name]}")
        if len(summaries) > 1 and len(PARTS[name].methods) > 1:
            sections.append(gains_table(summaries))
        if altered := altered_table(summaries):
            sections.append(altered)
        for task, summary in summaries.items():
            sections.append(f"### {task}\n\n{comparison_table(summary)}")
        if shows := _picture(name, summaries):
            sections.append(f"![{shows}](evidence/{name}.png)")
    sections += ["## What it cost", cost_table(results)]
    text = "\n\n".join(sections) + "\n"
    write_atomically(UNDERSTAND / "evidence_tables.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(f"{len(results)} parts, {UNDERSTAND / 'evidence_tables.md'}")


def summary_table(tasks: dict[str, dict[str, Any]]) -> str:
    """KD, LELP and the oracle of every task, and how much of the oracle's gain LELP has."""
    header = [
        "task",
        "labels alone",
        KD_AUTO,
        LELP_AUTO,
        "gain",
        "95% over seeds",
        "95% over examples",
        "oracle",
        "closed",
    ]
    body, gains, over_kd_4 = [], [], []
    for task, summary in tasks.items():
        methods = summary["methods"]
        gain = methods[LELP_AUTO]["difference"]
        gains.append(gain["mean"])
        over_kd_4.append(100 * (methods[LELP_AUTO]["accuracy"]["mean"] - methods[KD_4]["accuracy"]["mean"]))
        room = methods["oracle"]["difference"]["mean"] if "oracle" in methods else None
        body.append(
            [
                task,
                *(_accuracy(methods[name]) for name in ("labels alone", KD_AUTO, LELP_AUTO)),
                *difference_cells(gain),
                _accuracy(methods["oracle"]) if room is not None else "–",
                f"{gain['mean'] / room:.0%}" if room is not None and room >= 2 else "–",
            ]
        )
    findings = [summary["methods"][LELP_AUTO]["difference"]["finding"] for summary in tasks.values()]
    mean, half = np.mean(gains), stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1)
    fixed = [summary["methods"][LELP_WHITENED]["difference"]["mean"] for summary in tasks.values()]
    return (
        f"{markdown_table(header, body)}\n\nMean gain {mean:+.2f} points over {len(tasks)} tasks (95% over tasks"
        f" {mean - half:+.2f} to {mean + half:+.2f}; over KD with τ = 4 {np.mean(over_kd_4):+.2f});"
        f" {findings.count('better')} are ▲, {findings.count('worse')} ▼. {LELP_WHITENED}, without a search: mean gain"
        f" {np.mean(fixed):+.2f}. Closed: share of the oracle's gain, where that is at least 2 points."
    )


def gains_table(summaries: dict[str, dict[str, Any]]) -> str:
    """The differences of a part's methods on each task, and their mean, of the methods that are on all of them."""
    found = {
        method: [summary["methods"].get(method, {}).get("difference") for summary in summaries.values()]
        for method in next(iter(summaries.values()))["methods"]
    }
    body = []
    for method, differences in found.items():
        if all(differences):
            means = [difference["mean"] for difference in differences]
            cells = [difference_cells(difference)[0] for difference in differences]
            body.append([method, *cells, f"{np.mean(means):+.2f}"])
    references = " or ".join(sorted({summary["reference"] for summary in summaries.values()}))
    return f"Points above {references}:\n\n{markdown_table(['', *summaries, 'mean'], body)}"


def altered_table(summaries: dict[str, dict[str, Any]]) -> str:
    """What the same method gains where a task is altered: of tasks called "TASK" and "TASK, what is altered"."""
    header = ["task", "altered", "method", "before", "after", "gain", "95% over seeds", "of each seed"]
    body = []
    for name, altered in summaries.items():
        task, _, what = name.rpartition(", ")
        for method, after in altered["methods"].items() if task in summaries else ():
            before = summaries[task]["methods"][method]
            by_seed = 100 * (np.array(after["accuracies"]) - np.array(before["accuracies"]))
            interval = " to ".join(f"{bound:+.2f}" for bound in interval_over_seeds(by_seed) or ()) or "–"
            each = ", ".join(f"{gain:+.2f}" for gain in by_seed)
            accuracies = _accuracy(before), _accuracy(after)
            body.append([task, what, method, *accuracies, f"{by_seed.mean():+.2f}", interval, each])
    return f"The same method on the task as it was, and altered:\n\n{markdown_table(header, body)}" if body else ""


def without_search(results: dict[str, dict[str, Any]]) -> str:
    """The gains of LELP without a search over all kinds of students, against KD at τ = 4: mean and deviation."""
    of_tasks = [summary["methods"] for part in ALL_STUDENTS for summary in results.get(part, {}).values()]
    said = []
    for name in (LELP_WHITENED, PAPERS):
        gains = [100 * (methods[name]["accuracy"]["mean"] - methods[KD_4]["accuracy"]["mean"]) for methods in of_tasks]
        said.append(f"{name}: {np.mean(gains):+.2f}, deviation {np.std(gains, ddof=1):.2f} ({len(gains)} tasks)")
    return f"With the students that learn their own features, mean gain over KD with τ = 4: {'; '.join(said)}."


def cost_table(results: dict[str, dict[str, Any]]) -> str:
    """Hours of training in each part, of runs that no part before it has made already, and their sums."""
    seen: set[tuple[str, str, int]] = set()
    costs: dict[str, tuple[int, float]] = {}
    for name, summaries in results.items():
        part, hours, runs = PARTS[name], 0.0, 0
        for task, summary in summaries.items():
            for label, figures in summary["methods"].items():
                keys = {(repr(part.tasks[task]), part.methods[label], seed) for seed in summary["seeds"]} - seen
                seen |= keys
                runs += len(keys)
                hours += len(keys) * figures["train_seconds"]["mean"] / 3600
        costs[name] = runs, hours
    for group, members in (("suite", SUITE), ("trials", TRIALS), ("all", PARTS)):
        of_group = [costs[name] for name in members if name in results]
        costs[group] = sum(runs for runs, _ in of_group), sum(hours for _, hours in of_group)
    body = [[name, str(runs), f"{hours:.1f}"] for name, (runs, hours) in costs.items()]
    return (
        "Runs that no earlier part has made, and hours of training, one core each, mostly with other work on the"
        " second core. Fits, evaluations and the teachers are not in it.\n\n"
        f"{markdown_table(['part', 'runs', 'hours'], body)}"
    )


def _picture(name: str, summaries: dict[str, dict[str, Any]]) -> str | None:
    """Draw what a part of this name shows, if it shows something; says what that is."""
    path = PICTURES / f"{name}.png"
    if name in AXES:
        points = sorted((float(task.split()[0]), summary) for task, summary in summaries.items())
        _draw(path, partial(_lines, label=AXES[name]), [points])
        return f"Differences against {AXES[name]}"
    if name == "epochs":
        _draw(path, _epochs, [*summaries.items()])
        return "Accuracy against epochs"
    if name == "settings":
        _draw(path, partial(_settings, tasks=summaries), ["S", "β"])
        return "Gain over KD against S and β"
    return None


def _gains(panel: Axes, tasks: dict[str, dict[str, Any]]) -> None:
    for position, summary in enumerate(tasks.values()):
        for name, shift, colour in ((LELP_AUTO, 0.0, "tab:blue"), ("oracle", 0.2, "0.6")):
            if name not in summary["methods"]:
                continue
            difference = summary["methods"][name]["difference"]
            if difference["over_seeds"]:
                panel.plot(difference["over_seeds"], [position + shift] * 2, color=colour, alpha=0.4, linewidth=3)
            label = name if position == 0 else None
            panel.plot(difference["mean"], position + shift, "o", color=colour, label=label)
    panel.axvline(0, color="0.7", zorder=0)
    panel.set(yticks=range(len(tasks)), yticklabels=list(tasks), xlabel="points above KD with the best τ")
    panel.invert_yaxis()
    panel.legend(frameon=False)


def _lines(panel: Axes, points: list[tuple[float, dict[str, Any]]], label: str) -> None:
    """Every method's difference to the reference, with its interval over examples."""
    methods = points[0][1]["methods"]
    for method in methods:
        if "difference" not in methods[method]:
            panel.axhline(0, color="0.7", zorder=0)
            panel.set(ylabel=f"points above {method}")
            continue
        found = [summary["methods"][method]["difference"] for _, summary in points]
        mean = np.array([difference["mean"] for difference in found])
        interval = np.array([difference["over_examples"] for difference in found]).T
        spread = np.abs(interval - mean)
        panel.errorbar([x for x, _ in points], mean, yerr=spread, marker="o", capsize=2, label=method)
    logarithmic_axis(panel, label, [x for x, _ in points])
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _epochs(panel: Axes, results: tuple[str, dict[str, Any]]) -> None:
    """Accuracy on a task of methods called "NAME, n epochs" against n."""
    task, summary = results
    found: dict[str, list[tuple[int, float, float]]] = {}
    for name, figures in summary["methods"].items():
        method, _, epochs = name.rpartition(", ")
        if epochs.endswith(" epochs"):
            accuracy = figures["accuracy"]
            point = int(epochs.split()[0]), 100 * accuracy["mean"], 100 * (accuracy["std"] or 0)
            found.setdefault(method, []).append(point)
    for method, points in found.items():
        epochs, mean, spread = zip(*sorted(points), strict=True)
        panel.errorbar(epochs, mean, yerr=spread, marker="o", capsize=2, label=method)
    panel.set(title=task, ylabel="accuracy, %")
    logarithmic_axis(panel, "epochs", epochs)
    panel.legend(frameon=False)


def _settings(panel: Axes, axis: str, tasks: dict[str, dict[str, Any]]) -> None:
    """Gain over KD of methods called "AXIS = value", and of the one that all others change in one thing."""
    base = {"S": 8.0, "β": 0.5}[axis]
    for task, summary in tasks.items():
        gains = {base: summary["methods"]["LELP, base"]["difference"]["mean"]}
        for name, figures in summary["methods"].items():
            if name.startswith(f"{axis} = ") and "," not in name:
                gains[float(name.split()[-1])] = figures["difference"]["mean"]
        values = sorted(gains)
        panel.plot(values, [gains[value] for value in values], marker="o", label=task)
    panel.axhline(0, color="0.7", zorder=0)
    panel.set(ylabel="points above KD with the best τ")
    logarithmic_axis(panel, axis, values)
    if axis == "β":
        panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _draw(path: Path, draw: Callable[[Axes, Any], None], contents: list[Any], height: float = 4.2) -> None:
    """A picture with a panel for each of `contents`."""
    figure = Figure(figsize=(max(7.2, 5.4 * len(contents)), height), layout="constrained")
    for panel, content in zip(figure.subplots(1, len(contents), squeeze=False)[0], contents, strict=True):
        draw(panel, content)
        panel.spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))


def _read(name: str) -> dict[str, Any]:
    summaries: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return summaries


def _accuracy(figures: dict[str, Any]) -> str:
    return f"{100 * figures['accuracy']['mean']:.2f}"


if __name__ == "__main__":
    main()
