"""Bad data through the whole of LELPTrainer: a correct run, or an error of the library's own before any training step.

    python -m benchmarks.reliability.bad_data                  # all; writes benchmarks/results/bad_data.json
    python -m benchmarks.reliability.bad_data --only images --examples 5

Hypothesis draws datasets of many kinds (labels, columns, texts, embeddings, images), and with each what must come of
it. A run is *correct* if no row is lost, the student learns on the labels that were meant, the teacher's columns are
finite, and so are loss and predictions after a step. It is *refused* if constructing the trainer ends in one of the
library's own `raise` statements, with the words that the case asks for. Anything else ends the campaign, and hypothesis
says the smallest dataset for it.
"""

import argparse
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import transformers
from datasets import disable_progress_bars
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.places import RESULTS
from benchmarks.reliability.bad_data_case import CORRECT, REFUSED, Case, outcome
from benchmarks.reliability.bad_data_inputs import bad_texts, embeddings, good_texts, images, imbalance
from benchmarks.reliability.bad_data_labels import (
    BAD_LABELS,
    BAD_LOGITS,
    bad_labels,
    good_labels,
    odd_columns,
    our_columns,
)
from benchmarks.reliability.coverage import quiet
from hf_lelp.storage.files import write_atomically

RESULT = RESULTS / "bad_data.json"


def of_each(strategy: Callable[[str], st.SearchStrategy[Case]], names: Iterable[str]) -> dict[str, Any]:
    return {name: strategy(name) for name in names}


KINDS: dict[str, dict[str, st.SearchStrategy[Case]]] = {
    "labels": of_each(good_labels, ["integer", "float", "boolean", "text", "ClassLabel"])
    | of_each(bad_labels, [*(name for name in BAD_LABELS if name != "text"), "one class", "one class of two names"])
    | {"unknown text": bad_labels("text")},
    "columns": of_each(
        our_columns,
        [*BAD_LOGITS, "whole numbers", "embedding", "projections", "mark", "tokens", "labels"],
    )
    | {"others": odd_columns()},
    "texts": {"any": good_texts()} | of_each(bad_texts, ["one missing", "all missing", "number", "list", "bytes"]),
    "embeddings": of_each(embeddings, ["few directions", "no variance", "few examples", "scale", "mean", "not finite"])
    | {"imbalance": imbalance()},
    "images": of_each(images, ["cut", "changed", "empty", "text", "missing", "no file", "deep"]),
}


def campaign(strategy: st.SearchStrategy[Case], examples: int) -> Counter[tuple[str, str]]:
    """Run so many cases; how many came to what, by name and outcome."""
    counts: Counter[tuple[str, str]] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def run(case: Case) -> None:
        counts[case.name, outcome(case)] += 1

    run()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=25, help="datasets of each kind, at most")
    parser.add_argument("--only", choices=KINDS, help="this group alone; writes nothing")
    arguments = parser.parse_args()
    silence()
    results: dict[str, dict[str, dict[str, int]]] = {}
    for group in [arguments.only] if arguments.only else KINDS:
        for kind, strategy in KINDS[group].items():
            start = time.monotonic()
            counts = campaign(strategy, arguments.examples)
            for (name, result), count in sorted(counts.items()):
                results.setdefault(group, {}).setdefault(name, {})[result] = count
            print(f"{group}, {kind}: {sum(counts.values())} datasets, {time.monotonic() - start:.0f} s", flush=True)
    total = {
        result: sum(n.get(result, 0) for k in results.values() for n in k.values()) for result in (CORRECT, REFUSED)
    }
    print(json.dumps(total))
    if not arguments.only:
        content = json.dumps({"total": total, "datasets": results}, indent=1) + "\n"
        write_atomically(RESULT, lambda path: path.write_text(content))


def silence() -> None:
    os.environ["TQDM_DISABLE"] = "1"
    quiet()
    disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    main()
