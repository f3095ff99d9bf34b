"""The pure parts of the benchmark suite: no downloads, tiny sizes."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import set_seed

from benchmarks.evidence.suite import models, store
from benchmarks.evidence.suite.damage import Damage, words_teacher
from benchmarks.evidence.suite.debian import package_rows
from benchmarks.evidence.suite.image_tasks import _image_dataset
from benchmarks.evidence.suite.image_teacher import image_teacher, mirrored
from benchmarks.evidence.suite.images import Images, balanced_labels, normalised, pairs
from benchmarks.evidence.suite.store import Part, assemble, kept
from benchmarks.evidence.suite.tasks import TASKS, summary, unit_embeddings
from benchmarks.evidence.suite.text_teacher import _hide_labels
from benchmarks.evidence.suite.texts import (
    debian_corpus,
    labels_of,
    parse_table,
    table_corpus,
    vader_corpus,
    wordnet_corpus,
)
from examples.vader import Snippet
from hf_lelp.classifiers import find_heads
from hf_lelp.student.heads import place_student_head

NEWSGROUPS = [
    "alt.atheism",
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
    "soc.religion.christian",
    "talk.politics.guns",
    "talk.politics.mideast",
    "talk.politics.misc",
    "talk.religion.misc",
]


def coloured(rows: int = 40, classes: int = 4, side: int = 8) -> Images:
    """Images whose every pixel is their class."""
    of = np.arange(rows) % classes
    return Images(np.broadcast_to(of[:, None, None], (rows, side, side)).astype(np.uint8), of)


class TestImages:
    def test_a_pair_s_class_is_that_of_its_two_sides(self) -> None:
        made = pairs(coloured(), classes=3, rows=200, seed=0)
        assert made.pixels.shape == (200, 8, 16)
        left, right = made.pixels[:, 0, 0], made.pixels[:, 0, -1]
        np.testing.assert_array_equal(made.classes, 3 * left.astype(int) + right)
        assert set(made.classes) == set(range(9))

    def test_pairs_are_the_same_for_a_seed_and_others_for_another(self) -> None:
        first, again, other = (pairs(coloured(), 3, 50, seed).classes for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    @pytest.mark.parametrize(("classes", "ones"), [(36, 18), (100, 50), (9, 4)])
    def test_half_of_the_fine_classes_have_each_label(self, classes: int, ones: int) -> None:
        labels = balanced_labels(classes, seed=0)
        assert labels.sum() == ones
        assert len(labels) == classes
        assert (np.diff(labels) == 0).any()  # not simply by turns

    def test_pixels_become_channels_of_float32(self) -> None:
        pixels = normalised(np.full((2, 4, 4), 255, dtype=np.uint8))
        assert pixels.shape == (2, 1, 4, 4)
        assert pixels.dtype == np.float32
        assert pixels[0, 0, 0, 0] == pytest.approx((1 - 0.2860) / 0.3530)

    def test_each_side_is_mirrored_on_its_own(self) -> None:
        torch.manual_seed(0)
        image = torch.arange(4.0).expand(64, 1, 1, 4)
        seen = {tuple(row.flatten().tolist()) for row in mirrored(image, parts=2)}
        assert seen == {(0, 1, 2, 3), (1, 0, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2)}


class TestTexts:
    def test_a_table_has_three_lines_of_header(self) -> None:
        content = "Category\tText\nd\tstring\nclass\t\n\nsci.med\ta text\nsci.space\tanother\tone\n"
        assert parse_table(content) == [("sci.med", "a text"), ("sci.space", "another\tone")]

    def test_no_test_text_is_in_train(self) -> None:
        corpus = table_corpus([("a", "one"), ("b", "two")], [("a", "two"), ("b", "three")], by_size=False)
        assert corpus.test.texts == ["three"]
        assert corpus.test.classes.tolist() == [1]

    def test_classes_are_numbered_by_name_or_by_size(self) -> None:
        train = [("b", "1"), ("b", "2"), ("a", "3")]
        assert table_corpus(train, [], by_size=False).names == ["a", "b"]
        assert table_corpus(train, [], by_size=True).names == ["b", "a"]

    def test_a_fine_class_of_vader_is_a_domain_and_a_side(self) -> None:
        corpus = vader_corpus([Snippet("nyt", "1", "good", "positive"), Snippet("movie", "2", "bad", "negative")], [])
        assert len(corpus.names) == 8
        assert [corpus.names[index] for index in corpus.train.classes] == ["nyt positive", "movie negative"]
        assert labels_of(corpus.names, "sentiment")[corpus.train.classes].tolist() == [1, 0]

    def test_glosses_of_the_same_words_are_one_and_a_tenth_is_the_test(self) -> None:
        nouns = "".join(f'0000{i} 05 n 01 word 0 000 | an animal of kind{i}; "seen once"  \n' for i in range(38))
        verbs = '00100 38 v 01 go 0 000 | move along  \n00101 38 v 01 run 0 000 | Along, move (along); "go"  \n'
        corpus = wordnet_corpus([f"  1 a licence | of the file\n{nouns}", f"{verbs}00102 38 v 01 act 0 000 | act  "])
        assert corpus.names == ["file 05", "file 38"] and [len(part.texts) for part in corpus[:2]] == [36, 4]
        texts = [*corpus.train.texts, *corpus.test.texts]
        assert sorted(texts) == sorted([f"an animal of kind{i}" for i in range(38)] + ["act", "move along"])
        assert [*corpus.train.classes, *corpus.test.classes].count(1) == 2

    def test_what_apt_says_of_packages_becomes_rows(self) -> None:
        known = (
            "Package: 0ad\nDepends: libc6 (>= 2)\nDescription: A game\nTag: game::old,\n use::a: b\nSection: games\n\n"
            "Package: lib0\nSource: 0ad (1.2)\nDescription: Its\tlibrary \nSection: contrib/libs\n\n"
            "Package: bare\nSection: games\n"
        )
        assert list(package_rows(known)) == [("0ad", "games", "A game"), ("0ad", "libs", "Its library")]

    def test_packages_of_a_source_stay_together_and_rare_sections_go(self) -> None:
        rows = [(f"source{i}", f"section{part}", f"of{i} part{part}") for i in range(40) for part in range(2)]
        rows += [("other", "section0", "part0 of0"), ("rare", "section2", "one of its section")]
        corpus = debian_corpus(rows, fewest=40)
        assert corpus.names == ["section0", "section1"] and [len(part.texts) for part in corpus[:2]] == [72, 8]
        sources = [{text.split()[0] for text in part.texts} for part in corpus[:2]]
        assert not sources[0] & sources[1] and "part0 of0" not in {*corpus.train.texts, *corpus.test.texts}

    @pytest.mark.parametrize(
        ("kind", "counts"),
        [
            ("mod 2", [10, 10]),
            ("mod 5", [4] * 5),
            ("fine", [1] * 20),
            ("comp_sci", [11, 9]),
            ("superclass", [5, 4, 4, 3, 3, 1]),
        ],
    )
    def test_labels_of_newsgroups(self, kind: str, counts: list[int]) -> None:
        assert np.bincount(labels_of(NEWSGROUPS, kind)).tolist() == counts

    def test_labels_of_no_known_kind(self) -> None:
        with pytest.raises(ValueError, match="No labels 'odd'"):
            labels_of(NEWSGROUPS, "odd")

    def test_as_many_labels_are_left_of_each_class(self) -> None:
        train = Dataset.from_dict({"text": list("abcdefgh"), "labels": [0, 0, 0, 0, 0, 1, 1, 1]})
        hidden = np.array(_hide_labels(train, labelled=4, seed=0)["labels"])
        assert np.unique(hidden, return_counts=True)[1].tolist() == [4, 2, 2]
        np.testing.assert_array_equal(hidden[hidden >= 0], np.array(train["labels"])[hidden >= 0])


class TestModels:
    @pytest.mark.parametrize(
        ("make", "inputs", "parameters"),
        [
            (partial(models.resnet, "tiny"), {"pixel_values": torch.randn(3, 1, 28, 56)}, 5166),
            (partial(models.resnet, "small"), {"pixel_values": torch.randn(3, 1, 28, 56)}, 19866),
            (partial(models.embedding_mlp, 2), {"pixel_values": torch.randn(3, 384).view(3, 6, 8, 8)}, None),
            (partial(models.small_bert, 2, 50, 0), {"input_ids": torch.tensor([[1, 2, 3]])}, None),
        ],
    )
    def test_students_take_both_heads(self, make: partial, inputs: dict, parameters: int | None) -> None:
        for kind in ("subclass", "auxiliary"):
            set_seed(0)
            model = pickle.loads(pickle.dumps(make))()
            assert parameters in (None, model.num_parameters())
            assert len(find_heads(model, 2)) == 1
            place_student_head(model, 4, kind)
            logits = model.eval()(**inputs).logits
            assert logits.shape == (len(next(iter(inputs.values()))), 2)

    def test_weights_follow_the_seed(self) -> None:
        first, again, other = (
            (set_seed(seed), next(models.embedding_mlp(2, hidden=8).parameters()))[1] for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_the_mlp_depends_on_all_of_the_embedding(self) -> None:
        set_seed(0)
        model = models.embedding_mlp(3, hidden=8).eval()
        embedding = torch.randn(1, 384, requires_grad=True)
        model(pixel_values=embedding.view(1, *models.EMBEDDING_SHAPE)).logits[0, 0].backward()
        assert (embedding.grad != 0).all()


@pytest.fixture(scope="module")
def parts() -> tuple[Part, Part]:
    """A tiny corpus of images and a teacher of it."""
    corpus = Part(_image_dataset(coloured(64, side=16)), _image_dataset(coloured(20, side=16)))
    return corpus, image_teacher(corpus.train, corpus.evaluation, np.array([0, 1, 1, 0]), parts=1, epochs=1)


class TestStore:
    def test_a_part_is_made_once(self, tmp_path, monkeypatch, parts) -> None:
        monkeypatch.setattr(store, "CACHE", tmp_path)
        made = []

        def make() -> Part:
            made.append(1)
            return parts[1]

        first, second = kept("teachers/one", make), kept("teachers/one", make)
        assert len(made) == 1
        assert second.report == first.report == parts[1].report
        assert torch.equal(second.head.weight, parts[1].head.weight)
        assert second.head.fingerprint == parts[1].head.fingerprint
        assert second.train[:] == parts[1].train[:]
        assert [name for name, _ in store.reports()] == ["one"]

    def test_a_failed_part_leaves_nothing(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(store, "CACHE", tmp_path)
        with pytest.raises(RuntimeError):
            kept("corpora/one", lambda: (_ for _ in ()).throw(RuntimeError))
        assert not (tmp_path / "corpora/one").exists()


class TestTask:
    def test_columns_of_a_task(self, parts) -> None:
        task = assemble(*parts, ["pixel_values"], student=partial(models.resnet, "tiny"), settings={})
        assert task.train.column_names == [
            "pixel_values", "fine_label", "labels", "teacher_logits", "teacher_embedding"
        ]  # fmt: skip
        assert task.evaluation.column_names == ["pixel_values", "labels", "teacher_logits"]
        rows = task.train[:]
        assert rows["pixel_values"].dtype == rows["teacher_embedding"].dtype == np.float32
        np.testing.assert_array_equal(rows["labels"], np.array([0, 1, 1, 0])[rows["fine_label"]])
        rebuilt = rows["teacher_embedding"] @ task.head.weight.numpy().T + task.head.bias.numpy()
        np.testing.assert_allclose(rebuilt, rows["teacher_logits"], atol=1e-4)

    def test_rows_are_chosen_by_seed_and_keep_their_columns_together(self, parts) -> None:
        first, again, other = (
            assemble(*parts, ["pixel_values"], rows=16, seed=seed, student=partial(models.resnet, "tiny")).train
            for seed in (0, 0, 1)
        )
        assert len(first) == 16
        np.testing.assert_array_equal(first["teacher_logits"][:], again["teacher_logits"][:])
        assert (first["fine_label"][:] != other["fine_label"][:]).any()
        np.testing.assert_array_equal(first["labels"][:], np.array([0, 1, 1, 0])[first["fine_label"][:]])

    def test_embeddings_of_length_1_beside_the_same_other_columns(self, parts) -> None:
        task = assemble(*parts, ["pixel_values"], student=partial(models.resnet, "tiny"), settings={})
        unit = unit_embeddings(lambda: task)
        before, after = task.train[:], unit.train[:]
        assert after.keys() == before.keys()
        assert all(np.array_equal(after[name], before[name]) for name in before if name != "teacher_embedding")
        length = np.linalg.norm(before["teacher_embedding"], axis=1, keepdims=True)
        assert length.std() > 0
        np.testing.assert_allclose(after["teacher_embedding"], before["teacher_embedding"] / length, rtol=1e-5)

    @pytest.mark.parametrize(("stage", "channels"), [(1, 32), (2, 64)])
    def test_the_embedding_of_an_earlier_stage(self, parts, stage: int, channels: int) -> None:
        corpus, teacher = parts
        earlier = image_teacher(corpus.train, corpus.evaluation, np.array([0, 1, 1, 0]), parts=1, epochs=1, stage=stage)
        np.testing.assert_array_equal(earlier.train["teacher_logits"][:], teacher.train["teacher_logits"][:])
        assert np.array(earlier.train["teacher_embedding"][:]).shape == (64, channels)
        assert np.array(teacher.train["teacher_embedding"][:]).shape == (64, 128)

    def test_tasks_can_be_sent_to_another_process_by_name(self) -> None:
        assert pickle.loads(pickle.dumps(TASKS)).keys() == TASKS.keys()

    def test_summary_of_a_teacher(self, parts) -> None:
        line = summary(parts[1].report)
        assert "308,322 parameters" in line
        assert "SVM" not in line
        svm = {"tfidf_svm_test_accuracy": 0.9, "tfidf_svm_test_accuracy_first_words": 0.8}
        assert summary({**parts[1].report, **svm}).endswith("SVM 0.8 on the words that the teacher reads, 0.9 on all")


class TestDamage:
    LABELS = np.random.default_rng(1).permutation(np.arange(1000) % 2)

    def test_so_many_labels_are_wrong_and_the_same_for_a_seed(self) -> None:
        rows, labels = Damage(wrong=0.2).of(self.LABELS)
        np.testing.assert_array_equal(rows, np.arange(1000))
        assert (labels != self.LABELS).sum() == 200 and set(labels) == {0, 1}
        np.testing.assert_array_equal(labels, Damage(wrong=0.2).of(self.LABELS)[1])

    def test_the_second_class_becomes_rare(self) -> None:
        rows, labels = Damage(rarity=100).of(self.LABELS)
        np.testing.assert_array_equal(labels, self.LABELS[rows])
        assert np.bincount(labels).tolist() == [500, 5] and (np.diff(rows) > 0).all()

    def test_a_teacher_of_words_has_a_linear_layer_over_its_embedding(self) -> None:
        fine = np.arange(2000) % 2
        texts = Dataset.from_dict({"text": [f"{['tea', 'coffee'][kind]} number {i}" for i, kind in enumerate(fine)]})
        made = words_teacher(Part(texts, texts.select(range(20))), fine, fine[:20])
        assert made.head is not None and made.report is not None and made.report["test_accuracy"] == 1
        columns = made.train.with_format("numpy")
        logits = columns["teacher_embedding"][:] @ made.head.weight.numpy().T + made.head.bias.numpy()
        np.testing.assert_allclose(columns["teacher_logits"][:], logits, atol=1e-6)
        np.testing.assert_array_equal(logits.argmax(1), fine)
