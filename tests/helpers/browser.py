"""A headless Chromium that opens a page from the disk, for tests that need surroundings."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def opened(page: Path, *, width: int = 1200, height: int = 1000, scripts: bool = True) -> Iterator[Any]:
    """A driver that shows the page. Selenium and the Debian packages chromium and chromium-driver are needed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    places = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in places:
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = places[0]
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--window-size={width},{height}")
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.chrome.service.Service(places[1]))
    try:
        driver.get(page.resolve().as_uri())
        yield driver
    finally:
        driver.quit()
