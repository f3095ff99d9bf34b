"""Draw the site's two figures of boxes and arrows: the method, and how data flows through the package."""

from pathlib import Path

from matplotlib.figure import Figure

Box = tuple[str, float, float]  # text, and its centre: columns to the right, rows down

METHOD: tuple[list[Box], list[tuple[int, int]]] = (
    [
        ("training row", 0, 0.5),
        ("teacher, run once", 1, 0.5),
        ("logits z\n(scores of the classes)", 2, 0),
        ("embedding h\n(input of the final layer)", 2, 1),
        ("class probabilities\nsoftmax(z / τ)", 3, 0),
        ("scores along S directions\nof each class", 3, 1),
        ("targets: S·C probabilities", 4, 0.5),
        ("student: S·C outputs,\nC class logits in use", 5, 0.5),
    ],
    [(0, 1), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (6, 7)],
)
FLOW: tuple[list[Box], list[tuple[int, int]]] = (
    [
        ("data/\nrows, labels, inputs", 0, 0),
        ("transfer/\nmore rows", 0, 1),
        ("teacher/\nlogits, embeddings", 1, 0),
        ("storage/\nshards, checksums", 1, 1),
        ("projections/\ndirections, scores", 2, 0),
        ("training/\ntargets, settings", 3, 0),
        ("trainer, losses\nLELPTrainer", 4, 0),
        ("student/\nheads, card", 5, 0),
        ("saved/, export/,\nexplore/, compare/", 5, 1),
    ],
    [(0, 2), (1, 2), (2, 3), (2, 4), (4, 5), (5, 6), (6, 7), (7, 8)],
)


def draw(folder: Path) -> None:
    """Write method.svg and flow.svg."""
    for name, (boxes, arrows) in {"method": METHOD, "flow": FLOW}.items():
        figure = Figure(figsize=(13, 2.6), layout="constrained")
        panel = figure.subplots()
        for text, x, y in boxes:
            panel.text(x, -y, text, ha="center", va="center", fontsize=10, bbox={"boxstyle": "round", "fc": "#e8f1fa"})
        for start, end in arrows:
            points = [(boxes[index][1], -boxes[index][2]) for index in (end, start)]
            arrow = {"arrowstyle": "->", "shrinkA": 48, "shrinkB": 48, "color": "0.4"}
            if points[0][0] == points[1][0]:
                arrow |= {"shrinkA": 22, "shrinkB": 22}
            panel.annotate("", *points, arrowprops=arrow)
        panel.set(xlim=(-0.6, 5.6), ylim=(-1.4, 0.4))
        panel.axis("off")
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
