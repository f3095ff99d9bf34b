import re
from pathlib import Path

import pytest
import tiny
from datasets import Dataset

from hf_lelp.cli.data import DataArguments, expand, load_data


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_load_data_reads_files(tmp_path: Path, ending: str) -> None:
    rows = Dataset.from_dict({"text": ["a b", "c, d", 'e "f"'], "label": [0, 1, 0]})
    path = tmp_path / f"train.{ending}"
    if ending in ("csv", "tsv"):
        rows.to_csv(path, sep="," if ending == "csv" else "\t")
    elif ending == "parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path)
    train, evaluation = load_data(DataArguments(train_file=str(path), eval_file=str(path)), seed=0)
    assert train[:] == evaluation[:] == rows[:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"no such", "t.parquet cannot be read as parquet: .*Parquet"),
        ("t.json", b"{", "t.json cannot be read as json: "),
        ("t.csv", b"text;label\na;0\nb, c;1\nd, e, f;1\n", "t.csv cannot be read as csv: .*Expected"),
        ("t.csv", None, "t.csv: there is no such folder or file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_data(DataArguments(train_file=str(tmp_path / name)), seed=0)


def test_a_path_that_leads_nowhere_is_told_from_a_name_on_the_hub(tmp_path: Path) -> None:
    for name in ("~/nowhere", "./nowhere", str(tmp_path / "nowhere"), "some/where/else"):
        with pytest.raises(ValueError, match=": there is no such folder or file"):
            expand(name)
    assert expand("someone/model") == "someone/model" and expand("model") == "model" and expand(str(tmp_path))


def test_load_data_reads_a_text_file_and_holds_rows_out(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"line {i}\n" for i in range(50)))
    train, evaluation = load_data(DataArguments(train_file=str(tmp_path / "train.txt")), seed=0)
    assert (len(train), len(evaluation)) == (45, 5)
    assert {*train["text"], *evaluation["text"]} == {f"line {i}" for i in range(50)}


def test_load_data_reads_a_folder_by_its_splits(tmp_path: Path) -> None:
    rows = tiny.dataset(tiny.named(tiny.classifier()), 60)
    for name in ("train", "test"):
        rows.to_parquet(tmp_path / f"{name}.parquet")
    given = DataArguments(dataset_name=str(tmp_path), max_train_samples=50, max_eval_samples=7)
    train, evaluation = load_data(given, seed=0)
    assert (len(train), len(evaluation)) == (50, 7)
    assert train.features["label"].names == tiny.LABEL_NAMES
    with pytest.raises(ValueError, match="has the splits train, test"):
        load_data(DataArguments(dataset_name=str(tmp_path), eval_split="dev"), seed=0)


def test_load_data_refuses_an_unknown_format_and_no_rows(tmp_path: Path) -> None:
    (tmp_path / "data.xml").write_text("<a/>")
    with pytest.raises(ValueError, match=r"told by the ending, one of \.csv"):
        load_data(DataArguments(train_file=str(tmp_path / "data.xml")), seed=0)
    (tmp_path / "train.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match="evaluation data has no rows"):
        load_data(DataArguments(train_file=str(tmp_path / "train.txt"), max_eval_samples=0), seed=0)


@pytest.mark.parametrize("names", [{}, {"dataset_name": "imdb", "train_file": "rows.csv"}])
def test_the_data_is_named_once(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either dataset_name or train_file"):
        DataArguments(**names)


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_a_file_of_another_separator_is_named(separator: str, tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("\n".join(separator.join(row) for row in (("text", "label"), ("good film", "1"), ("bad", "0"))))
    words = f"has one column, .*: its columns seem to be separated by {re.escape(repr(separator))}. Write it with"
    with pytest.raises(ValueError, match=words):
        load_data(DataArguments(train_file=str(file)), 0)
