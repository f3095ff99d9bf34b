"""What a trainer, and the user, know of a student, put on its card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import BaseImageProcessor, PreTrainedModel, Trainer

from hf_lelp.config import LELPConfig
from hf_lelp.data.images import channels_of
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.student.card import QUALITY, EvaluationData, StudentCard, hub_id, method_of, settings_of
from hf_lelp.student.heads import saved_parameters
from hf_lelp.teacher.teacher import auto_class


def card_of(
    trainer: Trainer,
    args: LELPConfig,
    *,
    projections: ClassProjections | None,
    teacher: str | None,
    max_length: int | None,
    measured: dict[str, float],
) -> StudentCard:
    """The card of a trainer's student as of now.

    Args:
        trainer: with the student, its data and the name of its repository.
        args: the trainer's settings.
        projections: that its targets were made with.
        teacher: Hub id of the teacher.
        max_length: tokens after which an input was cut.
        measured: figures of the student as it is now.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "get_base_model"):  # wrapped by PEFT
        model = model.get_base_model()
    assert isinstance(model, PreTrainedModel)
    method = method_of(args)
    figures: dict[str, Any] = {name: measured[name] for name in QUALITY if name in measured}
    figures["parameters"] = saved_parameters(model)
    training_rows, rows = (
        len(dataset) if isinstance(dataset, Dataset) else None
        for dataset in (trainer.train_dataset, trainer.eval_dataset)
    )
    processor = trainer.processing_class
    settings = settings_of(args, projections, training_rows)
    trials = getattr(trainer, "auto_trials", [])
    if len(trials) > 1:
        settings['chosen by "auto" among'] = f"{len(trials) - 1} on a validation part of the training data"
    return StudentCard(
        repo=trainer.hub_model_id or args.hub_model_id or Path(args.output_dir or ".").absolute().name,
        method=method,
        row=method,
        auto_class=_loaded_by(model),
        classes=[str(name) for name in (model.config.id2label or {}).values()],
        num_subclasses=getattr(model.config, "num_subclasses", 1),
        grey=isinstance(processor, BaseImageProcessor) and channels_of(processor) == 1,
        settings=settings,
        results={method: figures},
        evaluation=EvaluationData(rows) if rows is not None else None,
        max_length=max_length,
        student=hub_id(model.name_or_path),
        teacher=teacher,
    )


def _loaded_by(model: PreTrainedModel) -> str | None:
    try:
        return auto_class(model.config).__name__
    except ValueError:  # a class of the user's own, that transformers was not told of
        return None


def describe(
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
    """A card with what the user knows; the arguments are those of `Trainer.create_model_card`.

    Args:
        card: of the student.
        language: of the data.
        license: of the student; none is assumed.
        tags: further tags.
        model_name: where the repository's name does not serve.
        finetuned_from: Hub id of the model that the student started from, where it is not the one loaded.
        tasks: unused; the model tells.
        dataset_tags: Hub ids of the data. With one of them the figures go into the metadata, as `model-index`.
        dataset: its name for readers, where that is not the Hub id.
        dataset_args: its split that figures were measured on.
    """
    ids, names, splits = _listed(dataset_tags), _listed(dataset), _listed(dataset_args)
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
