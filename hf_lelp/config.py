"""Defines every setting of a LELP run, and what each one changes."""

import copy
import os
from collections.abc import Iterator, KeysView
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NewType, TypeAlias

import numpy as np
from transformers import TrainingArguments

AUTO = "auto"
BALANCED = "balanced"
MOST_SUBCLASSES = 32  # the largest S that "auto" tries


if TYPE_CHECKING:
    CountOrAuto: TypeAlias = int | str
    NumberOrAuto: TypeAlias = float | str
    ClassWeights: TypeAlias = list[float] | list[str]
else:
    # HfArgumentParser reads an option of type `int | str` as an int, which fails on "auto". A NewType keeps the text,
    # and __post_init__ reads it.
    CountOrAuto = NewType("CountOrAuto", int | str)
    NumberOrAuto = NewType("NumberOrAuto", float | str)
    ClassWeights = list[str]


def as_list(value: Any) -> Any:
    """A list of one where a single value was given for a setting that takes several; `None` stays."""
    return value if value is None or isinstance(value, list) else list(value) if isinstance(value, tuple) else [value]


class _Metadata(dict[str, str]):
    """Holds a setting's metadata. HfArgumentParser passes all of `keys` to argparse, which does not know `changes`."""

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """The keys that argparse knows."""
        return {name: value for name, value in self.items() if name != "changes"}.keys()


def setting(default: Any, help: str, *, changes: str) -> Any:
    """Declare a field of `LELPConfig`.

    Args:
        default: its value if none is given.
        help: its text on the command line.
        changes: what it changes; see `what_changes`.
    """
    return field(default=default, metadata=_Metadata(help=help, changes=changes))


# The least value of each setting that is a whole number.
_LEAST = {
    **dict.fromkeys(("num_subclasses", "num_directions", "fit_rows", "max_length", "teacher_max_length"), 1),
    **dict.fromkeys(("teacher_batch_size", "budget"), 1),
    "windows": 1,
    "views": 0,
    "rotation_seed": 0,
}


@dataclass
class LELPConfig(TrainingArguments):
    """Settings of `LELPTrainer`: those of `TrainingArguments` and the ones of LELP (arXiv 2409.20449).

    Args:
        num_subclasses: S, pseudo-subclasses per class. 1 is plain knowledge distillation. "auto" tries 32, or as many
            as the teacher's embeddings give; for a student of tokens with the paper's head 8. It takes 1 if plain
            distillation does better on a validation part of the training data, for a student of tokens also where LELP
            is ahead within the noise (`hf_lelp.training.auto_settings`).
        temperature: τ, for the class probabilities of teacher and student in training. "auto" chooses it on the same
            validation part.
        subclass_temperature: β, for the teacher's subclass probabilities; "auto" is 0.5, or 1 for a student of tokens
            with the paper's head. Projections are scaled to unit variance first, so one value means the same for every
            teacher and class.
        subclass_weight: weight of the loss that tells a class's subclasses apart. The loss that tells the classes apart
            has weight 1. The cross-entropy over S·C outputs is the sum of both: 1 is the paper's loss, 0 is plain
            distillation.
        alpha: α, weight of the cross-entropy with the labels; distillation has weight 1 − α. At 1 no teacher is run.
        class_weights: w, a number a class in the data's order, or "balanced": one over the class's share of the rows.
            An example then weighs Σ_c p_c w_c in distillation, and w_y with labels, each of mean 1 over the training
            rows. `None` weighs all examples alike.
        student_head: "subclass" is the paper's: the student's final layer has S·C rows. Its class logits are
            τ · logsumexp(rows / τ), which at τ = 1 is the paper's logsumexp. "auxiliary" keeps the student's C-way
            layer, which learns the teacher's class probabilities. In training only, an S·C-way layer beside it learns
            the subclasses of each class. Every checkpoint is therefore a plain model.
        null_space: before fitting, remove from the embeddings what the teacher's final layer reads.
        random_rotation: rotate each class's principal directions, so that all have the same variance in expectation.
        scale_projections: divide each class's projections by their root mean variance.
        whitening: γ: first divide each projection by its standard deviation to the power γ. 0 is the paper. At 1 all
            directions of a class weigh the same, and so does the rounding of a teacher in half precision. `None` is 0.
            Where `num_subclasses` is "auto" it is 0.5, but for a student of tokens with the paper's head
            (docs/understand/evidence.md).
        rotation_seed: seed of the random rotations; `None` is `seed`.
        num_directions: directions per class to fit and store; `None` is `num_subclasses`. With more of them, a sweep
            over `num_subclasses` can run on the same columns.
        fit_rows: fit on so many rows, drawn at random, and keep logits and projections of all rows, but embeddings of
            those alone. The sample does not depend on `seed`. `None` fits on all rows, and keeps every embedding.
        input_columns: one or two text columns, or one of images or sound, that teacher and student read. `None` is
            "text", "image" or "audio", or the only column of that kind.
        windows: of a long text at most. The first is the text as it is, which the student's tokenizer cuts. The others
            are the pieces behind it, as further training rows without a label. The teacher speaks about each.
        views: altered copies of each training row, at most, as further rows with its label. The teacher sees them too.
        view_kinds: how copies are altered, in turn. Of texts "delete" (words), "crop", "mask" (words; teacher and
            student must share a mask token); of images "crop", "flip", "mix" (with another one). `None` is delete and
            crop, or all three for images (`hf_lelp.transfer.views`).
        teacher_input_columns: the same for the teacher alone, where it reads other columns than the student.
        label_column: column of the labels. Examples without a label have −100 (or the column is missing).
        max_length: for texts, tokens after which the student's inputs are cut; `None` is the most that it takes. For
            sound, samples after which they are cut.
        teacher_max_length: the same for the teacher.
        teacher_batch_size: rows per forward pass of the teacher.
        teacher_dtype: dtype of the teacher's weights; "auto" is the one they are saved in.
        teacher_class_order: the teacher's index of each class of the data, where class names cannot tell.
        teacher_activation: "sigmoid" says that a teacher of one output is a classifier of two classes, and its output
            the second one's logit beside 0. transformers takes one output for regression. `None` follows what the
            teacher's configuration says (sentence-transformers writes it there).
        teacher_weights: of several teachers' logits, as shares of their sum; `None` weighs all alike.
        soft_label_columns: of the training data, in place of a teacher: one of lists of C numbers or of numbers by
            class name, or one of numbers for each class. Their names, without what all begin with, name the classes.
        teacher_scores: what those columns hold, probabilities, log_probabilities or logits. A probability below 1e-6
            counts as 1e-6 (`hf_lelp.teacher.kinds.soft_labels`).
        embedding_model: beside soft labels, an encoder of texts, Hub id or folder. LELP takes the mean of its token
            vectors for the teacher's embedding, and a linear probe from it to the soft labels for the final layer.
        check_teacher: refuse a teacher whose accuracy on the labelled training data is below the majority baseline,
            which always answers the commonest class.
        budget: trainings that a search may take, the last one on all rows among them. From 3 on "auto" compares at
            all; with more than the 5 of a whole search it trains each trial on several parts. `None` is one whole
            search (`hf_lelp.training.auto_settings`).
        columns_cache_dir: where the teacher's columns are kept; `None` is `hf_lelp` in the cache folder of datasets.
        columns_dtype: dtype in which the teacher's columns are kept. "float16" takes half the space of "float32";
            docs/understand/performance.md says what it does to the targets.

    Raises:
        ValueError: if a setting is out of its range.
    """

    num_subclasses: CountOrAuto = setting(
        8, "S, pseudo-subclasses per class; 1 is plain distillation; 'auto': 32, 8 or 1.", changes="loss"
    )
    temperature: NumberOrAuto = setting(1.0, "τ of the class probabilities, or 'auto'.", changes="loss")
    subclass_temperature: NumberOrAuto = setting(
        1.0, "β of the subclass probabilities, or 'auto'.", changes="subclasses"
    )
    subclass_weight: float = setting(
        1.0, "Weight of the subclasses' part of the loss; 1 is the paper's, 0 plain KD.", changes="subclasses"
    )
    alpha: float = setting(0.0, "α, weight of the labels' cross-entropy; at 1 no teacher is needed.", changes="loss")
    class_weights: ClassWeights | None = setting(
        None, "w, weights of the classes: numbers, 'balanced', or 'none' (default).", changes="loss"
    )
    student_head: Literal["subclass", "auxiliary"] = setting(
        "subclass",
        "Final layer with S·C rows (the paper), or a plain one with an S·C layer in training only.",
        changes="subclasses",
    )
    null_space: bool = setting(True, "Fit in the final layer's null space.", changes="directions")
    random_rotation: bool = setting(True, "Rotate each class's directions at random.", changes="subclasses")
    scale_projections: bool = setting(True, "Scale each class's projections to unit variance.", changes="subclasses")
    whitening: float | None = setting(
        None,
        "γ, from 0, the paper's, to 1, all directions alike (default: 0; with 'auto' mostly 0.5).",
        changes="subclasses",
    )
    rotation_seed: int | None = setting(None, "Seed of the rotations (default: seed).", changes="subclasses")
    num_directions: int | None = setting(
        None, "Directions per class to fit and store (default: num_subclasses).", changes="directions"
    )
    fit_rows: int | None = setting(
        None, "Fit on so many rows, and keep no embeddings of the others (default: all rows).", changes="directions"
    )
    input_columns: list[str] | None = setting(
        None,
        "One or two text columns, or one of images or sound (default: the only one of its kind).",
        changes="training",
    )
    windows: int = setting(
        1, "Cut long texts into so many windows at most; later ones have no label.", changes="columns"
    )
    views: int = setting(0, "Altered copies of each row to train on, which the teacher sees too.", changes="columns")
    view_kinds: list[str] | None = setting(
        None, "How: delete, crop, mask for texts; crop, flip, mix for images.", changes="columns"
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
        None, "The teacher's index of each class, where names cannot tell.", changes="columns"
    )
    teacher_activation: Literal["sigmoid"] | None = setting(
        None, "sigmoid: a teacher of one output has two classes (default: as its config says).", changes="columns"
    )
    teacher_weights: list[float] | None = setting(
        None, "Weights of several teachers' logits (default: all alike).", changes="columns"
    )
    soft_label_columns: list[str] | None = setting(
        None, "Soft labels in place of a teacher: a column, or one a class.", changes="columns"
    )
    teacher_scores: Literal["probabilities", "log_probabilities", "logits"] | None = setting(
        None, "What these columns hold; the least probability is 1e-6.", changes="columns"
    )
    embedding_model: str | None = setting(None, "An encoder of texts, for LELP beside soft labels.", changes="columns")
    check_teacher: bool = setting(
        True, "Refuse a teacher below the majority baseline on the labelled training data.", changes="columns"
    )
    budget: int | None = setting(
        None, "Trainings that 'auto' and best may take (default: up to 5).", changes="training"
    )
    columns_cache_dir: str | None = setting(
        None, "Where the teacher's columns are kept (default: in the cache of datasets).", changes="nothing"
    )
    columns_dtype: Literal["float32", "float16"] = setting(
        "float32", "Type of the columns as they are kept; float16 takes half the space.", changes="columns"
    )

    _published = False  # see shown_as_published

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the token: training_args.bin is this object pickled, and it goes to the Hub with the student."""
        return {**vars(self.published() if self._published else self), "hub_token": None}

    @contextmanager
    def shown_as_published(self) -> Iterator[None]:
        """Within the block, pickle the copy that `published` makes instead of this object."""
        self._published = True
        try:
            yield
        finally:
            del self._published

    def published(self) -> "LELPConfig":
        """Copy the settings for training_args.bin: without the token, and only the last name of each local path."""
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
        for name, value in vars(self).items():
            if isinstance(value, np.generic | np.ndarray):
                setattr(self, name, value.tolist())  # Python's own numbers: only they can be written as JSON
        super().__post_init__()
        # The command line gives text. YAML reads 1e-1 as text, and a single column as text instead of a list.
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
        several = ("input_columns", "teacher_input_columns", "view_kinds", "class_weights", "soft_label_columns")
        for name in (*several, "teacher_weights"):
            setattr(self, name, as_list(getattr(self, name)))
        self.whitening = self.whitening if self.whitening is None else float(self.whitening)
        self.columns_cache_dir = self.columns_cache_dir and os.path.expanduser(self.columns_cache_dir)
        self.check()

    @property
    def auto(self) -> bool:
        """Whether a setting is still to be chosen."""
        return AUTO in (self.num_subclasses, self.temperature, self.subclass_temperature)

    @property
    def has_embeddings(self) -> bool:
        """Whether what teaches has embeddings: soft labels alone have none."""
        return self.soft_label_columns is None or self.embedding_model is not None

    @property
    def seed_of_rotations(self) -> int:
        """`rotation_seed`, or `seed` if that is not set."""
        return self.seed if self.rotation_seed is None else self.rotation_seed

    @property
    def directions(self) -> int:
        """K, directions per class to fit: enough for any choice of S."""
        most = MOST_SUBCLASSES if self.num_subclasses == AUTO else int(self.num_subclasses)
        return self.num_directions or most

    @property
    def fewest_directions(self) -> int:
        """The fewest directions that a class must give; with "auto" 1, as it takes what is there."""
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
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None or (value == AUTO and name == "num_subclasses"):
                continue
            if not isinstance(value, int):
                raise ValueError(f"{name}={value!r}: a whole number is needed.")
            if value < least:
                raise ValueError(f"{name}={value}: at least {least} is needed.")
        if self.whitening is not None and not 0 <= self.whitening <= 1:
            raise ValueError(f"whitening={self.whitening}: 0 leaves the directions as they are, and 1 is the most.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: the weight of the labels is between 0 and 1.")
        if self.student_head not in ("subclass", "auxiliary"):
            raise ValueError(f"student_head={self.student_head!r}: 'subclass' or 'auxiliary'.")
        if self.columns_dtype not in ("float32", "float16"):
            raise ValueError(f"columns_dtype={self.columns_dtype!r}: 'float32' or 'float16'.")
        self._check_signals()
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

    def _check_signals(self) -> None:
        if self.teacher_activation not in (None, "sigmoid"):
            raise ValueError(f"teacher_activation={self.teacher_activation!r}: 'sigmoid', or leave it out.")
        soft = self.soft_label_columns is not None
        if soft != (self.teacher_scores is not None):
            raise ValueError(
                f"soft_label_columns={self.soft_label_columns}, teacher_scores={self.teacher_scores!r}: name the"
                " columns and say what they hold, probabilities, log_probabilities or logits. Nothing is guessed."
            )
        if self.embedding_model is not None and not soft:
            raise ValueError(
                f"embedding_model={self.embedding_model} goes with soft_label_columns; a teacher has its own"
                " embeddings."
            )
        if soft and (self.windows > 1 or self.views):
            raise ValueError(
                "Soft labels are of the data's own rows, and nothing says what a window or view of them is. Leave"
                " windows and views out."
            )


# Prefixes of the TrainingArguments fields that change no student: they say where a run is kept, name it and log it.
_CHANGE_NOTHING = ("output_dir", "run_name", "project", "resume_", "logging_", "log_", "save_", "hub_")

# The library makes trainers of its own: for the trials of "auto" and the runs of compare. The rest of this section says
# what such a trainer does with each setting of TrainingArguments: it resets it, refuses it or takes the user's value.
# A test fails where transformers has a setting that none of the three names.

# Settings with which a prediction has a row for every row of the data.
PREDICT_ALL_ROWS: dict[str, Any] = {
    "prediction_loss_only": False,
    "eval_do_concat_batches": True,
    "batch_eval_metrics": False,
}
# Reset: a student that is not kept is not evaluated on the way, saved, logged or published.
SILENT_RUN: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "eval_on_start": False,
    "logging_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "push_to_hub": False,
    "load_best_model_at_end": False,
    "enable_jit_checkpoint": False,  # after SIGTERM a student that is trained in part would count as a trained one
    **PREDICT_ALL_ROWS,
}
# Refused: these values follow evaluations during training, and such a trainer makes none.
REFUSED_IN_OWN_RUNS: dict[str, tuple[str, ...]] = {"lr_scheduler_type": ("reduce_lr_on_plateau", "greedy")}
# Taken as they are. Those in the last lines are in some versions of transformers alone.
_PASSED_ON = """
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_kwargs warmup_steps
    optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules gradient_accumulation_steps
    average_tokens_across_devices max_grad_norm label_smoothing_factor bf16 fp16 bf16_full_eval fp16_full_eval tf32
    gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode
    use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha torch_empty_cache_steps auto_find_batch_size
    logging_steps logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level
    log_level_replica run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_steps eval_delay
    per_device_eval_batch_size eval_use_gather_object eval_accumulation_steps include_for_metrics save_only_model
    save_steps save_on_each_node save_total_limit hub_token hub_private_repo hub_model_id hub_strategy hub_always_push
    hub_revision metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint
    full_determinism seed data_seed use_cpu accelerator_config parallelism_config dataloader_drop_last
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    remove_unused_columns label_names train_sampling_strategy length_column_name ddp_find_unused_parameters
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug
    skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint local_rank
    activation_checkpointing activation_checkpointing_kwargs dataloader_in_order dataloader_multiprocessing_context
    logging_dir warmup_ratio
"""
PASSED_ON = frozenset(_PASSED_ON.split())


def check_embeddings(args: "LELPConfig", what: str | None = None) -> None:
    """Refuse what needs embeddings where soft labels alone teach.

    Args:
        args: settings of the run.
        what: needs them; `None` is the subclasses.

    Raises:
        ValueError: saying what to do.
    """
    if not args.has_embeddings:
        what = f"num_subclasses={args.num_subclasses}" if what is None else what
        raise ValueError(
            f"{what} needs embeddings, and soft labels have none. Name an encoder of texts in embedding_model, or"
            " distil without subclasses: num_subclasses=1, the method kd."
        )


def check_own_run(args: "LELPConfig") -> None:
    """Refuse settings that mean nothing to a trainer that the library makes itself.

    Raises:
        ValueError: naming the setting.
    """
    for name, values in REFUSED_IN_OWN_RUNS.items():
        value = getattr(args, name)
        if value in values:
            raise ValueError(
                f"{name}={str(getattr(value, 'value', value))!r} follows evaluations during training, and the trials of"
                ' "auto" and the runs of compare make none. Set another one, or numbers in place of "auto".'
            )


def what_changes(setting: str) -> str:
    """Say what a setting of `LELPConfig` changes, as its field declares.

    From this comes what identifies a run or a trial, and what a search may vary.

    Returns:
        "columns": the teacher's columns; "directions": what the projections are fitted with; "subclasses": how a
        class's subclasses are told apart; "loss"; "training": how the student is trained; or "nothing".
    """
    own = LELPConfig.__dataclass_fields__.get(setting)
    if own is not None and "changes" in own.metadata:
        return str(own.metadata["changes"])
    return "nothing" if setting.startswith(_CHANGE_NOTHING) else "training"


def effective_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Drop the settings that have no effect: where S is 1, all that concern a class's subclasses."""
    if settings["num_subclasses"] != 1:
        return settings
    return {name: value for name, value in settings.items() if what_changes(name) not in ("directions", "subclasses")}
