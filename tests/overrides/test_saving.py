"""Saving and resuming: a resumed run ends where an uninterrupted one does, with the same pseudo-subclasses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_lelp import ClassProjections, LELPConfig, LELPTrainer, Teacher, load_student
from hf_lelp.data.columns import PROJECTIONS_MARK
from hf_lelp.storage.checksums import write_checksums
from hf_lelp.student.heads import AuxiliaryHead, student_head

HEADS = ("subclass", "auxiliary")


def checkpointed(folder: Path, out: str, stop_at: int | None = None, **settings: Any) -> LELPTrainer:
    """A run of six steps with a checkpoint every second, on raw data."""
    args = runs.config(
        folder,
        output_dir=str(folder / out),
        max_steps=6,
        save_strategy="steps",
        save_steps=2,
        optim="adamw_torch",
        **settings,
    )
    return runs.trainer(args, callbacks=[runs.StopAt(stop_at)] if stop_at else None)


def flip_saved_signs(folder: Path) -> ClassProjections:
    """Turn the first direction of every class in saved projections round, as a refit elsewhere might have."""
    projections = ClassProjections.from_pretrained(str(folder))
    projections.directions[:, 0] *= -1
    projections.save_pretrained(folder)
    return projections


@pytest.mark.parametrize("head", HEADS)
def test_saving(head: str, tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path, student_head=head, save_strategy="steps", save_steps=2))
    run.train()
    run.save_model()
    folder = tmp_path / "out"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
    assert ("checkpoint-2/auxiliary_head.safetensors" in files) == (head == "auxiliary")
    assert "auxiliary_head.safetensors" not in files
    trainer_s_own = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    pickles = {Path(file).name for file in files if Path(file).suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")}
    assert pickles <= trainer_s_own

    for place in (folder, folder / "checkpoint-2"):
        assert json.loads((place / "config.json").read_text())["label2id"] == {"negative": 0, "positive": 1}
        saved = ClassProjections.from_pretrained(str(place / "class_projections"))
        assert run.projections is not None and saved.fingerprint == run.projections.fingerprint
        assert load_file(place / "model.safetensors").keys() == runs.student().state_dict().keys()
    arguments = torch.load(folder / "training_args.bin", weights_only=False)
    assert type(arguments) is LELPConfig
    assert not any(isinstance(value, torch.Tensor | torch.nn.Module | Teacher) for value in vars(arguments).values())
    assert (folder / "training_args.bin").stat().st_size < 20_000

    texts = list(runs.data()["text"])
    expected = runs.class_logits(run.model, texts, tiny.tokenizer())
    loaders = [load_student, BertForSequenceClassification.from_pretrained][: 1 + (head == "auxiliary")]
    for load in loaders:
        np.testing.assert_allclose(runs.class_logits(load(str(folder)), texts, tiny.tokenizer()), expected, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_resumed_is_uninterrupted(head: str, tmp_path: Path) -> None:
    settings = {"student_head": head, "alpha": 0.3}
    whole = checkpointed(tmp_path, "whole", **settings)
    whole.train()
    checkpointed(tmp_path, "parts", stop_at=2, **settings).train()
    resumed = checkpointed(tmp_path, "parts", **settings)
    assert not (tmp_path / "parts" / "checkpoint-4").exists()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6 and len(runs.losses(resumed)) == 6
    assert runs.losses(resumed) == runs.losses(whole)
    runs.assert_same(runs.weights(resumed.model), runs.weights(whole.model))


@pytest.mark.parametrize("head", HEADS)
def test_a_refit_after_the_cache_is_gone_does_not_relabel_the_subclasses(head: str, tmp_path: Path) -> None:
    whole = checkpointed(tmp_path, "whole", student_head=head)
    whole.train()
    checkpointed(tmp_path, "parts", stop_at=2, student_head=head).train()
    shutil.rmtree(tmp_path / "columns")
    # The refit gives other signs than the checkpoint's.
    refit = checkpointed(tmp_path, "refit", student_head=head)
    folder = next((tmp_path / "columns" / "projections").iterdir())
    flipped = flip_saved_signs(folder)
    resumed = checkpointed(tmp_path, "parts", student_head=head)
    assert resumed.projections is not None and whole.projections is not None and refit.projections is not None
    assert resumed.projections.fingerprint == flipped.fingerprint != whole.projections.fingerprint

    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert resumed.projections.fingerprint == whole.projections.fingerprint
    runs.assert_same(runs.weights(resumed.model), runs.weights(whole.model))
    saved = ClassProjections.from_pretrained(str(tmp_path / "parts" / "checkpoint-6" / "class_projections"))
    assert saved.fingerprint == whole.projections.fingerprint

    # Without the checkpoint's projections the same columns would have led elsewhere.
    shutil.rmtree(tmp_path / "parts" / "checkpoint-2" / "class_projections")
    write_checksums(tmp_path / "parts" / "checkpoint-2")  # or it would be refused as damaged
    wrong = checkpointed(tmp_path, "parts", student_head=head)
    wrong.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert runs.losses(wrong)[2:] != runs.losses(whole)[2:]


def test_columns_of_other_projections_are_refused_on_resume(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    columns = columns.remove_columns(["teacher_embedding", PROJECTIONS_MARK])
    args = runs.config(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    runs.trainer(args, train_dataset=columns, teacher_model=None, projections=projections).train()
    projections.directions[:, 0] *= -1
    other = runs.trainer(args, train_dataset=columns, teacher_model=None, projections=projections)
    with pytest.raises(
        ValueError, match=r"checkpoint-2 was trained with other class projections.*from_pretrained\('.*checkpoint-2"
    ):
        other.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


@pytest.mark.parametrize("head", HEADS)
def test_load_best_model_at_end(head: str, tmp_path: Path) -> None:
    args = runs.config(
        tmp_path,
        student_head=head,
        max_steps=6,
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # the worst is the best, so that the last is not
    )
    raw = runs.data()
    run = runs.trainer(args, eval_dataset=raw)
    run.train()
    best = Path(run.state.best_model_checkpoint or "")
    assert best.name != "checkpoint-6"
    logged = {entry["step"]: entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry}
    assert run.evaluate()["eval_loss"] == pytest.approx(max(logged.values()), abs=1e-6)
    saved = load_file(best / "model.safetensors")
    placed = student_head(run.model)
    if isinstance(placed, AuxiliaryHead):
        auxiliary = load_file(best / "auxiliary_head.safetensors")
        runs.assert_same({name: value for name, value in placed.auxiliary.state_dict().items()}, auxiliary)
        last = load_file(best.with_name("checkpoint-6") / "auxiliary_head.safetensors")
        assert not auxiliary["weight"].equal(last["weight"])
        saved |= {f"classifier.auxiliary.{name}": value for name, value in auxiliary.items()}
    runs.assert_same(runs.weights(run.model), saved)


def test_plain_distillation_resumes_too(tmp_path: Path) -> None:
    whole = checkpointed(tmp_path, "whole", num_subclasses=1)
    whole.train()
    checkpointed(tmp_path, "parts", stop_at=2, num_subclasses=1).train()
    resumed = checkpointed(tmp_path, "parts", num_subclasses=1)
    resumed.train(resume_from_checkpoint=True)
    runs.assert_same(runs.weights(resumed.model), runs.weights(whole.model))
    assert not (tmp_path / "parts" / "checkpoint-6" / "class_projections").exists()


def test_a_checkpoint_is_a_student(tmp_path: Path) -> None:
    raw = runs.data()
    run = checkpointed(tmp_path, "out")
    run.train()
    student = load_student(str(tmp_path / "out" / "checkpoint-6"))
    texts = list(raw["text"])
    expected = runs.class_logits(run.model, texts, tiny.tokenizer())
    assert expected.shape == (len(raw), 2)
    np.testing.assert_allclose(runs.class_logits(student, texts, tiny.tokenizer()), expected, atol=1e-6)
    assert isinstance(torch.load(tmp_path / "out" / "checkpoint-6" / "optimizer.pt"), dict)


def test_a_checkpoint_from_before_there_was_whitening_had_none(tmp_path: Path) -> None:
    checkpointed(tmp_path, "out", stop_at=2).train()
    (file,) = (tmp_path / "out").rglob("distillation.json")
    settings = json.loads(file.read_text())
    del settings["whitening"]
    file.write_text(json.dumps(settings))
    for checksums in (tmp_path / "out").rglob("checksums.json"):  # there were none either
        checksums.unlink()
    with pytest.raises(ValueError, match=r"was trained with \{'whitening': 0.0\}"):
        checkpointed(tmp_path, "out", whitening=0.5).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    "change",
    [{"seed": 7}, {"rotation_seed": 7}, {"scale_projections": False}, {"whitening": 1.0}, {"temperature": 2.0}],
)
def test_resuming_with_other_pseudo_subclasses_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpointed(tmp_path, "out", stop_at=2).train()
    with pytest.raises(
        ValueError, match=r"was trained with \{'(seed|scale|whitening|temperature)': (42|True|0.0|1.0)\}"
    ):
        checkpointed(tmp_path, "out", **change).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("head", ["subclass", "auxiliary"])
def test_a_saved_student_is_evaluated_without_training_data(tmp_path: Path, head: Any) -> None:
    run = runs.trained(tmp_path, student_head=head, arguments={"eval_dataset": runs.data()})
    run.save_model()
    args = runs.config(tmp_path / "again", student_head=head)
    again = LELPTrainer(model=str(tmp_path / "out"), args=args, eval_dataset=runs.data())
    expected = run.evaluate()
    found = again.evaluate()
    assert found["eval_accuracy"] == expected["eval_accuracy"]
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)


class OwnConfig(PreTrainedConfig):
    model_type = "of_our_own"


class OwnClassifier(PreTrainedModel):
    """A class that transformers was not told of."""

    config_class = OwnConfig
    main_input_name = "input_ids"

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        self.words = torch.nn.EmbeddingBag(len(tiny.WORDS) + 4, 8)
        self.classifier = torch.nn.Linear(8, int(config.num_labels or 0))
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.classifier(self.words(input_ids)))


def test_a_student_of_a_class_of_its_own(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path, student_head="auxiliary"), model=OwnClassifier(OwnConfig()))
    run.train()
    run.save_model()
    trained = {name: value for name, value in runs.weights(run.model).items() if "auxiliary" not in name}
    runs.assert_same(runs.weights(OwnClassifier.from_pretrained(tmp_path / "out")), trained)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "not one of transformers: load it with its own class" in card
    assert "pipeline" not in card and "None" not in card
