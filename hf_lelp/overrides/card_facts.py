"""Collects what a trainer knows of its student, for the student's card."""

from numbers import Real
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import BaseImageProcessor, PreTrainedModel, Trainer

from hf_lelp.classifiers import auto_class
from hf_lelp.config import LELPConfig
from hf_lelp.data.class_weights import read_class_weights
from hf_lelp.data.images import channels_of
from hf_lelp.making.recipes import described
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.student.card import QUALITY, EvaluationData, StudentCard, hub_id
from hf_lelp.student.heads import saved_parameters
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.modeling_lelp import StaticForSequenceClassification
from hf_lelp.training.signal import Signal
from hf_lelp.training.trials import summary_of
from hf_lelp.transfer.origins import Origins


def card_of(
    trainer: Trainer,
    args: LELPConfig,
    *,
    projections: ClassProjections | None,
    teacher: str | None,
    max_length: int | None,
    measured: dict[str, float],
    signal: Signal | None = None,
    origins: Origins | None = None,
    not_finite_at: int | None = None,
) -> StudentCard:
    """Make the card of a trainer's student as of now.

    Args:
        trainer: with the student, its data and the name of its repository.
        args: the trainer's settings.
        projections: the ones that made the student's targets.
        teacher: Hub id of the teacher.
        max_length: tokens after which an input was cut.
        measured: figures of the student as it is now.
        signal: what the student learned from, where it is no plain teacher.
        origins: of the training rows; `None` where all are the data's own.
        not_finite_at: the first step whose loss was not finite.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapter = hasattr(model, "get_base_model")  # wrapped by PEFT
    if adapter:
        model = model.get_base_model()
    assert isinstance(model, PreTrainedModel)
    method = method_of(args)
    figures: dict[str, Any] = {name: float(measured[name]) for name in QUALITY if _is_figure(name, measured.get(name))}
    figures["parameters"] = saved_parameters(model)
    training_rows, rows = (
        len(dataset) if isinstance(dataset, Dataset) else None
        for dataset in (trainer.train_dataset, trainer.eval_dataset)
    )
    processor = trainer.processing_class
    settings = settings_of(args, projections, training_rows)
    if signal is not None and method != "direct":
        settings |= signal.settings
    if origins is not None:
        settings["training examples"] += f": {origins}"
    inputs = StudentInputs.of(model.config)
    if inputs.recipe is not None:
        settings = {"student made as": described(inputs.recipe), **settings}
    if inputs.input_columns is not None:
        settings["input columns"] = ", ".join(inputs.input_columns)
    trials = getattr(trainer, "auto_trials", [])
    if len(trials) > 1:
        near = [summary_of(trial) for trial in trials if trial.get("within_noise")]
        noise = f"; ahead within the noise: {', '.join(near)}" if near else ""
        settings['chosen by "auto" among'] = f"{len(trials) - 1} on a validation part of the training data{noise}"
    return StudentCard(
        repo=trainer.hub_model_id or args.hub_model_id or Path(args.output_dir or ".").absolute().name,
        method=method,
        row=method,
        auto_class=_loaded_by(model),
        classes=[str(name) for name in (model.config.id2label or {}).values()],
        num_subclasses=getattr(model.config, "num_subclasses", 1),
        static=isinstance(model, StaticForSequenceClassification),
        adapter=adapter,
        not_finite_at=not_finite_at,
        grey=isinstance(processor, BaseImageProcessor) and channels_of(processor) == 1,
        settings=settings,
        results={method: figures},
        evaluation=EvaluationData(rows) if rows is not None else None,
        max_length=max_length,
        student=hub_id(model.name_or_path),
        teacher=teacher,
        taught_by=signal.words if signal is not None else "a teacher",
    )


def _is_figure(name: str, value: Any) -> bool:
    """Whether a value can be the figure of this name: a `compute_metrics` of the user's own may give anything."""
    if type(value) is bool or not isinstance(value, Real):
        return False
    return (-1 if name == "mcc" else 0) <= float(value) <= 1


def _loaded_by(model: PreTrainedModel) -> str | None:
    try:
        return auto_class(model.config).__name__
    except ValueError:  # a class of the user's own, unknown to transformers
        return None


def method_of(config: LELPConfig) -> str:
    """Name the method that the settings amount to: "direct", "kd" or "lelp"."""
    if config.alpha == 1:
        return "direct"
    return "kd" if config.num_subclasses == 1 else "lelp"


def settings_of(config: LELPConfig, projections: ClassProjections | None, training_rows: int | None) -> dict[str, Any]:
    """Collect the settings that made a student, by their names on the card.

    Args:
        config: of the run.
        projections: the ones that made its targets, if any.
        training_rows: number of them, where known.
    """
    method = method_of(config)
    settings: dict[str, Any] = {}
    if method == "lelp":
        settings |= {
            "pseudo-subclasses per class, S": config.num_subclasses,
            "subclass temperature, β": config.subclass_temperature,
            "student head": config.student_head,
            "null space of the teacher's final layer": projections.null_space if projections else config.null_space,
            "random rotation": f"seed {config.seed_of_rotations}" if config.random_rotation else False,
            "projections scaled to unit variance": config.scale_projections,
        }
        if config.whitening:
            settings["whitening, γ"] = config.whitening
    if method == "lelp" and projections is not None:
        settings |= {"class projections": projections.fingerprint, "teacher fingerprint": projections.teacher}
    if method != "direct":
        settings |= {"temperature, τ": config.temperature, "weight of the labels, α": config.alpha}
    weights = read_class_weights(config.class_weights)
    if weights is not None:
        settings["class weights, w"] = ", ".join(map(str, weights))
    if training_rows is not None:
        settings["training examples"] = f"{training_rows:,}"
    if config.max_steps > 0:
        settings["steps"] = config.max_steps
    else:
        settings["epochs"] = config.num_train_epochs
    settings |= {
        "learning rate": config.learning_rate,
        "schedule": config.lr_scheduler_type,
        "optimizer": config.optim,
        "batch size": config.train_batch_size * config.gradient_accumulation_steps * config.world_size,
        "seed": config.seed,
    }
    words = {True: "yes", False: "no"}
    return {
        name: words[value] if isinstance(value, bool) else getattr(value, "value", value)
        for name, value in settings.items()
    }
