"""`LELPTrainer`: a `transformers.Trainer` whose loss reads the teacher's columns."""

import copy
from functools import partial
from typing import Any, cast

import torch
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hf_lelp.classifiers import load_processor, logits_of
from hf_lelp.config import LELPConfig, check_launch
from hf_lelp.data.checks import check_tokens
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN, TEACHER_COLUMNS
from hf_lelp.data.encoding import Processor
from hf_lelp.data.labels import NO_LABEL, Classes
from hf_lelp.data.rows import transform_of
from hf_lelp.data.text import max_tokens, set_pad_token
from hf_lelp.losses import distillation_loss, label_loss, subclass_loss, subclass_targets
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.subclass_scores import SubclassScores
from hf_lelp.student.card import hub_id
from hf_lelp.student.heads import AuxiliaryHead, StudentHead, all_logits, place_student_head, student_head, take_classes
from hf_lelp.student.loading import new_student
from hf_lelp.teacher.class_order import load_aligned_teacher
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher
from hf_lelp.training.auto_settings import choose_settings, fit_student, student_maker
from hf_lelp.training.dataloading import DataloadingMixin
from hf_lelp.training.saving import SavingMixin
from hf_lelp.training.student_inputs import check_prepared
from hf_lelp.training.targets import TeacherData, make_targets


def few_class_compute_metrics(eval_prediction: EvalPrediction) -> dict[str, float]:
    """`hf_lelp.metrics.compute_metrics`, imported on first use: `evaluate` and scikit-learn are slow to import."""
    from hf_lelp.metrics import compute_metrics

    return compute_metrics(eval_prediction)


class LELPTrainer(DataloadingMixin, SavingMixin):
    """A Trainer that distils a teacher into a student by LELP (arXiv 2409.20449).

    Takes what `Trainer` takes, and a teacher. Datasets may hold raw texts, images or sound and labels: the teacher is
    run over the training data once, its columns are kept in a cache, and class projections are fitted on them. Or they
    may hold the columns already (`Teacher` and `ClassProjections` in `dataset.map`); then no teacher is needed here.
    Evaluation, `predict` and metrics see C class logits and the labels of the data, whatever the student's head.

    Images and sound become inputs of the student when they are read. A transform of the training data
    (`dataset.set_transform`) is applied to the student's rows first, anew each time: augmentation. The teacher sees the
    rows as they are stored, and so does evaluation, unless its dataset has a transform of its own.

    Args:
        model: the student: Hub id, folder, or a model. Ids are loaded with a classification layer for the data's
            classes, in float32.
        args: settings; see `LELPConfig`.
        data_collator: as in Trainer; must let the teacher's columns through.
        train_dataset: raw (`datasets.Dataset` with text, images or sound), or prepared (any kind of dataset).
        eval_dataset: raw or prepared, or a dictionary of such. The teacher is not run over it; its loss is the
            cross-entropy with the labels, or that of training where it has the teacher's columns.
        processing_class: the student's tokenizer, image processor or feature extractor; `None` loads the one at
            `model`, where that is an id or folder.
        teacher_model: the teacher: Hub id, folder, model, `Teacher` or anything like it (`TeacherLike`). Not needed
            with `alpha=1` or prepared columns.
        teacher_processing_class: what prepares its inputs; `None` loads the one at `teacher_model`.
        projections: fitted before, to be used instead of fitting; needed with prepared `teacher_projections`.
        compute_metrics: by default accuracy, macro-F1, MCC and calibration error (`hf_lelp.metrics`).
        **kwargs: all other arguments of Trainer.

    Raises:
        ValueError: if teacher, data and student do not fit together; the message says how and what to do.
        RuntimeError: with several GPUs in one process, or several processes that do not know of each other.
    """

    def __init__(
        self,
        model: PreTrainedModel | str | None = None,
        args: LELPConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Processor | None = None,
        *,
        teacher_model: PreTrainedModel | TeacherLike | str | None = None,
        teacher_processing_class: Processor | None = None,
        projections: ClassProjections | None = None,
        compute_metrics: Any = few_class_compute_metrics,
        **kwargs: Any,
    ) -> None:
        args = LELPConfig(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, LELPConfig):
            raise ValueError(f"args is a {type(args).__name__}; LELPTrainer takes a LELPConfig, with all its settings.")
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError(
                "LELPTrainer computes its own loss: compute_loss_func has no place in it. Use Trainer for it."
            )
        if args.batch_eval_metrics and compute_metrics is few_class_compute_metrics:
            raise ValueError("batch_eval_metrics needs a compute_metrics that adds up batches; the default does not.")
        check_launch(args)
        args = copy.copy(args) if args.auto else args  # what is chosen is for this student
        set_seed(args.seed)  # before the student's new layers are drawn
        if processing_class is None and isinstance(model, str):
            processing_class = load_processor(model)

        # Columns are made and read before the student is touched: most mistakes show here.
        settled: Classes | None = getattr(args, "_settled_classes", None)  # of a search for settings
        teacher, self._classes = (
            (None, settled)
            if settled is not None
            else load_aligned_teacher(teacher_model, teacher_processing_class, args, train_dataset, model)
        )
        self._teacher_data: TeacherData | None = None
        form: dict[str, Any] = train_dataset.format if isinstance(train_dataset, Dataset) else {"type": None}
        if isinstance(train_dataset, Dataset) and args.alpha < 1:
            self._teacher_data = make_targets(train_dataset, teacher, args, self._classes, projections)
            train_dataset, projections = self._teacher_data.dataset, self._teacher_data.projections
        self.projections = projections
        self._teacher_name = hub_id(teacher.model.name_or_path) if isinstance(teacher, Teacher) else None
        maker = projections.teacher if projections is not None else None
        self._teacher_fingerprint = teacher.head.fingerprint if teacher is not None else maker
        self._measured: dict[int, dict[str, float]] = {}
        self._fitted_with = (args.null_space, args.num_directions)

        if isinstance(model, str):
            model = new_student(model, self._classes.num_labels)
        model_init = kwargs.get("model_init")
        # One to look at, where students are yet to be made.
        student: Any = model if model_init is None else student_maker(model, model_init)()
        if isinstance(processing_class, PreTrainedTokenizerBase) and hasattr(student, "config"):
            set_pad_token(processing_class, student)
        self.subclass_scores = SubclassScores(args, projections)
        self._max_length = args.max_length
        if isinstance(processing_class, PreTrainedTokenizerBase):
            self._max_length = max_tokens(processing_class, student, args.max_length)
        self.args, self.processing_class = args, processing_class
        if processing_class is None and data_collator is None and student is not None:
            check_prepared(train_dataset, student.main_input_name)
        if data_collator is None and student is not None:
            evaluated = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
            for dataset in (train_dataset, *evaluated):
                check_tokens(dataset, student)
        if train_dataset is not None:
            train_dataset = self._prepare(train_dataset)
        if form["type"] == "torch" and processing_class is None and transform_of(train_dataset) is None:
            # Arrays as lists of numbers would be slow to read.
            train_dataset = train_dataset.with_format("torch", **form["format_kwargs"])
        self.auto_trials: list[dict[str, Any]] = []
        if args.auto and student is not None:
            self._choose_settings(args, train_dataset, model, data_collator, kwargs)
            set_seed(args.seed)  # as if the numbers had been given: trials draw too, unless they are found
        if model is not None:
            self._place_head(model, args)
        self._head: StudentHead | None = student_head(model) if model is not None else None
        optimizer = (kwargs.get("optimizers") or (None, None))[0]
        if optimizer is not None and self._head is not None:
            check_optimizer(optimizer, self._head)
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self._prepare(dataset) for name, dataset in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = self._prepare(eval_dataset)

        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        # Ours is the mean over each micro-batch. Older versions of Trainer ask the second, newer ones the first.
        self.loss_is_scaled_for_ga = False
        self.model_accepts_loss_kwargs = False

    def _choose_settings(
        self, args: LELPConfig, dataset: Any, model: Any, data_collator: Any, kwargs: dict[str, Any]
    ) -> None:
        """Settle what is "auto", with students like this one on parts of the training data; see `hf_lelp.training.auto_settings`."""
        if args.alpha < 1 and any(kwargs.get("optimizers") or ()):
            raise ValueError(
                'The optimizer given belongs to one student, and settings that are "auto" are chosen with several. Use'
                " optimizer_cls_and_kwargs, or set numbers."
            )
        model_init = kwargs.get("model_init")
        make_student = student_maker(model, model_init)
        make_trainer = partial(
            type(self),
            data_collator=data_collator,
            processing_class=self.processing_class,
            projections=self.projections,
            compute_metrics=None,
            optimizer_cls_and_kwargs=kwargs.get("optimizer_cls_and_kwargs"),
        )
        kind = getattr(model_init, "__qualname__", type(model_init).__qualname__)  # a callable object has no name
        student = repr(model.config) if model_init is None else kind
        args._settled_classes = self._classes  # type: ignore[attr-defined]  # a part of the data may lack one
        try:
            fit = partial(fit_student, make_trainer, make_student)
            fitted = self.projections.fingerprint if self.projections is not None else ""
            self.auto_trials = choose_settings(args, dataset, fit, student, fitted)
        finally:
            del args._settled_classes  # type: ignore[attr-defined]

    def _set_signature_columns_if_needed(self) -> None:
        first = self._signature_columns is None
        super()._set_signature_columns_if_needed()
        if first:
            self._signature_columns = [*(self._signature_columns or []), *self._loss_columns()]  # type: ignore

    # ---- Student ----

    def _place_head(self, model: PreTrainedModel, args: LELPConfig) -> None:
        take_classes(model, self._classes.num_labels, self._classes.names)
        num_subclasses = int(args.num_subclasses) if args.alpha < 1 else 1
        place_student_head(model, num_subclasses, args.student_head, float(args.temperature))

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        """As in Trainer; the student's head is placed on what `model_init` returns."""
        if trial is not None:
            # Trainer does so after this call, but the head depends on the trial's settings.
            self._hp_search_setup(trial)
            self.args.check()
            if (self.args.null_space, self.args.num_directions) != self._fitted_with:
                raise ValueError("The projections are fitted once: a search cannot vary null_space or num_directions.")
            self._signature_columns = None  # they depend on S
        model = cast(PreTrainedModel, super().call_model_init(trial))  # or one wrapped by PEFT
        self._place_head(model, self.args)
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            set_pad_token(self.processing_class, model)
        self._head = student_head(model)
        return model

    # ---- Loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """L = α · CE(y, class logits) + (1 − α) · `distillation_losses`, mean over the batch.

        Without the teacher's columns, in evaluation, the loss is CE(y, class logits); without labels too there is none
        (`None`).

        Raises:
            ValueError: in training, if the batch lacks the teacher's columns.
        """
        args = self.args
        inputs = dict(inputs)
        labels = inputs.pop("labels", None)
        columns = {name: inputs.pop(name, None) for name in TEACHER_COLUMNS}
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
        logits = logits_of(outputs).float()  # before the classes' logsumexp: few bits do not suffice for it
        class_logits, other_logits = self._head.split(logits) if self._head is not None else (logits, logits)

        loss = None
        if distil:
            losses = self.distillation_losses(class_logits, other_logits, {**columns, "labels": labels})
            if args.alpha > 0 and labels is not None:
                hard = label_loss(class_logits, labels, label_smoothing=args.label_smoothing_factor)
                losses = args.alpha * hard + (1 - args.alpha) * losses
            loss = losses.mean()
        elif labels is not None:
            losses = label_loss(class_logits, labels, label_smoothing=args.label_smoothing_factor)
            # In training every example counts the same, labelled or not; an evaluation is of the labelled ones. Where a
            # batch has none the loss is NaN, which newer versions of Trainer leave out of the mean.
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
        """The classes' cross-entropy, τ² · CE(p_c, softmax(class logits / τ)), and that of subclasses given the class.

        With the subclass head the second part is tempered like the first: at `subclass_weight` 1 their sum is the
        paper's loss, τ² · CE(p, softmax over all S·C outputs / τ). The logits of an auxiliary layer are no class's; β
        alone is their temperature, and the factor τ gives their part gradients of the size that the classes' has.

        Args:
            class_logits: of the student, (N, C).
            subclass_logits: of the student, (N, C·S); for S = 1 not read.
            columns: the teacher's, and `labels`, by name.

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
        """Loss, C class logits and labels of a batch, each `None` where there is none.

        Only the logits leave the model: hidden states and caches would be gathered from every batch.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        return loss, logits.detach(), inputs.get("labels")


def check_optimizer(optimizer: torch.optim.Optimizer, head: nn.Module) -> None:
    """Refuse an optimizer that was made before the student's final layer: it would never train it.

    Args:
        optimizer: given ready-made.
        head: the student's, as it is trained.

    Raises:
        ValueError: if it lacks a parameter of the head.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, value in head.named_parameters() if value.requires_grad and id(value) not in held]
    if missing:
        raise ValueError(
            f"The optimizer given does not hold {', '.join(missing)} of the student's {type(head).__name__}, which is"
            " placed here, and would never train it. Use optimizer_cls_and_kwargs in place of optimizers."
        )
