"""How the variance of a class is spread over its directions, in the main tasks.

    python -m benchmarks.evidence.spectra

It shows what `whitening` is for: where one direction holds nearly all, rotation makes every subclass of that one.
"""

import datasets

from benchmarks.evidence.parts import IMAGES, LOOKALIKES, TEXTS
from hf_lelp import ClassProjections
from hf_lelp.markdown import markdown_table

SHARES = (0.5, 0.9, 0.99)


def main() -> None:
    """Fit every direction of each task's two classes, and print both classes' figures."""
    datasets.disable_progress_bars()
    body = []
    for name, load in {**IMAGES, **LOOKALIKES, **TEXTS}.items():
        task = load()
        fitted = ClassProjections.fit(task.train, task.head, task.head.weight.shape[1], at_least=1)
        variance = fitted.variance.double()
        share = variance.cumsum(1) / variance.sum(1, keepdim=True)
        counts = [(share < enough).sum(1) + 1 for enough in SHARES]
        cells = [" / ".join(f"{100 * first:.0f}%" for first in share[:, 0])]
        cells += [" / ".join(map(str, of_classes.tolist())) for of_classes in counts]
        body.append([name, str(fitted.num_directions), *cells])
    header = ["task", "directions", "variance along the first", *(f"directions for {share:.0%}" for share in SHARES)]
    print(markdown_table(header, body))


if __name__ == "__main__":
    main()
