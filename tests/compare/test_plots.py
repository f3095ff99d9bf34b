import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hf_lelp.cli.groups import group_alignment, plot_groups
from hf_lelp.compare.plots import plot_comparison

pytest.importorskip("matplotlib")


def test_the_picture_shows_each_group_by_its_share(tmp_path: Path) -> None:
    # Every example is of class 0, a tenth of them of group a.
    groups = np.where(np.arange(1000) % 10 == 0, "a", "b")
    classes, subclasses = np.zeros(1000, dtype=int), np.arange(1000) % 3
    path = tmp_path / "new" / "subclasses.png"
    plot_groups(group_alignment(classes, subclasses, groups, ["only"], 3), path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    blue, orange = (int((pixels == colour).all(-1).sum()) for colour in ([31, 119, 180], [255, 127, 14]))
    assert 0.07 < blue / (blue + orange) < 0.14


def summary(rows: int, methods: dict[str, tuple[float, str]], **settings: list[Any]) -> dict[str, Any]:
    """What `compare.summarise` gives: of each method its accuracy and finding; `settings` has a value for each."""
    result: dict[str, Any] = {"reference": next(iter(methods)), "seeds": [0, 1, 2], "train_rows": rows, "methods": {}}
    for position, (name, (accuracy, finding)) in enumerate(methods.items()):
        kind = name.partition(":")[0]
        figures: dict[str, Any] = {
            "accuracies": [accuracy - 0.01, accuracy, accuracy + 0.01],
            "accuracy": {"mean": accuracy, "std": 0.01},
            "settings": {"kind": kind, **{setting: values[position] for setting, values in settings.items()}},
        }
        if position > 0:
            base = 100 * (accuracy - next(iter(methods.values()))[0])
            figures["difference"] = {"over_seeds": (base - 1, base + 1), "over_examples": (0, 0), "finding": finding}
        result["methods"][name] = figures
    return result


METHODS = {"kd": (0.7, ""), "direct": (0.6, "worse"), "lelp": (0.8, "better"), "vid": (0.71, "none")}


def picture(path: Path) -> NDArray[np.int_]:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def is_colour(pixels: NDArray[np.int_], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(pixels - colour) < 3).all(-1))


RED, GREEN = (214, 39, 40), (44, 160, 44)


def test_findings_are_in_colour_and_further_right_is_better(tmp_path: Path) -> None:
    plot_comparison({"all rows": summary(100, METHODS)}, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["accuracy.png"]
    pixels = picture(tmp_path / "new" / "accuracy.png")
    worse, better = (np.argwhere(is_colour(pixels, colour)).mean(0) for colour in (RED, GREEN))
    # Worse is to the left of better, and the second line is above the third.
    assert worse[1] < better[1] - 100 and worse[0] < better[0]
    # Without findings there is no colour.
    plain = {name: (accuracy, "none") for name, (accuracy, _) in METHODS.items()}
    plot_comparison({"all rows": summary(100, plain)}, tmp_path)
    pixels = picture(tmp_path / "accuracy.png")
    assert not is_colour(pixels, RED).any() and not is_colour(pixels, GREEN).any()
    assert (np.ptp(pixels, axis=-1) == 0).mean() > 0.999


def test_one_seed_shows_the_interval_over_examples(tmp_path: Path) -> None:
    one = summary(100, METHODS)
    for figures in one["methods"].values():
        figures["accuracies"], figures["accuracy"]["std"] = [figures["accuracy"]["mean"]], None
        if "difference" in figures:
            figures["difference"].update(over_seeds=None, finding="none")
    wide = copy.deepcopy(one)
    wide["methods"]["lelp"]["difference"]["over_examples"] = (-5.0, 25.0)
    for name, given in (("narrow", one), ("wide", wide)):
        plot_comparison({"all rows": given}, tmp_path / name)
    narrow, wide_pixels = (picture(tmp_path / name / "accuracy.png") for name in ("narrow", "wide"))
    assert (narrow != wide_pixels).any()


def test_each_task_has_a_panel_and_each_method_a_line(tmp_path: Path) -> None:
    plot_comparison({"one": summary(100, METHODS)}, tmp_path / "one")
    many = {**METHODS, **{f"lelp:num_subclasses={s}": (0.7, "none") for s in range(2, 10)}}
    plot_comparison({"one": summary(100, many), "two": summary(100, METHODS)}, tmp_path / "two")
    small, large = (picture(tmp_path / name / "accuracy.png").shape for name in ("one", "two"))
    assert large[1] == 2 * small[1] and large[0] > small[0] + 8 * 30


def test_sizes_are_drawn_where_there_are_several(tmp_path: Path) -> None:
    def sizes(name: str, *given: tuple[int, float]) -> NDArray[np.int_]:
        summaries = {
            f"{rows} rows": summary(rows, {method: (a + gain, finding) for method, (a, finding) in METHODS.items()})
            for rows, gain in given
        }
        plot_comparison(summaries, tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {"accuracy.png", "sizes.png"}
        return picture(tmp_path / name / "sizes.png")

    # A line goes from few rows to many, in whatever order they come.
    rising = sizes("rising", (100, 0.0), (300, 0.1), (1000, 0.15))
    assert (rising == sizes("mixed", (1000, 0.15), (100, 0.0), (300, 0.1))).all()
    assert (rising != sizes("falling", (100, 0.15), (300, 0.1), (1000, 0.0))).any()


def test_a_setting_that_was_varied_is_drawn_against_accuracy(tmp_path: Path) -> None:
    methods = {"lelp": (0.7, ""), "lelp:num_subclasses=4": (0.75, "none"), "lelp:num_subclasses=16": (0.8, "none")}
    both = {"num_subclasses": [8, 4, 16], "subclass_temperature": [1.0, 1.0, 1.0]}
    plot_comparison({"all rows": summary(100, methods, **both)}, tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"accuracy.png", "settings.png"}
    both["num_subclasses"], both["subclass_temperature"] = [8, 4, 8], [1.0, 1.0, 0.5]
    plot_comparison({"all rows": summary(100, methods, **both)}, tmp_path / "two")
    widths = [picture(tmp_path / name / "settings.png").shape[1] for name in ("one", "two")]
    assert widths[1] == 2 * widths[0]  # a panel for each of the two
    # Runs that differ in two settings at once are no line.
    both["subclass_temperature"] = [1.0, 0.7, 0.5]
    both["num_subclasses"] = [8, 4, 16]
    plot_comparison({"all rows": summary(100, methods, **both)}, tmp_path / "none")
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"accuracy.png"}


@pytest.mark.parametrize(
    ("of_the_search", "drawn"), [({}, {"accuracy.png", "settings.png"}), ({"search": 3}, {"accuracy.png"})]
)
def test_what_was_chosen_has_no_place_on_the_axis(
    of_the_search: dict[str, int], drawn: set[str], tmp_path: Path
) -> None:
    given = summary(100, {"lelp": (0.7, ""), "lelp:num_subclasses=auto": (0.8, "none")}, num_subclasses=[8, 32])
    given["methods"]["lelp:num_subclasses=auto"]["settings"].update(of_the_search)
    plot_comparison({"all rows": given}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == drawn


@pytest.mark.filterwarnings("error")  # matplotlib's, that axes have no room left
def test_the_methods_settings_leave_room_for_the_axis(tmp_path: Path) -> None:
    long = "lelp:student_head=auxiliary,num_subclasses=auto,temperature=auto,subclass_temperature=auto"
    plot_comparison({"all rows": summary(100, {"kd": (0.7, ""), long: (0.8, "none")})}, tmp_path)
    assert picture(tmp_path / "accuracy.png").size > 0


def test_names_from_the_data_are_no_formulas(tmp_path: Path) -> None:
    # A dollar starts a formula for matplotlib, and a legend leaves out what begins with an underscore.
    names = [r"$\frac{", "costs $5 or $10", "_other", "a\nb\x07"]
    result = {"counts": [[1, 2, 3, 4], [4, 3, 2, 1]], "adjusted_mutual_information": 0.5}
    plot_groups({"groups": names, "classes": {r"$\nothing$": result, "_": result}}, tmp_path / "groups.png")
    assert (tmp_path / "groups.png").stat().st_size > 1000
