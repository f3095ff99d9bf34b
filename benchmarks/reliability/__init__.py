"""Break the library's data, files, processes and models, for docs/reliability.md and docs/coverage.md."""

import sys

from benchmarks.places import TEST_HELPERS

sys.path.insert(0, str(TEST_HELPERS))  # for the tests' tiny models
