"""Settings for every test: offline, quiet, and with a Hugging Face home of its own."""

import gc
import os
import shutil
import signal
import tempfile

import pytest

# transformers, datasets and huggingface_hub read these once, on import: set them before any test module loads.
_HF_HOME = tempfile.mkdtemp(prefix="hf-lelp-tests-")
for _cache in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(_cache, None)  # each would outrank HF_HOME
os.environ |= {
    "HF_HOME": _HF_HOME,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}

# A job in the background of a shell ignores Ctrl-C, and so would every process that a test starts, and stops by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    # An option of pytest's (-m) would do, but ends the workers of xdist 3.8 at their first test.
    if item.get_closest_marker("surroundings") is not None and "ALL_TESTS" not in os.environ:
        pytest.skip("runs in make test-all: needs a browser, Ray, or longer than other tests")


def pytest_collection_finish() -> None:
    _keep_out_of_collections()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or nextitem.path != item.path:
        _keep_out_of_collections()


def _keep_out_of_collections() -> None:
    """Leave what is there, imports most of all, out of further garbage collections: every training begins with one.

    Without this they take more than a quarter of the tests' time.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_HF_HOME, ignore_errors=True)
