"""Makes a student's model card: README.md and its metadata, from what is known and measured.

What is not known is left out. Text from data, names or settings is escaped: a label cannot become a link, a heading or
a script on the Hub.
"""

import logging
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_lelp.markdown import escape, half_interval, markdown_table, printable, template
from hf_lelp.storage.files import write_text

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"
_SIGNATURE = "Made with hf-lelp, an implementation of"  # in the template

# For each Auto class: the task's tag on the Hub, and an input for the example.
TASKS = {
    "AutoModelForSequenceClassification": ("text-classification", "A text to classify"),
    "AutoModelForImageClassification": ("image-classification", "image.png"),
    "AutoModelForAudioClassification": ("audio-classification", "audio.wav"),
    "AutoModelForVideoClassification": ("video-classification", "video.mp4"),
}
_TAGS = {"direct": [], "kd": ["knowledge-distillation"], "lelp": ["lelp", "knowledge-distillation"]}
# For each key of the results: the heading on the card; the metric's type, name and arguments in the metadata.
QUALITY: dict[str, tuple[str, tuple[str, str, dict[str, Any] | None] | None]] = {
    "accuracy": ("accuracy", ("accuracy", "Accuracy", None)),
    "macro_f1": ("macro-F1", ("f1", "Macro F1", {"average": "macro"})),
    "mcc": ("Matthews correlation", ("matthews_correlation", "Matthews correlation", None)),
    "ece": ("calibration error", ("expected_calibration_error", "Expected calibration error (15 bins)", None)),
    "teacher_agreement": ("agrees with teacher", None),
}
_MOST_CLASSES = 20


@dataclass(frozen=True)
class EvaluationData:
    """What the figures were measured on.

    Attributes:
        rows: number of examples.
        name: for readers; `None` if unknown.
        kind: as for `load_dataset`: a Hub id or a file format; `None` keeps the figures out of the metadata.
        config: of the dataset on the Hub.
        split: of the dataset.
    """

    rows: int
    name: str | None = None
    kind: str | None = None
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class StudentCard:
    """What is known of a student, to be rendered as its card.

    Attributes:
        repo: its Hub id, or name.
        method: "lelp", "kd" or "direct".
        row: its key in `results`.
        auto_class: the Auto class of transformers that loads it; `None` where none does.
        classes: names of the C classes.
        num_subclasses: S if the final layer has S·C rows, which takes code to load; 1 for a plain model.
        static: whether it is a `StaticForSequenceClassification`, which takes code to load too.
        adapter: whether it is saved as an adapter of PEFT, beside the model that it adapts.
        not_finite_at: the first step of its training whose loss was NaN or infinite.
        grey: whether it reads images of one channel; `pipeline` makes three.
        settings: of method and training, by name.
        made: Markdown on how the model was made that this one stands for, from its own card.
        results: figures by model, as `distill` makes them.
        evaluation: what `results` were measured on.
        max_length: in tokens; longer inputs were cut in training.
        student: Hub id of the model that it started from.
        teacher: Hub id of the teacher.
        taught_by: words for what taught it, where that has no Hub id.
        datasets: Hub ids of the training data.
        language: of the data.
        license: of the student.
        tags: besides those of the method.
    """

    repo: str
    method: str
    row: str
    auto_class: str | None
    classes: list[str]
    num_subclasses: int = 1
    static: bool = False
    adapter: bool = False
    not_finite_at: int | None = None
    grey: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    made: str | None = None
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation: EvaluationData | None = None
    max_length: int | None = None
    student: str | None = None
    teacher: str | None = None
    taught_by: str = "a teacher"
    datasets: list[str] = field(default_factory=list)
    language: str | None = None
    license: str | None = None
    tags: list[str] = field(default_factory=list)

    def render(self) -> ModelCard:
        """Render the card, with `model-index` metadata if the evaluation data is named."""
        task, example = TASKS[self.auto_class] if self.auto_class is not None else (None, None)
        title = printable(self.repo.rpartition("/")[2])
        classes = ", ".join(map(escape, self.classes[:_MOST_CLASSES]))
        more = len(self.classes) - _MOST_CLASSES
        named = {f"{name} (this model)" if name == self.row else name: result for name, result in self.results.items()}
        accuracies = [result["accuracy"] for result in self.results.values() if "accuracy" in result]
        rows = self.evaluation.rows if self.evaluation is not None else None
        measured = {key for result in self.results.values() for key in result}
        return ModelCard.from_template(
            self._metadata(task, title),
            template_str=template("student_card.md"),
            title=escape(title) + self._headline(task),
            # A folder's bare name could be somebody else's repository: the example would run its code.
            repo=self.repo if "/" in self.repo and _is_repo_id(self.repo) else "path/to/the/student",
            task=task,
            example=example,
            method=self.method,
            auto_class=self.auto_class,
            class_count=len(self.classes),
            classes=classes + (f", … {more} more" if more > 0 else ""),
            student=_known(self.student),
            teacher=_known(self.teacher),
            taught_by=self.taught_by,
            needs_code=self.num_subclasses > 1 or self.static,
            static=self.static,
            num_subclasses=self.num_subclasses,
            adapter=self.adapter,
            not_finite_at=self.not_finite_at,
            grey=self.grey,
            max_length=self.max_length,
            evaluation=self._evaluated_on() if measured & {*QUALITY, "examples_per_second"} else None,
            quality=_table(named, {key: (heading, _quality) for key, (heading, _) in QUALITY.items()}),
            interval=f"{100 * half_interval(accuracies, rows):.1f}" if accuracies and rows else None,
            calibrated="ece" in measured,
            cost=_table(named, _costs(self.results)),
            devices=escape(", ".join(sorted({r["device"] for r in self.results.values() if "device" in r}))),
            made=self.made,
            settings=markdown_table(
                ["setting", "value"], [[escape(name), escape(value)] for name, value in self.settings.items()]
            ),
        )

    def _headline(self, task: str | None) -> str:
        """Say behind the title what the student is: its task, its teacher and where it started."""
        said = f": {(task or 'classification').replace('-', ' ')}"
        if self.method == "direct":
            return said
        parameters = [self.results.get(name, {}).get("parameters") for name in ("teacher", self.row)]
        teacher, student = (
            known or (f"a {role} of {count / 1e6:,.1f}M parameters" if count else f"a {role}")
            for role, known, count in zip(
                ("teacher", "student"), map(_known, (self.teacher, self.student)), parameters, strict=True
            )
        )
        if self.taught_by != "a teacher" and _known(self.teacher) is None:
            teacher = self.taught_by
        return f"{said}, distilled from {teacher} into {student}"

    def save(self, path: Path, *, replace_any: bool = False) -> None:
        """Write the card; a file that the library did not make stays, with a warning.

        Args:
            path: of the card.
            replace_any: whether to replace such a file too.
        """
        if replace_any or not path.exists() or is_own_card(path):
            write_text(path, str(self.render()))
        else:
            logger.warning(f"{path} was not made by hf-lelp, and stays. trainer.create_model_card() replaces it.")

    def _metadata(self, task: str | None, title: str) -> ModelCardData:
        figures = self.results.get(self.row, {})
        metrics = {key: metric for key, (_, metric) in QUALITY.items() if metric is not None and key in figures}
        data = self.evaluation
        evaluations = None
        if task is not None and data is not None and data.name is not None and data.kind is not None and metrics:
            evaluations = [
                EvalResult(
                    task_type=task,
                    dataset_type=printable(data.kind),
                    dataset_name=printable(data.name),
                    dataset_config=data.config,
                    dataset_split=data.split,
                    metric_type=kind,
                    metric_name=name,
                    metric_args=arguments,
                    metric_value=round(figures[key], 4),
                )
                for key, (kind, name, arguments) in metrics.items()
            ]
        base_models = [name for name in map(_known, (self.student, self.teacher)) if name is not None]
        return ModelCardData(
            language=self.language,
            license=self.license,
            library_name="peft" if self.adapter else "transformers",
            pipeline_tag=task,
            tags=list(dict.fromkeys(["hf-lelp", *_TAGS[self.method], *self.tags])),
            base_model=base_models or None,
            # Two base models alone would read as a merge of them.
            base_model_relation="finetune" if base_models else None,
            datasets=self.datasets or None,
            metrics=[kind for kind, _, _ in metrics.values()] or None,
            model_name=title if evaluations else None,
            eval_results=evaluations,
        )

    def _evaluated_on(self) -> str | None:
        data = self.evaluation
        if data is None:
            return None
        if data.name is None:
            return f"{data.rows:,} rows of evaluation data given to the trainer"
        parts = [
            escape(data.name),
            f"configuration {escape(data.config)}" if data.config else "",
            f"split {escape(data.split)}" if data.split else "",
        ]
        return f"{', '.join(part for part in parts if part)}: {data.rows:,} rows"


def hub_id(name: object) -> str | None:
    """Return `name` if it names a Hub repository that files were loaded from, else `None`.

    A path must not get on a card: it tells of somebody's machine, and nobody else can follow it. So a name counts only
    if it is no local path and the Hub cache has a config.json for it.
    """
    if not isinstance(name, str) or not _is_repo_id(name) or Path(name).exists():
        return None
    return name if isinstance(try_to_load_from_cache(name, "config.json"), str) else None


def _known(name: str | None) -> str | None:
    """Return a name that the user gave if it can be a repository's: paths and markup stay off the card."""
    return name if name is not None and _is_repo_id(name) and not Path(name).exists() else None


def _is_path(name: str) -> bool:
    return os.path.isabs(os.path.expanduser(name)) or Path(name).exists()


def _is_repo_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(name)


def _quality(value: float) -> str:
    return f"{100 * value:.1f}"


def alike_length(results: dict[str, dict[str, Any]]) -> int | None:
    """Return the length in tokens that all models were also measured at; `None` where each one's own is the same."""
    own = {result.get("max_length") for result in results.values()}
    alike = {result["alike_length"] for result in results.values() if "alike_length" in result}
    return alike.pop() if len(own) > 1 and alike else None


_COST: dict[str, tuple[str, Any]] = {
    "parameters": ("parameters", lambda value: f"{value:,}"),
    "max_length": ("tokens, at most", lambda value: f"{value:,}" if value else "–"),
    "examples_per_second": ("examples/s", lambda value: f"{value:,.0f}"),
    "train_seconds": ("training", lambda value: f"{value:,.0f} s"),
}


def _costs(results: dict[str, dict[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Return the columns of the table of costs: the speed at a common length only where the models' own differ."""
    alike = alike_length(results)
    speed = _COST["examples_per_second"][1]
    return _COST if alike is None else {**_COST, "examples_per_second_alike": (f"at {alike} tokens", speed)}


def _table(results: dict[str, dict[str, Any]], columns: dict[str, tuple[str, Any]]) -> str | None:
    """Tabulate results by model; columns without any figure are left out, and without columns it is `None`."""
    present = {key: column for key, column in columns.items() if any(key in result for result in results.values())}
    body = [
        [name, *(show(result[key]) if key in result else "–" for key, (_, show) in present.items())]
        for name, result in results.items()
        if present.keys() & result.keys()
    ]
    return markdown_table(["", *(heading for heading, _ in present.values())], body) if present else None


def is_own_card(path: Path) -> bool:
    """Whether a file is a card that this library made, perhaps edited since."""
    return path.is_file() and _SIGNATURE.encode() in path.read_bytes()


def how_made(path: Path) -> str | None:
    """Return what a student's own card says of how it was made, in Markdown; `None` where the library made no card."""
    if not is_own_card(path):
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"(?ms)^## How it was made\n(.*?)(?=^## |\Z)", text)
    return found[1].strip() if found else None


def add_runtimes(path: Path, table: str) -> None:
    """Put a table of runtimes on a saved card, replacing an earlier one.

    Args:
        path: of the card.
        table: Markdown, as `export.measure.runtimes_table` makes it.
    """
    write_text(path, _with_section(path.read_text(encoding="utf-8"), "Other runtimes", table))


def card_of_one_output(text: str, yes: str) -> str:
    """Return a student's card for its copy with one output.

    Args:
        text: of a card that this library made.
        yes: name of the class whose logit the output is.
    """
    body = (
        "This copy has one output, z, where the student has two logits: their difference. sigmoid(z) is the"
        f" probability of {escape(yes)}. `pipeline` gives that as the score, and so does `CrossEncoder` of"
        " sentence-transformers."
    )
    return _with_section(text.replace("It gives one logit per class.", "It gives one output."), "One output", body)


def add_calibration(path: Path, lines: str, ece: float | None) -> None:
    """Say on a saved card that its student was calibrated, and replace its calibration error, which has changed.

    A card that the library did not make stays as it is.

    Args:
        path: of the card.
        lines: what was fitted, and what it does.
        ece: calibration error of the student as it is now; `None`, if it was not measured, leaves a dash.
    """
    if not is_own_card(path):
        return
    card = ModelCard.load(path)
    entries = card.data.eval_results or []
    for entry in entries:
        if entry.metric_type == "expected_calibration_error" and ece is not None:
            entry.metric_value = round(ece, 4)
    if ece is None:
        card.data.eval_results = [one for one in entries if one.metric_type != "expected_calibration_error"] or None
    text = _with_section(str(card), "Calibration", escape_lines(lines))
    write_text(path, _with_figure(text, QUALITY["ece"][0], "–" if ece is None else _quality(ece)))


def escape_lines(lines: str) -> str:
    """Escape a text of several lines, each a paragraph."""
    return "\n\n".join(f"{escape(line)}." for line in lines.splitlines())


def _with_section(text: str, title: str, body: str) -> str:
    """Put a section on a card's text, before how it was made, in place of an earlier one."""
    own = re.search(rf"(?ms)^## {title}\n.*?(?=^## |\Z)", text)
    after = re.search(r"(?m)^## How it was made\n", text)
    start, end = own.span() if own else (after.start(),) * 2 if after else (len(text),) * 2
    rest = f"\n{text[end:]}" if text[end:] else ""
    return f"{text[:start].rstrip()}\n\n## {title}\n\n{body}\n{rest}"


def _with_figure(text: str, heading: str, figure: str) -> str:
    """Replace this model's figure in the column of a card's table that has a heading."""
    lines, column = text.split("\n"), None
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            column = None
            continue
        cells = line.split("|")
        column = next((place for place, cell in enumerate(cells) if cell.strip() == heading), column)
        if column is not None and "(this model)" in cells[1]:
            cells[column] = f"{figure:>{len(cells[column]) - 1}} "
            lines[number] = "|".join(cells)
    return "\n".join(lines)


def with_user_facts(
    card: StudentCard,
    language: str | None = None,
    license: str | None = None,
    tags: str | list[str] | None = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tasks: str | list[str] | None = None,
    dataset_tags: str | list[str] | None = None,
    dataset: str | list[str] | None = None,
    dataset_args: str | list[str] | None = None,
) -> StudentCard:
    """Add what the user knows to a card; the arguments are those of `Trainer.create_model_card`.

    Args:
        card: of the student.
        language: of the data.
        license: of the student; none is assumed.
        tags: further tags.
        model_name: if it is not the repository's name.
        finetuned_from: Hub id of the model that the student started from, if it is not the one loaded.
        tasks: unused; the model's class tells the task.
        dataset_tags: Hub ids of the data; a path stays off the card. With at least one, the figures go into the
            metadata as `model-index`.
        dataset: its name for readers, if that is not the Hub id.
        dataset_args: the split that the figures were measured on.
    """
    ids, names = ([name for name in _listed(given) if not _is_path(name)] for given in (dataset_tags, dataset))
    splits = _listed(dataset_args)
    evaluation = card.evaluation
    if evaluation is not None:
        kind = ids[0] if ids else None
        evaluation = replace(
            evaluation, name=names[0] if names else kind, kind=kind, split=splits[0] if splits else None
        )
    return replace(
        card,
        repo=card.repo if model_name in (None, card.repo.rpartition("/")[2]) else model_name,
        student=finetuned_from or card.student,
        datasets=ids,
        evaluation=evaluation,
        language=language,
        license=license,
        tags=_listed(tags),
    )


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
