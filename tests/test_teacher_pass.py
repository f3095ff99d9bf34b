"""Shares of a teacher's pass on machines without a folder in common, and putting them together."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
from datasets import Dataset

from hf_lelp import teacher_pass
from hf_lelp.cli.distill import PROGRAM, distill
from hf_lelp.teacher.columns import teacher_columns

ROWS, EVALUATION_ROWS = 90, 30


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", 20)
    for name, model in (("teacher", runs.teacher_model()), ("student", runs.student())):
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    runs.data(ROWS).to_parquet(tmp_path / "train.parquet")
    runs.data(EVALUATION_ROWS, seed=1).to_parquet(tmp_path / "test.parquet")
    options = {
        **{"teacher_model": "teacher", "student_model": "student", "output_dir": "out", "columns_cache_dir": "columns"},
        **{"train_file": "train.parquet", "eval_file": "test.parquet", "num_subclasses": 2, "max_steps": 2},
        **{"report_to": "none", "use_cpu": "true", "disable_tqdm": "true"},
    }
    (tmp_path / "run.yaml").write_text("".join(f"{name}: {value}\n" for name, value in options.items()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str) -> None:
    teacher_pass.PROGRAM.main(["--config", "run.yaml", *options])


def rows_run(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Of training and evaluation rows, in the calls since the last one of this function."""
    said = r"teacher: (?:(\d+) of \d+ rows run|all [\d,]+ rows were answered before)"
    found = [int(rows or 0) for rows in re.findall(said, caplog.text)]
    caplog.clear()
    return found


def shards(folder: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.glob("teacher/*/*.arrow")}


def test_shares_are_merged_and_a_run_finds_them_all(assets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hf_lelp")
    counts = []
    for share in ("1/3", "2/3", "3/3"):
        run("--share", share, "--columns_cache_dir", share[0])
        counts.append(rows_run(caplog))
    assert counts == [[40, 20], [30, 10], [20, 0]]  # 5 and 2 shards of 20 rows, the last ones of 10
    with pytest.raises(SystemExit, match=r"fill 5 shards at most, so that a share would be empty\. Take 5 shares"):
        run("--share", "1/6", "--columns_cache_dir", "1")
    run("--merge", "1", "2", "3")
    assert rows_run(caplog) == []
    merged = shards(assets / "columns")
    run("--columns_cache_dir", "whole")
    train, evaluation = ({*runs.data(rows, seed=seed)["text"]} for rows, seed in ((ROWS, 0), (EVALUATION_ROWS, 1)))
    assert rows_run(caplog) == [len(train), len(evaluation - train)]
    whole = shards(assets / "whole")
    assert merged.keys() == whole.keys() and len(merged) == 7
    # Evaluation rows that a whole pass knows from training go through the teacher again in a share, and so the others
    # in batches of other rows: on some processors that is another rounding.
    assert sum(merged[name] == whole[name] for name in merged) >= 5
    for name in merged:
        one, other = (
            Dataset.from_file(str(assets / folder / "teacher" / name)).with_format("numpy")[:]
            for folder in ("columns", "whole")
        )
        for column in one:
            np.testing.assert_allclose(one[column], other[column], atol=1e-6)

    arguments, config = PROGRAM.parse(["--config", "run.yaml"])
    distill(arguments, config)
    assert rows_run(caplog) == [0, 0]
    run("--merge", "1", "2", "3")  # once more does no harm
    assert shards(assets / "columns") == merged


def test_rows_that_a_run_makes_are_said_to_be_left_to_it(assets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hf_lelp")
    run("--views", "1", "--columns_cache_dir", "views")
    assert "Windows, views and unlabelled rows are not part of this pass" in caplog.text
    assert sum(rows_run(caplog)) <= ROWS + EVALUATION_ROWS


def test_a_share_that_is_missing_or_damaged(assets: Path) -> None:
    for share in ("1/2", "2/2"):
        run("--share", share, "--columns_cache_dir", share[0])
    with pytest.raises(SystemExit, match=r"3 of the 7 shards of this data are missing in 1, which hold 0 of"):
        run("--merge", "1")
    broken = sorted((assets / "2").glob("teacher/*/*.arrow"))[0]
    broken.write_bytes(broken.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=rf"1 of the 7 shards[\s\S]*{broken.name}: its content does not match"):
        run("--merge", "1", "2")
    assert not (assets / "columns").exists()
    # A whole copy elsewhere will do.
    run("--columns_cache_dir", "whole")
    run("--merge", "1", "2", "whole")
    assert len(shards(assets / "columns")) == 7


def test_another_teacher_other_settings_and_other_data(assets: Path) -> None:
    run("--columns_cache_dir", "right")
    run("--columns_cache_dir", "shorter", "--teacher_max_length", "5")
    run("--columns_cache_dir", "narrow", "--columns_dtype", "float16")
    for folder in ("shorter", "narrow", "nowhere"):
        with pytest.raises(SystemExit, match=rf"{folder} has no columns of this teacher"):
            run("--merge", "right", folder)
    runs.data(ROWS, seed=5).to_parquet(assets / "train.parquet")
    with pytest.raises(SystemExit, match=r"5 of the 7 shards of this data are missing in right, which hold 5 of other"):
        run("--merge", "right")
    # Files by the right names of another pass's rows.
    runs.data(ROWS).to_parquet(assets / "train.parquet")
    names = sorted((assets / "right").glob("teacher/*/*.arrow"))
    shutil.copy(names[0], names[1])
    with pytest.raises(SystemExit, match=rf"1 of the 7 [\s\S]*{names[1].name}: it was written as .*{names[0].name}"):
        run("--merge", "right")


def test_merging_by_hand(assets: Path) -> None:
    guide, raw = runs.teacher(), runs.data(ROWS)
    for share in range(2):
        teacher_pass.run_teacher(raw, guide, f"part{share}", share=(share, 2))
    teacher_pass.merge_shares([raw], guide, ["part0", "part1"], "together")
    with runs.rows_seen(guide.model) as seen:
        columns = teacher_columns(raw, guide, "together")
    assert seen == [] and len(columns) == ROWS


def test_a_run_finds_what_a_pass_with_a_sampled_fit_kept(assets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hf_lelp")
    run("--fit_rows", "40", "--num_subclasses", "3")
    sample, others, evaluation = rows_run(caplog)
    assert (sample, evaluation) == (40, EVALUATION_ROWS) and others < ROWS
    PROGRAM.main(["--config", "run.yaml", "--fit_rows", "40", "--method", "kd", "lelp", "--num_subclasses", "3"])
    assert {*rows_run(caplog)} == {0}
    assert len(shards(assets / "columns")) == 4  # two of the sample, two of the evaluation rows
    with pytest.raises(SystemExit, match="shares know nothing of each other"):
        run("--fit_rows", "40", "--share", "1/2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--share", "3/2"], "share=3/2: i/n is needed"),
        (["--share", "0/2"], "share=0/2: i/n is needed"),
        (["--share", "half"], "share=half: i/n is needed"),
        (["--share", "1/2", "--merge", "x"], "give share or merge"),
        (["--method", "direct", "--teacher_model", ""], "teacher_model is missing"),
    ],
)
def test_mistakes_end_with_a_message(
    options: list[str], message: str, assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(*options)
    assert message in capsys.readouterr().err
