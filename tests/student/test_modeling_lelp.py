"""The file that travels with a student: it loads the exact student where hf-lelp is not installed."""

import ast
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)

from hf_lelp import LELPConfig, LELPTrainer
from hf_lelp.student import modeling_lelp
from hf_lelp.student.heads import place_student_head, student_head

S = 4
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
    "initializer_range": 0.5,
}

# Loads every folder given, and prints what it found; hf_lelp cannot be imported.
FRESH = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_lelp":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
import torch, transformers

found = {}
for auto, folder in json.loads(sys.argv[1]):
    inputs, expected = torch.load(f"{folder}/expected.pt")
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        found[folder] = torch.equal(model(**inputs).logits, expected) and tuple(expected.shape)
        if auto == "AutoModelForSequenceClassification":
            model.save_pretrained(f"{folder}/again")
            again = getattr(transformers, auto).from_pretrained(f"{folder}/again", trust_remote_code=True)
            found[folder + "/again"] = torch.equal(again(**inputs).logits, expected)
            classify = transformers.pipeline("text-classification", folder, trust_remote_code=True, top_k=None)
            found["pipeline"] = {label["label"]: label["score"] for label in classify(sys.argv[2])[0]}
assert "hf_lelp" not in sys.modules
print(json.dumps(found))
"""


def student(model: PreTrainedModel) -> PreTrainedModel:
    """As after training: rows that differ within a class."""
    place_student_head(model.eval(), S, "subclass")
    head = student_head(model)
    assert head is not None
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    return model


def text_student(kind: str = "bert") -> PreTrainedModel:
    return student(tiny.named(tiny.classifier(kind)))


@torch.no_grad()
def saved(model: PreTrainedModel, inputs: dict[str, torch.Tensor], folder: Path) -> torch.Tensor:
    """Save the model, some inputs and what it says of them; returns that."""
    logits = model(**inputs).logits
    model.save_pretrained(folder)
    torch.save((inputs, logits), folder / "expected.pt")
    return logits


class TestHead:
    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_class_logits_are_the_logsumexp_of_their_rows(self, temperature: float) -> None:
        head = modeling_lelp.SubclassHead(5, 3, S, temperature).double()
        inputs = torch.randn(2, 7, 5, dtype=torch.float64)
        rows = inputs @ head.weight.T + head.bias
        parts = [(rows[..., c * S : (c + 1) * S] / temperature).exp().sum(-1).log() for c in range(3)]
        torch.testing.assert_close(head(inputs), temperature * torch.stack(parts, dim=-1))

    def test_a_class_is_not_favoured_for_the_clearness_of_its_subclasses(self) -> None:
        # Learned at τ = 4 to the letter: class 0 has .6, spread evenly; class 1 has .4, all on one subclass.
        temperature = 4.0
        targets = torch.tensor([0.3, 0.3, 0.4 - 1e-6, 1e-6])
        head = modeling_lelp.SubclassHead(1, 2, 2, temperature)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(temperature * targets.log())
        assert head(torch.ones(1)).argmax() == 0
        assert (head(torch.ones(1)) / temperature).softmax(-1).tolist() == pytest.approx([0.6, 0.4], abs=1e-5)
        head.temperature = 1.0  # the logsumexp of the rows as they are
        assert head(torch.ones(1)).argmax() == 1


class TestFile:
    def test_a_save_puts_it_beside_the_weights_as_it_is(self, tmp_path: Path) -> None:
        text_student().save_pretrained(tmp_path)
        assert (tmp_path / "modeling_lelp.py").read_text() == Path(modeling_lelp.__file__).read_text()
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["auto_map"] == {
            "AutoModelForSequenceClassification": "modeling_lelp.BertForSequenceClassification"
        }
        assert config["num_subclasses"] == S

    def test_needs_torch_and_transformers_alone(self) -> None:
        imports = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(Path(modeling_lelp.__file__).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        }
        assert imports <= sys.stdlib_module_names | {"torch", "transformers"}

    def test_knows_no_other_names(self) -> None:
        for name in ("BertTokenizer", "NoModel", "__path__"):
            with pytest.raises(AttributeError, match=name):
                getattr(modeling_lelp, name)

    def test_a_plain_or_auxiliary_student_needs_none(self, tmp_path: Path) -> None:
        model = tiny.classifier()
        place_student_head(model, S, "auxiliary")
        model.save_pretrained(tmp_path)
        assert not (tmp_path / "modeling_lelp.py").exists()
        assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


class TestFreshProcess:
    def test_every_kind_loads_exactly_without_hf_lelp(self, tmp_path: Path) -> None:
        text = "good movie awful plot"
        folders: list[tuple[str, str]] = []

        def add(auto: str, name: str, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            folders.append((auto, str(tmp_path / name)))
            return saved(model, inputs, tmp_path / name)

        tokenizer = tiny.tokenizer()
        tokenizer.save_pretrained(tmp_path / "text")
        inputs = dict(tokenizer([text, "dull"], padding=True, return_tensors="pt"))
        logits = add("AutoModelForSequenceClassification", "text", text_student(), inputs)
        image = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, **SMALL))
        pixels = {"pixel_values": torch.randn(2, 1, 8, 8)}
        add("AutoModelForImageClassification", "image", student(image), pixels)
        audio = ASTForAudioClassification(ASTConfig(patch_size=4, max_length=12, num_mel_bins=8, **SMALL))
        add("AutoModelForAudioClassification", "audio", student(audio), {"input_values": torch.randn(2, 12, 8)})

        process = subprocess.run(
            [sys.executable, "-I", "-c", FRESH, json.dumps(folders), text], capture_output=True, text=True, cwd=tmp_path
        )
        assert process.returncode == 0, process.stderr
        found = json.loads(process.stdout)
        assert found[str(tmp_path / "text")] == [2, 2]
        assert found[str(tmp_path / "image")] == found[str(tmp_path / "audio")] == [2, 3]
        assert found[str(tmp_path / "text" / "again")] is True
        expected = dict(zip(tiny.LABEL_NAMES, logits[0].softmax(-1).tolist(), strict=True))
        assert found["pipeline"] == pytest.approx(expected, abs=1e-6)
        assert "not supported" not in process.stderr


class TestWithoutTrust:
    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    def test_nothing_loads_a_random_head(self, kind: str, tmp_path: Path) -> None:
        model = text_student(kind)
        model.save_pretrained(tmp_path)
        tiny.tokenizer(kind).save_pretrained(tmp_path)
        base = type(model).__mro__[1]
        for load in (AutoModelForSequenceClassification.from_pretrained, base.from_pretrained):
            with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
                load(tmp_path)
        with pytest.raises(ValueError, match="ignore_mismatched_sizes"):
            pipeline("text-classification", str(tmp_path))


class TestPlaced:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_can_be_copied_and_sent_to_another_process(self, copied: Any) -> None:
        model = text_student()
        inputs = dict(tiny.tokenizer()(["good plot"], return_tensors="pt"))
        other = copied(model)
        assert type(other) is type(model) and isinstance(other, BertForSequenceClassification)
        assert torch.equal(other(**inputs).logits, model(**inputs).logits)

    def test_a_class_that_nobody_else_has_is_refused(self) -> None:
        class Mine(BertForSequenceClassification):
            pass

        model = Mine(tiny.classifier().config)
        with pytest.raises(ValueError, match=r"Mine is no classifier of .*student_head='auxiliary'"):
            place_student_head(model, S, "subclass")
        assert type(model) is Mine and student_head(model) is None
        place_student_head(model, S, "auxiliary")


class TestTrainer:
    def test_checkpoint_final_save_and_the_model_itself_all_load(self, tmp_path: Path) -> None:
        teacher = tiny.named(tiny.classifier(hidden_size=32))
        trainer = LELPTrainer(
            model=tiny.classifier(seed=1),
            args=LELPConfig(
                output_dir=str(tmp_path / "out"),
                columns_cache_dir=str(tmp_path / "columns"),
                num_subclasses=2,
                max_steps=2,
                save_steps=2,
                report_to="none",
                use_cpu=True,
            ),
            train_dataset=tiny.dataset(teacher, 64),
            processing_class=tiny.tokenizer(),
            teacher_model=teacher,
            teacher_processing_class=tiny.tokenizer(),
        )
        trainer.train()
        trainer.save_model()
        trainer.model.save_pretrained(tmp_path / "by hand")
        inputs = dict(tiny.tokenizer()(["good plot", "dull"], padding=True, return_tensors="pt"))
        expected = trainer.model.eval()(**inputs).logits
        for folder in ("out", "out/checkpoint-2", "by hand"):
            model = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder, trust_remote_code=True)
            assert type(model).__module__.startswith("transformers_modules.")
            assert torch.equal(model(**inputs).logits, expected)
