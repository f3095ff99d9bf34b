"""What a run is known by: kept runs of an earlier version are found."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_lelp.compare import run as one_run
from hf_lelp.data.columns import KIND_COLUMN, ORIGIN_COLUMN
from hf_lelp.transfer.origins import KINDS, ROW, UNLABELLED

# Names of runs that were kept before the settings declared what they change. They must never change by themselves.
KEPT = {
    "direct": "v1-6c886eaefb97e04709121902e1a74613",
    "kd:temperature=4": "v1-8c4d5a49203f4d5ca251ad55eafa4115",
    "lelp": "v1-266050de53b7e30e997e78c8a2aeb71e",
    "lelp:num_subclasses=16,whitening=0.5,student_head=auxiliary": "v1-e0e2c3be097173f6bffd14bc86c9d71b",
    "lelp:num_subclasses=auto,temperature=auto,subclass_temperature=auto": "v1-0957fcdbff99c3a60be2e483a94c1008",
    "kmeans:num_subclasses=4": "v1-678579635dd3c75549734d257db46d92",
    "embedding_mse": "v1-e0bbee81b499e5c2d84da131fcb99916",
    "crd:temperature=auto": "v1-7958c9857c32ccd5af62aed138c2afec",
}
TASK_SETTINGS = {"learning_rate": 1e-3, "num_train_epochs": 2, "max_length": 32, "run_name": "x", "logging_steps": 3}
LABELLED = Dataset.from_dict({"labels": [0, 1]})


@pytest.fixture
def file_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """From a method to the file that its run is looked for in."""

    class Looked(Exception):
        pass

    def look(path: Path) -> bool:
        raise Looked(path.stem)

    def find(method: str, train: Dataset = LABELLED) -> str:
        task: Any = SimpleNamespace(settings=TASK_SETTINGS, processing_class=None, reads_tokens=False, train=train)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "exists", look)
            with pytest.raises(Looked) as looked:
                one_run.run_or_read(task, "task", method, 3, tmp_path)
        return str(looked.value)

    return find


@pytest.mark.parametrize("method", KEPT)
def test_runs_keep_their_names(method: str, file_of: Callable[..., str]) -> None:
    assert file_of(method) == KEPT[method]


def test_labels_alone_that_once_learned_from_unlabelled_rows_too_are_another_run(file_of: Callable[..., str]) -> None:
    kinds = Features({KIND_COLUMN: ClassLabel(names=[*KINDS]), ORIGIN_COLUMN: Value("int64"), "labels": Value("int64")})
    columns = {KIND_COLUMN: [ROW, UNLABELLED], ORIGIN_COLUMN: [0, 1], "labels": [0, -100]}
    both = Dataset.from_dict(columns, features=kinds)
    assert file_of("direct", both) != file_of("direct", both.select([0])) == KEPT["direct"]
    assert file_of("kd", both) == file_of("kd")


def test_what_makes_no_difference_is_not_in_the_name(file_of: Callable[..., str]) -> None:
    assert file_of("kd:whitening=0.5,rotation_seed=3") == file_of("kd") != file_of("kd:temperature=2")
    for setting in ("columns_dtype=float16", "columns_cache_dir=here", "teacher_max_length=8", "check_teacher=false"):
        assert file_of(f"lelp:{setting}") == file_of("lelp")
