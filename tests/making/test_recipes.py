"""Students made by a recipe, of real teachers: grammar, refusals, and whole runs with their cards."""

from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
import tiny_media
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, PreTrainedModel

from hf_lelp import LELPTrainer, Teacher, load_student
from hf_lelp.making.recipes import KINDS, described, is_recipe
from hf_lelp.making.start import new_student
from hf_lelp.markdown import escape
from hf_lelp.student.heads import student_head
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.modeling_lelp import StaticForSequenceClassification, SubclassHead
from hf_lelp.teacher.class_order import model_of_teacher


def deep_teacher(layers: int = 3) -> PreTrainedModel:
    """The teacher of `runs` with more layers, each with other weights."""
    config = tiny.classifier().config
    config.num_hidden_layers = layers
    torch.manual_seed(5)
    return tiny.named(BertForSequenceClassification(config)).eval()


def made(recipe: str, teacher: Any, processing_class: Any = None) -> PreTrainedModel:
    tokenizer = tiny.tokenizer() if processing_class is None else processing_class
    return new_student(recipe, 2, tokenizer, lambda: model_of_teacher(teacher))


def test_what_is_a_recipe() -> None:
    assert all(map(is_recipe, ("new:2x128", "layers:2", "layers:0,3,5", "static", "static:64", "new:", "layers:")))
    assert not any(map(is_recipe, ("./static", "layers", "new", "my/static", "C:/models", None, deep_teacher())))
    assert all(described(f"{kind}:2").startswith(f"{kind}:2, ") for kind in KINDS)


@pytest.mark.parametrize("recipe", ["layers:2", "layers:0,2", "static", "new:1x32"])
def test_a_whole_run_from_the_recipe_to_the_card(recipe: str, tmp_path: Path) -> None:
    args = runs.config(tmp_path, learning_rate=0.01)
    teacher = deep_teacher()
    data = tiny.dataset(teacher, 96)
    trainer = runs.trainer(args, model=recipe, processing_class=None, teacher_model=teacher, train_dataset=data)
    weights = runs.weights(trainer.model)
    trainer.train()
    assert all(
        not torch.equal(weights[name], value)
        for name, value in runs.weights(trainer.model).items()
        if "vectors" in name or "classifier.weight" in name
    )
    trainer.save_model()
    student = load_student(args.output_dir)
    assert StudentInputs.of(student.config).recipe == recipe and isinstance(student_head(student), SubclassHead)
    texts = tiny.texts(8)
    assert torch.equal(
        torch.tensor(runs.class_logits(student, texts, tiny.tokenizer())),
        torch.tensor(runs.class_logits(trainer.model, texts, tiny.tokenizer())),
    )
    card = (Path(args.output_dir) / "README.md").read_text()
    assert escape(described(recipe)) in card and ("It is static" in card) == (recipe == "static")


@pytest.mark.parametrize("argument", ["4", "0", "0,3", "2,1", "1,1", "x", "", "-1", "1.5"])
def test_layers_that_the_teacher_does_not_have(argument: str) -> None:
    with pytest.raises(ValueError, match=rf"student_model=layers:{argument}: the teacher has 3 layers, 0 to 2\. Exp"):
        made(f"layers:{argument}", deep_teacher())


def test_a_static_student_reads_texts_alone() -> None:
    teacher = Teacher(tiny_media.vit(), tiny_media.image_processor(16), input_columns=["img"])
    for recipe in ("static", "new:2x128"):
        with pytest.raises(ValueError, match=rf"{recipe}: a student made here reads texts .* has a ViTImageProcessor"):
            made(recipe, teacher, teacher.processing_class)
    with pytest.raises(ValueError, match=r"student_model=static:x: the size of the vectors is expected"):
        made("static:x", deep_teacher())


def test_a_teacher_that_is_no_model_cannot_be_cut() -> None:
    for recipe in ("layers:2", "static"):
        with pytest.raises(ValueError, match=r"such a student is made of the teacher's own model, and no teacher"):
            made(recipe, None)


def test_the_final_layer_follows_the_data_s_order_of_classes() -> None:
    teacher = deep_teacher()
    texts = tiny.texts(6)
    kept = made("layers:3", Teacher(teacher, tiny.tokenizer(), class_order=[1, 0]))
    expected = runs.class_logits(teacher, texts, tiny.tokenizer())[:, ::-1]
    assert torch.equal(torch.tensor(runs.class_logits(kept, texts, tiny.tokenizer())), torch.tensor(expected.copy()))
    assert list(kept.config.id2label.values()) == tiny.LABEL_NAMES[::-1]


def test_a_student_of_images_is_cut_too(tmp_path: Path) -> None:
    guide = Teacher(tiny_media.vit(), tiny_media.image_processor(16), input_columns=["img"])
    args = runs.config(tmp_path, max_steps=1, remove_unused_columns=False, num_subclasses=1)
    trainer = LELPTrainer(
        model="layers:1", args=args, train_dataset=tiny_media.image_data(guide, 24), teacher_model=guide
    )
    trainer.train()
    trainer.save_model()
    assert type(load_student(args.output_dir)).__name__ == "ViTForImageClassification"


def test_direct_training_has_no_teacher_to_run_but_one_to_cut(tmp_path: Path) -> None:
    teacher = deep_teacher()
    teacher.save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    args = runs.config(tmp_path, alpha=1.0)
    trainer = runs.trainer(
        args,
        model="layers:2",
        processing_class=None,
        teacher_model=str(tmp_path / "teacher"),
        teacher_processing_class=None,
    )
    assert trainer.model.config.num_hidden_layers == 2
    start = made("layers:2", teacher)
    runs.assert_same(runs.weights(trainer.model), runs.weights(start))


def test_an_auxiliary_static_student_is_loaded_by_the_auto_class(tmp_path: Path) -> None:
    args = runs.config(tmp_path, student_head="auxiliary")
    trainer = runs.trainer(args, model="static:8", processing_class=None)
    trainer.train()
    trainer.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(args.output_dir)
    assert isinstance(loaded, StaticForSequenceClassification) and loaded.config.embedding_size == 8
    assert isinstance(loaded.classifier, torch.nn.Linear) and not isinstance(loaded.classifier, SubclassHead)
