"""Writes the page: one HTML file that needs no network, with the report's data inside."""

import base64
import hashlib
import io
from typing import Any

from hf_lelp import __version__
from hf_lelp.explore.report import listed_rows, mapped_rows
from hf_lelp.markdown import TEMPLATES, printable, template

MOST_BYTES = 5_000_000
THUMBNAIL = 56  # pixels
OPEN_CARDS = 24  # so many subclasses are shown open


def page_of(report: dict[str, Any], images: Any = None, *, title: str, json_name: str, most: int = MOST_BYTES) -> str:
    """Render the page of a report.

    Text from data is escaped where it is put into HTML, and goes to the script as JSON without `<`. A policy in the
    page's head allows its own script alone, and no address.

    Args:
        report: see `report_of`.
        images: of the rows, by number, where they are images; see `Explored`.
        title: of the page.
        json_name: of the file with the same report.
        most: bytes of the page. Where it would be larger, the map shows fewer rows.
    """
    while True:
        text = _render(report, images, title, json_name)
        if len(text.encode()) <= most or max(len(panel["row"]) for panel in report["map"]) <= 1:
            return text
        report = _thinned(report)


def _render(report: dict[str, Any], images: Any, title: str, json_name: str) -> str:
    from jinja2 import Environment, FileSystemLoader  # slow to import

    style, script = template("explore.css"), template("explore.js")
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    thumbnails = {} if images is None else {row: thumbnail(images[int(row)]) for row in report["rows"]}
    names = ("classes", "models", "against", "groups", "map", "rows")
    data = {name: report[name] for name in names}
    data |= {"num_subclasses": report["summary"]["num_subclasses"], "thumbnails": thumbnails}
    points = sum(len(panel["row"]) for panel in report["map"])
    measured = [
        one["probe"]
        for one in report["summary"]["students"].values()
        if one["probe"] and one["probe"]["commonest"] is not None
    ]
    tables = [("By subclass", report["slices"], "subclass")]
    tables += [("By group, which no model saw", report["group_slices"], "group")] if report["group_slices"] else []
    worse = [model["worse"] for one in (*report["slices"], *report["group_slices"]) for model in one["models"].values()]
    return environment.get_template("explore.html").render(
        report=report,
        data=data,
        thumbnails=thumbnails,
        title=printable(title),
        json_name=json_name,
        version=__version__,
        style=style,
        script=script,
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
        notes=notes_of(report),
        chance=measured[0]["commonest"] if measured else None,
        points=points,
        sampled=points < report["summary"]["rows"],
        slice_tables=tables,
        found=any(worse),
        opened=len(report["subclasses"]) <= OPEN_CARDS,
    )


def notes_of(report: dict[str, Any]) -> list[str]:
    """Say in a sentence each what the page lacks, and why."""
    summary, notes = report["summary"], []
    if not summary["students"]:
        notes.append("No student is shown: the page compares teacher and labels.")
    if report["against"] == "teacher":
        notes.append("No row has a label: models are compared with the teacher's answers.")
    if summary["num_subclasses"] == 1:
        notes.append("Each class has one subclass (num_subclasses=1): a slice is a class.")
    if any(one["variance_held"] is None for one in summary["classes"]):
        notes.append("An earlier version fitted the projections, so the variance that they hold is not known.")
    if not any("text" in row for row in report["rows"].values()):
        notes.append("The rows have no text: there are no words to set subclasses apart.")
    return notes


def _policy_hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def thumbnail(image: Any) -> str:
    """Return an image of Pillow as a small one, in a data address."""
    small = image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _thinned(report: dict[str, Any]) -> dict[str, Any]:
    """Leave out every other row of the map."""
    panels = [{**panel, **{name: panel[name][::2] for name in ("row", "x", "y")}} for panel in report["map"]]
    named = listed_rows(report) | mapped_rows(panels)
    return {**report, "map": panels, "rows": {row: one for row, one in report["rows"].items() if int(row) in named}}
