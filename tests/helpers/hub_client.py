"""What test_hub.py runs in processes of its own: huggingface_hub reads its server's address once, on import.

    python tests/helpers/hub_client.py push FOLDER
    python tests/helpers/hub_client.py pull FOLDER

Results come as files in FOLDER.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import runs
import tiny
from datasets import load_dataset, load_from_disk
from huggingface_hub import snapshot_download
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_lelp import ClassProjections, LELPTrainer, Teacher, load_student
from hf_lelp.cli.distill import DistillArguments, distill

TEXTS = tiny.texts(20, seed=9)
HEADS = ("subclass", "auxiliary")


def push(folder: Path) -> None:
    """Train and publish: a student of each kind, projections, a prepared dataset, the students of a comparison."""
    token = os.environ.pop("PUSH_TOKEN")  # given in the settings, as some do
    prepared, projections = runs.prepared()
    prepared = prepared.remove_columns("teacher_embedding")
    for head in HEADS:
        args = runs.config(
            folder / head,
            student_head=head,
            hub_model_id=f"someone/{head}",
            hub_private_repo=True,
            hub_token=token,
            save_strategy="steps",
            save_steps=2,
        )
        trainer = runs.trainer(
            args, train_dataset=prepared, teacher_model=None, projections=projections, eval_dataset=runs.data(40)
        )
        trainer.train()
        trainer.evaluate()
        trainer.push_to_hub(license="mit", dataset_tags="someone/prepared", dataset="tiny texts")
        np.save(folder / f"{head}.npy", runs.class_logits(trainer.model, TEXTS, tiny.tokenizer()))
    args = runs.config(
        folder / "training",
        push_to_hub=True,  # at every save, as it is the default
        hub_model_id="someone/training",
        hub_token=token,
        save_strategy="steps",
        save_steps=4,
    )
    # Ends as a killed run does: with what was pushed in training.
    runs.trainer(args, train_dataset=prepared, teacher_model=None, projections=projections).train()

    projections.push_to_hub("someone/projections", private=True, token=token)
    projections.save_pretrained(folder / "projections")
    prepared.push_to_hub("someone/prepared", private=True, token=token)
    prepared.save_to_disk(folder / "prepared")

    teacher, student = runs.teacher_model(), tiny.classifier(seed=1)
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
        model.push_to_hub(f"someone/{name}", token=token)
        tiny.tokenizer().push_to_hub(f"someone/{name}", token=token)
    runs.data().to_parquet(folder / "train.parquet")
    arguments = DistillArguments(
        teacher_model="someone/teacher",
        student_model="someone/student",
        train_file=str(folder / "train.parquet"),
        method=["kd", "lelp"],
    )
    distill(
        arguments,
        runs.config(
            folder / "compared", push_to_hub=True, hub_model_id="someone/compared", hub_token=token, max_steps=1
        ),
    )


def pull(folder: Path) -> None:
    """Use all of that by its names on the Hub."""
    for head in HEADS:
        plain = AutoModelForSequenceClassification.from_pretrained(f"someone/{head}", trust_remote_code=True)
        ours, processing_class = load_student(f"someone/{head}"), AutoTokenizer.from_pretrained(f"someone/{head}")
        logits = [runs.class_logits(model, TEXTS, processing_class) for model in (plain, ours)]
        np.save(folder / f"{head}-pulled.npy", np.stack(logits))
        snapshot_download(f"someone/{head}", local_dir=folder / f"{head}-pulled")
    projections = ClassProjections.from_pretrained("someone/projections")
    projections.save_pretrained(folder / "projections-pulled")
    prepared = load_dataset("someone/prepared", split="train")
    original = load_from_disk(str(folder / "prepared"))
    assert prepared.features == original.features and prepared[:] == original[:]

    other = tiny.named(tiny.classifier(seed=8))
    foreign = ClassProjections.fit(
        runs.data().map(Teacher(other, tiny.tokenizer()), batched=True), Teacher(other, tiny.tokenizer()).head, 2
    )
    said = {}
    for name, data in (("hub", prepared), ("disk", original), ("stream", prepared.to_iterable_dataset())):

        def trainer(projections: ClassProjections, data: object = data) -> LELPTrainer:
            args = runs.config(folder / "retrained")
            return runs.trainer(args, train_dataset=data, teacher_model=None, projections=projections)

        try:
            trainer(foreign)
        except ValueError as error:
            said[name] = str(error)
        run = trainer(projections)
        run.train()
        said[f"{name} losses"] = runs.losses(run)
    try:
        runs.trainer(
            runs.config(folder / "retrained", check_teacher=False),
            train_dataset=prepared,
            teacher_model=other,
            projections=None,
        )
    except ValueError as error:
        said["teacher"] = str(error)
    said["fingerprints"] = [projections.teacher, projections.fingerprint, foreign.teacher, foreign.fingerprint]
    (folder / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    {"push": push, "pull": pull}[sys.argv[1]](Path(sys.argv[2]))
