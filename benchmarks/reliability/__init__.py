"""Break the library's data, files, processes and models, for the pages on reliability and coverage."""

import sys

from benchmarks.places import TEST_HELPERS

sys.path.insert(0, str(TEST_HELPERS))  # for the tests' tiny models
