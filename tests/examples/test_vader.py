"""The demo's data and downloads, on small files of the same form; no network."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from datasets import are_progress_bars_disabled, load_dataset
from transformers.utils import logging as transformers_logging

from examples import vader
from examples.vader import (
    DOMAINS,
    FEATURES,
    LABELS,
    Snippet,
    fetch,
    parse,
    read_snippets,
    split_by_document,
    to_dataset,
)


def pack(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_sdist(path: Path, texts: Mapping[str, str]) -> Path:
    """Write a source distribution with the ground truth in a nested archive, as VADER's is."""
    truth = {f"hutto_ICWSM_2014/{DOMAINS[domain]}": text.encode() for domain, text in texts.items()}
    nested = pack({"hutto_ICWSM_2014/_README_.txt": b"read me", **truth})
    path.write_bytes(pack({"v/setup.py": b"", "v/additional_resources/hutto_ICWSM_2014.tar.gz": nested}))
    return path


def snippets(domain: str, documents: int, sentences: int = 1) -> list[Snippet]:
    return [
        Snippet(domain, str(d), f"{domain} {d} {s}", LABELS[d % 2]) for d in range(documents) for s in range(sentences)
    ]


@pytest.mark.filterwarnings("ignore:Cannot enable progress bars")  # where the environment forbids those of datasets
@pytest.mark.parametrize("bars", [True, False])
def test_quiet_leaves_the_bars_as_it_found_them(bars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_logging, "_tqdm_active", bars)
    of_datasets = are_progress_bars_disabled()
    with vader.quiet():
        assert are_progress_bars_disabled() and not transformers_logging.is_progress_bar_enabled()
    assert (are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()) == (of_datasets, bars)


def test_parse_takes_the_sign_and_leaves_out_zero():
    found = list(parse("nyt", "1_1\t0.15\tgood\r\n1_2\t-0.05\tbad\r\n2_1\t0.0\tneither\r\n"))
    assert found == [Snippet("nyt", "1", "good", "positive"), Snippet("nyt", "1", "bad", "negative")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("S&amp;M", "S&M"),
        ("Meagher &amp;amp; Flom", "Meagher & Flom"),
        ("you&amp;#39;d", "you'd"),
        ('"  an open quotation mark', '"  an open quotation mark'),
        ("one line\u2028to \x0b split() only", "one line\u2028to \x0b split() only"),
        ("  clichés ", "clichés"),
    ],
)
def test_parse_cleans_texts(written, meant):
    assert [s.text for s in parse("tweets", f"7\t1.5\t{written}\r\n8\t1\tnext")] == [meant, "next"]


def test_parse_refuses_other_forms():
    with pytest.raises(ValueError, match="unpack"):
        list(parse("tweets", "1\t2.0\n"))


def test_read_snippets_reads_the_nested_archive(tmp_path):
    texts = {domain: f"3_1\t1.2\tä {domain}\r\n3_2\t-2\tb\r\n" for domain in DOMAINS}
    found = read_snippets(make_sdist(tmp_path / "v.tar.gz", texts))
    assert [s.domain for s in found] == [domain for domain in DOMAINS for _ in range(2)]
    assert found[0] == Snippet("movie", "3", "ä movie", "positive")


def test_split_keeps_documents_whole_and_domains_in_proportion():
    everything = snippets("amazon", 50, sentences=4) + snippets("movie", 100)
    train, test = split_by_document(everything)
    assert sorted(train + test) == sorted(everything)
    assert not {(s.domain, s.document) for s in train} & {(s.domain, s.document) for s in test}
    assert sum(s.domain == "amazon" for s in test) == 40
    assert sum(s.domain == "movie" for s in test) == 20


def test_split_depends_on_the_seed_alone():
    everything = snippets("tweets", 40)
    assert split_by_document(everything) == split_by_document(everything)
    assert split_by_document(everything, seed=1) != split_by_document(everything, seed=0)


def test_split_drops_test_texts_that_train_has():
    everything = snippets("nyt", 50)
    _, test = split_by_document(everything)
    repeated = test[0]
    in_train = next(s for s in everything if s not in test)
    everything[everything.index(in_train)] = in_train._replace(text=repeated.text)
    train, fewer = split_by_document(everything)
    assert repeated.text in {s.text for s in train}
    assert fewer == test[1:]


def test_parquet_keeps_class_names(tmp_path):
    to_dataset(snippets("nyt", 4)).to_parquet(tmp_path / "train.parquet")
    files = {"train": str(tmp_path / "train.parquet")}
    found = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert found.features == FEATURES
    assert found.features["label"].names == LABELS
    assert found["domain"][:] == [list(DOMAINS).index("nyt")] * 4


def test_fetch_takes_a_file_that_is_there(tmp_path):
    path = tmp_path / "some_package-1.0-py3-none-any.whl"
    path.write_bytes(b"content")
    assert fetch("some-package", "1.0", hashlib.sha256(b"content").hexdigest(), sdist=False, folder=tmp_path) == path


def test_fetch_refuses_another_sha256(tmp_path):
    (tmp_path / "thing-1.0.tar.gz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"sha256 .* expected abc"):
        fetch("thing", "1.0", "abc", sdist=True, folder=tmp_path)


def test_fetch_says_how_to_go_on(tmp_path, monkeypatch):
    def fails(command, **_):
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="No route to host")

    monkeypatch.setattr(vader.subprocess, "run", fails)
    with pytest.raises(RuntimeError, match="No route to host") as raised:
        fetch("thing", "1.0", "abc", sdist=True, folder=tmp_path)
    assert str(tmp_path / "thing-1.0.tar.gz") in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_build_demo_makes_only_what_is_missing(tmp_path, monkeypatch, capsys):
    sdist = make_sdist(tmp_path / "v.tar.gz", {d: "".join(f"{i}\t1\t{d} {i}\n" for i in range(10)) for d in DOMAINS})
    monkeypatch.setattr(vader, "fetch", lambda **_: sdist)
    demo = tmp_path / "demo"
    (demo / "teacher").mkdir(parents=True)
    assert vader.build_demo(demo) == demo
    files = {f"{name}.parquet" for name in ("train", "test", "labelled", "unlabelled")}
    assert {path.name for path in demo.iterdir()} == {*files, "teacher"}
    assert "32 training and 8 test texts" in capsys.readouterr().out

    monkeypatch.setattr(vader, "fetch", lambda **_: pytest.fail("fetched again"))
    assert vader.build_demo(demo) == demo


def test_rows_are_labelled_or_not_and_none_is_lost():
    train = vader.to_dataset(Snippet("nyt", str(i), f"text {i}", LABELS[i % 2]) for i in range(10))
    labelled, unlabelled = vader.split_by_labels(train, texts=6)
    assert labelled.column_names == train.column_names and unlabelled.column_names == ["text", "domain"]
    assert len(labelled) == 6 and sorted([*labelled["text"], *unlabelled["text"]]) == sorted(train["text"])


def test_an_interrupted_asset_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), vader.atomically(tmp_path / "asset") as unfinished:
        unfinished.mkdir()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
