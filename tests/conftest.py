"""Settings for every test: offline, quiet, and with a Hugging Face home of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many after a test as before it: sums are rounded otherwise by other numbers of threads."""
    import torch  # after the settings above

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_HF_HOME, ignore_errors=True)
