"""Put the results of the speed benchmarks into the page on performance: `python -m benchmarks.speed.page`.

Between a line `<!-- table: NAME -->` and the next `<!-- end -->` the page shows benchmarks/results/NAME.json; the text
around stays as it was written.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.places import RESULTS, UNDERSTAND
from hf_lelp.markdown import escape, markdown_table
from hf_lelp.storage.files import write_atomically

PAGE = UNDERSTAND / "performance.md"
SCALE_STAGES = {
    "teacher": "teacher's pass (a synthetic teacher: hashing, writing)",
    "find": "finding every shard, at each later start",
    "fit": "fit",
    "project": "projection",
    "train": "trainer: everything found, texts tokenized, 50 steps",
    "stream": "stream: teacher, fit, teacher again, 50 steps; nothing stored",
}
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(result: dict[str, Any]) -> str:
    """The rows of a result and the machine they come from."""
    rows = result["rows"]
    body = [[cell(value) for value in row.values()] for row in rows]
    rounds = f"rounds: {result['rounds']}; " if "rounds" in result else ""
    said = f"({result['machine']}; {rounds}load {result['load']:.1f} at the end.)"
    return f"\n{markdown_table(list(rows[0]), body)}\n\n{said}\n\n"


def scale_table(result: dict[str, Any]) -> str:
    """Each stage at 100,000 rows and at the most."""
    sizes = [size for size in result["sizes"] if size["rows"] >= 100_000]
    small, large = sizes[0], sizes[-1]
    counts = [f"{size['rows'] / 1e6:g}M" for size in (small, large)]
    header = ["stage", *(f"processor s, {count}" for count in counts), "exponent", *(f"s, {count}" for count in counts)]
    header += [f"{kind} MB, {count}" for kind in ("own", "resident") for count in counts]
    body = []
    for stage, words in SCALE_STAGES.items():
        of_stage = [size.get(stage) for size in (small, large)]
        exponent = result["exponents"]["processor_seconds"].get(stage)
        kinds = ("processor_seconds", "seconds", "anonymous_mb", "resident_mb")
        shown = [[cell(one[kind]) if one else "–" for one in of_stage] for kind in kinds]
        body.append([words, *shown[0], f"{exponent:.2f}" if exponent else "–", *shown[1], *shown[2], *shown[3]])
    return f"\n{markdown_table(header, body)}\n\n({result['machine']}.)\n\n"


def gpu_table(result: dict[str, Any]) -> str:
    """The table of each stage of `benchmarks.gpu`, and what failed."""
    parts = []
    for stage in result["stages"]:
        parts.append(f"**{stage['what']}**")
        if rows := stage["rows"]:
            parts.append(markdown_table(list(rows[0]), [[cell(value) for value in row.values()] for row in rows]))
        # The last line of a message says most.
        parts += [f"Failed: {case}: {escape(words.splitlines()[-1])}" for case, words in stage["failed"].items()]
    return "\n" + "\n\n".join([*parts, f"({result['machine']}; {result['seconds']:.0f} s in all.)"]) + "\n\n"


def table_of(result: dict[str, Any]) -> str:
    """What the page shows of a result, by its kind."""
    return (scale_table if "sizes" in result else gpu_table if "stages" in result else table)(result)


def cell(value: str | float) -> str:
    """Three digits of a figure, or all of a whole number."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def filled(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of the results that there are; those of others stay."""

    def fill(match: re.Match[str]) -> str:
        file = folder / f"{match[2]}.json"
        if not file.exists():
            return match[0]
        result = json.loads(file.read_text(encoding="utf-8"))
        return match[1] + table_of(result) + match[3]

    return TABLE.sub(fill, page)


if __name__ == "__main__":
    text = filled(PAGE.read_text(encoding="utf-8"))
    write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))
