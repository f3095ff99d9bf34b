"""What a user hands over works as in Trainer, or is refused at construction by its name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import Dataset, IterableDataset, load_dataset
from torch import nn
from torch.utils.data import Subset, random_split
from transformers import CLIPProcessor, Wav2Vec2CTCTokenizer, Wav2Vec2Processor, pipeline

from hf_lelp import ClassProjections, LELPTrainer, Teacher, load_student


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """The folders of a teacher and a student, each with its tokenizer."""
    found = {"teacher": tmp_path / "teacher", "student": tmp_path / "student"}
    for name, model in (("teacher", runs.teacher_model()), ("student", runs.student())):
        model.save_pretrained(found[name])
        tiny.tokenizer().save_pretrained(found[name])
    return found


def test_paths_of_pathlib(folders: dict[str, Path], tmp_path: Path) -> None:
    by_path, by_name = (
        LELPTrainer(
            model=kind(folders["student"]),
            teacher_model=kind(folders["teacher"]),
            args=runs.config(tmp_path),
            train_dataset=runs.data(),
        )
        for kind in (Path, str)
    )
    runs.assert_same(runs.weights(by_path.model), runs.weights(by_name.model))
    assert Teacher.from_pretrained(folders["teacher"]).num_classes == 2
    assert load_student(folders["student"]).config.num_labels == 2


def test_arguments_by_position_are_those_of_trainer(tmp_path: Path) -> None:
    data = runs.data()
    run = LELPTrainer(
        None,
        runs.config(tmp_path, alpha=1.0),
        None,
        data,
        data,
        tiny.tokenizer(),
        lambda: runs.student(),
        None,
        lambda prediction: {"rows": len(prediction.label_ids)},
        [runs.StopAt(1)],
        (None, None),
        (torch.optim.SGD, {"lr": 0.1}),
        lambda logits, labels: logits.argmax(-1),
    )
    run.train()
    assert run.state.global_step == 1 and run.evaluate()["eval_rows"] == 96


def test_numbers_of_numpy(tmp_path: Path) -> None:
    args = runs.config(
        tmp_path, num_subclasses=np.int64(3), alpha=np.float32(0.5), teacher_class_order=np.array([0, 1])
    )
    assert args.num_subclasses == 3 and type(args.num_subclasses) is int and type(args.alpha) is float
    assert json.loads(args.to_json_string())["teacher_class_order"] == [0, 1]
    runs.trainer(args).train()


class TestRows:
    def test_a_subset_is_the_rows_that_it_chooses(self, tmp_path: Path) -> None:
        data = runs.data()
        part, rest = random_split(data, [80, 16], generator=torch.Generator().manual_seed(0))
        by_subset, by_rows = (
            runs.trained(tmp_path, arguments={"train_dataset": rows, "eval_dataset": evaluated})
            for rows, evaluated in ((part, Subset(rest, range(8))), (data.select(part.indices), None))
        )
        assert runs.losses(by_subset) == runs.losses(by_rows)
        assert by_subset.evaluate().keys() >= {"eval_accuracy"} and len(by_subset.eval_dataset) == 8
        assert len(by_subset.predict(rest).predictions) == 16

    def test_lists_of_raw_rows_are_refused(self, tmp_path: Path) -> None:
        rows = list(runs.data())
        with pytest.raises(
            ValueError, match=r"A list is no dataset of raw rows: its rows have no input_ids.*from_list"
        ):
            runs.trainer(runs.config(tmp_path), train_dataset=rows)
        run = runs.trainer(runs.config(tmp_path))
        for given, words in (
            (rows, "from_list"),
            (list(runs.data()["text"]), "from_dict"),
            (Subset(rows, [0]), "list"),
        ):
            with pytest.raises(ValueError, match=f"A list is no dataset of raw rows: .*{words}"):
                run.predict(given)
        ready = [dict(tiny.tokenizer()(row["text"])) for row in rows[:4]]
        assert len(run.predict(ready).predictions) == 4

    def test_texts_that_are_stored_as_views(self, tmp_path: Path) -> None:
        data = runs.data()
        views = pa.table({"text": pa.array(list(data["text"])).cast(pa.string_view()), "label": list(data["label"])})
        pq.write_table(views, tmp_path / "views.parquet")
        stored = load_dataset("parquet", data_files=str(tmp_path / "views.parquet"), split="train", cache_dir=tmp_path)
        one, other = (runs.trained(tmp_path, arguments={"train_dataset": rows}) for rows in (stored, data))
        assert runs.losses(one) == runs.losses(other)

    def test_labels_that_are_null_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        labels = [None, None, None, *runs.data()["label"][3:]]
        runs.trainer(
            runs.config(tmp_path), train_dataset=Dataset.from_dict({"text": runs.data()["text"], "label": labels})
        )
        assert (
            "3 of 96 training rows have no label in 'label'" in caplog.text and "keep_default_na=False" in caplog.text
        )

    def test_rows_without_any_label_have_no_loss(self, tmp_path: Path) -> None:
        run = runs.trainer(runs.config(tmp_path))
        bare = Dataset.from_dict({"text": runs.data()["text"], "label": [-100] * 96})
        assert not any("loss" in name for name in (run.predict(bare).metrics or {}))


class TestStreams:
    def test_the_lines_that_the_message_prints_run(self, folders: dict[str, Path], tmp_path: Path) -> None:
        stream, given = runs.data().to_iterable_dataset(), {"model": str(folders["student"]), "teacher_model": None}
        with pytest.raises(ValueError, match="stream without") as told:
            LELPTrainer(**given, args=runs.config(tmp_path, num_subclasses=2), train_dataset=stream)
        lines = [line.strip() for line in str(told.value).splitlines() if line.startswith("    ")]
        names: dict[str, Any] = {
            "stream": stream,
            "teacher": Teacher.from_pretrained(folders["teacher"]),
            "ClassProjections": ClassProjections,
            "LELPTrainer": lambda **more: LELPTrainer(**given, args=runs.config(tmp_path), **more),
        }
        for line in lines[:-1]:
            exec(line, names)
        run = eval(lines[-1].replace("..., ", "").partition("#")[0], names)
        run.train()
        assert run.state.global_step == 4

    def test_labels_alone(self, folders: dict[str, Path], tmp_path: Path) -> None:
        given: dict[str, Any] = {"model": str(folders["student"]), "args": runs.config(tmp_path, alpha=1.0)}
        run = LELPTrainer(**given, train_dataset=runs.data().to_iterable_dataset())
        run.train()
        assert run.model.config.id2label == {0: "negative", 1: "positive"}
        unnamed = IterableDataset.from_generator(lambda: iter(list(runs.data())))
        with pytest.raises(ValueError, match=r"is a stream that does not name the classes.*'label'.*ClassLabel"):
            LELPTrainer(**given, train_dataset=unnamed)


class TestModels:
    def test_compiled_ones_are_refused(self, tmp_path: Path) -> None:
        for role, name in (("student", "model"), ("teacher", "teacher_model")):
            model = torch.compile(runs.student() if role == "student" else runs.teacher_model(), backend="eager")
            with pytest.raises(ValueError, match=f"The {role} is compiled already.*torch_compile=True"):
                runs.trainer(runs.config(tmp_path), **{name: model})

    def test_modules_and_pipelines_are_refused(self, tmp_path: Path) -> None:
        words = "without a configuration: pass a classifier of transformers"
        with pytest.raises(ValueError, match=f"The student is a Linear {words}"):
            runs.trainer(runs.config(tmp_path), model=nn.Linear(2, 2))
        whole = pipeline("text-classification", model=runs.teacher_model(), tokenizer=tiny.tokenizer())
        with pytest.raises(ValueError, match=f"The teacher is a TextClassificationPipeline {words}"):
            runs.trainer(runs.config(tmp_path), teacher_model=whole)

    def test_adapters_alone_are_refused(self, folders: dict[str, Path], tmp_path: Path) -> None:
        peft = pytest.importorskip("peft")
        lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
        peft.get_peft_model(runs.teacher_model(), lora).save_pretrained(tmp_path / "adapter")
        for given in ({"model": str(tmp_path / "adapter")}, {"teacher_model": str(tmp_path / "adapter")}):
            with pytest.raises(ValueError, match=r"holds an adapter of PEFT alone.*Auto class, and pass that object"):
                runs.trainer(runs.config(tmp_path), **given)

    def test_of_whole_processors_the_part_of_the_model_is_taken(self, tmp_path: Path) -> None:
        images = CLIPProcessor(tiny_media.image_processor(16), tiny.tokenizer())
        guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
        data = tiny_media.image_data(guide)
        (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2}))
        letters = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
        sounds = Wav2Vec2Processor(feature_extractor=tiny_media.wave_extractor(), tokenizer=letters)
        assert Teacher(tiny_media.wav2vec2(), sounds).processing_class is sounds.feature_extractor
        given = {"model": tiny_media.vit(), "train_dataset": data, "teacher_model": guide}
        run = runs.trainer(runs.config(tmp_path), **given, processing_class=images, teacher_processing_class=None)
        assert run.processing_class is images.image_processor
        run.train()
        with pytest.raises(
            ValueError, match="A Wav2Vec2Processor has no image_processor, which makes the inputs of a vit"
        ):
            runs.trainer(runs.config(tmp_path), **given, processing_class=sounds)


def test_the_card_of_an_adapter_is_ours_and_a_readme_of_the_user_s_stays(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    runs.student().save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(load_student(tmp_path / "base"), lora)
    run = runs.trainer(runs.config(tmp_path, student_head="auxiliary"), model=model)
    run.save_model()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "It is an adapter of PEFT" in card and str(tmp_path) not in card
    (tmp_path / "out" / "README.md").write_text("mine")
    run.save_model()
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    with pytest.raises(ValueError, match=r"out holds an adapter of PEFT alone.*merge_and_unload"):
        load_student(tmp_path / "out")


def test_an_earlier_trainer_outlives_one_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    earlier = runs.trainer(runs.config(tmp_path, optim="adamw_torch", learning_rate=4.7e-5, max_steps=1))
    with pytest.raises(ValueError, match="has no column 'nowhere'"):
        runs.trainer(runs.config(tmp_path, label_column="nowhere"))
    earlier.train()
    assert "learning_rate=4.7e-05 is low for a student" in caplog.text
    assert len(earlier.predict(runs.data()).predictions) == runs.ROWS
    caplog.clear()
    runs.trainer(runs.config(tmp_path))
    assert f"teacher: all {runs.ROWS} rows were answered before, and it is not run" in caplog.text
