"""Where the blocks of README and docs run: every name in them is a tiny file or folder of that name.

A block is run as it stands, in a folder of its page. `load_dataset("stanfordnlp/imdb")` or `--teacher_model T` name an
id of the Hub or a file of the reader's; transformers and datasets take a folder of that name first. A new page that
needs another name gets it here, in one line.
"""

import shutil
from pathlib import Path

import tiny
import torch
from datasets import Dataset, DatasetDict
from tiny_media import (
    audio_data,
    balanced,
    cnn,
    image_data,
    image_processor,
    pictures,
    sounds,
    vit,
    wav2vec2,
    wave_extractor,
)
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

TEACHERS = ("T", "lvwerra/distilbert-imdb")
STUDENTS = ("S", "google/bert_uncased_L-2_H-128_A-2", "microsoft/MiniLM-L12-H384-uncased")
ROWS = 120


def build(stage: Path) -> None:
    """Write all that blocks name: files of rows, datasets, teachers and students."""
    teacher = balanced(_long_bert(1), tiny.tokenizer(), tiny.texts(200, seed=9))
    for name, model in [*((name, teacher) for name in TEACHERS), *((name, _long_bert(0)) for name in STUDENTS)]:
        _save(model, tiny.tokenizer(), stage / name)
    rows = {name: tiny.dataset(teacher, ROWS, seed=seed) for seed, name in enumerate(("mine", "test", "new"))}
    for name, data in rows.items():
        (data.remove_columns("label") if name == "new" else data).to_csv(stage / f"{name}.csv")
    tiny.dataset(teacher, ROWS, seed=7).remove_columns("label").to_csv(stage / "unlabelled.csv")
    mine = rows["mine"]
    pairs = {"question": mine["text"], "passage": tiny.texts(ROWS, seed=5), "label": mine["label"]}
    Dataset.from_dict(pairs).to_csv(stage / "pairs.csv")
    for split in ("train", "test"):
        path = stage / "stanfordnlp/imdb" / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stage / {"train": "mine.csv", "test": "test.csv"}[split], path)
    (stage / "my.yaml").write_text(
        "train_file: mine.csv\neval_file: test.csv\nteacher_model: T\nstudent_model: new:1x16\noutput_dir: out\n"
        "num_subclasses: 2\nnum_train_epochs: 1\n"
    )
    _images(stage)
    _sounds(stage)


def _long_bert(seed: int) -> PreTrainedModel:
    """The tiny BERT, for texts as long as the pages have them."""
    torch.manual_seed(seed)
    short = tiny.classifier().config.to_dict()
    return tiny.named(BertForSequenceClassification(BertConfig(**{**short, "max_position_embeddings": 512})))


def _images(stage: Path) -> None:
    from hf_lelp import Teacher

    _save(balanced(cnn(), image_processor(), pictures(64, seed=9)), image_processor(), stage / "your/fine-tuned-resnet")
    _save(tiny.named(vit()), image_processor(16), stage / "WinKawaks/vit-tiny-patch16-224")
    data = image_data(Teacher.from_pretrained(str(stage / "your/fine-tuned-resnet")), 48).rename_column("img", "image")
    for split in ("train", "test"):
        path = stage / "zalando-datasets/fashion_mnist" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        data.to_parquet(path)


def _sounds(stage: Path) -> None:
    from hf_lelp import Teacher

    for name in ("your/fine-tuned-wav2vec2", "your/small-audio-model"):
        _save(balanced(wav2vec2(), wave_extractor(), sounds(32, seed=9)), wave_extractor(), stage / name)
    data = audio_data(Teacher.from_pretrained(str(stage / "your/fine-tuned-wav2vec2")), 32)
    DatasetDict({"train": data, "test": data}).save_to_disk(stage / "my-sounds")


def _save(model: PreTrainedModel, processor: object, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)  # type: ignore[attr-defined]
