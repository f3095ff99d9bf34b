"""What the evidence is made of: the methods by the names that the tables give them, the tasks, and the parts.

A part is a table or more: its methods on its tasks. The suite is what the evidence rests on, the trials led to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.evidence.suite.damage import Damage, damaged_newsgroups, damaged_pairs
from benchmarks.evidence.suite.tasks import (
    debian,
    fashion_lookalikes,
    fashion_pairs,
    newsgroups,
    reuters,
    unit_embeddings,
    vader,
    wordnet,
)
from hf_lelp.compare.task import Task

# The settings that the variants share; "auto" chooses among others.
HEAD = "student_head=auxiliary"
FORM = f"{HEAD},temperature=4,subclass_temperature=0.5"
BASE = f"{FORM},num_subclasses=8"
MANY = f"{FORM},num_subclasses=32"
RECOMMENDED = f"{MANY},whitening=0.5"
AUTO = "num_subclasses=auto,temperature=auto,subclass_temperature=auto"
KD_1, KD_4, KD_AUTO = "KD, τ = 1", "KD, τ = 4", "KD, best τ"
LELP_32, LELP_WHITENED = LELP = "LELP, S = 32", "LELP, S = 32, γ = 0.5"
LELP_AUTO = "LELP, auto"
PAPERS = "LELP, paper's head, τ = 1, β = 1, S = 8"

CORE = {
    "labels alone": "direct",
    KD_1: "kd",
    KD_4: "kd:temperature=4",
    KD_AUTO: "kd:temperature=auto",
    LELP_AUTO: f"lelp:{HEAD},{AUTO}",
    "LELP, base": f"lelp:{BASE}",
    LELP_32: f"lelp:{MANY}",
    LELP_WHITENED: f"lelp:{RECOMMENDED}",
    PAPERS: "lelp:student_head=subclass,subclass_temperature=1,num_subclasses=8",
    "oracle": f"oracle:{HEAD},temperature=4",
}


def core(*names: str) -> dict[str, str]:
    """Those of the methods that most parts share."""
    return {name: CORE[name] for name in names}


def lighter(*weights: float) -> dict[str, str]:
    """The recommended form with less weight of the subclasses."""
    return {f"{LELP_WHITENED}, weight {w}": f"{CORE[LELP_WHITENED]},subclass_weight={w}" for w in weights}


def longer(epochs: int, *names: str) -> dict[str, str]:
    """Methods with so many epochs."""
    return {f"{name}, {epochs} epochs": f"{CORE[name]},num_train_epochs={epochs}" for name in names}


CONTROLS = {
    "LELP, random directions": f"random_directions:{BASE}",
    "random partition": f"random_partition:{HEAD},temperature=4,num_subclasses=8",
    "K-means": f"kmeans:{HEAD},temperature=4,num_subclasses=8",
    "LELP without null space": f"lelp_no_null_space:{BASE}",
    "LELP without rotation": f"lelp_no_rotation:{BASE}",
}
BASELINES = {
    "embedding MSE": "embedding_mse:temperature=4",
    "VID": "vid:temperature=4",
    "CRD": "crd:temperature=4",
    "RKD": "rkd:temperature=4",
    "FitNet": "fitnet:temperature=4",
    "soft targets, untempered student, τ = 4": "soft_targets:temperature=4",
    "logit regression": "logit_regression",
    "Annealing-KD": "annealing",
    "Comparative KD": "comparative:temperature=4",
}
# Do LELP and CRD add up?
WITH_CRD = {
    **core(KD_4, LELP_WHITENED),
    "CRD": BASELINES["CRD"],
    "LELP, S = 32, γ = 0.5, with CRD": f"lelp_crd:{RECOMMENDED}",
}
# Later methods of compare beside them.
RELATED = {
    **core("labels alone", KD_1),
    **WITH_CRD,
    "SRD": "srd:temperature=4",
    "PKT": "pkt:temperature=4",
    "SP": "sp:temperature=4",
    "Procrustes": "procrustes:temperature=4",
    "DIST, over the batch": "dist:temperature=4",
}


def weighed(name: str, method: str, setting: str = "baseline_weight") -> dict[str, str]:
    """A method as it is, and with a tenth and ten times of its weight."""
    return {name: method, **{f"{name}, weight {w}": f"{method},{setting}={w}" for w in (0.1, 10)}}


# Each method in three forms: its one weight, or what stands in its place. RKD takes six times as long, and is left out.
FAMILIES = {
    "KD": {**core(KD_1, KD_4), "KD, τ = 2": "kd:temperature=2"},
    "LELP, recommended form": weighed(LELP_WHITENED, CORE[LELP_WHITENED], "subclass_weight"),
    "LELP, S and γ": core("LELP, base", *LELP),
    **{
        name: weighed(name, (BASELINES | RELATED)[name])
        for name in (
            *("CRD", "embedding MSE", "VID", "Comparative KD", "SRD", "PKT", "SP", "Procrustes"),
            *("DIST, over the batch", "LELP, S = 32, γ = 0.5, with CRD"),
        )
    },
}
MORE_MAKERS = {
    "agglomerative": f"agglomerative:{HEAD},temperature=4,num_subclasses=8",
    "t-SNE + K-means": f"tsne_kmeans:{HEAD},temperature=4,num_subclasses=8",
}
SETTINGS = {
    **{f"S = {s}": f"lelp:{FORM},num_subclasses={s}" for s in (2, 4, 16, 32)},
    **{f"β = {b}": f"lelp:{HEAD},temperature=4,subclass_temperature={b},num_subclasses=8" for b in (0.25, 1, 2)},
    **{f"weight {w}": f"lelp:{BASE},subclass_weight={w}" for w in (0.25, 4, 16)},
    **{f"τ = {t}": f"lelp:{HEAD},temperature={t},subclass_temperature=0.5,num_subclasses=8" for t in (1, 2)},
    "subclass head, τ = 4": "lelp:student_head=subclass,temperature=4,subclass_temperature=0.5,num_subclasses=8",
    "subclass head, weight 4": (
        "lelp:student_head=subclass,subclass_temperature=0.5,num_subclasses=8,subclass_weight=4"
    ),
}
LABELS = {
    "KD, α = 0.5": "kd:alpha=0.5,temperature=4",
    **{f"{name}, α = 0.5": f"{CORE[name]},alpha=0.5" for name in LELP},
}
KEY = {
    **CORE,
    **{name: CONTROLS[name] for name in ("LELP, random directions", "random partition")},
    "CRD": BASELINES["CRD"],
}
MORE = {
    KD_AUTO: CORE[KD_AUTO],
    "LELP, base": CORE["LELP, base"],
    **{name: CORE[name] for name in LELP},
    **CONTROLS,
    **BASELINES,
    **MORE_MAKERS,
}
RATES = {
    f"{name}, learning rate {rate}": f"{method},learning_rate={rate}"
    for rate in (0.001, 0.003, 0.006, 0.012, 0.024)
    for name, method in ((KD_4, CORE[KD_4]), ("LELP, base", CORE["LELP, base"]))
}
VARIANTS = {
    "shared directions": f"shared_directions:{BASE}",
    **{f"γ = {g}": f"lelp:{BASE},whitening={g}" for g in (0.5, 1)},
    **{
        f"S = {s}, β = {b}, γ = {g}": (
            f"lelp:{HEAD},temperature=4,num_subclasses={s},subclass_temperature={b},whitening={g}"
        )
        for s, b, g in (
            (16, 0.5, 0.5),
            (16, 0.5, 1),
            (32, 0.5, 0.5),
            (32, 0.5, 1),
            (32, 1, 0.5),
            (32, 1, 1),
            (64, 0.5, 0.5),
        )
    },
}
SUBCLASSES = {
    **{
        f"S = {s}, β = {b}": f"lelp:{HEAD},temperature=4,subclass_temperature={b},num_subclasses={s}"
        for s in (8, 32, 64, 128)
        for b in ((0.25, 0.5, 1) if s < 128 else (0.5, 1))
    },
    "random directions, S = 64, β = 0.5": f"random_directions:{FORM},num_subclasses=64",
    **{f"K-means, S = {s}": f"kmeans:{HEAD},temperature=4,num_subclasses={s}" for s in (8, 32)},
    **{name: BASELINES[name] for name in ("CRD", "embedding MSE", "RKD")},
}
EPOCHS = {
    f"{name}, {n} epochs": f"{method},num_train_epochs={n}"
    for n in (2, 4, 8, 16, 32)
    for name, method in (
        (KD_1, f"{CORE[KD_1]}:temperature=1"),
        (KD_4, CORE[KD_4]),
        *((name, CORE[name]) for name in LELP),
    )
}
# What a student that learns its own features needs: less of the subclasses, or more time?
LIGHTER = {**core(KD_4, LELP_WHITENED, PAPERS), **lighter(0.0625, 0.25)}
SHORT = core("labels alone", KD_1, KD_AUTO, LELP_AUTO, *LELP)
# Without a search, where many tasks are to be trained on; the reference is then KD at τ = 4.
FIXED = core("labels alone", KD_4, *LELP, "oracle")
TRANSFORMER = {**FIXED, **core(PAPERS)}

# More rows for the teacher to speak about.
TRANSFER = core(KD_1, KD_4, PAPERS)

Loaders = Mapping[str, Callable[[], Task]]


@dataclass(frozen=True)
class Part:
    """Tasks and methods that make one table.

    Attributes:
        tasks: by name.
        methods: by the name in the table.
        seeds: as many as are run unless asked otherwise.
    """

    tasks: Loaders
    methods: dict[str, str]
    seeds: int

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        return next(name for name in (KD_AUTO, KD_4, KD_1) if name in self.methods)


PAIRS_100 = "pairs, 100 fine classes"
IMAGES: Loaders = {
    PAIRS_100: partial(fashion_pairs, 10, student="small"),
    "pairs, 36 fine classes": partial(fashion_pairs, 6, student="small"),
}
LOOKALIKES: Loaders = {"lookalikes, 10 fine classes": partial(fashion_lookalikes, student="tiny")}
WORDNET = "WordNet glosses, parity"
PARITY, COMP_SCI, VADER = "20 Newsgroups, parity", "20 Newsgroups, comp + sci", "VADER, sentiment"
TEXTS: dict[str, Callable[..., Task]] = {
    PARITY: partial(newsgroups, "parity"),
    COMP_SCI: partial(newsgroups, "comp_sci"),
    VADER: vader,
}


def texts_with(student: str, *names: str) -> Loaders:
    """The text tasks with this kind of student: those of the names, or all."""
    return {name: partial(TEXTS[name], student=student) for name in names or TEXTS}


def both_starts(name: str, task: Callable[..., Task]) -> Loaders:
    """A text task with a BERT of 2 × 128 that is random, and with one whose token vectors start as the teacher's."""
    return {name: partial(task, student="scratch"), f"{name}, token vectors": partial(task, student="new")}


def with_views(name: str, task: Callable[..., Task], *views: int) -> Loaders:
    """A text task as it is, and with so many altered copies of each text to learn from too, in the same steps."""
    return {name: task, **{f"{name}, {count} views": partial(task, views=count) for count in views}}


GLOSSES = (3000, 10_000, 30_000, 104_956)  # training rows; the last are all of WordNet's
ROWS_3000: Loaders = {f"{PARITY}, 3,000 rows": partial(newsgroups, "parity", rows=3000)}
SEVERAL: Loaders = {PAIRS_100: IMAGES[PAIRS_100], **texts_with("mlp")}

ROBUST = {**core("labels alone", KD_4, LELP_WHITENED), "CRD": BASELINES["CRD"]}
DAMAGES = {
    "20% wrong": Damage(wrong=0.2),
    "40% wrong": Damage(wrong=0.4),
    "100 to 1": Damage(rarity=100),
}

# Every kind of task with every kind of student, and the methods that LELP is compared with.
SUITE = {
    "images": Part(IMAGES, KEY, 5),
    "lookalikes": Part(LOOKALIKES, KEY, 3),
    "mlp": Part(texts_with("mlp"), KEY, 5),
    "scratch": Part(texts_with("scratch"), TRANSFORMER, 3),
    # Two parts, for these students are the dear ones: each takes under two hours.
    "pretrained": Part(texts_with("pretrained", PARITY, COMP_SCI), TRANSFORMER, 3),
    "pretrained_vader": Part(texts_with("pretrained", VADER), TRANSFORMER, 3),
    "methods": Part(SEVERAL, MORE, 3),
    "labels": Part(SEVERAL, {**core(KD_4, *LELP), **LABELS}, 3),
    "subclass_distillation": Part(
        {f"pairs, {n**2} fine classes": partial(fashion_pairs, n, student="small", subclasses=n) for n in (10, 6)},
        {
            KD_AUTO: CORE[KD_AUTO],
            "LELP, base": CORE["LELP, base"],
            **{f"Subclass Distillation, τ = {t}": f"subclass_distillation:{HEAD},temperature={t}" for t in (1, 4)},
            "Subclass Distillation, one layer": "subclass_distillation:student_head=subclass",
        },
        3,
    ),
    "hidden": Part(
        {f"{n**2} fine classes": partial(fashion_pairs, n, student="small") for n in (2, 4, 6, 8, 10)}, FIXED, 3
    ),
    "classes": Part(
        {f"{n} classes": partial(fashion_pairs, 10, student="small", num_labels=n) for n in (2, 5, 10, 20, 50)},
        FIXED,
        3,
    ),
    "classes_texts": Part(
        {
            **{f"{n} classes": partial(newsgroups, f"mod {n}") for n in (2, 5)},
            "20 classes": partial(newsgroups, "fine"),
        },
        FIXED,
        5,
    ),
    "rows": Part(
        {f"{n} rows": partial(newsgroups, "parity", rows=n) for n in (300, 1000, 3000, 11293)},
        SHORT,
        5,
    ),
    "few_labels": Part(
        {
            "20 Newsgroups, parity, 1,000 labels": partial(newsgroups, "parity", labelled=1000),
            "VADER, 1,000 labels": partial(vader, labelled=1000),
        },
        SHORT,
        5,
    ),
    "reuters": Part({f"R8 mod {n}": partial(reuters, n) for n in (2, 4, 8)}, SHORT, 5),
    "related": Part(ROWS_3000, RELATED, 3),
    "with_crd": Part(texts_with("mlp", PARITY, VADER), WITH_CRD, 3),
    "robustness": Part(
        {
            f"{PARITY}, right labels": partial(damaged_newsgroups, Damage()),
            **{f"{PARITY}, {what}": partial(damaged_newsgroups, damage) for what, damage in DAMAGES.items()},
        },
        ROBUST,
        3,
    ),
}
# Where the settings of the suite come from, and what was tried where LELP gains little.
TRIALS = {
    "learning_rate": Part({PAIRS_100: IMAGES[PAIRS_100]}, {KD_AUTO: CORE[KD_AUTO], **RATES}, 3),
    "epochs": Part(
        {
            PAIRS_100: IMAGES[PAIRS_100],
            **texts_with("mlp", PARITY),
        },
        {KD_AUTO: CORE[KD_AUTO], **EPOCHS},
        3,
    ),
    "settings": Part(
        SEVERAL,
        {KD_AUTO: CORE[KD_AUTO], "LELP, base": CORE["LELP, base"], **SETTINGS},
        3,
    ),
    "weight": Part(
        {**IMAGES, **LOOKALIKES, **texts_with("mlp")},
        {**core(KD_4, LELP_WHITENED), **lighter(0.5, 0.25)},
        3,
    ),
    "heads": Part(
        SEVERAL,
        {
            **core(KD_4, *LELP, PAPERS),
            **{
                f"paper's head, τ = {t}, β = {b}, S = {s}": (
                    f"lelp:student_head=subclass,temperature={t},subclass_temperature={b},num_subclasses={s}"
                )
                for t, b, s in ((1, 0.5, 8), (1, 0.5, 32), (1, 1, 32), (4, 0.5, 32))
            },
            **{
                f"paper's head, τ = 1, β = {b}, S = {s}, γ = 0.5": (
                    f"lelp:student_head=subclass,subclass_temperature={b},num_subclasses={s},whitening=0.5"
                )
                for b, s in ((0.5, 32), (1, 8))
            },
        },
        3,
    ),
    "variants": Part(
        SEVERAL,
        {KD_AUTO: CORE[KD_AUTO], "LELP, base": CORE["LELP, base"], **VARIANTS},
        3,
    ),
    "subclasses": Part(
        texts_with("mlp", PARITY),
        {KD_AUTO: CORE[KD_AUTO], KD_4: CORE[KD_4], **SUBCLASSES},
        3,
    ),
    # Methods whose weight is searched, for benchmarks.evidence.fairness.
    "weights": Part(
        ROWS_3000,
        {name: method for forms in FAMILIES.values() for name, method in forms.items()},
        3,
    ),
    "embeddings": Part(
        {
            f"{PAIRS_100}, length 1": partial(unit_embeddings, IMAGES[PAIRS_100]),
            **{
                f"{PAIRS_100}, stage {stage} of 3": partial(fashion_pairs, 10, student="small", stage=stage)
                for stage in (1, 2)
            },
            **{f"{name}, length 1": partial(unit_embeddings, task) for name, task in texts_with("mlp").items()},
        },
        core(KD_4, "LELP, base", *LELP),
        3,
    ),
    "teachers": Part(
        {
            **{
                f"{PAIRS_100}, teacher of {n} epochs": partial(fashion_pairs, 10, student="small", teacher_epochs=n)
                for n in (3, 6, 16)
            },
            f"{PAIRS_100}, teacher with dropout": partial(fashion_pairs, 10, student="small", dropout=0.5),
        },
        {**SHORT, "CRD": BASELINES["CRD"], "oracle": CORE["oracle"]},
        3,
    ),
    "scratch_longer": Part(
        texts_with("scratch", PARITY, VADER),
        {
            **LIGHTER,
            **core(LELP_AUTO, "oracle"),
            **longer(6, KD_4, LELP_WHITENED, "oracle"),
            **longer(12, KD_4, LELP_WHITENED, "oracle"),
        },
        1,
    ),
    # Where LELP lost most.
    "pretrained_auto": Part(texts_with("pretrained", VADER), core(KD_4, KD_AUTO, LELP_AUTO), 1),
    "pretrained_lighter": Part(texts_with("pretrained", PARITY, VADER), LIGHTER, 1),
    "pretrained_longer": Part(
        texts_with("pretrained", PARITY), {**core(KD_4, LELP_WHITENED), **longer(6, KD_4, LELP_WHITENED)}, 1
    ),
    # The student of new:2x128 beside one that is random throughout.
    "token_start": Part(
        {
            **both_starts(PARITY, TEXTS[PARITY]),
            **both_starts(f"{PARITY}, 3 windows", partial(TEXTS[PARITY], windows=3)),
            **both_starts(VADER, vader),
        },
        core(KD_1),
        3,
    ),
    "token_start_rows": Part(both_starts(f"{VADER}, 2,000 rows", partial(vader, rows=2000)), core(KD_1), 3),
    "views": Part(
        {
            **with_views(f"{VADER}, 2,000 rows", partial(vader, "new", rows=2000), 4, 8),
            **with_views(f"{PARITY}, 2,000 rows", partial(newsgroups, "parity", student="new", rows=2000), 4),
        },
        core(KD_1, LELP_WHITENED),
        3,
    ),
    # The same with more rows, and on a third task.
    "views_more": Part(
        {
            **with_views(f"{COMP_SCI}, 2,000 rows", partial(newsgroups, "comp_sci", student="new", rows=2000), 4),
            **with_views(f"{VADER}, 5,000 rows", partial(vader, "new", rows=5000), 4),
            **with_views(f"{VADER}, 10,000 rows", partial(vader, "new", rows=10_000), 4),
        },
        core(KD_1),
        3,
    ),
    "views_all": Part(
        {**with_views(VADER, partial(vader, "new"), 4), **with_views(PARITY, partial(newsgroups, "parity", "new"), 4)},
        core(KD_1),
        3,
    ),
    # What is level with LELP where the student reads embeddings: is it worth more where it reads tokens?
    "related_tokens": Part(
        {**texts_with("new", PARITY), f"{VADER}, 2,000 rows": partial(vader, "new", rows=2000)},
        {**core(KD_1), "CRD, τ = 1": "crd:temperature=1", "DIST, over the batch, τ = 1": "dist:temperature=1"},
        3,
    ),
    # Rows are many here, and each is short. The last task has all rows.
    "glosses": Part({f"{n} rows": partial(wordnet, "new", rows=n) for n in GLOSSES}, core(KD_1, LELP_WHITENED), 1),
    "packages": Part(
        {**{f"{n} rows": partial(debian, rows=n) for n in GLOSSES[:3]}, "all rows": debian},
        core(KD_1, LELP_WHITENED),
        3,
    ),
    "glosses_start": Part(
        {
            **both_starts(f"{WORDNET}, 3,000 rows", partial(wordnet, rows=3000)),
            **both_starts(f"{WORDNET}, 10,000 rows", partial(wordnet, rows=10_000)),
        },
        core(KD_1),
        1,
    ),
    "token_start_lelp": Part(texts_with("new", PARITY), core(KD_1, PAPERS, LELP_WHITENED), 3),
    # With right labels these are images of the suite.
    "robustness_images": Part(
        {f"{PAIRS_100}, {what}": partial(damaged_pairs, damage) for what, damage in DAMAGES.items()}, ROBUST, 3
    ),
    "transfer": Part(
        {
            PARITY: partial(newsgroups, "parity", student="scratch"),
            f"{PARITY}, 3 windows": partial(newsgroups, "parity", student="scratch", windows=3),
        },
        TRANSFER,
        3,
    ),
}
PARTS = {**SUITE, **TRIALS}
