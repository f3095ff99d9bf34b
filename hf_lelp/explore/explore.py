"""Explores a run from the command line: `hf-lelp explore --config FILE`, with the options that `distill` had."""

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import CONFIG_NAME

from hf_lelp.calibration.settled import hold_back
from hf_lelp.cli.data import expand, load_data
from hf_lelp.cli.distill import DistillArguments
from hf_lelp.cli.groups import group_names
from hf_lelp.cli.options import Program
from hf_lelp.config import AUTO, LELPConfig
from hf_lelp.data.columns import find_label_column
from hf_lelp.data.labels import NO_LABEL, Classes
from hf_lelp.data.rows import column_values
from hf_lelp.explore.page import notes_of, page_of
from hf_lelp.explore.report import report_of
from hf_lelp.explore.rows import Explored, explored_rows, images_of, texts_of
from hf_lelp.markdown import cell, markdown_table
from hf_lelp.projections.cache import fit_projections
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.subclass_scores import SubclassScores
from hf_lelp.saved.saved_student import open_student
from hf_lelp.storage.files import check_writable, write_json, write_text
from hf_lelp.student.answers import Answers, student_answers
from hf_lelp.student.checkpoints import PROJECTIONS_FOLDER
from hf_lelp.student.loading import check_student_folder
from hf_lelp.teacher.class_order import load_aligned_teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.teacher import Teacher
from hf_lelp.training.auto_settings import WHITENING

logger = logging.getLogger(__name__)

PAGE_NAME, JSON_NAME = "explore.html", "explore.json"
TOLD = 5  # slices in the terminal


@dataclass
class ExploreArguments(DistillArguments):
    """What to look at: the options of the run that made the students, or its YAML file, and some more.

    Raises:
        ValueError: if teacher or data are missing.
    """

    students: list[str] | None = field(
        default=None, metadata={"help": "Folders or Hub ids of students (default: those of the run in output_dir)."}
    )
    page_dir: str | None = field(
        default=None, metadata={"help": "Folder for the page and its JSON (default: output_dir with -explore)."}
    )
    title: str = field(default="What the student learned", metadata={"help": "Title of the page."})

    def __post_init__(self) -> None:
        if self.teacher_model is None:
            raise ValueError("teacher_model is missing: its embeddings make the subclasses that the page shows.")
        self.student_model = self.student_model or "unused"  # where a run started from is not looked at
        super().__post_init__()
        if isinstance(self.teacher_model, list):
            raise ValueError(f"teacher_model names {len(self.teacher_model)}: the page shows the subclasses of one.")


def explore(arguments: ExploreArguments, config: LELPConfig) -> dict[str, Any]:
    """Write a page about teacher, students and subclasses on the evaluation rows, and tell the chief of it.

    The teacher's columns and the projections are read where they are kept; missing ones are made.

    Args:
        arguments: the data, the teacher, and the students.
        config: settings of the run; those of LELP say what the subclasses are.

    Returns:
        The report as in explore.json; see `report_of`.

    Raises:
        ValueError: if a student is not there, the page would lie in a student's folder, or data, teacher and students
            do not fit together.
    """
    output_dir = Path(config.output_dir or "out")
    folder = Path(arguments.page_dir or f"{str(output_dir).rstrip('/')}-explore").expanduser()
    places = students_of(arguments, output_dir)
    for place in map(Path, places.values()):
        if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise ValueError(
                f"page_dir={folder} lies in the folder of a student, {place}, which may be pushed. The page holds rows"
                " of the data: choose a folder outside."
            )
    check_writable(folder)
    rows = load_rows(arguments, config, places)
    report = report_of(rows, config.seed)
    write_json(folder / JSON_NAME, report, indent=None)
    page = page_of(report, rows.images, title=arguments.title, json_name=JSON_NAME)
    write_text(folder / PAGE_NAME, page)
    print(summary_of(report))
    print(
        f"\nThe page is {folder / PAGE_NAME}. It holds rows of the data: share it as you would share them.", flush=True
    )
    return report


def load_rows(arguments: ExploreArguments, config: LELPConfig, places: dict[str, str]) -> Explored:
    """Collect what teacher and students say of the evaluation rows.

    Args:
        arguments: the data and the teacher.
        config: settings of the run.
        places: folder or Hub id of each student.
    """
    config = copy.copy(config)
    config.alpha = 0.0  # labels alone need no teacher, and the page does
    train, evaluation = load_data(arguments, config.seed)
    aligned = load_aligned_teacher(expand(str(arguments.teacher_model)), None, config, train, None)
    teacher, classes = aligned.teacher, aligned.classes
    assert isinstance(teacher, Teacher)
    if arguments.held_back is not None:
        train, _ = hold_back(train, arguments.held_back, config.seed, teacher.input_columns)
    projections = _saved_projections(places, teacher)
    if projections is None:
        projections = fit_projections(
            teacher_columns(train, teacher, config.columns_cache_dir, dtype=config.columns_dtype),
            _labels(train, config, classes),
            teacher.head,
            config.directions,
            at_least=config.fewest_directions,
            null_space=config.null_space,
            cache_dir=config.columns_cache_dir,
        )
    labels = _labels(evaluation, config, classes)
    columns = teacher_columns(evaluation, teacher, config.columns_cache_dir, dtype=config.columns_dtype)
    students = {name: _answers(place, evaluation, config, classes) for name, place in places.items()}
    groups = arguments.group_column
    if groups not in (None, *evaluation.column_names):
        raise ValueError(f"group_column={groups}; the data has {', '.join(evaluation.column_names)}.")
    return explored_rows(
        columns,
        np.full(len(evaluation), NO_LABEL) if labels is None else labels,
        classes.names or [str(index) for index in range(classes.num_labels)],
        projections,
        _scores(config, projections),
        students=students,
        texts=texts_of(evaluation, teacher.input_columns),
        images=images_of(evaluation, teacher.input_columns),
        groups=None if groups is None else group_names(evaluation, groups),
    )


def students_of(arguments: ExploreArguments, output_dir: Path) -> dict[str, str]:
    """Find the students by name: those given, or those that the run has saved."""
    if arguments.students is not None:
        given = [expand(name) for name in arguments.students]
        for name in given:
            if Path(name).is_dir():
                check_student_folder(Path(name))
        names = [Path(name).name for name in given]
        named = names if len(set(names)) == len(names) else given
        return dict(zip(named, given, strict=True))
    several = len(arguments.method) > 1
    places = {name: output_dir / name if several else output_dir for name in arguments.method}
    found = {name: str(place) for name, place in places.items() if (place / CONFIG_NAME).exists()}
    if not found:
        logger.warning(f"No student is in {output_dir}: the page compares teacher and labels alone.")
    return found


def _saved_projections(places: dict[str, str], teacher: Teacher) -> ClassProjections | None:
    """Return the projections that lie beside a student of this teacher, as it was trained with; `None` without any."""
    for place in places.values():
        folder = Path(place) / PROJECTIONS_FOLDER
        if folder.is_dir():
            projections = ClassProjections.from_pretrained(folder)
            if projections.teacher == teacher.head.fingerprint:
                return projections
    return None


def _labels(dataset: Any, config: LELPConfig, classes: Classes) -> Any:
    column = find_label_column(dataset, config.label_column)
    return None if column is None else np.array(classes.encode(column_values(dataset, column)))


def _answers(place: str, dataset: Any, config: LELPConfig, classes: Classes) -> Answers:
    student = open_student(place, config.input_columns, config.label_column, config.max_length)
    model: Any = student.model
    if model.config.num_labels != classes.num_labels:
        raise ValueError(
            f"The student {place} has {model.config.num_labels} classes, and the data {classes.num_labels}: it is"
            " another task's."
        )
    columns = student.columns_of(dataset)
    model.to(config.device)
    return student_answers(model, student.processing_class, dataset, columns, student.max_length, classes.names)


def _scores(config: LELPConfig, projections: ClassProjections) -> SubclassScores:
    """Make the scores as the run did; "auto" stands for its largest S, and the whitening that goes with it."""
    settings = copy.copy(config)
    if settings.num_subclasses == AUTO:
        settings.num_subclasses = projections.num_directions
        settings.whitening = WHITENING if settings.whitening is None else settings.whitening
    settings.num_subclasses = min(int(settings.num_subclasses), projections.num_directions)
    return SubclassScores(settings, projections)


def summary_of(report: dict[str, Any]) -> str:
    """Say the chief of a report in lines for the terminal."""
    summary = report["summary"]
    header = ["", "accuracy", "agrees with teacher", "subclasses told (R²)", "subclass named"]
    body = []
    for name in report["models"]:
        student = summary["students"].get(name, {})
        probe = student.get("probe") or {}
        values = (summary["accuracy"].get(name), student.get("agreement"), probe.get("r2"), probe.get("accuracy"))
        body.append([cell(name), *("–" if value is None else f"{100 * value:.1f}" for value in values)])
    lines = [f"{summary['rows']:,} rows, {len(report['classes'])} classes of {summary['num_subclasses']} subclasses:"]
    for one in summary["classes"]:
        held = "" if one["variance_held"] is None else f", which hold {100 * one['variance_held']:.0f}% of its variance"
        lines.append(f"  {cell(one['name'])}: {one['effective_subclasses']:.1f} subclasses in effect{held}")
    lines += ["", markdown_table(header, body), "", *notes_of(report)]
    worse = []
    for kind, slices in (("subclass", report["slices"]), ("group", report["group_slices"])):
        for one in slices:
            for name, model in one["models"].items():
                if model["worse"]:
                    what = report["groups"][one["slice"]] if kind == "group" else one["slice"]
                    again = "and on new rows" if model["stays"] else "but not beyond chance on new rows"
                    accuracy, mean = 100 * model["accuracy"], 100 * model["mean"]
                    of = f"{kind} {cell(what)} of {cell(report['classes'][one['class']])}"
                    worse.append(f"  {cell(name)}: {accuracy:.1f}% in {of}, {mean:.1f}% in its class, {again}")
    lines += ["Slices that are worse than their class:" if worse else "No slice is worse than its class beyond chance."]
    more = [f"  and {len(worse) - TOLD} more on the page"] if len(worse) > TOLD else []
    return "\n".join([*lines, *worse[:TOLD], *more])


PROGRAM = Program(
    explore,
    (ExploreArguments, LELPConfig),
    "Write a page that shows what the subclasses are, and where a student loses against its teacher.",
)
