"""Pictures of a run; needs matplotlib (`pip install hf-lelp[demo]`)."""

from pathlib import Path
from typing import Any

import numpy as np

from hf_lelp.files import write_atomically


def plot_groups(alignment: dict[str, Any], path: Path) -> None:
    """Draw of what groups each pseudo-subclass consists, a panel for each class, as a PNG.

    Args:
        alignment: result of `report.group_alignment`.
        path: of the picture.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure  # no pyplot: it would look for a screen

    classes: dict[str, Any] = alignment["classes"]
    figure = Figure(figsize=(4.2 * len(classes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for panel, (class_name, result) in zip(panels, classes.items(), strict=True):
        counts = np.array(result["counts"], dtype=float)
        rows = np.vstack([counts, counts.sum(0)])
        shares = 100 * rows / np.maximum(rows.sum(1, keepdims=True), 1)
        names = [*map(str, range(len(counts))), "all"]
        left = np.zeros(len(rows))
        for group, share in zip(alignment["groups"], shares.T, strict=True):
            panel.barh(names, share, left=left, label=group, height=0.8)
            left += share
        score = result["adjusted_mutual_information"]
        panel.set(title=f"{class_name} (mutual information {score:.2f})", xlabel="% of the examples", xlim=(0, 100))
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("pseudo-subclass")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
