"""Plain students, other runtimes and the command that makes them, on tiny models and real runtimes."""

import copy
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import runs
import tiny
import torch
from datasets import ClassLabel, Dataset
from huggingface_hub import ModelCard
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, PreTrainedModel, pipeline

from hf_lelp.export.export import PROGRAM, ExportArguments, export
from hf_lelp.export.fidelity import class_logits, fidelity
from hf_lelp.export.measure import measure, runtimes_table
from hf_lelp.export.plain import plain_student
from hf_lelp.export.runtimes import load_onnx, load_torch_export, save_int8, save_onnx, save_torch_export, torch_runtime
from hf_lelp.saved.saved_student import open_student
from hf_lelp.student.card import StudentCard
from hf_lelp.student.heads import place_student_head, student_head
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.loading import load_student
from hf_lelp.teacher.kinds.linear_probe import fit_linear

S = 4
Batches = list[dict[str, torch.Tensor]]


def student(kind: str = "bert", form: str = "subclass", *, spread: float = 0.0) -> PreTrainedModel:
    """A student whose rows are those of its class, shifted by random amounts of the size `spread`."""
    model = tiny.named(tiny.classifier(kind)).eval()
    model.config.pad_token_id = 1
    place_student_head(model, S, form)
    with torch.no_grad():
        for parameter in student_head(model).parameters():
            parameter += spread * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


def batches(texts: list[str], kind: str = "bert", rows: int = 32) -> Batches:
    tokenizer = tiny.tokenizer(kind)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    parts = [texts[start : start + rows] for start in range(0, len(texts), rows)]
    return [dict(tokenizer(part, padding=True, return_tensors="pt")) for part in parts]


class TestFitLinear:
    @pytest.mark.parametrize("with_bias", [True, False])
    def test_finds_the_layer_that_made_the_probabilities(self, with_bias: bool) -> None:
        generator = np.random.default_rng(0)
        # Directions of very different scales, away from zero, as embeddings have them.
        embedding = generator.normal(size=(500, 6)) * np.array([100, 10, 1, 1, 0.1, 0.01]) + 3
        weight = generator.normal(size=(3, 6)) / np.array([100, 10, 1, 1, 0.1, 0.01])
        bias = generator.normal(size=3) if with_bias else np.zeros(3)
        expected = softmax(embedding @ weight.T + bias, axis=1)
        fitted, fitted_bias = fit_linear(embedding, expected, with_bias=with_bias)
        np.testing.assert_allclose(softmax(embedding @ fitted.T + fitted_bias, axis=1), expected, atol=1e-3)
        assert with_bias or not fitted_bias.any()

    def test_is_optimal_where_no_layer_fits(self) -> None:
        generator = np.random.default_rng(0)
        embedding = generator.normal(size=(300, 4))
        expected = softmax(3 * generator.normal(size=(300, 3)) * embedding[:, :3] ** 2, axis=1)
        weight, bias = fit_linear(embedding, expected)
        error = softmax(embedding @ weight.T + bias, axis=1) - expected
        # The gradient of the mean cross-entropy.
        assert np.abs(error.T @ embedding / 300).max() < 1e-4 and np.abs(error.mean(0)).max() < 1e-4


class TestFidelity:
    def test_by_hand(self) -> None:
        before = np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
        after = np.log([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])
        report = fidelity(before, after, [0, 0, 1, -100])
        assert report == pytest.approx(
            {"rows": 4, "agreement": 0.75, "mean_difference": 0.075, "max_difference": 0.2, "accuracy": 2 / 3}
        )

    def test_no_accuracy_without_labels(self) -> None:
        assert "accuracy" not in fidelity([[1.0, 0.0]], [[1.0, 0.0]], [-100])

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
            fidelity([[1.0, 0.0]], [[1.0, 0.0, 0.0]])


class TestPlainStudent:
    # gpt2's final layer has no bias, and a plain one would lose any that a fit gave it.
    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    def test_answers_alike_and_loads_without_trust(self, kind: str, tmp_path: Path) -> None:
        model = student(kind, spread=0.02)
        weights = copy.deepcopy(model.state_dict())
        train, held_out = batches(tiny.texts(300), kind), batches(tiny.texts(120, seed=1), kind)
        plain, report = plain_student(model, train, held_out)
        assert report["rows"] == 120 and report["agreement"] >= 0.98 and report["max_difference"] < 0.05

        plain.save_pretrained(tmp_path)
        assert "num_subclasses" not in json.loads((tmp_path / "config.json").read_text())
        assert not (tmp_path / "modeling_lelp.py").exists()
        loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        np.testing.assert_array_equal(class_logits(loaded, held_out), class_logits(plain, held_out))
        recomputed = fidelity(class_logits(model, held_out), class_logits(loaded, held_out))
        assert report["agreement"] == recomputed["agreement"]

        torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)
        assert model.config.num_subclasses == S

    def test_refuses_below_the_agreement_unless_told(self) -> None:
        model = student(spread=2.0)
        train, held_out = batches(tiny.texts(200)), batches(tiny.texts(100, seed=1))
        labels = class_logits(model, held_out).argmax(-1)
        with pytest.raises(ValueError, match=r"agrees with the student on .*% of 100 held-out rows; 98.0% was asked"):
            plain_student(model, train, held_out, labels)
        _, report = plain_student(model, train, held_out, labels, min_agreement=0.0)
        assert report["accuracy_before"] == 1.0
        assert report["accuracy"] == report["agreement"] < 0.98

    @pytest.mark.parametrize("model", [student(form="auxiliary"), tiny.classifier()], ids=["auxiliary", "plain"])
    def test_plain_models_need_nothing(self, model: PreTrainedModel) -> None:
        with pytest.raises(ValueError, match="plain model already"):
            plain_student(model, [], [])

    def test_no_rows(self) -> None:
        with pytest.raises(ValueError, match="no rows to fit"):
            plain_student(student(), [], batches(["good"]))


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A student, and the folder with its model.pt2, model.onnx and int8.onnx."""
    folder = tmp_path_factory.mktemp("exported")
    model = student(request.param, spread=0.5)
    inputs = batches(tiny.texts(40), request.param)
    save_torch_export(model, inputs, folder / "model.pt2")
    save_onnx(model, inputs, folder / "model.onnx")
    save_int8(folder / "model.onnx", folder / "int8.onnx")
    return request.param, model, folder


class TestRuntimes:
    def test_class_logits_for_any_number_of_rows_and_tokens(self, exported: tuple[Any, ...]) -> None:
        kind, model, folder = exported
        runtimes = [load_torch_export(folder / "model.pt2"), load_onnx(folder / "model.onnx")]
        for rows, length in [(1, 1), (1, 40), (7, 3), (50, 30)]:
            inputs = batches(tiny.texts(rows, seed=rows, shortest=length, longest=length), kind, rows=rows)
            for runtime in runtimes:
                logits = runtime.run(inputs)
                assert logits.shape == (rows, 2)
                np.testing.assert_allclose(logits, class_logits(model, inputs), atol=1e-4)

    def test_a_decoder_whose_samples_have_one_token(self, tmp_path: Path) -> None:
        model, one = student("gpt2"), batches(["good", "bad"], "gpt2")
        assert one[0]["input_ids"].shape == (2, 1)
        more = batches(tiny.texts(5), "gpt2")
        for runtime in (
            save_torch_export(model, one, tmp_path / "model.pt2"),
            save_onnx(model, one, tmp_path / "model.onnx"),
        ):
            np.testing.assert_allclose(runtime.run(more), class_logits(model, more), atol=1e-4)

    def test_one_output_called_logits(self, exported: tuple[Any, ...]) -> None:
        _, _, folder = exported
        for name in ("model.onnx", "int8.onnx"):
            assert [output.name for output in onnx.load(folder / name).graph.output] == ["logits"]

    def test_no_files_but_those_asked_for(self, exported: tuple[Any, ...]) -> None:
        assert {path.name for path in exported[2].iterdir()} == {"model.pt2", "model.onnx", "int8.onnx"}

    def test_damaged_files_are_refused(self, exported: tuple[Any, ...], tmp_path: Path) -> None:
        folder = exported[2]
        content = (folder / "model.pt2").read_bytes()
        (tmp_path / "cut.pt2").write_bytes(content[: len(content) // 2])
        with zipfile.ZipFile(folder / "model.pt2") as archive:
            largest = max(archive.infolist(), key=lambda info: info.file_size)
        changed = bytearray(content)
        changed[largest.header_offset + 30 + largest.file_size // 2] ^= 1
        (tmp_path / "changed.pt2").write_bytes(changed)
        for name, words in (("cut.pt2", ""), ("changed.pt2", r"\S+ in it has changed")):
            with pytest.raises(ValueError, match=f"{name} is no whole torch.export program .*{words}.*Export it again"):
                load_torch_export(tmp_path / name)
        (tmp_path / "cut.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"cut\.onnx cannot be read by ONNX Runtime .*Export it again"):
            load_onnx(tmp_path / "cut.onnx")
        for load in (load_torch_export, load_onnx):
            with pytest.raises(FileNotFoundError, match=r"There is no file .*none"):
                load(tmp_path / "none")

    def test_int8_holds_its_weights_in_a_byte(self, exported: tuple[Any, ...]) -> None:
        kind, model, folder = exported
        weights = onnx.load(folder / "int8.onnx").graph.initializer
        floats = sum(int(np.prod(w.dims)) for w in weights if w.data_type == onnx.TensorProto.FLOAT)
        assert floats < 0.2 * model.num_parameters()
        inputs = batches(tiny.texts(100, seed=3), kind)
        report = fidelity(class_logits(model, inputs), load_onnx(folder / "int8.onnx").run(inputs))
        assert report["agreement"] > 0.9 and 0 < report["mean_difference"] < 0.05

    def test_measured(self, exported: tuple[Any, ...]) -> None:
        kind, model, folder = exported
        texts = tiny.texts(70, seed=4)
        inputs, singles = batches(texts, kind), batches(texts[:5], kind, rows=1)
        labels = np.where(np.arange(70) < 35, 0, 1)
        files = [folder / "model.pt2", folder / "model.onnx", folder / "int8.onnx"]
        runtimes = [torch_runtime(model), load_torch_export(files[0]), load_onnx(files[1]), load_onnx(files[2], "int8")]
        results = measure(runtimes, inputs, singles, labels)
        assert [row["runtime"] for row in results] == ["PyTorch", "torch.export", "ONNX", "int8"]
        assert results[0]["megabytes"] == 4 * model.num_parameters() / 1e6
        assert [row["megabytes"] for row in results[1:]] == [file.stat().st_size / 1e6 for file in files]
        predicted = class_logits(model, inputs).argmax(-1)
        for row in results:
            assert row["milliseconds_1"] > 0 and row["milliseconds_32"] > 0 and row["rows"] == 70
        for row in results[:3]:
            assert row["agreement"] == 1.0 and row["accuracy"] == (predicted == labels).mean()
        table = runtimes_table(results)
        assert all(row["runtime"] in table for row in results) and "ms, batch of 32" in table


class Noisy(BertForSequenceClassification):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits + torch.rand_like(outputs.logits)
        return outputs


class TestWrongExports:
    def test_a_file_with_other_logits_is_not_kept(self, tmp_path: Path) -> None:
        model = Noisy(tiny.classifier().config)
        with pytest.raises(RuntimeError, match=r"Noisy exported as model.pt2: .* differ from PyTorch's by up to"):
            save_torch_export(model, batches(tiny.texts(8)), tmp_path / "model.pt2")
        assert not list(tmp_path.iterdir())

    def test_a_model_that_cannot_be_exported_is_named(self, tmp_path: Path) -> None:
        class Branching(BertForSequenceClassification):
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                outputs = super().forward(*args, **kwargs)
                return outputs if outputs.logits.sum() > 0 else super().forward(*args, **kwargs)

        model = Branching(tiny.classifier().config)
        with pytest.raises(RuntimeError, match=r"Branching cannot be exported as model.pt2: "):
            save_torch_export(model, batches(tiny.texts(8)), tmp_path / "model.pt2")

    def test_half_precision_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"bfloat16: exports are made .* on the CPU in float32"):
            save_torch_export(student().bfloat16(), batches(["good"]), tmp_path / "model.pt2")

    def test_the_missing_package_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r"onnxruntime.*pip install 'hf-lelp\[onnx\]'"):
            save_onnx(student(), batches(["good"]), tmp_path / "model.onnx")


class TestCommand:
    @pytest.mark.parametrize("content", ["{", "[]"])
    def test_a_damaged_report_is_told_first(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "export.json").write_text(content)
        with pytest.raises(ValueError, match=r"export\.json of an earlier export is damaged .* Remove it"):
            export(ExportArguments(student="none", train_file="none.csv", to=["plain"], output_dir=str(tmp_path)))

    @staticmethod
    def saved(model: PreTrainedModel, folder: Path) -> str:
        model.save_pretrained(folder / "student")
        tiny.tokenizer().save_pretrained(folder / "student")
        return str(folder / "student")

    def test_makes_all_forms_and_says_so(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = student(spread=0.02)
        folder = self.saved(model, tmp_path)
        texts = tiny.texts(40, seed=1)
        predicted = class_logits(model, batches(texts)).argmax(-1)
        names = [tiny.LABEL_NAMES[index] for index in predicted]
        # Text labels, one of them wrong.
        names[0] = tiny.LABEL_NAMES[1 - predicted[0]]
        Dataset.from_dict({"text": tiny.texts(200)}).to_csv(tmp_path / "train.csv")
        Dataset.from_dict({"text": texts, "label": names}).to_csv(tmp_path / "eval.csv")
        data = ["--train_file", f"{tmp_path}/train.csv", "--eval_file", f"{tmp_path}/eval.csv"]
        out = tmp_path / "out"
        PROGRAM.main([folder, "--to", "plain", "torch", *data, "--output_dir", str(out)])
        PROGRAM.main([folder, "--to", "int8", *data[2:], "--output_dir", str(out)])  # nothing is fitted

        results = json.loads((out / "export.json").read_text())
        assert results["plain"]["accuracy_before"] == 39 / 40
        assert [row["runtime"] for row in results["runtimes"]] == ["PyTorch", "ONNX", "ONNX int8"]
        assert results["runtimes"][0]["accuracy"] == 39 / 40
        AutoModelForSequenceClassification.from_pretrained(out / "plain")
        described = ModelCard.load(out / "plain" / "README.md")
        assert "trust_remote_code" not in described.text and "nothing but transformers is needed" in described.text
        agreement = f"{results['plain']['agreement']:.1%} of 40 held-out rows"
        assert re.search(rf"\| same answer as the student .*\| *{agreement} \|", described.text)
        assert re.search(r"\| student +\| +97\.5 \|", described.text) and "plain form (this model)" in described.text
        assert described.data.eval_results is None and described.data.pipeline_tag == "text-classification"
        files = {"plain", "model.pt2", "onnx", "export.json", "tokenizer.json", "tokenizer_config.json"}
        assert files == {path.name for path in out.iterdir()}
        assert results["sha256"] == {
            name: hashlib.sha256((out / name).read_bytes()).hexdigest()
            for name in ("model.pt2", "onnx/model.onnx", "onnx/model_int8.onnx")
        }
        printed = capsys.readouterr().out
        for start in ("plain: same answer as the student on ", "torch: ", "onnx: ", "int8: "):
            assert any(line.startswith(start) for line in printed.splitlines())
        assert "97.5% before" in printed and "| ONNX int8 " in printed

    @pytest.mark.parametrize("card", ["# My own\n", "# Caf\xe9\n", "ours"])
    def test_the_student_s_folder_is_only_read(self, card: str, tmp_path: Path) -> None:
        folder, out = self.saved(student(), tmp_path), tmp_path / "out"
        readme = Path(folder) / "README.md"
        readme.write_bytes(card.encode("latin-1"))
        if card == "ours":
            StudentCard("small", "lelp", "lelp", "AutoModelForSequenceClassification", ["a", "b"]).save(
                readme, replace_any=True
            )
        before = {path: path.read_bytes() for path in Path(folder).iterdir()}
        Dataset.from_dict({"text": tiny.texts(20)}).to_csv(tmp_path / "eval.csv")
        PROGRAM.main([folder, "--to", "torch", "--eval_file", f"{tmp_path}/eval.csv", "--output_dir", str(out)])
        assert {path: path.read_bytes() for path in Path(folder).iterdir()} == before
        assert (out / "export.json").exists() and (out / "README.md").exists() == (card == "ours")
        assert card != "ours" or "## Other runtimes" in (out / "README.md").read_text()

    def test_the_datas_order_of_the_classes_may_be_another(self, tmp_path: Path) -> None:
        model = student(spread=0.02)
        folder = self.saved(model, tmp_path)
        texts = tiny.texts(40, seed=1)
        names = [tiny.LABEL_NAMES[index] for index in class_logits(model, batches(texts)).argmax(-1)]
        data = Dataset.from_dict({"text": texts, "label": names})
        data = data.cast_column("label", ClassLabel(names=tiny.LABEL_NAMES[::-1]))
        data.to_parquet(tmp_path / "data.parquet")
        file = str(tmp_path / "data.parquet")
        data = {"train_file": file, "eval_file": file}
        arguments = ExportArguments(student=folder, to=["plain"], output_dir=str(tmp_path / "out"), **data)
        assert export(arguments)["plain"]["accuracy_before"] == 1.0

    def test_an_auxiliary_student_is_plain(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = self.saved(student(form="auxiliary"), tmp_path)
        Dataset.from_dict({"text": tiny.texts(20)}).to_csv(tmp_path / "train.csv")
        PROGRAM.main(
            [folder, "--to", "plain", "--train_file", f"{tmp_path}/train.csv", "--output_dir", f"{tmp_path}/out"]
        )
        assert "is a plain model already" in capsys.readouterr().out
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("form", ["subclass", "auxiliary"])
    def test_one_output_gives_the_student_s_probabilities(
        self, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model, texts, out = student(form=form, spread=0.02), tiny.texts(40), tmp_path / "out"
        folder = self.saved(model, tmp_path)
        names = {"auto_class": "AutoModelForSequenceClassification", "classes": ["no", "yes"]}
        StudentCard("small", "kd", "kd", **names).save(Path(folder) / "README.md")
        Dataset.from_dict({"text": texts, "label": [0, 1] * 20}).to_csv(tmp_path / "data.csv")
        files = ["--train_file", f"{tmp_path}/data.csv", "--eval_file", f"{tmp_path}/data.csv"]
        forms, files = (["plain", "one_output"], files) if form == "subclass" else (["one_output"], files[2:])
        PROGRAM.main([folder, "--to", *forms, *files, "--output_dir", str(out)])
        one = AutoModelForSequenceClassification.from_pretrained(out / "one_output")
        plain = AutoModelForSequenceClassification.from_pretrained(out / "plain" if form == "subclass" else folder)
        z = class_logits(one, batches(texts))
        expected = softmax(class_logits(plain, batches(texts)), axis=1)[:, 1:]
        np.testing.assert_allclose(1 / (1 + np.exp(-z)), expected, atol=1e-5)
        assert json.loads((out / "export.json").read_text())["one_output"]["max_difference"] < 1e-5
        assert (
            f"one_output: its sigmoid is the student's probability of {tiny.LABEL_NAMES[1]}" in capsys.readouterr().out
        )
        card = (out / "one_output" / "README.md").read_text()
        assert "## One output" in card and "one logit per class" not in card and "trust_remote_code" not in card
        answer = pipeline("text-classification", str(out / "one_output"), device="cpu")(texts[0])[0]
        assert answer == {"label": tiny.LABEL_NAMES[1], "score": pytest.approx(expected[0, 0], abs=1e-5)}
        with pytest.raises(ValueError, match="has one output, and students of two classes or more are read here"):
            open_student(str(out / "one_output"), None, None, None)

    def test_what_cannot_have_one_output_is_refused_first(self, tmp_path: Path) -> None:
        folder = self.saved(student(), tmp_path)
        arguments: dict[str, Any] = {"to": ["one_output"], "eval_file": "none.csv", "output_dir": str(tmp_path / "out")}
        with pytest.raises(ValueError, match=r"a head of pseudo-subclasses: .* \(--to plain one_output does both\)"):
            export(ExportArguments(student=folder, **arguments))
        three = self.saved(tiny.classifier(num_labels=3), tmp_path / "three")
        with pytest.raises(ValueError, match="has 3 classes: a plain student of two classes can have one output"):
            export(
                ExportArguments(student=three, **{**arguments, "to": ["plain", "one_output"], "train_file": "n.csv"})
            )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--to", "tflite", "--train_file", "data.csv"], "to=tflite: one or more of plain, one_output, onnx, int8"),
            (["--train_file", "data.csv"], "to=: one or more of"),
            (["--to", "plain"], "either dataset_name or train_file"),
        ],
    )
    def test_mistakes_are_one_line(self, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            PROGRAM.main(["student", *options], "hf-lelp export")
        usage, told = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and usage.startswith("usage: hf-lelp export [STUDENT]") and message in told

    def test_a_student_of_two_columns_is_not_given_one(self, tmp_path: Path) -> None:
        data = runs.data(24)
        two = data.rename_column("text", "first").add_column("second", data["text"])
        args = runs.config(tmp_path, input_columns=["first", "second"], teacher_input_columns=["first"])
        run = runs.trainer(args, train_dataset=two)
        run.save_model()
        data.to_csv(tmp_path / "data.csv")
        arguments = {"student": args.output_dir, "eval_file": f"{tmp_path}/data.csv", "to": ["torch"]}
        arguments["input_columns"] = ["text"]
        with pytest.raises(ValueError, match="read first and second in training, and was given text"):
            export(ExportArguments(**arguments, output_dir=str(tmp_path / "exported")))
        one = runs.trainer(runs.config(tmp_path), model=load_student(args.output_dir), train_dataset=data)
        assert StudentInputs.of(one.model.config).input_columns == ["text"]

    def test_refusal_is_one_line(self, tmp_path: Path) -> None:
        folder = self.saved(student(spread=2.0), tmp_path)
        Dataset.from_dict({"text": tiny.texts(200)}).to_csv(tmp_path / "train.csv")
        with pytest.raises(SystemExit, match=r"^error: The plain model agrees with the student on"):
            PROGRAM.main(
                [folder, "--to", "plain", "--train_file", f"{tmp_path}/train.csv", "--output_dir", str(tmp_path)]
            )


def test_options_from_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "export.yaml").write_text("student: here\nto: onnx\neval_file: e.csv\nmin_agreement: 1e-1\n")
    (arguments,) = PROGRAM.parse(["--config", str(tmp_path / "export.yaml")])
    assert (arguments.student, arguments.to, arguments.eval_file) == ("here", ["onnx"], "e.csv")
    (arguments,) = PROGRAM.parse(
        ["there", "--config", str(tmp_path / "export.yaml"), "--to", "plain", "--train_file", "t.csv"]
    )
    assert (arguments.student, arguments.to) == ("there", ["plain"])
    with pytest.raises(SystemExit):
        PROGRAM.parse(["--to", "onnx", "--eval_file", "e.csv"])
    assert "student is missing: a folder or Hub id." in capsys.readouterr().err
