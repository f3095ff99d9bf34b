"""Every setting of a LELP run."""

import copy
import os
from collections.abc import Iterator, KeysView
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NewType, TypeAlias

from transformers import TrainingArguments

AUTO = "auto"
MOST_SUBCLASSES = 32  # that "auto" tries


if TYPE_CHECKING:
    CountOrAuto: TypeAlias = int | str
    NumberOrAuto: TypeAlias = float | str
else:
    # HfArgumentParser makes an option of `int | str` an int, which "auto" is not. A NewType leaves the text as it is,
    # for __post_init__ to read.
    CountOrAuto = NewType("CountOrAuto", int | str)
    NumberOrAuto = NewType("NumberOrAuto", float | str)


class _Metadata(dict[str, str]):
    """Metadata of a setting. HfArgumentParser hands all of its keys to argparse, which knows nothing of `changes`."""

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """Those for argparse."""
        return {name: value for name, value in self.items() if name != "changes"}.keys()


def setting(default: Any, help: str, *, changes: str) -> Any:
    """A field of `LELPConfig`.

    Args:
        default: its value where none is given.
        help: for the command line.
        changes: see `what_changes`.
    """
    return field(default=default, metadata=_Metadata(help=help, changes=changes))


@dataclass
class LELPConfig(TrainingArguments):
    """Settings of `LELPTrainer`: those of `TrainingArguments` and the ones of LELP (arXiv 2409.20449).

    Args:
        num_subclasses: S, pseudo-subclasses per class. 1 is plain knowledge distillation. "auto" is 32, or as many as
            the teacher's embeddings give, unless plain distillation does better on a validation part of the
            training data (`hf_lelp.training.auto_settings`).
        temperature: τ, of the class probabilities of teacher and student in training. "auto" chooses it there too.
        subclass_temperature: β, of the teacher's subclass probabilities; "auto" is 0.5. Projections are scaled to unit
            variance first, so that one value means the same for every teacher and class.
        subclass_weight: weight of telling a class's subclasses apart, beside 1 for telling the classes apart. The
            cross-entropy over S·C outputs is the sum of these two parts: 1 is the paper's loss, 0 plain distillation.
        alpha: α, weight of the cross-entropy with the labels; 1 − α is that of distillation. At 1 no teacher is run.
        student_head: "subclass", the paper's: the student's final layer has S·C rows and its class logits are
            τ · logsumexp(rows / τ), which at τ = 1 is the paper's logsumexp. "auxiliary": the student keeps its C-way
            layer, trained on the teacher's class probabilities, and an S·C-way layer beside it learns the subclasses of
            each class in training only, so every checkpoint is a plain model.
        null_space: remove from the embeddings what the teacher's final layer reads before fitting.
        random_rotation: rotate each class's principal directions, so that all have the same variance in expectation.
        scale_projections: divide each class's projections by their root mean variance.
        whitening: γ, each projection is first divided by its deviation to this power: 0 is the paper, at 1 all
            directions of a class weigh the same, and with a teacher in half precision its rounding with them. `None` is
            0, or 0.5 where `num_subclasses` is "auto" (docs/evidence.md).
        rotation_seed: of the random rotations; `None` is `seed`.
        num_directions: directions per class to fit and store; `None` is `num_subclasses`. More of them let a sweep
            over `num_subclasses` run on the same columns.
        input_columns: one or two text columns, or one of images or sound, of teacher and student; `None` is "text",
            "image" or "audio", or the only column of that kind.
        teacher_input_columns: the same for the teacher, where it reads others than the student.
        label_column: column of the labels. Examples without a label have −100 (or the column is missing).
        max_length: tokens of the student after which a text is cut, `None` is the most that it takes; samples of a
            sound.
        teacher_max_length: the same for the teacher.
        teacher_batch_size: rows per forward pass of the teacher.
        teacher_dtype: of the teacher's weights: "auto" is the one they are saved in.
        teacher_class_order: the teacher's index of each class of the data, where names cannot tell.
        check_teacher: refuse a teacher whose accuracy on the labelled training data is below always answering the
            commonest class.
        columns_cache_dir: where the teacher's columns are kept; `None` is `hf_lelp` in the cache folder of datasets.
        columns_dtype: of the teacher's columns as they are kept: "float32", or "float16", which takes half the space;
            what that does to the targets is in docs/performance.md.

    Raises:
        ValueError: if a setting is out of its range.
    """

    num_subclasses: CountOrAuto = setting(
        8, "S, pseudo-subclasses per class; 1 is plain distillation; 'auto': 32, or 1.", changes="loss"
    )
    temperature: NumberOrAuto = setting(1.0, "τ, temperature of the class probabilities, or 'auto'.", changes="loss")
    subclass_temperature: NumberOrAuto = setting(
        1.0, "β, temperature of the subclass probabilities, or 'auto'.", changes="subclasses"
    )
    subclass_weight: float = setting(
        1.0, "Weight of the subclasses' part of the loss; 1 is the paper's, 0 plain KD.", changes="subclasses"
    )
    alpha: float = setting(0.0, "α, weight of the labels' cross-entropy; at 1 no teacher is needed.", changes="loss")
    student_head: Literal["subclass", "auxiliary"] = setting(
        "subclass",
        "Final layer with S·C rows (the paper), or a plain one with an S·C layer in training only.",
        changes="subclasses",
    )
    null_space: bool = setting(True, "Fit in the null space of the teacher's final layer.", changes="directions")
    random_rotation: bool = setting(True, "Rotate each class's directions at random.", changes="subclasses")
    scale_projections: bool = setting(True, "Scale each class's projections to unit variance.", changes="subclasses")
    whitening: float | None = setting(
        None,
        "γ, from 0, the paper's, to 1, all directions alike (default: 0, or 0.5 with 'auto').",
        changes="subclasses",
    )
    rotation_seed: int | None = setting(None, "Seed of the rotations (default: seed).", changes="subclasses")
    num_directions: int | None = setting(
        None, "Directions per class to fit and store (default: num_subclasses).", changes="directions"
    )
    input_columns: list[str] | None = setting(
        None,
        "One or two text columns, or one of images or sound (default: the only one of its kind).",
        changes="training",
    )
    teacher_input_columns: list[str] | None = setting(
        None, "The same for the teacher, where it reads others than the student.", changes="columns"
    )
    label_column: str = setting("label", "Column of the labels; -100 is no label.", changes="training")
    max_length: int | None = setting(None, "Longest input of the student, in tokens.", changes="training")
    teacher_max_length: int | None = setting(None, "Longest input of the teacher, in tokens.", changes="columns")
    teacher_batch_size: int = setting(64, "Rows per forward pass of the teacher.", changes="columns")
    teacher_dtype: str = setting("auto", "Type of the teacher's weights: auto, float32, bfloat16.", changes="columns")
    teacher_class_order: list[int] | None = setting(
        None, "The teacher's index of each class of the data, where names cannot tell.", changes="columns"
    )
    check_teacher: bool = setting(
        True, "Refuse a teacher below the majority baseline on the labelled training data.", changes="columns"
    )
    columns_cache_dir: str | None = setting(
        None, "Where the teacher's columns are kept (default: in the cache of datasets).", changes="nothing"
    )
    columns_dtype: Literal["float32", "float16"] = setting(
        "float32", "Type of the columns as they are kept; float16 takes half the space.", changes="columns"
    )

    _published = False  # see shown_as_published

    def __getstate__(self) -> dict[str, Any]:
        """Without the token: training_args.bin is this object pickled, and it goes to the Hub with the student."""
        return {**vars(self.published() if self._published else self), "hub_token": None}

    @contextmanager
    def shown_as_published(self) -> Iterator[None]:
        """Within the block this object is pickled as `published` has it."""
        self._published = True
        try:
            yield
        finally:
            del self._published

    def published(self) -> "LELPConfig":
        """A copy for training_args.bin, without the token and with the last name alone of local folders."""
        shown = copy.copy(self)
        shown.hub_token = None
        vars(shown).pop("_published", None)
        for name, value in vars(self).items():
            if isinstance(value, str) and os.path.isabs(value):
                setattr(shown, name, os.path.basename(value.rstrip(os.sep)))
        return shown

    def __copy__(self) -> "LELPConfig":
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> "LELPConfig":
        copied = object.__new__(type(self))
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    def __post_init__(self) -> None:
        super().__post_init__()
        # The command line gives text; YAML reads 1e-1 as text, and one column as a text, not a list.
        for name in ("temperature", "subclass_temperature", "subclass_weight", "alpha"):
            if getattr(self, name) != AUTO or name in ("subclass_weight", "alpha"):
                try:
                    setattr(self, name, float(getattr(self, name)))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{name}={getattr(self, name)!r}: a number is needed.") from error
        if isinstance(self.num_subclasses, str) and self.num_subclasses != AUTO:
            try:
                self.num_subclasses = int(self.num_subclasses)
            except ValueError as error:
                raise ValueError(f"num_subclasses={self.num_subclasses!r}: a whole number is needed.") from error
        for name in ("input_columns", "teacher_input_columns"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        self.whitening = self.whitening if self.whitening is None else float(self.whitening)
        self.columns_cache_dir = self.columns_cache_dir and os.path.expanduser(self.columns_cache_dir)
        self.check()

    @property
    def auto(self) -> bool:
        """Whether a setting is still to be chosen."""
        return AUTO in (self.num_subclasses, self.temperature, self.subclass_temperature)

    @property
    def seed_of_rotations(self) -> int:
        """`rotation_seed`, or where that is not set `seed`."""
        return self.seed if self.rotation_seed is None else self.rotation_seed

    @property
    def directions(self) -> int:
        """K, directions per class to fit: as many as any choice of S takes."""
        most = MOST_SUBCLASSES if self.num_subclasses == AUTO else int(self.num_subclasses)
        return self.num_directions or most

    @property
    def fewest_directions(self) -> int:
        """How many will do where a class does not give as many: "auto" chooses among what is there."""
        return 1 if self.num_subclasses == AUTO else self.directions

    def check(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: if one is out of its range.
        """
        for name in ("temperature", "subclass_temperature"):
            if getattr(self, name) != AUTO and not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)}: a temperature is a positive number.")
        if not 0 <= self.subclass_weight < float("inf"):
            raise ValueError(f"subclass_weight={self.subclass_weight}: a weight is 0 or more.")
        for name in ("num_subclasses", "num_directions", "max_length", "teacher_max_length", "teacher_batch_size"):
            value = getattr(self, name)
            if value is None or (value == AUTO and name == "num_subclasses"):
                continue
            if not isinstance(value, int):
                raise ValueError(f"{name}={value!r}: a whole number is needed.")
            if value < 1:
                raise ValueError(f"{name}={value}: at least 1 is needed.")
        if self.rotation_seed is not None and self.rotation_seed < 0:
            raise ValueError(f"rotation_seed={self.rotation_seed}: a seed is 0 or more.")
        if self.whitening is not None and not 0 <= self.whitening <= 1:
            raise ValueError(f"whitening={self.whitening}: 0 leaves the directions as they are, and 1 is the most.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: the weight of the labels is between 0 and 1.")
        if self.student_head not in ("subclass", "auxiliary"):
            raise ValueError(f"student_head={self.student_head!r}: 'subclass' or 'auxiliary'.")
        if self.columns_dtype not in ("float32", "float16"):
            raise ValueError(f"columns_dtype={self.columns_dtype!r}: 'float32' or 'float16'.")
        needed = 1 if self.num_subclasses == AUTO else int(self.num_subclasses)
        if self.num_directions is not None and self.num_directions < needed:
            raise ValueError(
                f"num_directions={self.num_directions} is fewer than num_subclasses={self.num_subclasses}:"
                " each subclass takes a direction."
            )
        for name in ("input_columns", "teacher_input_columns"):
            columns = getattr(self, name)
            if columns is not None and not 1 <= len(columns) <= 2:
                raise ValueError(f"{name}={columns}: one or two text columns are possible, or one of images or sound.")


# Fields of TrainingArguments that change no student: where a run is kept, what it is called and how it tells of itself.
_CHANGE_NOTHING = ("output_dir", "run_name", "project", "resume_", "logging_", "log_", "save_", "hub_")

# A run whose student is not kept: it writes and says nothing, and answers every row.
SILENT_RUN: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "push_to_hub": False,
    "load_best_model_at_end": False,
    "prediction_loss_only": False,
    "eval_do_concat_batches": True,
    "batch_eval_metrics": False,
}


def what_changes(setting: str) -> str:
    """What a setting of `LELPConfig` changes, as its field declares.

    Every list of settings is made of this: what a run or a trial is known by, what a search may vary.

    Returns:
        "columns": the teacher's columns; "directions": what the projections are fitted with; "subclasses": how a
        class's subclasses are told apart; "loss"; "training": how the student is trained; or "nothing".
    """
    own = LELPConfig.__dataclass_fields__.get(setting)
    if own is not None and "changes" in own.metadata:
        return str(own.metadata["changes"])
    return "nothing" if setting.startswith(_CHANGE_NOTHING) else "training"


def effective_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that do nothing: where S is 1, whatever is about a class's subclasses."""
    if settings["num_subclasses"] != 1:
        return settings
    return {name: value for name, value in settings.items() if what_changes(name) not in ("directions", "subclasses")}


def check_launch(args: LELPConfig) -> None:
    """Check that this process knows of the others, and has one GPU at most.

    Raises:
        RuntimeError: with several GPUs in one process, or several processes that do not know of each other.
    """
    if args.world_size == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_RANK" in os.environ:
        raise RuntimeError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but each would train alone and overwrite the others."
            " On a machine without GPUs set use_cpu=True (--use_cpu)."
        )
    if args.n_gpu > 1:
        raise RuntimeError(
            f"{args.n_gpu} GPUs in one process would train with DataParallel, which LELPTrainer does not support."
            f" Start the script with `accelerate launch --num_processes {args.n_gpu}`, or show it one GPU"
            " (CUDA_VISIBLE_DEVICES=0)."
        )
