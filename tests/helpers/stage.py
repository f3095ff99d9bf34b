"""Where the blocks of README and docs run: every name in them is a tiny file or folder of that name.

A block is run as it stands, in a folder of its page. `load_dataset("stanfordnlp/imdb")` or `--teacher_model T` name an
id of the Hub or a file of the reader's; transformers and datasets take a folder of that name first. A new page that
needs another name gets it here, in one line. Trainings end after a few steps (`FewSteps`).
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
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

TEACHERS = ("T", "A", "B", "lvwerra/distilbert-imdb")
STUDENTS = ("S", "google/bert_uncased_L-2_H-128_A-2", "microsoft/MiniLM-L12-H384-uncased")
ROWS = 200
MOST_STEPS = 4  # of every training


class FewSteps(TrainerCallback):
    """Ends every training after a few steps: `transformers.trainer.DEFAULT_CALLBACKS` holds it while blocks run."""

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        control.should_training_stop |= state.global_step >= MOST_STEPS


def build(stage: Path) -> None:
    """Write all that blocks name: files of rows, datasets, teachers and students."""
    teacher = balanced(_long_bert(1), tiny.tokenizer(), tiny.texts(200, seed=9))
    ranker = _long_bert(2, num_labels=1)
    student = _long_bert(0, layers=1)
    for name, model in [*((name, teacher) for name in TEACHERS), *((name, student) for name in STUDENTS)]:
        _save(model, tiny.tokenizer(), stage / name)
    rows = {name: tiny.dataset(teacher, ROWS, seed=seed) for seed, name in enumerate(("mine", "test", "new"))}
    for name, data in rows.items():
        (data.remove_columns("label") if name == "new" else data).to_csv(stage / f"{name}.csv")
    tiny.dataset(teacher, ROWS, seed=7).remove_columns("label").to_csv(stage / "unlabelled.csv")
    mine = rows["mine"]
    questions, passages = mine["text"], tiny.texts(ROWS, seed=5)
    pairs = {"question": questions, "query": questions, "passage": passages}
    pairs["label"] = _outputs(teacher, questions, passages).argmax(-1).tolist()
    scores = _outputs(ranker, questions, passages)[:, 0]
    pairs["relevant"] = (scores > scores.median()).int().tolist()
    ranker.classifier.bias.data -= scores.median()
    _save(ranker, tiny.tokenizer(), stage / "R")
    positive = [0.2 + 0.6 * label for label in mine["label"]]
    votes = {"text": mine["text"], "p_negative": [1 - share for share in positive], "p_positive": positive}
    Dataset.from_dict(votes).to_csv(stage / "votes.csv")
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


def _long_bert(seed: int, num_labels: int = 2, layers: int = 6) -> PreTrainedModel:
    """The tiny BERT, for texts as long as the pages have them; a teacher's layers are there to choose from."""
    torch.manual_seed(seed)
    longer = {"max_position_embeddings": 512, "num_hidden_layers": layers}
    config = BertConfig(**{**tiny.classifier(num_labels=num_labels).config.to_dict(), **longer})
    model = BertForSequenceClassification(config)
    return tiny.named(model) if num_labels > 1 else model


@torch.no_grad()
def _outputs(model: PreTrainedModel, questions: list[str], passages: list[str]) -> torch.Tensor:
    return model.eval()(**tiny.tokenizer()(list(questions), passages, padding=True, return_tensors="pt")).logits


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
