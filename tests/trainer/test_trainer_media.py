"""Images and sound from end to end: each side prepares them in its own way, the student whenever they are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageClassification, PreTrainedModel, pipeline

from hf_lelp import LELPConfig, LELPTrainer, Teacher, load_student
from hf_lelp.cli.distill import DistillArguments, distill


def image_teacher() -> Teacher:
    return Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])


def image_trainer(args: LELPConfig, **arguments: Any) -> LELPTrainer:
    """A ResNet that sees 24 pixels teaches a ViT that sees 16, normalised otherwise."""
    defaults: dict[str, Any] = {
        "model": tiny_media.vit(),
        "train_dataset": tiny_media.image_data(image_teacher()),
        "processing_class": tiny_media.image_processor(16, mean=0.3),
        "teacher_model": tiny_media.cnn(),
        "teacher_processing_class": tiny_media.image_processor(),
    }
    return LELPTrainer(args=args, **{**defaults, **arguments})


def pixels(trainer: LELPTrainer, rows: int = 4) -> torch.Tensor:
    return torch.tensor(np.array(trainer.train_dataset[:rows]["pixel_values"]))


def flipped(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"img": [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in batch["img"]]}


@pytest.mark.parametrize("head", ["subclass", "auxiliary"])
def test_a_cnn_teaches_a_vision_transformer(head: str, tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher(), modes=("RGB", "L", "RGBA"))
    args = runs.config(tmp_path, student_head=head, max_steps=30, learning_rate=0.05)
    run = image_trainer(args, train_dataset=data, eval_dataset=data)
    run.train()
    assert np.mean(runs.losses(run)[-5:]) < runs.losses(run)[0]
    metrics = run.evaluate()
    assert metrics == run.evaluate(data) | {
        name: metrics[name] for name in metrics if "per_second" in name or "runtime" in name
    }
    assert not [name for name in (metrics) if not np.isfinite(metrics[name])]

    expected = run.predict(data).predictions
    run.save_model()
    inputs = run.processing_class([image.convert("RGB") for image in data["img"]], return_tensors="pt")
    auto = AutoModelForImageClassification.from_pretrained(args.output_dir, trust_remote_code=True)
    for model in (auto, load_student(args.output_dir)):
        with torch.no_grad():
            np.testing.assert_allclose(model.eval()(**inputs).logits, expected, atol=1e-5)
    assert "image-classification" in (Path(args.output_dir) / "README.md").read_text()
    classify = pipeline("image-classification", model=args.output_dir, trust_remote_code=True)
    found = [classify(data[row]["img"])[0]["label"] for row in range(3)]
    assert found == [tiny.LABEL_NAMES[row] for row in expected[:3].argmax(-1)]
    # A saved student is a teacher too, by its folder alone.
    teacher = (
        Teacher.from_pretrained(args.output_dir, trust_remote_code=True, input_columns=["img"])
        if head == "auxiliary"
        else None
    )
    if teacher is not None:
        np.testing.assert_allclose(teacher({"img": data["img"][:]})["teacher_logits"], expected, atol=1e-5)


def test_each_side_has_its_own_size_and_normalisation(tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher())
    run = image_trainer(runs.config(tmp_path), train_dataset=data)
    pictures = [image for image in data[:4]["img"]]
    torch.testing.assert_close(
        pixels(run), tiny_media.image_processor(16, mean=0.3)(pictures, return_tensors="pt")["pixel_values"]
    )
    seen = image_teacher()({"img": data[:]["img"]})["teacher_logits"]
    np.testing.assert_allclose(run.train_dataset[:]["teacher_logits"], seen, atol=1e-5)
    assert run.train_dataset[:]["labels"] == list(data["label"])


def test_a_transform_is_the_student_s_alone(tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher())
    args = runs.config(tmp_path)
    clean = image_trainer(args, train_dataset=data, eval_dataset=data)
    run = image_trainer(args, train_dataset=data.with_transform(flipped), eval_dataset=data)
    torch.testing.assert_close(pixels(run).flip(-1), pixels(clean), atol=1e-5, rtol=0)
    for column in ("teacher_logits", "teacher_projections", "labels"):
        assert run.train_dataset[:][column] == clean.train_dataset[:][column]
    np.testing.assert_array_equal(run.eval_dataset[:2]["pixel_values"], clean.eval_dataset[:2]["pixel_values"])
    run.train()
    assert len(runs.losses(run)) == 4


def test_a_transform_draws_anew_each_time(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)

    def noisy(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"img": [np.uint8(drawn.integers(0, 256, (20, 20, 3))) for _ in batch["img"]]}

    data = tiny_media.image_data(image_teacher())
    run = image_trainer(runs.config(tmp_path), train_dataset=data.with_transform(noisy))
    assert not torch.equal(pixels(run), pixels(run))


def test_a_transform_may_make_the_student_s_input_itself(tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher())

    def whole(batch: dict[str, list[Any]]) -> dict[str, Any]:
        return {
            "pixel_values": [np.full((3, 16, 16), row, np.float32) for row, _ in enumerate(batch["img"])],
            "label": batch["label"],
        }

    for processing_class in (None, tiny_media.image_processor(16)):
        run = image_trainer(
            runs.config(tmp_path), train_dataset=data.with_transform(whole), processing_class=processing_class
        )
        assert pixels(run)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
        run.train()


def test_texts_may_be_augmented_too(tmp_path: Path) -> None:
    data = runs.data()
    lower = data.with_transform(lambda batch: {"text": [text.split()[0] for text in batch["text"]]})
    run = runs.trainer(runs.config(tmp_path), train_dataset=lower, eval_dataset=data)
    clean = runs.trainer(runs.config(tmp_path), train_dataset=data)
    assert {len(ids) for ids in run.train_dataset[:]["input_ids"]} == {3}
    assert run.train_dataset[:]["teacher_logits"] == clean.train_dataset[:]["teacher_logits"]
    run.train()
    assert "eval_accuracy" in run.evaluate()


def test_prepared_inputs_may_be_augmented_too(tmp_path: Path) -> None:
    """Columns of the model's inputs, and a transform that changes them: nothing is left to encode."""
    data = runs.data()
    tokens = data.map(lambda batch: tiny.tokenizer()(batch["text"]), batched=True)
    args = runs.config(tmp_path)
    run = runs.trainer(
        args,
        train_dataset=tokens.with_transform(lambda b: {**b, "input_ids": [[2, *ids[1:]] for ids in b["input_ids"]]}),
        eval_dataset=tokens,
    )
    assert {ids[0] for ids in run.train_dataset[:]["input_ids"]} == {2}
    run.train()
    assert "eval_accuracy" in run.evaluate()


def test_resuming_keeps_the_transform(tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher()).with_transform(flipped)
    args = runs.config(tmp_path, save_strategy="steps", save_steps=2)
    whole = image_trainer(args, train_dataset=data)
    whole.train()
    again = image_trainer(args, train_dataset=data)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    runs.assert_same(runs.weights(again.model), runs.weights(whole.model), tolerance=1e-6)
    assert again.projections is not None
    other = again.prepared.targets.projected_by(again.projections, again.train_dataset)  # type: ignore[union-attr]
    torch.testing.assert_close(torch.tensor(np.array(other[:4]["pixel_values"])), pixels(again))


@pytest.mark.parametrize("head", ["subclass", "auxiliary"])
def test_the_best_model_is_loaded_whatever_its_weights_are_called_in_the_file(head: str, tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher())
    settings = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2}
    args = runs.config(tmp_path, student_head=head, learning_rate=3.0, load_best_model_at_end=True, **settings)
    run = image_trainer(args, train_dataset=data, eval_dataset=data)
    run.train()
    assert run.state.best_model_checkpoint is not None
    best = load_student(run.state.best_model_checkpoint).state_dict()
    runs.assert_same(best, {name: run.model.state_dict()[name] for name in best})


def test_worker_processes_and_streams(tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher())
    args = runs.config(tmp_path, dataloader_num_workers=1)
    run = image_trainer(args, train_dataset=data, eval_dataset=data.to_iterable_dataset())
    run.train()
    assert run.evaluate()["eval_accuracy"] == run.evaluate(data)["eval_accuracy"]


def test_a_student_of_one_channel(tmp_path: Path) -> None:
    run = image_trainer(
        runs.config(tmp_path),
        model=tiny_media.cnn(channels=1),
        processing_class=tiny_media.image_processor(16, channels=1),
    )
    assert pixels(run).shape == (4, 1, 16, 16)
    run.train()


@pytest.mark.parametrize("guide", ["wav2vec2", "ast"])
def test_sound(guide: str, tmp_path: Path) -> None:
    sides = {
        "wav2vec2": (tiny_media.wav2vec2, tiny_media.wave_extractor()),
        "ast": (tiny_media.ast, tiny_media.spectrogram_extractor()),
    }
    (make_teacher, extractor), (make_student, student_extractor) = sides.pop(guide), *sides.values()
    data = tiny_media.audio_data(Teacher(make_teacher(), extractor, input_columns=["audio"]))
    student: PreTrainedModel = make_student(seed=4)
    args = runs.config(tmp_path, learning_rate=1e-3, max_steps=20, optim="adamw_torch")
    run = LELPTrainer(
        student,
        args,
        train_dataset=data,
        eval_dataset=data,
        processing_class=student_extractor,
        teacher_model=make_teacher(),
        teacher_processing_class=extractor,
    )
    run.train()
    assert np.mean(runs.losses(run)[-3:]) < runs.losses(run)[0]
    assert np.isfinite(run.evaluate()["eval_loss"])
    run.save_model()
    assert "audio-classification" in (Path(args.output_dir) / "README.md").read_text()

    halved = data.map(lambda row: {"audio": {**row["audio"], "sampling_rate": 4000}})
    with pytest.raises(ValueError, match=r"Row 0 of the dataset: Column 'audio': A sound has 4000 samples a second"):
        LELPTrainer(
            student,
            runs.config(tmp_path),
            train_dataset=halved,
            processing_class=student_extractor,
            teacher_model=make_teacher(),
            teacher_processing_class=extractor,
        )


def test_plain_lists_of_samples_and_a_teacher_of_texts(tmp_path: Path) -> None:
    """Each side finds its own column: the teacher reads what is said, the student hears it."""
    texts = runs.data(48)
    sounds = [sound["array"].tolist() for sound in tiny_media.sounds(48)]
    data = texts.add_column("wave", sounds)
    run = LELPTrainer(
        tiny_media.ast(),
        runs.config(tmp_path, input_columns="wave", teacher_input_columns="text"),
        train_dataset=data,
        processing_class=tiny_media.spectrogram_extractor(),
        teacher_model=runs.teacher_model(),
        teacher_processing_class=tiny.tokenizer(),
    )
    assert (
        run.train_dataset[:]["teacher_logits"]
        == runs.trainer(runs.config(tmp_path), train_dataset=texts).train_dataset[:]["teacher_logits"]
    )
    run.train()


def test_distill_takes_images(tmp_path: Path) -> None:
    for name, model, size in (("teacher", tiny_media.cnn(), 24), ("student", tiny_media.vit(), 16)):
        model.save_pretrained(tmp_path / name)
        tiny_media.image_processor(size).save_pretrained(tmp_path / name)
    tiny_media.image_data(image_teacher(), 80).to_parquet(tmp_path / "train.parquet")
    arguments = DistillArguments(
        teacher_model=str(tmp_path / "teacher"),
        student_model=str(tmp_path / "student"),
        train_file=str(tmp_path / "train.parquet"),
        method=["direct", "kd", "lelp"],
    )
    results = distill(arguments, runs.config(tmp_path))["results"]
    assert [*results] == ["teacher", "direct", "kd", "lelp"]
    assert all(result["examples_per_second"] > 0 for result in results.values())
    assert results["teacher"]["accuracy"] == 1
    config = json.loads((tmp_path / "out" / "lelp" / "preprocessor_config.json").read_text())
    assert config["size"] == {"height": 16, "width": 16}


def test_no_telling_which_column_is_the_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Which column is the image"):
        image_trainer(runs.config(tmp_path), train_dataset=runs.data())
    data: Dataset = tiny_media.image_data(image_teacher()).rename_column("img", "picture")
    image_trainer(runs.config(tmp_path), train_dataset=data)
    with pytest.raises(ValueError, match="nothing to make them with: pass the student's tokenizer, image processor"):
        image_trainer(runs.config(tmp_path), train_dataset=data, processing_class=None)
