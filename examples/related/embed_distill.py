"""EmbedDistill: two encoders and a score, distilled with their embeddings (Kim et al. 2023, arXiv 2301.12005).

    python -m examples.related.embed_distill      # with one seed; a number behind it is how many

The teacher embeds a query and a document, and their cosine says whether they belong together. The student learns the
score by plain distillation, and to put queries and documents where the teacher puts them. An asymmetric student keeps
the teacher's embedding of documents, which a search engine has stored anyway, and learns the queries' side alone.

Simplified: the teacher has two encoders too (a cross-encoder gives scores, but no embedding of a query alone); no
generated queries; mean squared distance of unit vectors; pairs one by one, not ranked lists.

The data are the demo's reviews and editorials: do two sentences come from the same one?
"""

import random
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Value
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from examples.frozen_embeddings import SentenceEmbedder, minilm
from examples.related.common import OutputOf, compare, settings, trained_accuracy
from examples.vader import VADER, Snippet, build_demo, fetch, quiet, read_snippets, split_by_document
from hf_lelp import LELPTrainer
from hf_lelp.data.columns import LOGITS_COLUMN

QUERIES, DOCUMENTS = "teacher_query", "teacher_document"
NAMES = ["other", "same"]
LENGTH = 32
LAYERS = 2  # of the teacher's, from the first on, that the student starts from
WEIGHT = 1.0  # of the embeddings' distance; chosen, not searched for
TRAIN_PAIRS, TEST_PAIRS = 2000, 1000


class Tower(nn.Module):
    """Embeds texts: the mean of BERT's last layer, mapped to the teacher's size and scaled to length 1."""

    def __init__(self, config: BertConfig, size: int) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.projection = nn.Linear(config.hidden_size, size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed tokens, (N, L), as (N, size)."""
        last, mask = self.bert(input_ids, attention_mask).last_hidden_state, attention_mask.unsqueeze(-1)
        return nn.functional.normalize(self.projection((last * mask).sum(1) / mask.sum(1)), dim=-1)


class DualEncoder(BertPreTrainedModel):
    """Classifies a pair by the cosine of its two embeddings. One tower makes both, or the document's is given.

    Args:
        config: of the tower, with `embedding_size`, the teacher's.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.tower = Tower(config, int(config.embedding_size))
        self.classifier = nn.Linear(1, int(config.num_labels or 0))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        document_ids: Tensor | None = None,
        document_mask: Tensor | None = None,
        document_embedding: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Map queries, (N, L), and documents, as tokens or embedded, to logits, (N, C)."""
        if document_embedding is not None:
            query, document = self.tower(input_ids, attention_mask), document_embedding
        else:
            assert document_ids is not None and document_mask is not None
            both = torch.cat([input_ids, document_ids]), torch.cat([attention_mask, document_mask])
            query, document = self.tower(*both).chunk(2)
        return SequenceClassifierOutput(logits=self.classifier((query * document).sum(-1, keepdim=True)))


class DualTeacher:
    """Adds the columns of a sentence model to pairs in `dataset.map(..., batched=True)`.

    Args:
        embed: from n texts to embeddings, (n, D).
        pairs: labelled, to fit the logits that a cosine stands for.
    """

    def __init__(self, embed: Any, pairs: Dataset) -> None:
        self.embed = embed
        query, document = (self.unit(pairs[name]) for name in ("query", "document"))
        self.scale = LogisticRegression(C=1e3).fit((query * document).sum(-1, keepdims=True), pairs["label"])

    def unit(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Embed texts as vectors of length 1."""
        vectors = np.asarray(self.embed(list(texts)), dtype=np.float32)
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        return unit

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Return the logits of n pairs, (n, 2), and both embeddings, (n, D) each."""
        query, document = self.unit(batch["query"]), self.unit(batch["document"])
        score = self.scale.decision_function((query * document).sum(-1, keepdims=True))
        logits = np.stack([np.zeros_like(score), score], axis=-1).astype(np.float32)
        return {LOGITS_COLUMN: logits, QUERIES: query, DOCUMENTS: document}


class EmbedTrainer(LELPTrainer):
    """Plain distillation of the scores, and the embeddings' distance; rows as `prepared` gives them.

    Args:
        embedding_weight: of the distance.
        **kwargs: arguments of `LELPTrainer`.

    Raises:
        ValueError: if the student's embeddings have another size than the teacher's.
    """

    own_columns = (QUERIES, DOCUMENTS)

    def __init__(self, *, embedding_weight: float = WEIGHT, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        tower: Any = self.model.tower
        self.embedding_weight, self.embedded = embedding_weight, OutputOf(tower)
        theirs, own = len(self.prepared.train[0][QUERIES]), tower.projection.out_features
        if theirs != own:
            raise ValueError(
                f"The teacher's embeddings have {theirs} numbers and the student's {own}: they are compared one by one."
                f" Set embedding_size={theirs}."
            )

    def _loss_columns(self) -> list[str]:
        return [*super()._loss_columns(), *self.own_columns]

    def distillation_losses(self, class_logits: Tensor, other: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Add the squared distance to the teacher's embeddings, of the sides that the student embeds; (N,)."""
        plain = super().distillation_losses(class_logits, other, columns)
        sides = self.embedded().split(len(class_logits))  # the query's, and the document's where it is learned
        targets = (columns[QUERIES], columns[DOCUMENTS])
        distance = sum((own - target).square().sum(-1) for own, target in zip(sides, targets, strict=False))
        return plain + self.embedding_weight * distance


def pairs(snippets: Iterable[Snippet], count: int, seed: int = 0) -> Dataset:
    """Draw pairs of sentences of one domain, half of them from one document: columns query, document and label."""
    generator = random.Random(seed)
    documents: dict[str, dict[str, list[str]]] = {}
    for snippet in snippets:
        documents.setdefault(snippet.domain, {}).setdefault(snippet.document, []).append(snippet.text)
    several = {
        domain: [texts for texts in of_domain.values() if len({*texts}) > 1] for domain, of_domain in documents.items()
    }
    domains = [domain for domain, found in several.items() if len(found) > 1]
    rows = []
    for number in range(count):
        one, other = generator.sample(several[generator.choice(domains)], 2)
        same = number % 2 == 1
        query, document = (
            generator.sample(sorted({*one}), 2) if same else (generator.choice(one), generator.choice(other))
        )
        rows.append({"query": query, "document": document, "label": int(same)})
    features = Features(query=Value("string"), document=Value("string"), label=ClassLabel(names=NAMES))
    return Dataset.from_list(rows, features=features)


def prepared(dataset: Dataset, tokenizer: Any, *, asymmetric: bool, length: int = LENGTH) -> Dataset:
    """Turn pairs with the teacher's columns into a student's inputs.

    Args:
        dataset: of `pairs`, with the columns of a `DualTeacher`.
        tokenizer: of the student.
        asymmetric: give the student the teacher's embedding of the document, not its tokens.
        length: tokens of a text.
    """

    def tokens(texts: list[str]) -> tuple[Any, Any]:
        encoded = tokenizer(texts, truncation=True, max_length=length, padding="max_length")
        return encoded["input_ids"], encoded["attention_mask"]

    def inputs(batch: dict[str, list[Any]]) -> dict[str, Any]:
        made = dict(zip(("input_ids", "attention_mask"), tokens(batch["query"]), strict=True))
        if asymmetric:
            return made | {"document_embedding": batch[DOCUMENTS]}
        return made | dict(zip(("document_ids", "document_mask"), tokens(batch["document"]), strict=True))

    return dataset.map(inputs, batched=True, remove_columns=["query", "document"]).with_format("torch")


def student(bert: BertModel, size: int, teacher: DualTeacher) -> DualEncoder:
    """Make a student of this tower that starts near its teacher: an identity behind it, and its scale."""
    bert.config.embedding_size = size
    model = DualEncoder(bert.config)
    model.tower.bert = bert
    nn.init.eye_(model.tower.projection.weight)
    nn.init.zeros_(model.tower.projection.bias)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[0.0], [teacher.scale.coef_.item()]]))
        model.classifier.bias.copy_(torch.tensor([0.0, teacher.scale.intercept_.item()]))
    return model


@quiet()
def main(seeds: int = 1) -> None:
    """Print accuracies of plain distillation and of both forms of student, on pairs of unseen documents."""
    cache = build_demo()
    snippets = read_snippets(fetch(**VADER, folder=cache / "downloads"))
    train, test = split_by_document(each for each in snippets if each.domain in ("amazon", "nyt"))
    raw_train, raw_test = pairs(train, TRAIN_PAIRS), pairs(test, TEST_PAIRS, seed=1)
    teacher = DualTeacher(SentenceEmbedder(minilm(cache)).transform, raw_train)
    taught, asked = (rows.map(teacher, batched=True) for rows in (raw_train, raw_test))
    answers = np.asarray(asked[:][LOGITS_COLUMN]).argmax(-1)
    print(f"teacher: accuracy {100 * np.mean(answers == np.asarray(asked['label'])):.1f} on {len(asked):,} pairs")
    tokenizer = AutoTokenizer.from_pretrained(minilm(cache))
    # The test rows keep the teacher's document, which an asymmetric student reads, and none of what it learns from.
    asked = asked.remove_columns([LOGITS_COLUMN, QUERIES])

    def run(kind: type[LELPTrainer], asymmetric: bool, seed: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(seed)
            bert = BertModel.from_pretrained(minilm(cache), num_hidden_layers=LAYERS, add_pooling_layer=False)
            bert.embeddings.word_embeddings.requires_grad_(False)  # most of its parameters, and half of the time
            trainer = kind(
                model=student(bert, len(taught[0][QUERIES]), teacher),
                args=settings(folder, seed, num_train_epochs=2, learning_rate=2e-4, per_device_train_batch_size=32),
                train_dataset=prepared(taught, tokenizer, asymmetric=asymmetric),
            )
            return trained_accuracy(trainer, prepared(asked, tokenizer, asymmetric=asymmetric))

    compare(
        {
            "kd": lambda seed: run(LELPTrainer, False, seed),
            "EmbedDistill": lambda seed: run(EmbedTrainer, False, seed),
            "kd, teacher's documents": lambda seed: run(LELPTrainer, True, seed),
            "EmbedDistill, teacher's documents": lambda seed: run(EmbedTrainer, True, seed),
        },
        seeds,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
