"""Put the results of the speed benchmarks into the tables of docs/performance.md: `python -m benchmarks.speed_page`.

Between a line `<!-- table: NAME -->` and the next `<!-- end -->` the page shows benchmarks/results/NAME.json; the text
around stays as it was written.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.speed import RESULTS
from hf_lelp.files import write_atomically
from hf_lelp.report import markdown_table

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(result: dict[str, Any]) -> str:
    """The rows of a result and the machine they come from."""
    rows = result["rows"]
    body = [[cell(value) for value in row.values()] for row in rows]
    rounds = f"rounds: {result['rounds']}; " if "rounds" in result else ""
    said = f"({result['machine']}; {rounds}load {result['load']:.1f} at the end.)"
    return f"\n{markdown_table(list(rows[0]), body)}\n\n{said}\n\n"


def cell(value: str | float) -> str:
    """Three digits of a figure, or all of a whole number."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def filled(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of the results that there are; those of others stay."""

    def fill(match: re.Match[str]) -> str:
        file = folder / f"{match[2]}.json"
        return match[1] + table(json.loads(file.read_text(encoding="utf-8"))) + match[3] if file.exists() else match[0]

    return TABLE.sub(fill, page)


if __name__ == "__main__":
    text = filled(PAGE.read_text(encoding="utf-8"))
    write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))
