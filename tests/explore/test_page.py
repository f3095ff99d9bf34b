"""The page in a real browser: a text run and an image run, and a text that would like to run."""

from pathlib import Path
from typing import Any

import explored
import pytest
from browser import opened
from tiny_media import pictures

from hf_lelp.explore.page import page_of
from hf_lelp.explore.report import report_of

pytestmark = pytest.mark.surroundings


def written(folder: Path, **changes: Any) -> Path:
    rows = explored.rows(**changes)
    page = folder / "explore.html"
    page.write_text(page_of(report_of(rows), rows.images, title="A test", json_name="explore.json"), encoding="utf-8")
    return page


def pointed_at(driver: Any, panel: int = 0) -> str:
    """Move over a panel until a row is shown; return what is said of it."""
    from selenium.webdriver import ActionChains

    canvas = driver.find_elements("css selector", "#panels canvas")[panel]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    for shift in range(-120, 120, 6):
        ActionChains(driver).move_to_element_with_offset(canvas, shift, shift // 3).perform()
        tip = driver.find_element("id", "tip")
        if tip.is_displayed():
            return str(tip.text)
    raise AssertionError("no row was found on the map")


def choose(driver: Any, box: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("id", box)).select_by_visible_text(text)


def test_a_page_of_texts(tmp_path: Path) -> None:
    with opened(written(tmp_path)) as driver:
        said = pointed_at(driver)
        assert " and row " in said and "label negative" in said and "kd: " in said and "lelp: " in said
        for way in ("group", "errors of kd", "subclass"):
            choose(driver, "colour", way)
        choose(driver, "only", "subclass 2")
        assert "subclass 2" in pointed_at(driver, panel=1)
        # sorting by rows, then filtering
        first = "#slices table.sortable tbody tr:first-child"
        assert driver.find_element("css selector", first).text.split()[:2] == ["negative", "1"]
        head = driver.find_elements("css selector", "#slices thead th button")[0]
        head.click()
        head.click()
        assert driver.find_element("css selector", first).text.split()[0] == "positive"
        driver.find_element("id", "filter").send_keys("stays worse")
        rows = driver.find_elements("css selector", "#slices tbody tr")
        assert sum(row.is_displayed() for row in rows) == 1 and "1 of" in driver.find_element("id", "shown").text
        # light, dark, as the system
        colours = set()
        for _ in range(3):
            driver.find_element("id", "theme").click()
            colours.add(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2
        assert driver.get_log("browser") == []
        assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_keyboard_reaches_every_row_shown(tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    with opened(written(tmp_path)) as driver:
        body = driver.find_element("tag name", "body")
        for _ in range(30):
            body.send_keys(Keys.TAB)
            if driver.switch_to.active_element.tag_name == "canvas":
                break
        canvas = driver.switch_to.active_element
        assert canvas.tag_name == "canvas" and "Map of negative" in canvas.get_attribute("aria-label")
        said = set()
        for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_LEFT):
            canvas.send_keys(key)
            said.add(driver.find_element("id", "spoken").get_attribute("textContent"))
        assert len(said) >= 3 and all(" and row " in text for text in said)
        canvas.send_keys(Keys.ESCAPE)
        assert not driver.find_element("id", "tip").is_displayed()


def test_a_page_of_images(tmp_path: Path) -> None:
    with opened(written(tmp_path, texts=None, images=pictures(400, modes=("RGB", "L", "RGBA")))) as driver:
        pointed_at(driver)
        shown = (
            "return [document.querySelector('#tip img'), document.querySelector('.card img')].map(i => i.naturalWidth)"
        )
        assert driver.execute_script(shown) == [20, 20]
        assert driver.get_log("browser") == []


def test_a_hostile_text_does_not_run(tmp_path: Path) -> None:
    hostile = explored.HOSTILE
    changes: dict[str, Any] = {"texts": [hostile] * 400, "classes": [hostile, "b"], "groups": [hostile, "x"] * 200}
    with opened(written(tmp_path, **changes)) as driver:
        assert "onerror='window.hit = 1'" in pointed_at(driver)
        choose(driver, "colour", "group")
        assert driver.execute_script("return window.hit === undefined")
        assert driver.find_elements("css selector", "img, b") == []
        assert driver.get_log("browser") == []


def test_it_reads_without_scripts(tmp_path: Path) -> None:
    with opened(written(tmp_path), scripts=False) as driver:
        text = driver.find_element("tag name", "body").text
        assert "worse, stays worse" in text and "The map needs JavaScript" in text
        assert not driver.find_element("id", "theme").is_displayed()


def test_it_is_legible_on_a_narrow_screen(tmp_path: Path) -> None:
    with opened(written(tmp_path), width=500) as driver:
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
