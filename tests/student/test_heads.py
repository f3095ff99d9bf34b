"""The two forms of a student: what they compute, how they are saved, and that they come back as they were."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
)

from hf_lelp.storage.checksums import WEIGHTS, write_checksums
from hf_lelp.student.heads import (
    AuxiliaryHead,
    all_logits,
    place_auxiliary,
    place_student_head,
    student_head,
    take_classes,
)
from hf_lelp.student.loading import load_student
from hf_lelp.student.modeling_lelp import SubclassHead

C, S = 3, 4
TAU = 2.5
ARCHITECTURES = ["bert", "llama", "gpt2"]
FORMS = ["subclass", "auxiliary"]
HEADS = {"subclass": SubclassHead, "auxiliary": AuxiliaryHead}
PAD = 1


def plain_model(kind: str) -> PreTrainedModel:
    model = tiny.classifier(kind, num_labels=C).eval()
    model.config.pad_token_id = PAD
    with torch.no_grad():
        if kind == "bert":
            model.classifier.bias.normal_()
    return model


def student(kind: str, form: str, *, trained: bool = False) -> PreTrainedModel:
    """A student as placed, or, as after training, with rows that differ within a class."""
    model = plain_model(kind)
    place_student_head(model, S, form, TAU)
    if trained:
        with torch.no_grad():
            for parameter in student_head(model).parameters():
                parameter.normal_()
    return model


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 20, (5, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 4, 1, 7, 5])[:, None]).long()
    return {"input_ids": torch.where(mask == 1, ids, PAD), "attention_mask": mask}


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> Tensor:
    return model(**inputs()).logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
class TestPlaced:
    def test_starts_as_the_plain_model(self, kind: str, form: str) -> None:
        expected, logits = logits_of(plain_model(kind)), logits_of(student(kind, form))
        assert logits.shape == (5, C)
        torch.testing.assert_close(logits.softmax(-1), expected.softmax(-1), rtol=0, atol=1e-6)
        if kind == "bert" or form == "auxiliary":  # without a bias there is nothing to shift by −τ log S
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)

    @torch.inference_mode()
    def test_all_logits_and_their_parts(self, kind: str, form: str) -> None:
        model = student(kind, form, trained=True)
        head = student_head(model)
        with all_logits(head):
            everything = model(**inputs()).logits
        assert everything.shape == (5, S * C if form == "subclass" else C + S * C)
        class_logits, subclass_logits = head.split(everything)
        assert class_logits.shape == (5, C) and subclass_logits.shape == (5, S * C)
        assert torch.equal(class_logits, logits_of(model))
        if form == "subclass":
            together = (subclass_logits / TAU).softmax(-1).view(5, C, S).sum(-1)
            torch.testing.assert_close((class_logits / TAU).softmax(-1), together)

    def test_class_logits_again_after_an_error(self, kind: str, form: str) -> None:
        model = student(kind, form)
        with pytest.raises(KeyboardInterrupt), all_logits(student_head(model)):
            raise KeyboardInterrupt
        assert logits_of(model).shape == (5, C)

    def test_placing_the_same_again_changes_nothing(self, kind: str, form: str) -> None:
        model = student(kind, form, trained=True)
        head, logits = student_head(model), logits_of(model)
        place_student_head(model, S, form, TAU)
        assert student_head(model) is head
        assert torch.equal(logits_of(model), logits)

    @pytest.mark.parametrize("other", [(S + 1, "subclass"), (S + 1, "auxiliary"), (1, "subclass"), (S, None)])
    def test_another_head_in_its_place_is_refused(self, kind: str, form: str, other: tuple[int, str | None]) -> None:
        num_subclasses, wanted = other[0], other[1] or FORMS[1 - FORMS.index(form)]
        with pytest.raises(ValueError, match=rf"already has a {HEADS[form].__name__} with {S} subclasses .*'{wanted}'"):
            place_student_head(student(kind, form), num_subclasses, wanted)

    def test_another_temperature_is_refused_where_it_tells(self, kind: str, form: str) -> None:
        model = student(kind, form)
        if form == "auxiliary":
            place_student_head(model, S, form, TAU + 1)
        else:
            with pytest.raises(ValueError, match=f"at temperature {TAU}, and 'subclass' with {S} at temperature"):
                place_student_head(model, S, form, TAU + 1)

    def test_gradients_reach_every_parameter_of_the_head(self, kind: str, form: str) -> None:
        model = student(kind, form, trained=True)
        head = student_head(model)
        with all_logits(head):
            class_logits, subclass_logits = head.split(model(**inputs()).logits)
        (class_logits.log_softmax(-1)[:, 0].sum() + subclass_logits.log_softmax(-1)[:, 0].sum()).backward()
        gradients = [parameter.grad for parameter in head.parameters()]
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)

    @pytest.mark.parametrize("training", [True, False])
    def test_keeps_type_and_mode(self, kind: str, form: str, training: bool) -> None:
        model = plain_model(kind).to(torch.bfloat16).train(training)
        place_student_head(model, S, form)
        head = student_head(model)
        assert {parameter.dtype for parameter in head.parameters()} == {torch.bfloat16}
        assert {module.training for module in head.modules()} == {training}

    def test_has_a_bias_where_the_plain_layer_has_one(self, kind: str, form: str) -> None:
        biases = {name for name, _ in student_head(student(kind, form)).named_parameters() if "bias" in name}
        assert biases == (
            set() if kind != "bert" else {"bias"} | ({"auxiliary.bias"} if form == "auxiliary" else set())
        )


@pytest.mark.parametrize("kind", ARCHITECTURES)
class TestSaved:
    @pytest.mark.parametrize("form", FORMS)
    def test_comes_back_with_the_same_logits_again_and_again(self, kind: str, form: str, tmp_path: Path) -> None:
        model = student(kind, form, trained=True)
        logits = logits_of(model)
        for folder in (tmp_path / "first", tmp_path / "second"):
            model.save_pretrained(folder)
            model = load_student(str(folder))
            assert not model.training
            assert torch.equal(logits_of(model), logits)
            assert isinstance(student_head(model), SubclassHead) == (form == "subclass")

    def test_subclass_records_their_number(self, kind: str, tmp_path: Path) -> None:
        student(kind, "subclass").save_pretrained(tmp_path)
        loaded = load_student(str(tmp_path))
        assert loaded.config.num_subclasses == student_head(loaded).num_subclasses == S
        assert loaded.config.num_labels == C
        assert loaded.config.architectures == [type(plain_model(kind)).__name__]

    def test_subclass_does_not_load_as_a_plain_model_without_a_word(self, kind: str, tmp_path: Path) -> None:
        student(kind, "subclass", trained=True).save_pretrained(tmp_path)
        with pytest.raises(
            (RuntimeError, ValueError), match=r"size mismatch|trust_remote_code|ignore_mismatched_sizes"
        ):
            AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False)

    def test_auxiliary_is_a_plain_model(self, kind: str, tmp_path: Path) -> None:
        model = student(kind, "auxiliary", trained=True)
        model.save_pretrained(tmp_path)
        loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values())
        assert type(loaded) is type(plain_model(kind))
        assert not hasattr(loaded.config, "num_subclasses")
        assert torch.equal(logits_of(loaded), logits_of(model))

    def test_weights_can_be_loaded_in_another_type(self, kind: str, tmp_path: Path) -> None:
        student(kind, "subclass", trained=True).save_pretrained(tmp_path)
        loaded = load_student(str(tmp_path), dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in student_head(loaded).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("form", FORMS)
def test_one_subclass_leaves_the_model_as_it_is(form: str) -> None:
    model = plain_model("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer, config = model.classifier, model.config.to_dict()
    place_student_head(model, 1, form)
    assert student_head(model) is None and model.classifier is layer and model.config.to_dict() == config
    assert type(model) is type(plain_model("bert"))
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_plain_model_has_no_head_to_switch() -> None:
    model = plain_model("bert")
    with all_logits(student_head(model)):
        assert logits_of(model).shape == (5, C)


class WithAnother(BertForSequenceClassification):
    """A classifier with a layer for another task, of the same size, beside its own and after it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.language = torch.nn.Linear(config.hidden_size, C)


@pytest.mark.parametrize("training", [False, True])
def test_another_layer_of_the_same_size_is_no_twin(training: bool) -> None:
    model = WithAnother(plain_model("bert").config).train(training)
    expected = logits_of(model.eval())
    model.train(training)
    place_student_head(model, S, "auxiliary")
    assert model.training == training and type(model.language) is torch.nn.Linear
    assert isinstance(model.classifier, AuxiliaryHead) and torch.equal(logits_of(model.eval()), expected)
    with all_logits(student_head(model)):
        assert logits_of(model).shape == (5, C + S * C)


def test_a_model_without_a_final_linear_layer() -> None:
    model = plain_model("bert")
    model.classifier = torch.nn.Linear(16, 7)
    with pytest.raises(ValueError, match="No final linear layer with 3 outputs"):
        place_student_head(model, S, "auxiliary")


def test_placing_on_one_model_leaves_others_of_its_class_alone(tmp_path: Path) -> None:
    student("bert", "auxiliary"), student("bert", "subclass")
    plain = plain_model("bert")
    plain.save_pretrained(tmp_path)
    assert type(plain) is type(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    assert not any("auxiliary" in name for name in plain._keys_to_ignore_on_save or ())


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "NoSuchForSequenceClassification", None])
def test_only_classifiers_are_students(architecture: str | None, tmp_path: Path) -> None:
    size = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForMaskedLM(BertConfig(intermediate_size=8, **size))
    model.save_pretrained(tmp_path)
    config = BertConfig.from_pretrained(tmp_path)
    config.architectures = architecture and [architecture]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"'{architecture or 'none'}', which is no classifier"):
        load_student(str(tmp_path))


@pytest.mark.parametrize("form", [None, *FORMS])
def test_classes_that_it_knows_in_another_order(form: str | None) -> None:
    model = plain_model("bert") if form is None else student("bert", form, trained=True)
    model.config.id2label = {0: "negative", 1: "neutral", 2: "positive"}
    model.config.problem_type = "multi_label_classification"
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    before = model(**inputs).logits
    take_classes(model, C, ["Positive", "negative", "neutral"])
    assert model.config.label2id == {"Positive": 0, "negative": 1, "neutral": 2}
    assert model.config.problem_type == "single_label_classification"
    torch.testing.assert_close(model(**inputs).logits, before[:, [2, 0, 1]])
    take_classes(model, C, ["red", "green", "blue"])  # of something else: the layer learns them
    torch.testing.assert_close(model(**inputs).logits, before[:, [2, 0, 1]])
    take_classes(model, C, None)
    assert model.config.id2label == {0: "red", 1: "green", 2: "blue"}


def test_only_what_has_rows_per_class_is_put_in_order() -> None:
    model = plain_model("bert")
    place_auxiliary(model, torch.nn.Linear(16, 5))  # as another method has it
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    before = copy.deepcopy(model.classifier)
    take_classes(model, C, ["c", "a", "b"])
    assert model.classifier.weight.equal(before.weight[[2, 0, 1]]) and model.classifier.bias is not None
    assert model.classifier.auxiliary.weight.equal(before.auxiliary.weight)
    without = torch.nn.Module()  # no layer is looked for where none is to be changed
    without.config = BertConfig(num_labels=3)
    take_classes(without, C, ["x", "y", "z"])
    assert without.config.id2label[2] == "z"


def test_the_copy_that_peft_trains_is_the_head() -> None:
    model = student("bert", "auxiliary")
    trained = copy.deepcopy(model.classifier)
    model.classifier = torch.nn.ModuleDict({"original_module": model.classifier, "modules_to_save": trained})
    assert student_head(model) is trained


class TestDamage:
    @pytest.fixture(params=FORMS)
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        student("bert", request.param).save_pretrained(tmp_path)
        write_checksums(tmp_path, WEIGHTS)
        return tmp_path

    def test_what_people_change_may_change(self, folder: Path) -> None:
        config = folder / "config.json"
        config.write_text(config.read_text().replace("{", '{"note": "mine", ', 1))
        tiny.tokenizer().save_pretrained(folder)
        load_student(str(folder))

    def test_one_bit(self, folder: Path) -> None:
        load_student(str(folder))
        name = "model.safetensors"
        content = bytearray((folder / name).read_bytes())
        content[-9] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is not the one .* It is damaged, or was changed since"):
            load_student(str(folder))

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_cut_short(self, folder: Path, name: str) -> None:
        (folder / "checksums.json").unlink()
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
        with pytest.raises(ValueError, match=rf"(?s)The student in {folder} cannot be read \(\w+: .*\)\. Save"):
            load_student(str(folder))

    def test_none_in_it_or_only_in_its_folders(self, folder: Path) -> None:
        (folder / "run" / "lelp").mkdir(parents=True)
        with pytest.raises(ValueError, match=r"run has no config.json: .*Give a student's own folder"):
            load_student(str(folder / "run"))
        (folder / "config.json").rename(folder / "run" / "lelp" / "config.json")
        with pytest.raises(ValueError, match=rf"run has no config.json: .* those in it: {folder}/run/lelp\."):
            load_student(str(folder / "run"))

    def test_weights_of_another(self, folder: Path) -> None:
        (folder / "checksums.json").unlink()
        tensors = load_file(folder / "model.safetensors")
        others = {name: tensor for name, tensor in tensors.items() if "query.weight" not in name}
        save_file(others, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=r"has no weights for .*query\.weight: they would be random"):
            load_student(str(folder))

    def test_a_pickle_is_never_opened(self, folder: Path) -> None:
        (folder / "checksums.json").unlink()
        (folder / "model.safetensors").unlink()

        class Harm:
            def __reduce__(self) -> Any:
                return (Path(folder / "harm").touch, ())

        torch.save(Harm(), folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match=r"cannot be read .*model\.safetensors"):
            load_student(str(folder))
        assert not (folder / "harm").exists()

    def test_weights_outside_the_folder_are_not_followed(self, folder: Path) -> None:
        (folder / "checksums.json").unlink()
        inner = folder / "inner"
        inner.mkdir()
        (folder / "config.json").rename(inner / "config.json")
        names = load_file(folder / "model.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../model.safetensors")}
        (inner / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=r"index\.json names \.\./model\.safetensors, outside its folder"):
            load_student(str(inner))

    @pytest.mark.parametrize("name", ["TextClassificationPipeline", "BertForTokenClassification", "os", "__doc__"])
    def test_a_forged_architecture(self, folder: Path, name: str) -> None:
        (folder / "checksums.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))
        with pytest.raises(ValueError, match=f"names the architecture '{name}', which is no classifier"):
            load_student(str(folder))


def test_a_class_of_ones_own_loads_once_it_is_registered(tmp_path: Path) -> None:
    own = type("OwnConfig", (BertConfig,), {"model_type": "own"})
    model = type("OwnForSequenceClassification", (BertForSequenceClassification,), {"config_class": own})
    AutoConfig.register("own", own)
    folder = tmp_path / "own"
    model(own(**tiny.classifier().config.to_diff_dict())).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"'OwnForSequenceClassification', .* Register one of your own"):
        load_student(folder)
    AutoModelForSequenceClassification.register(own, model)
    assert type(load_student(folder)) is model


@pytest.mark.parametrize("given", [["no", "yes"], {"0": "no", "1": "yes"}, {0: "LABEL_0", 1: "LABEL_1"}, {0: 1, 1: 2}])
@pytest.mark.parametrize("names", [None, ["no", "yes"]])
def test_what_is_saved_names_its_classes_well(given: Any, names: list[str] | None) -> None:
    model = tiny.classifier()
    model.config.id2label = given
    take_classes(model, 2, names)
    named = model.config.id2label
    assert [*named] == [0, 1] and all(isinstance(name, str) for name in named.values())
    assert model.config.label2id == {name: index for index, name in named.items()}
    assert names is None or [*named.values()] == names
