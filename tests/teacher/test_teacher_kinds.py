"""Teachers that are no plain text classifier in float32: images, sound, adapters, 8 bits, a head of two layers."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    TorchAoConfig,
)

from hf_lelp import Teacher
from hf_lelp.classifiers import auto_class, find_heads, load_processor

TEXTS = {"text": tiny.texts(20)}


def rebuilt(teacher: Teacher, columns: dict[str, Any]) -> np.ndarray:
    return columns["teacher_embedding"] @ teacher.head.weight.numpy().T + teacher.head.bias.numpy()


# ---- Images and sound ----


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_images_one_by_one_and_in_batches(batch_size: int) -> None:
    model, processor, pictures = tiny_media.cnn(), tiny_media.image_processor(), tiny_media.pictures(16)
    with torch.no_grad():
        logits = torch.cat([model(**processor(picture, return_tensors="pt")).logits for picture in pictures])
    guide = Teacher(model, processor, input_columns=["img"], batch_size=batch_size)
    columns = guide({"img": pictures})
    np.testing.assert_allclose(columns["teacher_logits"], logits, atol=1e-4)
    np.testing.assert_allclose(rebuilt(guide, columns), logits, atol=1e-4)


@pytest.mark.parametrize("kind", ["wav2vec2", "ast"])
def test_sounds_one_by_one_and_in_batches(kind: str) -> None:
    extractors = {"wav2vec2": tiny_media.wave_extractor(), "ast": tiny_media.spectrogram_extractor()}
    guide = Teacher(getattr(tiny_media, kind)(), extractors[kind], input_columns=["audio"], batch_size=5)
    sounds = tiny_media.sounds(12)
    columns = guide({"audio": sounds})
    alone = np.concatenate([guide({"audio": [sound]})["teacher_logits"] for sound in sounds])
    np.testing.assert_allclose(columns["teacher_logits"], alone, atol=1e-3)
    np.testing.assert_allclose(rebuilt(guide, columns), columns["teacher_logits"], atol=1e-4)


def test_sound_is_cut_at_max_length() -> None:
    sounds = [sound["array"] for sound in tiny_media.sounds(4)]
    cut = Teacher(tiny_media.ast(), tiny_media.spectrogram_extractor(), input_columns=["audio"], max_length=800)
    whole = Teacher(tiny_media.ast(), tiny_media.spectrogram_extractor(), input_columns=["audio"])
    expected = whole({"audio": [sound[:800] for sound in sounds]})["teacher_logits"]
    np.testing.assert_array_equal(cut({"audio": sounds})["teacher_logits"], expected)
    assert cut.fingerprint != whole.fingerprint


def test_bfloat16_on_images() -> None:
    pictures = {"img": tiny_media.pictures(8)}
    full = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])(pictures)
    half = Teacher(tiny_media.cnn().bfloat16(), tiny_media.image_processor(), input_columns=["img"])(pictures)
    assert half["teacher_logits"].dtype == np.float32
    np.testing.assert_allclose(half["teacher_logits"], full["teacher_logits"], atol=0.2)


def test_the_processor_s_settings_are_in_the_fingerprint(tmp_path: Path) -> None:
    model = tiny_media.cnn()

    def fingerprint(*settings: Any) -> str:
        return Teacher(model, tiny_media.image_processor(*settings), input_columns=["img"]).fingerprint

    assert fingerprint() == fingerprint(24, 0.5)
    assert len({fingerprint(), fingerprint(25), fingerprint(24, 0.4)}) == 3
    model.save_pretrained(tmp_path)
    tiny_media.image_processor().save_pretrained(tmp_path)
    assert Teacher.from_pretrained(str(tmp_path), input_columns=["img"]).fingerprint == fingerprint()


def test_a_model_s_own_kind_of_processor_is_loaded(tmp_path: Path) -> None:
    sides = {
        "text": (runs.teacher_model(), tiny.tokenizer()),
        "image": (tiny_media.cnn(), tiny_media.image_processor()),
        "audio": (tiny_media.wav2vec2(), tiny_media.wave_extractor()),
    }
    for name, (model, processing_class) in sides.items():
        model.save_pretrained(tmp_path / name)
        processing_class.save_pretrained(tmp_path / name)
        assert type(load_processor(str(tmp_path / name))).__name__ == type(processing_class).__name__


def test_a_student_with_code_beside_it_is_of_its_own_kind() -> None:
    config = tiny_media.vit().config
    config.auto_map = {"AutoModelForImageClassification": "modeling_lelp.ViTForImageClassification"}
    assert auto_class(config).__name__ == "AutoModelForImageClassification"


# ---- Heads, adapters, data types ----


def test_a_head_with_a_hidden_layer() -> None:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, pad_token_id=1
    )
    guide = Teacher(RobertaForSequenceClassification(config), tiny.tokenizer())
    columns = guide(TEXTS)
    assert list(find_heads(guide.model, 2)) == ["classifier.out_proj"]
    np.testing.assert_allclose(rebuilt(guide, columns), columns["teacher_logits"], atol=1e-5)
    assert np.abs(columns["teacher_embedding"]).max() <= 1  # behind the hidden layer's tanh


def lora(model: PreTrainedModel) -> PeftModel:
    """With adapters that change the model, and a final layer that is trained whole."""
    torch.manual_seed(5)
    settings = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    return get_peft_model(model, settings)


def test_a_teacher_with_adapters_is_the_merged_model() -> None:
    adapted = lora(runs.teacher_model())
    guide = Teacher(adapted, tiny.tokenizer())
    columns = guide(TEXTS)
    merged = Teacher(copy.deepcopy(adapted).merge_and_unload(), tiny.tokenizer())(TEXTS)
    for name in ("teacher_logits", "teacher_embedding"):
        np.testing.assert_allclose(columns[name], merged[name], atol=1e-4)
    plain = runs.teacher()
    assert np.abs(columns["teacher_logits"] - plain(TEXTS)["teacher_logits"]).max() > 0.1
    assert guide.fingerprint != plain.fingerprint


def test_a_student_with_adapters(tmp_path: Path) -> None:
    data = runs.data()
    args = runs.config(tmp_path, student_head="auxiliary", max_steps=20)
    run = runs.trainer(args, model=lora(runs.student()), train_dataset=data, eval_dataset=data)
    before = runs.weights(run.model)
    run.train()
    changed = {name for name, value in runs.weights(run.model).items() if not torch.equal(value, before[name])}
    assert changed and all("lora" in name or "modules_to_save" in name for name in changed)
    assert np.mean(runs.losses(run)[-5:]) < runs.losses(run)[0]
    expected = run.predict(data).predictions
    run.save_model()
    loaded = PeftModel.from_pretrained(runs.student(), args.output_dir)
    logits = runs.class_logits(loaded, list(data["text"]), tiny.tokenizer())  # type: ignore[arg-type]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    with pytest.raises(ValueError, match="Use student_head='auxiliary'"):
        runs.trainer(runs.config(tmp_path), model=lora(runs.student()))
    # What is saved, merged or not, has no auxiliary layer.
    merged: Any = copy.deepcopy(run.model)
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in (Path(args.output_dir) / "adapter_model.safetensors", tmp_path / "merged" / "model.safetensors"):
        assert not [name for name in load_file(file) if "auxiliary" in name]
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(runs.class_logits(merged, list(data["text"]), tiny.tokenizer()), expected, atol=1e-5)


def test_a_student_with_adapters_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    settings = {"student_head": "auxiliary", "save_strategy": "steps", "save_steps": 2}
    whole = runs.trainer(runs.config(tmp_path, **settings), model=lora(runs.student(dropout=False)))
    whole.train()
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    again = runs.trainer(runs.config(tmp_path, **settings), model=lora(runs.student(dropout=False)))
    again.train(resume_from_checkpoint=True)
    runs.assert_same(runs.weights(again.model), runs.weights(whole.model))
    runs.trainer(runs.config(tmp_path, student_head="auxiliary"), model_init=lambda: lora(runs.student())).train()


def int8(folder: Path, *skipped: str) -> PreTrainedModel:
    # Not among the packages of the tests: wherever it is installed, every import of transformers warns of its kernels.
    quantization = pytest.importorskip("torchao.quantization")
    runs.teacher_model(hidden_size=32).save_pretrained(folder)
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig(), modules_to_not_convert=list(skipped))
    return AutoModelForSequenceClassification.from_pretrained(folder, quantization_config=config)


def test_an_8_bit_teacher(tmp_path: Path) -> None:
    guide = Teacher(int8(tmp_path, "classifier"), tiny.tokenizer())
    columns = guide(TEXTS)
    full = Teacher(runs.teacher_model(hidden_size=32), tiny.tokenizer())
    expected = full(TEXTS)["teacher_logits"]
    error = np.abs(columns["teacher_logits"] - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(rebuilt(guide, columns), columns["teacher_logits"], atol=1e-5)
    assert Teacher(int8(tmp_path, "classifier"), tiny.tokenizer()).fingerprint == guide.fingerprint != full.fingerprint


def test_a_quantised_final_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"final layer 'classifier' .* is quantised.* Name it in modules_to_not_convert"
    ):
        Teacher(int8(tmp_path), tiny.tokenizer())
