"""Where the benchmarks find and leave files of the project."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
UNDERSTAND = DOCS / "understand"  # the pages of figures
RESULTS = ROOT / "benchmarks" / "results"
TEST_HELPERS = ROOT / "tests" / "helpers"
