"""Publishing and loading again, against a Hub on loopback, each side in a process and with a cache of its own."""

import json
import os
import pickle
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
from datasets import concatenate_datasets
from filelock import FileLock
from hub_server import HubServer
from huggingface_hub import ModelCard
from places import HELPERS
from transformers import TrainingArguments

from hf_lelp import ClassProjections, Teacher
from hf_lelp.training.targets import check_marks

TOKEN = "hf_thisTokenMustNotTravel"
CLIENT = HELPERS / "hub_client.py"


@dataclass
class Published:
    """The server after both clients, their folder, and all that they printed."""

    hub: HubServer
    folder: Path
    output: str
    requests_of_pull: list[tuple[str, str, bool]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """Both clients run once: the workers of a run of tests share the Hub that they leave."""
    of_run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_run = of_run.parent
    folder = of_run / "hub"
    left = folder / "left.pickle"
    with HubServer() as hub:
        with FileLock(f"{folder}.lock"):
            if not left.exists():
                folder.mkdir(exist_ok=True)
                output, requests = _both_clients(hub, folder)
                left.write_bytes(pickle.dumps((hub.repositories, hub.unknown, output, requests)))
        hub.repositories, hub.unknown, output, requests = pickle.loads(left.read_bytes())
        yield Published(hub, folder, output, requests)


def _both_clients(hub: HubServer, folder: Path) -> tuple[str, list[tuple[str, str, bool]]]:
    """Run one that pushes and one that pulls; return what they printed, and the requests of the second."""
    output = ""
    for step in ("push", "pull"):
        before = len(hub.requests)
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # the store's own protocol; plain uploads stand for it
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(folder / f"home-{step}"),
            "NO_PROXY": "127.0.0.1",
            "TRANSFORMERS_VERBOSITY": "info",
            **({"PUSH_TOKEN": TOKEN} if step == "push" else {"HF_TOKEN": TOKEN}),
        }
        command = [sys.executable, str(CLIENT), step, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        output += done.stdout + done.stderr
        assert done.returncode == 0, done.stderr[-3000:]
    return output, hub.requests[before:]


@pytest.mark.parametrize("head", ["subclass", "auxiliary"])
def test_a_student_comes_back_as_it_left(published: Published, head: str) -> None:
    files, folder = published.hub.files(f"someone/{head}"), published.folder
    local = folder / head / "out"
    sent = {"config.json", "model.safetensors", "checksums.json", "training_args.bin"}
    sent |= {"tokenizer.json", "tokenizer_config.json"}
    sent |= {"README.md", *(f"class_projections/{name}" for name in ("config.json", "class_projections.safetensors"))}
    sent |= {"class_projections/README.md"} | ({"modeling_lelp.py"} if head == "subclass" else set())
    assert set(files) == sent
    for path, content in files.items():
        assert content == (local / path).read_bytes() == (folder / f"{head}-pulled" / path).read_bytes(), path
    logits, pulled = np.load(folder / f"{head}.npy"), np.load(folder / f"{head}-pulled.npy")
    assert (pulled == logits).all() and np.ptp(logits) > 0.1


def test_what_is_pushed_in_training_is_a_whole_student(published: Published) -> None:
    files = published.hub.files("someone/training")
    assert {"config.json", "model.safetensors", "modeling_lelp.py", "README.md", "tokenizer.json"} <= files.keys()
    assert "class_projections/class_projections.safetensors" in files
    assert {*json.loads(files["checksums.json"])} == {"model.safetensors"}
    assert str(published.folder).encode() not in files["training_args.bin"]


def test_the_card_on_the_hub(published: Published) -> None:
    text = published.hub.files("someone/subclass")["README.md"].decode()
    card = ModelCard(text)
    assert card.data.license == "mit" and card.data.model_name == "subclass"
    assert card.data.eval_results[0].dataset_type == "someone/prepared"
    assert 'from_pretrained("someone/subclass", trust_remote_code=True)' in text
    assert "Measured on tiny texts: 40 rows" in text
    auxiliary = published.hub.files("someone/auxiliary")["README.md"].decode()
    assert 'model="someone/auxiliary")' in auxiliary and "trust_remote_code" not in auxiliary


def test_a_comparison_has_a_repository_for_each_method(published: Published) -> None:
    results = json.loads((published.folder / "compared" / "out" / "all_results.json").read_text())["results"]
    for method in ("kd", "lelp"):
        files = published.hub.files(f"someone/compared-{method}")
        card = ModelCard(files["README.md"].decode())
        assert files["README.md"] == (published.folder / "compared" / "out" / method / "README.md").read_bytes()
        assert card.data.base_model == ["someone/student", "someone/teacher"]
        # The figures of all, which were known only after this student was pushed.
        for name, result in results.items():
            assert re.search(rf"\| {name}[^|]*\| +{100 * result['accuracy']:.1f} ", card.text), name
        assert str(published.folder) not in card.content and "someone/compared" in card.text


def test_projections_come_back_as_they_left(published: Published) -> None:
    sent, folder = published.hub.files("someone/projections"), published.folder
    assert set(sent) == {"README.md", "config.json", "class_projections.safetensors"}
    for path, content in sent.items():
        assert content == (folder / "projections" / path).read_bytes(), path
        assert content == (folder / "projections-pulled" / path).read_bytes(), path
    assert ClassProjections.from_pretrained(folder / "projections").fingerprint in sent["README.md"].decode()


def test_a_prepared_dataset_trains_students_elsewhere(published: Published) -> None:
    said = json.loads((published.folder / "said.json").read_text())
    assert len(said["hub losses"]) == 4
    assert said["hub losses"] == said["disk losses"]
    parquet = [path for path in published.hub.files("someone/prepared", "dataset") if path.endswith(".parquet")]
    assert parquet and not any("embedding" in path for path in parquet)


@pytest.mark.parametrize("source", ["hub", "disk", "stream"])
def test_a_prepared_dataset_refuses_other_projections(published: Published, source: str) -> None:
    said = json.loads((published.folder / "said.json").read_text())
    teacher, _, other_teacher, _ = said["fingerprints"]
    assert teacher in said[source] and other_teacher in said[source] and "made by the teacher" in said[source]
    assert teacher in said["teacher"] and other_teacher in said["teacher"]


def test_private_repositories(published: Published) -> None:
    private = {name for (_, name), repository in published.hub.repositories.items() if repository.private}
    assert private == {f"someone/{name}" for name in ("subclass", "auxiliary", "projections", "prepared")}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{published.hub.url}/someone/subclass/resolve/main/config.json")
    urllib.request.urlopen(f"{published.hub.url}/someone/compared-lelp/resolve/main/config.json")


def test_the_token_stays_where_it_belongs(published: Published) -> None:
    # What a pickle of the settings would give away:
    assert TOKEN.encode() in pickle.dumps(TrainingArguments("out", hub_token=TOKEN))
    files = [path for path in published.folder.rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in files) and len(files) > 50
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in published.output and len(published.output) > 1000
    for repository in published.hub.repositories.values():
        for commit in repository.commits:
            assert not [path for path, content in commit.items() if TOKEN.encode() in content]
    # And what was pushed to a private place was pushed with it.
    assert any(authorized for _, _, authorized in published.requests_of_pull)


def test_the_server_knows_all_that_was_asked(published: Published) -> None:
    # Asked by huggingface_hub's command line detection; it does without.
    assert {path for _, path in published.hub.unknown} <= {"/api/agent-harnesses"}


def test_marks_survive_what_is_done_to_datasets(tmp_path: Path) -> None:
    prepared, projections = runs.prepared()
    prepared.to_parquet(tmp_path / "prepared.parquet")
    again = type(prepared).from_parquet(str(tmp_path / "prepared.parquet"), cache_dir=str(tmp_path))
    again = again.shuffle(seed=0).filter(lambda row: row["label"] == 0).map(lambda row: {"more": 1})
    checked = check_marks(again, None, projections)
    assert set(again.column_names) - set(checked.column_names) == {"teacher_fingerprint", "projections_fingerprint"}

    refit = ClassProjections.fit(prepared.select(range(60)), runs.teacher().head, 2)
    with pytest.raises(ValueError, match=f"projections of fingerprint {projections.fingerprint}"):
        check_marks(again, None, refit)
    remade = prepared.remove_columns("teacher_projections").map(refit, batched=True)
    with pytest.raises(ValueError, match="made by the projections"):
        check_marks(concatenate_datasets([prepared, remade]), None, None)
    with pytest.raises(ValueError, match="made by the projections"):
        trainer = runs.trainer(
            runs.config(tmp_path),
            train_dataset=prepared,
            eval_dataset=remade,
            teacher_model=None,
            projections=projections,
        )
        trainer.evaluate()


def test_a_fit_refuses_embeddings_of_another_teacher(tmp_path: Path) -> None:
    prepared, _ = runs.prepared()
    other = Teacher(runs.teacher_model(seed=8), tiny.tokenizer())
    with pytest.raises(ValueError, match=f"at hand is {other.head.fingerprint}"):
        ClassProjections.fit(prepared, other.head, 2)
    foreign = ClassProjections.fit(runs.data().map(other, batched=True), other.head, 2)
    with pytest.raises(ValueError, match="made by the teacher"):
        prepared.map(foreign, batched=True)
