"""The teacher's pass on a real local Ray: its columns are those of the pass here, whoever dies meanwhile."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mortal_teacher
import numpy as np
import pyarrow.parquet as pq
import pytest
import runs
import tiny
from datasets import load_dataset
from places import HELPERS, ROOT

from hf_lelp.teacher.columns import teacher_columns

pytestmark = pytest.mark.surroundings
ROWS, BATCH = 96, 8


def ray_context() -> Any:
    """The settings that Ray reads when a dataset is made."""
    from ray.data import DataContext

    return DataContext.get_current()


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray with eight logical CPUs: with few its tasks starve, for actors of a pass that left rows out stay a while."""
    ray = pytest.importorskip("ray", reason="the pass on Ray needs it: pip install 'hf-lelp[ray]'")
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as scratch,  # not pytest's: the path of a socket must be short
        pytest.MonkeyPatch.context() as patch,  # Ray's processes inherit the environment
    ):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # its workers give way to other processes, here to other tests
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, HELPERS))))
        start = partial(ray.init, num_cpus=8, num_gpus=0, include_dashboard=False, object_store_memory=10**8)
        try:
            start(_temp_dir=f"{scratch}/1")
        except Exception:  # an agent of Ray's has 15 s to start, which may not do on a busy machine
            ray.shutdown()
            start(_temp_dir=f"{scratch}/2")
        context = ray_context()
        context.enable_progress_bars = False
        context.target_max_block_size = 1024  # bytes: so that few rows make several files
        yield
        ray.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Texts and labels in four files, with numbers that tell the rows apart."""
    data = runs.data(ROWS).add_column("id", range(ROWS))
    for number in range(4):
        data.shard(4, number).to_parquet(tmp_path / "rows" / f"{number}.parquet")
    return tmp_path / "rows"


def test_whoever_dies_or_stops_each_row_is_there_once(source: Path, tmp_path: Path) -> None:
    from hf_lelp.teacher.ray_pass import run_on_ray

    target, data = tmp_path / "columns", runs.data(ROWS)
    seen, refused, dies = (tmp_path / name for name in ("seen", "refused", "dies"))

    def run(**row_id: str) -> None:
        maker = mortal_teacher.maker(seen, refused, dies)
        run_on_ray(str(source), str(target), maker, num_gpus=0, batch_rows=BATCH, **row_id)

    def rows_in(folder: Path) -> int:
        return sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))

    with pytest.raises(ValueError, match=r"row_id='number' is no column of .*, which has text, label, id\. Name one"):
        run(row_id="number")
    # A row stops the whole.
    refused.write_text(str(mortal_teacher.REFUSES_FIRST))
    dies.write_text("0")
    with pytest.raises(Exception, match="Row 3 is refused, this once"):
        run()
    stopped, calls = rows_in(target), len(seen.read_text().splitlines())
    assert 0 < stopped < ROWS and calls >= mortal_teacher.REFUSES_FIRST
    # The same call goes on. Ray leaves rows out, and ends without a word. An actor dies too, and another one takes its
    # rows: not before, for of what is done again Ray may drop an error.
    refused.write_text(str(calls + 2))
    dies.write_text(str(calls + 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_context(), "max_errored_blocks", -1)
        with pytest.raises(ValueError, match=rf" of the {ROWS} rows of .* Make the same call again: it goes on"):
            run()
    kept, calls = rows_in(target), len(seen.read_text().splitlines())
    assert stopped < kept < ROWS and calls >= int(dies.read_text())  # so an actor did die
    # What else lies in the target is noticed.
    shutil.copy(source / "0.parquet", target / "other.parquet")
    with pytest.raises(ValueError, match=r"has 120 rows, and .* has 96: other files lie there, or rows were removed"):
        run()
    (target / "other.parquet").unlink()
    run()
    batches = seen.read_text().splitlines()[calls:]
    assert sum(len(batch.split("|")) for batch in batches) == ROWS - kept
    with pytest.raises(ValueError, match=r"is there, and .*-checkpoint is not: no interrupted pass wrote it"):
        run()

    columns = load_dataset("parquet", data_files=f"{target}/*.parquet", split="train", cache_dir=str(tmp_path / "read"))
    columns = columns.sort("id")
    assert columns["id"][:] == list(range(ROWS)) and columns["text"][:] == data["text"][:]
    here = teacher_columns(data, runs.teacher(), tmp_path / "cache").with_format("numpy")
    for name in ("teacher_logits", "teacher_embedding"):
        np.testing.assert_allclose(columns.with_format("numpy")[name], here[name], atol=1e-5)
    # They train as they are, and another teacher is noticed.
    arguments = {"train_dataset": columns, "teacher_model": runs.teacher()}
    one, other = runs.trained(tmp_path, arguments=arguments), runs.trained(tmp_path, arguments={"train_dataset": data})
    np.testing.assert_allclose(runs.losses(one), runs.losses(other), atol=1e-5)
    with pytest.raises(ValueError, match="The prepared columns were made by the teacher of fingerprint"):
        runs.trainer(runs.config(tmp_path), train_dataset=columns, teacher_model=tiny.named(tiny.classifier(seed=1)))
