import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from transformers import AutoModelForSequenceClassification, pipeline

from hf_lelp import LELPTrainer
from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.student.card import EvaluationData, StudentCard, add_runtimes, escape, hub_id

FIGURES: dict[str, dict[str, Any]] = {
    "teacher": {"accuracy": 0.9, "ece": 0.031, "parameters": 22_713_986, "examples_per_second": 500.4, "device": "A"},
    "kd": {"accuracy": 0.85, "macro_f1": 0.84},
    "lelp": {"accuracy": 0.86123, "macro_f1": 0.8599, "mcc": 0.72, "ece": 0.02, "teacher_agreement": 0.93},
}
CARD = StudentCard(
    repo="someone/small",
    method="lelp",
    row="lelp",
    auto_class="AutoModelForSequenceClassification",
    classes=["negative", "positive"],
    num_subclasses=8,
    settings={"pseudo-subclasses per class, S": 8},
    results=FIGURES,
    evaluation=EvaluationData(1000, "IMDB", "stanfordnlp/imdb", None, "test"),
    max_length=128,
    student="base/student",
    teacher="base/teacher",
    datasets=["stanfordnlp/imdb"],
)
HOSTILE = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](http://tracker.example/a.png)",
    "http://phish.example",
    "www.phish.example",
    "someone@mail.example",
    "a | b",
    "`code` **bold** _em_ ~~del~~ $math$ &lt;b&gt;",
    "line\n# heading\n\n---\n- item",
    "{{ 7 * 7 }} {% raw %}",
    "\u202ereversed\u202c \u0007bell",
    "---\nlicense: mit\n---",
]


def rendered(card: StudentCard) -> str:
    """The body as HTML, read as the Hub reads Markdown: raw HTML, tables and bare addresses all count."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(card.render().text)


def rows(card: StudentCard) -> dict[str, list[str]]:
    """Cells of every table by the first cell of the row."""
    lines = [line for line in card.render().text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_metadata_is_read_back_by_the_hub_s_own_code() -> None:
    data = ModelCard(str(CARD.render())).data
    name, results = model_index_to_eval_results(data.to_dict()["model-index"])
    assert name == "small"
    assert {result.metric_type: result.metric_value for result in results} == {
        "accuracy": 0.8612,
        "f1": 0.8599,
        "matthews_correlation": 0.72,
        "expected_calibration_error": 0.02,
    }
    assert {(r.task_type, r.dataset_type, r.dataset_name, r.dataset_split) for r in results} == {
        ("text-classification", "stanfordnlp/imdb", "IMDB", "test")
    }
    assert data.base_model == ["base/student", "base/teacher"] and data.base_model_relation == "finetune"
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert data.datasets == ["stanfordnlp/imdb"] and data.metrics[0] == "accuracy"
    assert data.tags == ["hf-lelp", "lelp", "knowledge-distillation"]
    assert data.license is None and data.language is None
    given = ModelCard(str(replace(CARD, license="mit", language="en", tags=["lelp", "mine"]).render())).data
    assert (given.license, given.language) == ("mit", "en")
    assert given.tags == ["hf-lelp", "lelp", "knowledge-distillation", "mine"]


def test_every_figure_is_shown_and_none_is_made_up() -> None:
    table = rows(CARD)
    text = CARD.render().text
    assert "Measured on IMDB, split test: 1,000 rows" in text and "±2.2 points" in text
    assert table["teacher"] == ["22,713,986", "500"]  # the second table: size and speed
    assert table["kd"] == ["85.0", "84.0", "–", "–", "–"]
    assert table["lelp (this model)"] == ["86.1", "86.0", "72.0", "2.0", "93.0"]
    assert "Examples per second from text to logits, A." in text
    assert "training" not in "".join(line for line in text.splitlines() if line.startswith("|"))


def test_what_is_unknown_leaves_no_trace() -> None:
    bare = replace(
        CARD, results={}, evaluation=None, student=None, teacher=None, max_length=None, datasets=[], settings={"S": 8}
    ).render()
    for word in ("## Results", "huggingface.co", "alibration", "nan", "None", "±", "at most the first", "–"):
        assert word not in bare.text, word
    assert "not measured" in bare.text
    assert {"model-index", "base_model", "base_model_relation", "datasets", "metrics"}.isdisjoint(bare.data.to_dict())
    # Figures on data without a name are shown, but claim no place among those of others.
    unnamed = replace(CARD, evaluation=EvaluationData(1000)).render()
    assert "1,000 rows of evaluation data" in unnamed.text and "model-index" not in unnamed.data.to_dict()


def test_each_kind_says_how_it_is_loaded() -> None:
    exact, plain = CARD.render().text, replace(CARD, num_subclasses=1).render().text
    assert 'model="someone/small", trust_remote_code=True)' in exact
    assert 'AutoModelForSequenceClassification.from_pretrained("someone/small", trust_remote_code=True)' in exact
    assert 'load_student("someone/small")' in exact
    assert "trust_remote_code" not in plain and "load_student" not in plain and 'model="someone/small")' in plain
    for local in ("small", "some folder", 'a/b", x="'):
        assert 'model="path/to/the/student"' in replace(CARD, repo=local).render().text
    direct = replace(CARD, method="direct", row="direct", num_subclasses=1).render()
    assert "labels alone" in direct.text and "its teacher" not in direct.text
    assert direct.data.tags == ["hf-lelp"]
    for card in (exact, plain, direct.text):
        assert "2409.20449" in card and "Loo, Noel and Iliopoulos, Fotis and Hu, Wei and Vee, Erik" in card


def test_other_tasks() -> None:
    image = replace(CARD, auto_class="AutoModelForImageClassification").render()
    assert image.data.pipeline_tag == "image-classification" and 'pipeline("image-classification"' in image.text
    grey = replace(CARD, auto_class="AutoModelForImageClassification", grey=True).render()
    assert 'pipeline("' not in grey.text and '.convert("L")' in grey.text and "load_student" in grey.text


def test_how_a_student_of_one_channel_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's own lines run, and give the student's logits."""
    processor, model = tiny_media.image_processor(channels=1), tiny_media.cnn(channels=1).eval()
    model.save_pretrained(tmp_path / "student")
    processor.save_pretrained(tmp_path / "student")
    (picture,) = tiny_media.pictures(1, modes=("L",))
    picture.save(tmp_path / "image.png")
    card = replace(CARD, auto_class="AutoModelForImageClassification", grey=True, num_subclasses=1).render().text
    code = card.split("```python\n")[1].split("```")[0].replace("someone/small", "student")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    inputs = processor(picture, return_tensors="pt")
    torch.testing.assert_close(found["logits"], model(**inputs).logits)


def test_runtimes_are_put_on_a_card_and_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    CARD.save(path)
    before = path.read_text()
    for table in ("| first |", "| second |"):
        add_runtimes(path, table)
    after = path.read_text()
    assert "| first |" not in after
    assert after.replace("## Other runtimes\n\n| second |\n\n", "") == before
    assert after.index("## Other runtimes") < after.index("## How it was made")


@pytest.mark.parametrize(
    "written",
    [
        b"# Mine",
        b"---\nlicense: [mit\n---\n# Mine\n",  # metadata that cannot be read
        b"# Mine\r\n\r\n## How it was made\r\n\r\nBy hand.\r\n",
        b"# Mine\n\n### How it was made\n\nBy hand.\n",
        b"# Mine\n\n## Other runtimes\n\n| zeroth |\n",
        b"# Mine\n\n## Other runtimes\n\n| zeroth |\n\n## Last\n\nText.\n",
    ],
)
def test_runtimes_on_a_card_that_others_wrote(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(written)
    for table in ("| first |", "| second |"):
        add_runtimes(path, table)
    lines = path.read_text().split("\n")
    assert lines.count("## Other runtimes") == lines.count("| second |") == 1
    assert not {"| first |", "| zeroth |"} & {*lines}
    rest = [line for line in lines if line and line not in ("## Other runtimes", "| second |")]
    kept = written.decode().replace("\r\n", "\n").split("\n")
    assert rest == [line for line in kept if line and line not in ("## Other runtimes", "| zeroth |")]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_is_shown_and_does_nothing(text: str) -> None:
    clean = rendered(CARD)
    card = replace(
        CARD,
        repo=text,
        classes=["good", text],
        settings={text: text, "pseudo-subclasses per class, S": 8},
        evaluation=EvaluationData(1000, text, text, text, text),
        results={**FIGURES, "teacher": {**FIGURES["teacher"], "device": text}},
    )
    dirty = rendered(card)

    def tags(page: str) -> list[str]:
        return [tag for tag in re.findall(r"</?\w+", page) if tag not in ("<tr", "</tr", "<td", "</td")]

    # A row of settings and a word of its own are all that it adds.
    assert tags(dirty) == tags(clean)
    assert dirty.count("<td") == clean.count("<td") + 2
    shown = html.unescape(re.sub("<[^>]*>", "", dirty))
    visible = " ".join(text.replace("\u202e", "").replace("\u202c", "").replace("\u0007", "").split())
    assert shown.count(visible) >= 4
    prose = re.sub("```.*?```", "", card.render().text, flags=re.DOTALL)
    assert not re.search(r"https?://(?!huggingface\.co/|arxiv\.org/)|www\.\w|\w@\w|[\u202e\u0007]", prose)
    data = ModelCard(str(card.render())).data
    assert data.license is None and data.eval_results[0].dataset_name == visible


def test_escape_leaves_plain_text_alone() -> None:
    assert escape("very good, 0.5 (half-way) π") == "very good, 0.5 (half-way) π"
    assert escape("a.b_c _d_") == "a&#46;b_c &#95;d&#95;"
    for name in ("foods_test.csv (first 1,000 rows)", "kind: thing", "my rows_2.parquet", 'don\'t; say "so"!'):
        assert escape(name) == name


def test_a_path_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "student").mkdir(parents=True)
    for name in ("out/student", str(tmp_path), "/home/someone/model", "gone/student", "", None, "a/b/c", "../x"):
        assert hub_id(name) is None, name
    monkeypatch.setattr("hf_lelp.student.card.try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    assert hub_id("base/student") == "base/student" and hub_id("out/student") is None


def evaluated(tmp_path: Path, **settings: Any) -> LELPTrainer:
    data = runs.data()
    trainer = runs.trainer(runs.config(tmp_path, **settings), train_dataset=data, eval_dataset=data.select(range(40)))
    trainer.train()
    return trainer


def test_the_trainer_writes_the_card_with_the_student(tmp_path: Path) -> None:
    trainer = evaluated(tmp_path, num_subclasses=2, rotation_seed=7, subclass_temperature=0.5, whitening=0.75)
    metrics = trainer.evaluate()
    trainer.evaluate(runs.data(8, seed=5))  # other data, which the card does not speak of
    trainer.save_model(str(tmp_path / "student"))
    text = (tmp_path / "student" / "README.md").read_text()
    card = ModelCard(text)
    cells = [line for line in text.splitlines() if "(this model)" in line]
    assert [f"{100 * metrics[f'eval_{name}']:.1f}" for name in ("accuracy", "macro_f1", "mcc", "ece")] == [
        cell.strip() for cell in cells[0].strip("|").split("|")[1:]
    ]
    assert "40 rows of evaluation data" in text
    assert trainer.projections is not None and trainer.projections.fingerprint in text
    for setting in (
        "subclass temperature, β",
        "0.5",
        "whitening, γ",
        "0.75",
        "seed 7",
        "subclass",
        "negative, positive",
    ):
        assert setting in text, setting
    assert str(tmp_path) not in text and card.data.base_model is None
    # What the card says is how it loads.
    logits = runs.class_logits(trainer.model, ["good movie"], tiny.tokenizer())
    assert "trust_remote_code=True" in text
    loaded = pipeline("text-classification", model=str(tmp_path / "student"), trust_remote_code=True, top_k=None)
    scores = {entry["label"]: entry["score"] for entry in loaded(["good movie"])[0]}
    assert scores["positive"] == pytest.approx(1 / (1 + 2.718281828 ** float(logits[0, 0] - logits[0, 1])), abs=1e-5)


def test_figures_of_another_step_are_not_the_student_s(tmp_path: Path) -> None:
    trainer = evaluated(tmp_path, eval_strategy="steps", eval_steps=2)
    assert trainer.student_card().results["lelp"]["accuracy"]  # that of the last step, 4
    trainer.state.global_step = 5
    assert trainer.student_card().results["lelp"].keys() == {"parameters"}


def test_figures_of_the_best_checkpoint(tmp_path: Path) -> None:
    trainer = evaluated(
        tmp_path,
        max_steps=6,
        learning_rate=2.0,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_ece",
        greater_is_better=True,
    )
    best = max(entry["eval_ece"] for entry in trainer.state.log_history if "eval_ece" in entry)
    last = [entry["eval_ece"] for entry in trainer.state.log_history if "eval_ece" in entry][-1]
    assert best != last
    assert trainer.student_card().results["lelp"]["ece"] == best
    assert trainer.evaluate()["eval_ece"] == pytest.approx(best, abs=1e-6)
    assert not list(tmp_path.glob("out/checkpoint-*/README.md"))


@pytest.mark.parametrize(
    ("settings", "method", "code"),
    [
        ({"student_head": "auxiliary"}, "lelp", False),
        ({"num_subclasses": 1}, "kd", False),
        ({"alpha": 1.0}, "direct", False),
        ({}, "lelp", True),
    ],
)
def test_the_card_of_each_method(settings: dict[str, Any], method: str, code: bool, tmp_path: Path) -> None:
    trainer = evaluated(tmp_path, **{"num_subclasses": 2, **settings})
    trainer.save_model()
    card = trainer.student_card()
    assert card.method == method and ("trust_remote_code" in card.render().text) == code
    assert ("null space" in card.render().text) == (method == "lelp")
    saved = AutoModelForSequenceClassification.from_pretrained(trainer.args.output_dir, trust_remote_code=code)
    assert card.results[method]["parameters"] == sum(p.numel() for p in saved.parameters())


def test_create_model_card_takes_what_the_user_knows(tmp_path: Path) -> None:
    trainer = evaluated(tmp_path)
    trainer.evaluate()
    trainer.create_model_card(
        language="en",
        license="apache-2.0",
        tags="mine",
        model_name="Small One",
        finetuned_from="base/student",
        dataset_tags="stanfordnlp/imdb",
        dataset="IMDB",
        dataset_args="test",
    )
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.language, card.data.license, card.data.base_model) == ("en", "apache-2.0", ["base/student"])
    assert card.data.eval_results[0].dataset_type == "stanfordnlp/imdb" and card.data.model_name == "Small One"
    assert "# Small One" in card.text and "mine" in card.data.tags
    assert "Measured on IMDB, split test: 40 rows" in card.text


def test_distill_puts_all_figures_on_every_card(tmp_path: Path) -> None:
    teacher, student = tiny.named(tiny.classifier(hidden_size=32)), tiny.classifier(seed=1)
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    tiny.dataset(teacher, 120).to_parquet(tmp_path / "train.parquet")
    tiny.dataset(teacher, 60, seed=3).to_parquet(tmp_path / "test.parquet")
    arguments = DistillArguments(
        teacher_model=str(tmp_path / "teacher"),
        student_model=str(tmp_path / "student"),
        train_file=str(tmp_path / "train.parquet"),
        eval_file=str(tmp_path / "test.parquet"),
        max_eval_samples=50,
        method=["direct", "kd", "lelp"],
    )
    results = distill(arguments, runs.config(tmp_path, max_steps=2))["results"]
    for method in arguments.method:
        card = ModelCard.load(tmp_path / "out" / method / "README.md")
        assert str(tmp_path) not in str(card) and "teacher_model" not in str(card)
        accuracies = dict(
            re.findall(r"^\| (\w+)[^|]*\|\s+([\d.]+) \|\s+[\d.]+ \|\s+-?[\d.]+ \|", card.text, re.MULTILINE)
        )
        assert accuracies == {name: f"{100 * result['accuracy']:.1f}" for name, result in results.items()}
        assert f"| {method} (this model)" in card.text
        assert "test.parquet (first 50 rows): 50 rows" in card.text
        metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
        assert metrics["accuracy"] == round(results[method]["accuracy"], 4)
        assert (card.data.eval_results[0].dataset_type, card.data.base_model) == ("parquet", None)
        assert f"{results[method]['parameters']:,}" in card.text and "CPU (threads: " in card.text
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["results"] == results


@pytest.mark.parametrize(
    "figures", [{"accuracy": {"accuracy": 0.5}}, {"accuracy": "0.5"}, {"mcc": None}, {"accuracy": 50.0}, {"ece": True}]
)
def test_only_figures_in_their_range_are_on_the_card(figures: dict[str, Any], tmp_path: Path) -> None:
    args = runs.config(tmp_path, max_steps=1, num_subclasses=1)
    run = runs.trainer(
        args, eval_dataset=runs.data(), compute_metrics=lambda _: {**figures, "macro_f1": np.float32(0.25)}
    )
    run.train()
    run.evaluate()
    run.save_model()
    text = (tmp_path / "out" / "README.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| kd (this model) |"))
    assert [cell.strip() for cell in line.strip("|").split("|")[1:]] == ["25.0"]


def test_a_card_that_cannot_be_made_keeps_no_student_from_being_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = runs.trainer(runs.config(tmp_path, num_subclasses=1))
    run.model.config.id2label = 7
    (tmp_path / "out").mkdir(exist_ok=True)
    run.args.hub_model_id = 7  # type: ignore[assignment]
    run._save_card(tmp_path / "out")
    assert "No card was written to" in caplog.text and not (tmp_path / "out" / "README.md").exists()


def test_a_readme_of_the_user_s_own_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out" / "README.md"
    path.parent.mkdir()
    path.write_bytes(b"# Caf\xe9, by hand\n")
    run = runs.trainer(runs.config(tmp_path, num_subclasses=1))
    run.save_model()
    assert path.read_bytes() == b"# Caf\xe9, by hand\n" and "was not made by hf-lelp, and stays" in caplog.text
    run.create_model_card()
    assert "Made with hf-lelp" in path.read_text()
    run.create_model_card(license="mit")  # its own card it replaces
    assert ModelCard.load(path).data.license == "mit"


def test_a_local_path_of_the_data_stays_off_the_card(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path, num_subclasses=1), eval_dataset=runs.data())
    run.evaluate()
    run.create_model_card(dataset_tags=["/var/data/images/", "~/images", str(tmp_path)], dataset=str(tmp_path))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.datasets is None and card.data.eval_results is None
    assert "/var/data" not in str(card) and str(tmp_path) not in str(card)


def test_the_card_of_an_adapter_names_peft() -> None:
    card = replace(CARD, num_subclasses=1, adapter=True).render()
    assert card.data.library_name == "peft" and "pip install peft" in card.text
    assert "nothing but transformers" not in card.text
