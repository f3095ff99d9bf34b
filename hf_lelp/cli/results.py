"""Reports a run: how far it is, its tables, and all_results.json."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from numpy.typing import NDArray
from transformers import ProgressCallback, Trainer, TrainerCallback

from hf_lelp.cli.groups import group_table, plot_groups
from hf_lelp.markdown import half_interval, markdown_table
from hf_lelp.metrics import few_class_metrics
from hf_lelp.storage.files import write_json
from hf_lelp.storage.progress import stage
from hf_lelp.student.card import alike_length
from hf_lelp.transfer.origins import counted

logger = logging.getLogger(__name__)


def quality(
    name: str, logits: NDArray[np.floating], labels: NDArray[np.integer], teacher_logits: NDArray[np.floating] | None
) -> dict[str, float]:
    """Return `few_class_metrics` of a model; none, with a warning, where its logits are not finite.

    A student that diverged has no figures: its line shows dashes, and the others keep theirs.

    Args:
        name: of the model, for the warning.
        logits: see `few_class_metrics`, as for the next two.
        labels: of the same rows.
        teacher_logits: left out where they are not finite.
    """
    if not np.isfinite(logits).all():
        logger.warning(f"{name} gave logits that are not finite (NaN or infinite), and has no figures: it diverged.")
        return {}
    known = teacher_logits is not None and bool(np.isfinite(teacher_logits).all())
    return few_class_metrics(logits, labels, teacher_logits if known else None)


class StageCallback(TrainerCallback):
    """Says how far training and prediction are, a line each, in place of Trainer's bars."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open: ExitStack | None = None
        self._advance: Callable[[int], object] = lambda more: None

    def _begin(self, what: str, total: int | None, unit: str) -> None:
        self._end()
        self._open = ExitStack()
        quiet = not PartialState().is_main_process
        self._advance = self._open.enter_context(stage(f"{self.name}: {what}", total, unit=unit, quiet=quiet))

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the stage of training; a resumed one begins where it was stopped."""
        self._begin("training", state.max_steps - state.global_step, "step")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._advance(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the stage of training."""
        self._end()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Print what Trainer logs, where it is asked to."""
        if logs and state.is_local_process_zero and args.logging_strategy != "no":
            shown = (
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in logs.items()
            )
            print(f"{self.name}: {', '.join(shown)}", flush=True)


def stages_for(trainer: Trainer, name: str) -> None:
    """Let a trainer tell of its stages by lines that name it, unless its settings ask for no progress."""
    if trainer.args.disable_tqdm:
        return
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(StageCallback(name))


def results_table(results: dict[str, dict[str, Any]], rows: int) -> str:
    """Tabulate the figures of teacher and students, a line each, in Markdown.

    Args:
        results: figures by name of the model; a dash stands for a missing figure.
        rows: evaluation examples, for the interval under the table.
    """
    columns = {
        "accuracy": lambda r: _percent(r, "accuracy"),
        "macro-F1": lambda r: _percent(r, "macro_f1"),
        "calibration error": lambda r: _percent(r, "ece"),
        "agrees with teacher": lambda r: _percent(r, "teacher_agreement"),
        "parameters": lambda r: _count(r["parameters"]) if "parameters" in r else "–",
        "examples/s": lambda r: _speed(r, "examples_per_second"),
        "at the students' length": lambda r: _speed(r, "examples_per_second_alike", "examples_per_second"),
        "training": lambda r: f"{r['train_seconds']:.0f} s" if "train_seconds" in r else "–",
    }
    alike = alike_length(results)
    if alike is None:
        del columns["at the students' length"]
    else:
        columns = {name.replace("the students' length", f"{alike} tokens"): show for name, show in columns.items()}
    body = [[name, *(show(result) for show in columns.values())] for name, result in results.items()]
    table = markdown_table(["", *columns], body)
    accuracies = [result["accuracy"] for result in results.values() if "accuracy" in result]
    told = f"{table}\n\n{speed_note(results)}{rows_note(results)}"
    if not accuracies:
        return told
    return (
        f"{told}\n{rows:,} evaluation examples: each accuracy alone is known to"
        f" ±{100 * half_interval(accuracies, rows):.1f} points (95%)."
        " One seed; differences within that are not findings."
    )


def _speed(result: dict[str, Any], *keys: str) -> str:
    return next((f"{result[key]:,.0f}" for key in keys if key in result), "–")


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters / 1e3:.1f}k"


def _percent(result: dict[str, Any], key: str) -> str:
    return f"{100 * result[key]:.1f}" if key in result else "–"


def speed_note(results: dict[str, dict[str, Any]]) -> str:
    """Say how the speeds were measured, and how long the texts were that each model read."""
    lengths = {name: result["max_length"] for name, result in results.items() if result.get("max_length")}
    how = "sorted by length, padded to the longest of 32" if lengths else "in batches of 32"
    if len({*lengths.values()}) <= 1:
        cut = "".join(f", cut at {length} tokens" for length in {*lengths.values()})
        return f"examples/s: from input to logits, {how}{cut}."
    each = ", ".join(f"{name} {length}" for name, length in lengths.items())
    return f"examples/s: from input to logits, {how}. Each is cut at its own length in tokens: {each}."


def rows_note(results: dict[str, dict[str, Any]]) -> str:
    """Say on a line of its own what each student learned from, where it was not the data's own rows alone."""
    students: dict[str, list[str]] = {}
    for name, result in results.items():
        if "learned_from" in result:
            students.setdefault(counted(result["learned_from"]), []).append(name)
    told = "; ".join(f"{rows} ({', '.join(names)})" for rows, names in students.items())
    return f"\nLearned from: {told}." if told else ""


def publish(
    results: dict[str, dict[str, Any]],
    alignment: dict[str, Any] | None,
    rows: int,
    output_dir: Path,
    advice: Sequence[str] = (),
) -> dict[str, Any]:
    """Print the tables and the advice, and write all_results.json, from the main process."""
    everything: dict[str, Any] = {"results": results, "evaluation_rows": rows}
    if alignment is not None:
        everything["group_alignment"] = alignment
    path = output_dir / "all_results.json"
    if PartialState().is_main_process:
        write_json(path, everything)
    if alignment is not None:
        say(f"\n{group_table(alignment)}")
        if PartialState().is_main_process and find_spec("matplotlib") is not None:
            plot_groups(alignment, output_dir / "subclasses.png")
    say("\n\n".join(["", results_table(results, rows), *advice, f"Students and {path.name} are in {output_dir}"])[1:])
    return everything


def say(line: str) -> None:
    """Print from the main process alone."""
    if PartialState().is_main_process:
        print(line, flush=True)
