"""Ranks texts by a teacher of one output, and by small students of it that are saved with one output again.

    python -m examples.ranking

A pair is the beginnings of two texts of 20 Newsgroups, called query and passage. The passage is relevant if both are of
one group; which groups there are nobody is told. The teacher is MiniLM with one output, fitted to such pairs. A student
has MiniLM's table of token vectors, which stays as it is, and no layers. All students learn from the same pairs: from
the labels alone (direct), by plain distillation (kd) and by LELP (lelp). In the test each query has one relevant
passage among nine others, and a model orders the ten by its one output. The figure is the mean reciprocal rank: 100
where the relevant passage is always first, and 29 by chance.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import label_ranking_average_precision_score
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from examples.frozen_embeddings import minilm
from examples.vader import SILENT, build_demo, quiet
from hf_lelp import LELPConfig, LELPTrainer, Teacher
from hf_lelp.data.encoding import batches
from hf_lelp.making.one_output import SIGMOID, with_one_output
from hf_lelp.student.learning_rate import starting_rate

COLUMNS = ["query", "passage"]
WORDS = 20  # of each text, from its beginning
MAX_LENGTH = 64  # tokens of both
TRAIN_PAIRS, QUERIES, CANDIDATES = 3000, 200, 10
FITTED = 2000  # pairs that the teacher's final layer is fitted to
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {"direct": {"alpha": 1.0}, "kd": {"num_subclasses": 1}, "lelp": {}}


class PairConfig(BertConfig):
    """Sizes of a `PairClassifier`."""

    model_type = "bert_of_pairs"


class PairClassifier(BertPreTrainedModel):
    """A cross-encoder: BERT reads both texts, and a linear layer u · v and |u − v| of their mean token vectors."""

    config_class = PairConfig

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(2 * config.hidden_size, int(config.num_labels or 0))
        self.post_init()

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Map the tokens of both texts, (N, L), to logits, (N, C)."""
        states = self.bert(input_ids, attention_mask).last_hidden_state
        of_texts = torch.stack([(token_type_ids == text) * attention_mask for text in (0, 1)], dim=1)
        u, v = nn.functional.normalize(of_texts.to(states.dtype) @ states, dim=-1).unbind(1)
        size = states.shape[-1]
        return SequenceClassifierOutput(logits=self.classifier(torch.cat([u * v * size, (u - v).abs() * size**0.5], 1)))


# So it is loaded, and named on its card, like any model of transformers.
AutoConfig.register(PairConfig.model_type, PairConfig)
AutoModelForSequenceClassification.register(PairConfig, PairClassifier)


def pairs(texts: list[str], groups: NDArray[np.int64], queries: int, relevant: NDArray[np.bool_]) -> Dataset:
    """Draw queries and passages of them, one for each of `relevant`: whether it is of the query's group."""
    rng = np.random.default_rng(0)
    cut = [" ".join(text.split()[:WORDS]) for text in texts]
    rows: list[dict[str, Any]] = []
    for query in rng.choice(len(texts), queries, replace=False):
        same, others = groups == groups[query], np.arange(len(texts)) != query
        for wanted in relevant:
            passage = rng.choice(np.flatnonzero(same & others if wanted else ~same))
            rows.append({"query": cut[query], "passage": cut[passage], "label": int(wanted)})
    return Dataset.from_list(rows).cast_column("label", ClassLabel(names=["other group", "same group"]))


@torch.no_grad()
def make_teacher(base: Path, tokenizer: PreTrainedTokenizerBase, train: Dataset) -> Teacher:
    """Give MiniLM one output by logistic regression on the labels of some pairs; its body stays as it is."""
    model = PairClassifier.from_pretrained(base, num_labels=1)
    model.config.sentence_transformers = {"activation_fn": SIGMOID}  # as a CrossEncoder says what its output is
    settings: dict[str, Any] = {"input_columns": COLUMNS, "max_length": MAX_LENGTH}
    embedding = Teacher(model, tokenizer, **settings)(train[:FITTED])["teacher_embedding"]
    fitted = LogisticRegression(C=1e-2, max_iter=1000).fit(embedding, train["label"][:FITTED])
    model.classifier.weight.copy_(torch.from_numpy(fitted.coef_))
    model.classifier.bias.copy_(torch.from_numpy(fitted.intercept_))
    return Teacher(model, tokenizer, **settings)


def train_student(
    method: str, seed: int, base: Path, teacher: Teacher, train: Dataset, folder: Path
) -> PreTrainedModel:
    """Train a student without layers; return it as it is loaded again, with one output."""
    config = LELPConfig(
        output_dir=str(folder),
        student_head="auxiliary",  # the other form needs a class of transformers itself
        input_columns=COLUMNS,
        max_length=MAX_LENGTH,
        num_train_epochs=5,
        per_device_train_batch_size=32,
        warmup_steps=0.1,  # below 1: a share of all steps
        seed=seed,
        **SILENT,
        use_cpu=True,
        **METHODS[method],
    )
    set_seed(seed)
    model = PairClassifier.from_pretrained(base, num_labels=2, num_hidden_layers=0)
    model.bert.embeddings.word_embeddings.requires_grad_(False)
    config.learning_rate = starting_rate(model)
    trainer = LELPTrainer(
        model, config, train_dataset=train, teacher_model=teacher, processing_class=teacher.processing_class
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()
    saved = AutoModelForSequenceClassification.from_pretrained(folder)
    with_one_output(saved).save_pretrained(folder / "one_output")
    return AutoModelForSequenceClassification.from_pretrained(folder / "one_output").eval()


@torch.inference_mode()
def scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, test: Dataset) -> NDArray[np.float32]:
    """Return a model's one output for each pair, (N,)."""
    found = np.empty(len(test), np.float32)
    for places, inputs in batches(tokenizer, test[:], COLUMNS, MAX_LENGTH, 32):
        found[places] = model(**inputs).logits[:, 0].numpy()
    return found


def reciprocal_rank(found: NDArray[Any], test: Dataset) -> float:
    """Return the mean reciprocal rank of the relevant passage of each query, in percent."""
    relevant = np.array(test["label"]).reshape(-1, CANDIDATES)
    # With one relevant passage a query, this is it.
    return 100 * float(label_ranking_average_precision_score(relevant, found.reshape(relevant.shape)))


def read_pairs() -> tuple[Dataset, Dataset]:
    """Return pairs of training texts, and queries with their candidates of test texts."""
    from benchmarks.evidence.suite.store import DOWNLOADS
    from benchmarks.evidence.suite.texts import read_corpus

    corpus = read_corpus("newsgroups", DOWNLOADS)
    train = pairs(*corpus.train, TRAIN_PAIRS // 2, np.array([True, False]))
    return train, pairs(*corpus.test, QUERIES, np.arange(CANDIDATES) == 0)


@quiet()
def main() -> None:
    """Print each model's mean reciprocal rank; of students the mean and the range over the seeds."""
    torch.set_num_threads(1)
    base, (train, test) = minilm(build_demo()), read_pairs()
    tokenizer = AutoTokenizer.from_pretrained(base)
    weights = TfidfVectorizer(sublinear_tf=True).fit([*train["query"], *train["passage"]])
    in_common = np.multiply(*(weights.transform(test[name]).toarray() for name in COLUMNS)).sum(1)
    print(f"words in common (TF-IDF): {reciprocal_rank(in_common, test):.1f}")
    teacher = make_teacher(base, tokenizer, train)
    print(f"teacher: {reciprocal_rank(scores(teacher.model, tokenizer, test), test):.1f}", flush=True)
    for method in METHODS:
        found = []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                student = train_student(method, seed, base, teacher, train, Path(folder))
            found.append(reciprocal_rank(scores(student, tokenizer, test), test))
        print(f"{method}: {np.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})", flush=True)


if __name__ == "__main__":
    main()
