"""docs/reference/files.md names every file that a small run writes, and log.md explains every line that is logged."""

import re
from pathlib import Path

import messages
import tiny
from places import ROOT

from hf_lelp import LELPConfig
from hf_lelp.cli.distill import DistillArguments, distill


def named_in(page: str, heading: str = "") -> list[str]:
    """What stands in backticks in the first cells of the tables of a page, or of the part under a heading."""
    text = (ROOT / "docs/reference" / page).read_text(encoding="utf-8")
    text = text.split(heading)[1].split("\n## ")[0] if heading else text
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall("`([^`]+)`", cell)]


def pattern(words: str, *anything: str) -> str:
    """A regular expression of the words of a page, where any of these pieces stands for anything."""
    return ".*".join(re.escape(piece) for piece in re.split("|".join(anything), words))


def test_every_file_of_a_run_is_named(tmp_path: Path) -> None:
    teacher = tiny.named(tiny.classifier(hidden_size=32))
    teacher.save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    tiny.dataset(teacher, 120).to_csv(tmp_path / "rows.csv")
    config = LELPConfig(
        output_dir=str(tmp_path / "out"),
        columns_cache_dir=str(tmp_path / "columns"),
        num_subclasses="auto",
        budget=3,
        max_steps=2,
        report_to="none",
    )
    files = {"teacher_model": str(tmp_path / "teacher"), "train_file": str(tmp_path / "rows.csv")}
    distill(DistillArguments(student_model="new:1x16", **files), config)
    for folder, heading in (("out", "## In `output_dir`"), ("columns", "## In `columns_cache_dir`")):
        named = [pattern(name, "[A-Z]{4,}", "N(?=/)", r"\*", "…") for name in named_in("files.md", heading)]
        written = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
        relative = [path.relative_to(tmp_path / folder).as_posix() for path in written]
        assert len(relative) > 8
        assert [file for file in relative if not any(re.search(f"(^|/){name}", file) for name in named)] == []


def test_every_line_of_the_log_is_explained() -> None:
    explained = [pattern(line, "…") for line in named_in("log.md")]
    logged = {at: line for at, line in messages.logged().items() if re.search(r"\w", line)}
    assert len(logged) > 40
    assert {at: line for at, line in logged.items() if not any(re.search(one, line) for one in explained)} == {}
