"""The demo page in a real browser. Needs gradio and selenium (pip), chromium and its driver (the system's packages)."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from places import ROOT

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'hf-lelp[space]'")
pytest.importorskip("selenium", reason="driving the browser needs selenium")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("no chromium with chromedriver on this machine", allow_module_level=True)

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

TEXT = "good movie sharp plot"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained student with pseudo-subclasses and its teacher, in folders."""
    folder = tmp_path_factory.mktemp("space")
    trainer = runs.trainer(runs.config(folder))
    trainer.train()
    trainer.save_model(str(folder / "student"))
    runs.teacher_model().save_pretrained(folder / "teacher")
    tiny.tokenizer().save_pretrained(folder / "teacher")
    return {name: folder / name for name in ("student", "teacher")}


@pytest.fixture(scope="module")
def address(models: dict[str, Path]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "STUDENT": str(models["student"]),
        "TEACHER": str(models["teacher"]),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    log = models["student"].with_name("app.log")
    with log.open("w") as output:
        app = subprocess.Popen(
            [sys.executable, "-m", "examples.space_app"],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert app.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(url)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"The page did not come up: {log.read_text()}")
        yield url
    finally:
        app.terminate()
        app.wait(20)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-sync", "no-first-run", "disable-dev-shm-usage", "window-size=1100,900"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def test_the_page_shows_what_both_models_say(browser: Any, address: str, models: dict[str, Path]) -> None:
    from hf_lelp import load_student

    browser.get(address)
    wait = WebDriverWait(browser, 60)
    field = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "#text textarea"))
    field.send_keys(TEXT)
    wait.until(lambda page: page.find_element(By.ID, "compare")).click()
    wait.until(lambda page: " ms" in page.find_element(By.ID, "teacher").text)

    for side, model in (("student", load_student(str(models["student"]))), ("teacher", runs.teacher_model())):
        logits = runs.class_logits(model, [TEXT], tiny.tokenizer())[0]
        probabilities = np.exp(logits) / np.exp(logits).sum()
        text = browser.find_element(By.ID, side).text
        for name, probability in zip(tiny.LABEL_NAMES, probabilities, strict=True):
            assert name in text
            assert f"{probability:.0%}" in text, (side, text, probabilities)
        assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in text and "median of 5" in text
    browser.save_screenshot(os.environ.get("SPACE_SCREENSHOT") or str(models["student"].with_name("page.png")))
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in errors if address in message], errors


def test_an_empty_text_is_refused(browser: Any, address: str) -> None:
    browser.get(address)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda page: page.find_element(By.ID, "compare")).click()
    wait.until(lambda page: "Write a text first." in page.find_element(By.TAG_NAME, "body").text)
    assert " ms" not in browser.find_element(By.ID, "student").text
