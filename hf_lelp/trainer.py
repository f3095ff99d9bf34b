"""Defines `LELPTrainer`, a `transformers.Trainer` whose loss reads the teacher's columns."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
    set_seed,
)

from hf_lelp.classifiers import logits_of
from hf_lelp.config import LELPConfig, check_own_run, what_changes
from hf_lelp.data.class_weights import WeightsOfClasses, read_class_weights, weights_of_classes
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.encoding import Processor
from hf_lelp.data.labels import NO_LABEL, check_single
from hf_lelp.data.text import set_pad_token
from hf_lelp.losses import distillation_loss, example_weights, label_loss, subclass_loss, subclass_targets, widen
from hf_lelp.overrides.dataloading import DataloadingMixin
from hf_lelp.overrides.saving import SavingMixin
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.subclass_scores import SubclassScores
from hf_lelp.student.heads import AuxiliaryHead, StudentHead, all_logits, place_student_head, student_head, take_classes
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.learning_rate import starting_rate, tell_of_rate
from hf_lelp.teacher.class_order import AlignedTeacher
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.training.auto_settings import choose_settings, reads_tokens
from hf_lelp.training.launch import check_launch, common_settings
from hf_lelp.training.outside import check_pushed_folder, check_reporting
from hf_lelp.training.prepared_run import PreparedRun, prepare_run
from hf_lelp.training.trials import fit_student, student_maker

TeacherModel: TypeAlias = PreTrainedModel | TeacherLike | str | os.PathLike[str]


def few_class_compute_metrics(eval_prediction: EvalPrediction) -> dict[str, float]:
    """Call `hf_lelp.metrics.compute_metrics`, imported only now: `evaluate` and scikit-learn are slow to import."""
    from hf_lelp.metrics import compute_metrics

    return compute_metrics(eval_prediction)


def check_arguments(args: Any, compute_metrics: Any, compute_loss_func: Any, optimizers: Any) -> None:
    """Refuse arguments of Trainer that have no place here.

    Raises:
        ValueError: if there is one; the message names it, and what to do instead.
    """
    if not isinstance(args, LELPConfig):
        raise ValueError(f"args is a {type(args).__name__}; LELPTrainer takes a LELPConfig, with all its settings.")
    read_class_weights(args.class_weights)
    if compute_loss_func is not None:
        raise ValueError("LELPTrainer computes its own loss: compute_loss_func has no place in it. Use Trainer for it.")
    if args.label_names and args.label_names != ["labels"]:
        raise ValueError(
            f"label_names={args.label_names}: LELPTrainer knows one column of labels, which it calls 'labels'. Name the"
            " data's own in label_column, and leave label_names out."
        )
    if args.batch_eval_metrics and compute_metrics is few_class_compute_metrics:
        raise ValueError("batch_eval_metrics needs a compute_metrics that adds up batches; the default does not.")
    if args.push_to_hub:
        check_pushed_folder(args)
    check_reporting(args)
    if args.auto and args.alpha < 1:
        check_own_run(args)
    if args.auto and args.alpha < 1 and any(optimizers or ()):
        raise ValueError(
            'The optimizer given belongs to one student, and settings that are "auto" are chosen with several. Use'
            " optimizer_cls_and_kwargs, or set numbers."
        )


def fitted_with(args: LELPConfig) -> dict[str, Any]:
    """The settings that the projections are fitted with."""
    return {name: value for name, value in vars(args).items() if what_changes(name) == "directions"}


class LELPTrainer(DataloadingMixin, SavingMixin):
    """A Trainer that distils a teacher into a student by LELP (arXiv 2409.20449).

    It takes what `Trainer` takes, and a teacher. Datasets may hold raw texts, images or sound, and labels. The trainer
    then runs the teacher over the training data once, caches its columns, and fits class projections on them. Or
    datasets may hold the columns already (`Teacher` and `ClassProjections` in `dataset.map`). Then no teacher is needed
    here. Evaluation, `predict` and metrics see C class logits and the labels of the data, whatever the student's head.

    Images and sound become inputs of the student when they are read. A transform of the training data
    (`dataset.set_transform`), such as augmentation, changes the student's rows first, anew each time. The teacher sees
    the rows as they are stored. So does evaluation, unless its dataset has a transform of its own.

    Args:
        model: the student: Hub id, folder, or a model. An id or folder is loaded in float32, with a classification
            layer for the data's classes. "new:2x128", "layers:2" and "static" make one: see `hf_lelp.making.recipes`.
        args: settings; see `LELPConfig`.
        data_collator: as in Trainer; must keep the rows and their order. It does not see the teacher's columns of a
            `datasets.Dataset`, which are added after it. Those of other datasets it must let through.
        train_dataset: raw (`datasets.Dataset` with text, images or sound), or prepared (any kind of dataset).
        eval_dataset: raw or prepared, or a dictionary of such. The teacher is not run over it. Its loss is the
            cross-entropy with the labels, or the training loss where it has the teacher's columns.
        processing_class: the student's tokenizer, image processor or feature extractor, or a whole processor that
            holds it; `None` loads the one at `model`, where that is an id or folder.
        model_init: makes the student in place of `model`, anew for each run of a search.
        compute_loss_func: refused, as the loss is this class's.
        compute_metrics: by default accuracy, macro-F1, MCC and calibration error (`hf_lelp.metrics`).
        callbacks: as in Trainer, like the three that follow.
        optimizers: an optimizer made of the student's parameters, and a scheduler.
        optimizer_cls_and_kwargs: class and arguments of the optimizer.
        preprocess_logits_for_metrics: changes the logits before they are kept for the metrics.
        teacher_model: the teacher: Hub id, folder, model, `Teacher` or anything like it (`TeacherLike`); or a list of
            several, whose mean teaches. Not needed with `alpha=1`, prepared columns or `soft_label_columns`.
        teacher_processing_class: the teacher's tokenizer, image processor or feature extractor; `None` loads the one at
            `teacher_model`. Of several teachers a list.
        projections: fitted before, to use instead of fitting; needed with prepared `teacher_projections`.
        transfer_dataset: raw rows without labels to train on besides, with the same input columns. The teacher says
            what they are. Those that are evaluation rows are left out.

    Attributes:
        own_columns: names of numeric columns that a subclass adds to its training data (`dataset.map`), of one shape in
            every row. They reach `distillation_losses` beside the teacher's, as the subclass's `_loss_columns` asks.

    Raises:
        ValueError: if teacher, data and student do not fit together; the message says how and what to do.
        RuntimeError: with several GPUs in one process, or several processes that do not know of each other.
    """

    own_columns: tuple[str, ...] = ()

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike[str] | None = None,
        args: LELPConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Processor | ProcessorMixin | None = None,
        model_init: Callable[..., Any] | None = None,
        compute_loss_func: Any = None,
        compute_metrics: Any = few_class_compute_metrics,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: Any = (None, None),
        optimizer_cls_and_kwargs: Any = None,
        preprocess_logits_for_metrics: Any = None,
        *,
        teacher_model: TeacherModel | Sequence[TeacherModel] | AlignedTeacher | None = None,
        teacher_processing_class: Processor | ProcessorMixin | Sequence[Any] | None = None,
        projections: ClassProjections | None = None,
        transfer_dataset: Dataset | None = None,
    ) -> None:
        args = LELPConfig(output_dir="tmp_trainer") if args is None else args
        check_arguments(args, compute_metrics, compute_loss_func, optimizers)
        check_launch(args)
        args = common_settings(args)
        by_size = vars(args)["learning_rate"] is None
        args = copy.copy(args) if args.auto or by_size else args  # the choices are for this student alone
        set_seed(args.seed)  # before the student's new layers are drawn
        run = prepare_run(
            args,
            model=model,
            model_init=model_init,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            collated=data_collator is not None,
            teacher_model=teacher_model,
            teacher_processing_class=teacher_processing_class,
            projections=projections,
            transfer_dataset=transfer_dataset,
            own_columns=self.own_columns,
        )
        if by_size:
            student = student_maker(None, model_init)() if run.student is None else run.student
            args.learning_rate = starting_rate(student)
        self.auto_trials: list[dict[str, Any]] = []
        if args.auto and (model is not None or model_init is not None):
            self.auto_trials = self._choose_settings(
                run, model_init, data_collator=data_collator, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs
            )
            # Trials draw random numbers, unless they are found in the file. Go on as if the numbers had been given.
            set_seed(args.seed)
        self._set_up(
            run,
            data_collator=data_collator,
            model_init=model_init,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )

    def _set_up(self, run: PreparedRun, **kwargs: Any) -> None:
        """Place the head on a prepared run's student, and set up the Trainer with it.

        Args:
            run: prepared; whatever was "auto" in its settings is chosen by now.
            **kwargs: arguments of Trainer, without model, args, datasets and processing class.
        """
        # Set the last two here: Trainer calls `model_init` before it sets them.
        self.prepared, self.args, self.processing_class = run, run.args, run.processing_class
        self.subclass_scores = SubclassScores(run.args, run.projections)
        self._measured: dict[int, dict[str, float]] = {}
        self._class_weights: tuple[Any, WeightsOfClasses | None] | None = None
        if run.train is not None:
            self._weights_of_classes()  # what is wrong with them is said before training
        self._fitted_with = fitted_with(run.args)
        if run.student is not None:
            self._place_head(run.student, run.args)
        self._head: StudentHead | None = student_head(run.student) if run.student is not None else None
        optimizer = (kwargs.get("optimizers") or (None, None))[0]
        if optimizer is not None and self._head is not None:
            check_optimizer(optimizer, self._head)
        super().__init__(
            model=run.student,
            args=run.args,
            train_dataset=run.train,
            eval_dataset=run.evaluation,
            processing_class=run.processing_class,
            **kwargs,
        )
        self._states = [(state, dict(state._shared_state)) for state in (PartialState, AcceleratorState)]
        # Our loss is the mean over each micro-batch. Newer Trainers read the first flag, older ones the second.
        self.loss_is_scaled_for_ga = False
        self.model_accepts_loss_kwargs = False

    def _choose_settings(
        self, run: PreparedRun, model_init: Callable[..., Any] | None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Choose what is "auto", with students like this one on parts of the training data; see `auto_settings`."""
        kind = getattr(model_init, "__qualname__", type(model_init).__qualname__)  # a callable object has no name
        student = kind if run.student is None else repr(run.student.config)
        make_student = student_maker(run.student, model_init)

        def make_trainer(args: LELPConfig, train: Dataset) -> LELPTrainer:
            trial = copy.copy(self)  # keeps the user's own class, whatever its arguments are
            of_part = replace(run, args=args, student=make_student(), train=train, evaluation=None)
            trial._set_up(of_part, compute_metrics=None, **kwargs)
            return trial

        fitted = run.projections.fingerprint if run.projections is not None else ""
        fit = partial(fit_student, make_trainer)
        tokens = reads_tokens(run.processing_class, run.student)
        return choose_settings(run.args, run.train, fit, student, fitted, run.origins, tokens)

    def _set_signature_columns_if_needed(self) -> None:
        first = self._signature_columns is None
        super()._set_signature_columns_if_needed()
        if first:
            self._signature_columns = [*(self._signature_columns or []), *self._loss_columns()]  # type: ignore

    # ---- Student ----

    def _place_head(self, model: PreTrainedModel, args: LELPConfig) -> None:
        take_classes(model, self.prepared.classes.num_labels, self.prepared.classes.names)
        num_subclasses = int(args.num_subclasses) if args.alpha < 1 else 1
        place_student_head(model, num_subclasses, args.student_head, float(args.temperature))
        run, recipe = self.prepared, StudentInputs.of(model.config).recipe
        StudentInputs(run.columns.inputs, run.columns.label, run.max_length, recipe).write(model.config)

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        """As in Trainer, with the student's head placed on what `model_init` returns."""
        if trial is not None:
            # Trainer sets the trial up after this call, but the head depends on the trial's settings.
            self._hp_search_setup(trial)
            self.args.check()
            if fitted_with(self.args) != self._fitted_with:
                raise ValueError(
                    f"The projections are fitted once: a search cannot vary {' or '.join(self._fitted_with)}."
                )
            self._signature_columns = None  # they depend on S
        self._not_finite_at = None
        model = cast(PreTrainedModel, super().call_model_init(trial))  # or one wrapped by PEFT
        self._place_head(model, self.args)
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            set_pad_token(self.processing_class, model)
        self._head = student_head(model)
        return model

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer, with a warning of a learning rate that is far off for the student's size."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            tell_of_rate(self.model, self.args)
        return super().create_optimizer(*args, **kwargs)

    # ---- Loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """L = α · CE(y, class logits) + (1 − α) · `distillation_losses`, mean over the batch.

        With `class_weights`, both losses of an example are multiplied by its weights in training (`example_weights`).
        In evaluation without the teacher's columns, the loss is CE(y, class logits). Without labels too, it is `None`.

        Raises:
            ValueError: in training, if the batch lacks the teacher's columns, or labels that α gives weight to. Also
                if a label is no class index (`check_single`).
        """
        args = self.args
        inputs = dict(inputs)
        labels = inputs.pop("labels", None)
        if labels is not None:
            check_single(labels, "A batch")
        stored = {name: inputs.pop(name, None) for name in self.prepared.columns.of_loss}
        columns: dict[str, Any] = {name: None if values is None else widen(values) for name, values in stored.items()}
        missing = [name for name in self._loss_columns() if columns[name] is None]
        distil = args.alpha < 1 and not missing
        if model.training and args.alpha < 1 and missing:
            raise ValueError(
                f"A training batch has no {', '.join(missing)}: the dataset was not prepared, or the data collator"
                " drops the column."
            )
        if model.training and args.alpha > 0 and labels is None:
            raise ValueError(f"alpha={args.alpha} gives weight to labels, and a training batch has none.")
        with all_logits(self._head):
            outputs = model(**inputs)
        logits = logits_of(outputs).float()  # the classes' logsumexp needs more than half precision
        class_logits, other_logits = self._head.split(logits) if self._head is not None else (logits, logits)

        loss = None
        weights = self._weights_of_classes() if model.training else None
        if distil:
            losses = self.distillation_losses(class_logits, other_logits, {**columns, "labels": labels})
            if weights is not None and weights.distillation is not None:
                taught = subclass_targets(columns[LOGITS_COLUMN], temperature=float(args.temperature)).squeeze(-1)
                losses = losses * example_weights(taught, weights.distillation)
            if args.alpha > 0 and labels is not None:
                hard = self._label_losses(class_logits, labels, weights)
                losses = args.alpha * hard + (1 - args.alpha) * losses
            loss = losses.mean()
        elif labels is not None:
            losses = self._label_losses(class_logits, labels, weights)
            # Training averages over all examples, labelled or not; evaluation over the labelled ones. Where a batch has
            # none, the loss is NaN, which newer versions of Trainer leave out of the mean.
            loss = losses.mean() if model.training else losses.sum() / (labels != NO_LABEL).sum()
        if not return_outputs:
            return loss
        if isinstance(outputs, dict):
            outputs["logits"] = class_logits
        else:
            outputs = (class_logits, *outputs[1:])
        return loss, outputs

    def distillation_losses(
        self, class_logits: torch.Tensor, subclass_logits: torch.Tensor, columns: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Add the classes' cross-entropy and, weighted by `subclass_weight`, that of the subclasses given the class.

        The classes' part is τ² · CE(p_c, softmax(class logits / τ)). With the subclass head, the subclasses' part has
        the same temperature. At `subclass_weight` 1 their sum is the paper's loss,
        τ² · CE(p, softmax over all S·C outputs / τ). The logits of an auxiliary layer belong to no class, so β alone is
        their temperature. The factor τ then gives their part gradients of the same size as the classes' part.

        Args:
            class_logits: of the student, (N, C).
            subclass_logits: of the student, (N, C·S); not read for S = 1.
            columns: the teacher's columns and `labels`, by name.

        Returns:
            Loss per example, (N,).
        """
        temperature, subclass_temperature = float(self.args.temperature), float(self.args.subclass_temperature)
        targets = subclass_targets(
            columns[LOGITS_COLUMN],
            self.subclass_scores(columns[PROJECTIONS_COLUMN]) if self.args.num_subclasses != 1 else None,
            temperature=temperature,
            subclass_temperature=subclass_temperature,
        )
        losses = distillation_loss(class_logits, targets.sum(-1), temperature=temperature)
        if self.args.num_subclasses != 1:
            if isinstance(self._head, AuxiliaryHead):
                subclasses = temperature * subclass_loss(subclass_logits, targets)
            else:
                subclasses = subclass_loss(subclass_logits, targets, temperature=temperature)
            losses = losses + self.args.subclass_weight * subclasses
        return losses

    def _label_losses(
        self, class_logits: torch.Tensor, labels: torch.Tensor, weights: WeightsOfClasses | None
    ) -> torch.Tensor:
        losses = label_loss(class_logits, labels, label_smoothing=self.args.label_smoothing_factor)
        if weights is None or weights.labels is None:
            return losses
        classes = torch.nn.functional.one_hot(labels.clamp(min=0), class_logits.shape[-1]).float()
        return losses * example_weights(classes, weights.labels)  # an unlabelled example has loss 0

    def _weights_of_classes(self) -> WeightsOfClasses | None:
        """The weights of the classes, made anew where a search changes what they depend on."""
        made_for = self.args.class_weights, self.args.temperature, self.args.alpha
        if self._class_weights is None or self._class_weights[0] != made_for:
            made = weights_of_classes(self.args, self.prepared.train, self.prepared.classes.num_labels)
            self._class_weights = made_for, made
        return self._class_weights[1]

    def _loss_columns(self) -> list[str]:
        """The teacher's columns that the loss reads."""
        return [LOGITS_COLUMN, PROJECTIONS_COLUMN] if self.args.num_subclasses != 1 else [LOGITS_COLUMN]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return loss, C class logits and labels of a batch, each `None` where there is none.

        Only the logits leave the model: otherwise hidden states and caches would be gathered from every batch.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        return loss, logits.detach(), inputs.get("labels")


def check_optimizer(optimizer: torch.optim.Optimizer, head: nn.Module) -> None:
    """Refuse an optimizer that was made before the student's final layer, because it would never train that layer.

    Args:
        optimizer: as the user made it.
        head: the student's head, as it is trained.

    Raises:
        ValueError: if the optimizer lacks a parameter of the head.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, value in head.named_parameters() if value.requires_grad and id(value) not in held]
    if missing:
        raise ValueError(
            f"The optimizer given does not hold {', '.join(missing)} of the student's {type(head).__name__}, which is"
            " placed here, and would never train it. Use optimizer_cls_and_kwargs in place of optimizers."
        )
