"""Serves a web page with a student beside its teacher: both class probabilities for a text, and the time each took.

    pip install 'hf-lelp[space]'
    STUDENT=out/demo/lelp TEACHER=~/.cache/hf_lelp/demo/teacher python -m examples.space_app

For a Space on the Hub, push this file as app.py, with a requirements.txt of `hf-lelp[space]`. Set the Space's variables
STUDENT and TEACHER to Hub ids. hf-lelp loads the student: no code from its repository runs.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any, cast

import gradio as gr
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp import load_student
from hf_lelp.classifiers import load_processor
from hf_lelp.data.text import max_tokens
from hf_lelp.student.inputs import StudentInputs

EXAMPLES = [
    "The plot is thin, but the actors make every scene worth watching.",
    "I wanted to like it. The battery was dead within a week.",
    "Not bad at all, given how little was spent on it.",
]
ROUNDS = 5
CSS = """
.gradio-container { max-width: 880px !important; margin: 0 auto !important; }
.output-class { padding-top: 1.6em !important; }
"""


class Classifier:
    """A model and its tokenizer.

    Args:
        model: a text classifier.
        processing_class: its tokenizer.
    """

    def __init__(self, model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> None:
        self.model, self.processing_class = model.eval(), processing_class
        self.max_length = max_tokens(processing_class, model, StudentInputs.of(model.config).max_length)

    @torch.inference_mode()
    def __call__(self, text: str) -> tuple[dict[str, float], float]:
        """Compute the probability of each class by name, and the median milliseconds from text to probabilities."""
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            tokens = self.processing_class(
                text, truncation=self.max_length is not None, max_length=self.max_length, return_tensors="pt"
            )
            probabilities = self.model(**tokens).logits.softmax(-1)[0].tolist()
            seconds.append(time.perf_counter() - start)
        names = [str(self.model.config.id2label[index]) for index in range(len(probabilities))]
        return dict(zip(names, probabilities, strict=True)), 1000 * statistics.median(seconds)


def build(student: Classifier, teacher: Classifier) -> gr.Blocks:
    """Build the page."""
    sides = {"Student": student, "Teacher": teacher}

    def compare(text: str) -> list[Any]:
        if not text.strip():
            raise gr.Error("Write a text first.", print_exception=False)
        answers = {name: side(text) for name, side in sides.items()}
        shown: list[Any] = []
        for name, (probabilities, milliseconds) in answers.items():
            shown += [probabilities, _facts(sides[name], milliseconds)]
        return shown

    with gr.Blocks(title="Student and teacher", analytics_enabled=False) as page:
        gr.Markdown(
            "# Student and teacher\nThe same text, read by a large classifier and by the small one distilled from it."
        )
        text = gr.Textbox(label="Text", lines=3, placeholder="A text to classify", elem_id="text")
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        outputs: list[gr.components.Component] = []
        with gr.Row():
            for name, side in sides.items():
                with gr.Column(elem_id=name.lower()):
                    outputs.append(gr.Label(label=name, num_top_classes=5))
                    outputs.append(gr.Markdown(_facts(side)))
        gr.Examples(EXAMPLES, text)
        gr.on([button.click, text.submit], compare, text, outputs)
    return page


def _facts(side: Classifier, milliseconds: float | None = None) -> str:
    facts = f"{side.model.num_parameters():,} parameters"
    return facts if milliseconds is None else f"{facts}, **{milliseconds:.1f} ms** (median of {ROUNDS})"


def main() -> None:
    """Serve the page for the models that STUDENT and TEACHER name."""
    student, teacher = (str(Path(name).expanduser()) if name.startswith("~") else name for name in _names())
    page = build(
        Classifier(load_student(student), cast(PreTrainedTokenizerBase, load_processor(student))),
        Classifier(
            AutoModelForSequenceClassification.from_pretrained(teacher, trust_remote_code=False),
            cast(PreTrainedTokenizerBase, load_processor(teacher)),
        ),
    )
    # Fonts of the visitor's machine: the page fetches none.
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["system-ui", "sans-serif"])
    page.launch(theme=theme, css=CSS)


def _names() -> tuple[str, str]:
    missing = [name for name in ("STUDENT", "TEACHER") if not os.environ.get(name)]
    if missing:
        raise SystemExit(f"Set {' and '.join(missing)} to a folder or Hub id.")
    return os.environ["STUDENT"], os.environ["TEACHER"]


if __name__ == "__main__":
    main()
