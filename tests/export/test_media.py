"""Students of images and of sound in every runtime, and what the export refuses by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_media
from datasets import Dataset
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    BartConfig,
    BartForSequenceClassification,
    PreTrainedModel,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)

from hf_lelp import load_student
from hf_lelp.data.encoding import Processor, batches
from hf_lelp.export.export import ExportArguments, check_exportable, export
from hf_lelp.export.fidelity import class_logits
from hf_lelp.export.runtimes import load_onnx, load_torch_export
from hf_lelp.student.heads import place_student_head


def saved(model: PreTrainedModel, processor: Processor, folder: Path) -> str:
    """A student with pseudo-subclasses, saved with its processor."""
    place_student_head(model, 2, "subclass")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def inputs_of(processor: Processor, content: list[Any], rows: int) -> list[dict[str, Any]]:
    return [batch for _, batch in batches(processor, {"x": content}, ["x"], None, rows)]


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_every_runtime_gives_the_student_s_logits(kind: str, tmp_path: Path) -> None:
    if kind == "image":
        processor: Processor = tiny_media.image_processor(16)
        student = saved(tiny.named(tiny_media.vit()), processor, tmp_path / "student")
        data = Dataset.from_dict({"img": tiny_media.pictures(12), "label": [0, 1] * 6})
        others, again = tiny_media.pictures(3, seed=5), AutoImageProcessor
    else:
        processor = tiny_media.spectrogram_extractor()
        student = saved(tiny_media.ast(), processor, tmp_path / "student")
        data = Dataset.from_dict({"audio": tiny_media.sounds(12), "label": [0, 1] * 6})
        others, again = tiny_media.sounds(3, seed=5), AutoFeatureExtractor
    data.to_parquet(tmp_path / "data.parquet")
    out = tmp_path / "out"
    arguments = {"student": student, "eval_file": str(tmp_path / "data.parquet"), "output_dir": str(out)}
    arguments["input_columns"] = [data.column_names[0]]
    results = export(ExportArguments(**arguments, to=["onnx", "int8", "torch"]))["runtimes"]
    assert [row["runtime"] for row in results] == ["PyTorch", "torch.export", "ONNX", "ONNX int8"]
    assert all(row["agreement"] == 1.0 and row["rows"] == 12 for row in results[:3])
    model = load_student(student).eval()
    for rows in (1, 3):  # any number of rows
        inputs = inputs_of(processor, others, rows)
        for runtime in (load_torch_export(out / "model.pt2"), load_onnx(out / "onnx" / "model.onnx")):
            np.testing.assert_allclose(runtime.run(inputs), class_logits(model, inputs), atol=1e-4)
    config = json.loads((out / "onnx" / "config.json").read_text())
    assert list(config["id2label"].values()) == tiny.LABEL_NAMES and "auto_map" not in config
    assert type(again.from_pretrained(out / "onnx")) is type(processor)


def test_what_is_not_exported_is_refused_by_name() -> None:
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    video = VideoMAEForVideoClassification(
        VideoMAEConfig(**sizes, intermediate_size=16, image_size=16, patch_size=8, num_frames=2)
    )
    with pytest.raises(ValueError, match="mine classifies videos: the export knows texts, images and sound"):
        check_exportable("mine", video, ["onnx"])
    several = tiny.classifier()
    several.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match=r"problem_type=multi_label_.*: the export knows classifiers of one class"):
        check_exportable("mine", several, ["torch"])
    bart = BartForSequenceClassification(
        BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, vocab_size=32, encoder_ffn_dim=16, num_labels=2)
    )
    for forms in (["torch"], ["onnx"], ["plain", "int8"]):
        with pytest.raises(ValueError, match=r"a BartFor.*, which looks for the end token in each text: torch.export"):
            check_exportable("mine", bart, forms)
    check_exportable("mine", bart, ["plain"])
