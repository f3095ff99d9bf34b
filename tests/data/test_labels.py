"""Every way in which the classes of data and teacher can agree, disagree, or be unknown."""

import re
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from hf_lelp.data.labels import Classes, UnknownClasses, resolve_classes
from hf_lelp.teacher.class_order import check_teacher


def data(labels: list[Any], names: list[str] | int | None = None) -> Dataset:
    """A dataset of labels, as a ClassLabel with names or a number of classes, or as they are."""
    dataset = Dataset.from_dict({"label": labels})
    if names is None:
        return dataset
    feature = ClassLabel(names=names) if isinstance(names, list) else ClassLabel(num_classes=names)
    return dataset.cast_column("label", feature)


def resolve(dataset: Dataset | None, teacher_names: list[str] | None = None, **kwargs: Any) -> Classes:
    if teacher_names is not None:
        kwargs.setdefault("num_teacher_classes", len(teacher_names))
    return resolve_classes(dataset, "label", teacher_names=teacher_names, **kwargs)


class TestWithoutATeacher:
    @pytest.mark.parametrize(
        ("dataset", "expected"),
        [
            (data([0, 1], ["no", "yes"]), Classes(2, ["no", "yes"], None)),
            (data([0, 0], ["no", "yes", "maybe"]), Classes(3, ["no", "yes", "maybe"], None)),
            (data([0, 1], 2), Classes(2, None, None)),
            (data([2, 0, 1, 1]), Classes(3, None, None)),
            (data([2.0, 0.0, 1.0]), Classes(3, None, None)),
            (data([True, False]), Classes(2, None, None)),
            (data(["yes", "no", "yes"]), Classes(2, ["no", "yes"], None)),
            (data(["yes", None, "no"]), Classes(2, ["no", "yes"], None)),
            (data([1, None, -1, -100, 0]), Classes(2, None, None)),
            (data([1.0, float("nan"), 0.0]), Classes(2, None, None)),
        ],
    )
    def test_the_data_tell(self, dataset: Dataset, expected: Classes) -> None:
        assert resolve(dataset) == expected

    @pytest.mark.parametrize(
        "dataset", [None, Dataset.from_dict({"text": ["a"]}), data([None, None]), data([-100, -1])]
    )
    def test_nothing_tells(self, dataset: Dataset | None) -> None:
        with pytest.raises(UnknownClasses, match="'label'"):
            resolve(dataset)

    @pytest.mark.parametrize("labels", [[0, 2], [1, 2], [0, 1, 3, 4], [-2, 0, 1], [5, 6, -100]])
    def test_integers_with_gaps(self, labels: list[int]) -> None:
        shown = ", ".join(str(label) for label in sorted(set(labels) - {-100}))
        with pytest.raises(ValueError, match=f"labels in 'label' are {shown}; .*Renumber"):
            resolve(data(labels))

    @pytest.mark.parametrize(
        ("labels", "shown"),
        [([0.0, 0.5, 1.0], "0.5"), ([[0.1, 0.9], [0.8, 0.2]], "[0.1, 0.9]"), ([{"a": 1}], "{'a': 1}")],
    )
    def test_soft_labels_and_scores(self, labels: list[Any], shown: str) -> None:
        with pytest.raises(ValueError, match=rf"'label' holds {re.escape(shown)}: class labels are integers or text"):
            resolve(data(labels))

    @pytest.mark.parametrize(
        ("labels", "shown"), [([1, 1], "1"), ([0, -100, 0], "0"), ([5, None], "5"), (["pos", "pos"], "'pos'")]
    )
    @pytest.mark.parametrize("teacher_names", [None, ["neg", "pos"]])
    def test_one_class_alone_is_a_slip(self, labels: list[Any], shown: str, teacher_names: list[str] | None) -> None:
        with pytest.raises(
            ValueError, match=f"All labels in 'label' are {shown}, and a classifier needs two classes or more"
        ):
            resolve(data(labels), teacher_names)


class TestWithATeacher:
    @pytest.mark.parametrize("dataset", [None, Dataset.from_dict({"text": ["a"]}), data([-100, -100])])
    def test_without_labels_the_teachers_classes_stand(self, dataset: Dataset | None) -> None:
        assert resolve(dataset, ["bad", "good"]) == Classes(2, ["bad", "good"], [0, 1])

    def test_without_labels_and_names_their_number_stands(self) -> None:
        assert resolve(None, num_teacher_classes=3) == Classes(3, None, [0, 1, 2])

    @pytest.mark.parametrize(
        ("data_names", "teacher_names", "order"),
        [
            (["bad", "good"], ["bad", "good"], [0, 1]),
            (["bad", "good"], ["good", "bad"], [1, 0]),
            (["a", "b", "c"], ["C", "A", "B"], [1, 2, 0]),
            (["neg", "pos"], ["POSITIVE", "NEGATIVE"], [1, 0]),
            (["NEGATIVE", "POSITIVE"], ["pos", "neg"], [1, 0]),
            (["1", "2"], ["2 stars", "1 star"], [1, 0]),
            (["not_entailment", "entailment"], ["entailment", "not-entailment"], [1, 0]),
            # In full goes before the start.
            (["un", "unsure"], ["unsure", "un"], [1, 0]),
        ],
    )
    def test_names_settle_the_order(self, data_names: list[str], teacher_names: list[str], order: list[int]) -> None:
        labels = list(range(len(data_names)))
        assert resolve(data(labels, data_names), teacher_names) == Classes(len(order), data_names, order)

    def test_text_labels_are_classes_in_alphabetical_order(self) -> None:
        classes = resolve(data(["pos", "neg"]), ["positive", "negative"])
        assert classes == Classes(2, ["neg", "pos"], [1, 0])

    @pytest.mark.parametrize(
        ("data_names", "teacher_names"),
        [
            (["ham", "spam"], ["good", "bad"]),
            (["bad", "good"], ["bad", "great"]),
            # The start of both, or of neither.
            (["pos", "neg"], ["positive", "possible"]),
            (["pos", "possible"], ["positive", "possible outcome"]),
            (["+", "-"], ["-", "+"]),
            (["Good", "good"], ["good", "GOOD"]),
        ],
    )
    def test_names_that_do_not_match(self, data_names: list[str], teacher_names: list[str]) -> None:
        with pytest.raises(
            ValueError, match=r"cannot be matched.*teacher_class_order.*\[0, 1\] if the order is the same"
        ):
            resolve(data([0, 1], data_names), teacher_names)

    @pytest.mark.parametrize(
        ("dataset", "teacher_names", "expected"),
        [
            (data([0, 1]), ["bad", "good"], Classes(2, ["bad", "good"], [0, 1])),
            (data([0, 1], 2), ["bad", "good"], Classes(2, ["bad", "good"], [0, 1])),
            (data([0, 1], ["bad", "good"]), None, Classes(2, ["bad", "good"], [0, 1])),
            (data([0, 1]), None, Classes(2, None, [0, 1])),
        ],
    )
    def test_where_a_side_has_no_names_the_orders_are_the_same(
        self, dataset: Dataset, teacher_names: list[str] | None, expected: Classes
    ) -> None:
        assert resolve(dataset, teacher_names, num_teacher_classes=2) == expected

    def test_text_labels_and_a_teacher_without_names(self) -> None:
        dataset = data(["good", "bad"])
        with pytest.raises(ValueError, match=r"labels are text \(bad, good\).*Set teacher_class_order"):
            resolve(dataset, num_teacher_classes=2)
        settled = resolve(dataset, num_teacher_classes=2, teacher_class_order=[1, 0])
        assert settled == Classes(2, ["bad", "good"], [1, 0])

    @pytest.mark.parametrize(
        ("dataset", "found"),
        [
            (data([0, 1, 2]), "3 (unnamed)"),
            (data([0, 1], ["a", "b", "c"]), "3 (a, b, c)"),
            (data(["x", "y", "z"]), "3 (x, y, z)"),
        ],
    )
    def test_other_numbers_of_classes(self, dataset: Dataset, found: str) -> None:
        message = re.escape(f"The teacher has 2 classes (bad, good) and the data {found} in its column 'label'")
        with pytest.raises(ValueError, match=message):
            resolve(dataset, ["bad", "good"])

    def test_labels_of_text_may_lack_a_class_of_the_teacher(self) -> None:
        classes = resolve(data(["pos", "neg", "pos"]), ["Negative", "Neutral", "Positive"])
        assert classes == Classes(3, ["neg", "Neutral", "pos"], [0, 1, 2])
        assert classes.encode(["pos", "Neutral", None]) == [2, 1, -100]
        for unclear in (["pos", "no"], ["ne", "pos"]):
            with pytest.raises(ValueError, match=r"teacher has 3 classes .* and the data 2"):
                resolve(data(unclear), ["Negative", "Neutral", "Positive"])

    def test_many_names_are_cut_short(self) -> None:
        names = [f"n{index}" for index in range(30)]
        with pytest.raises(ValueError, match=r"\(n0, .*n9, … 20 more\)"):
            resolve(data([0, 1], ["a", "b"]), names)


class TestTheUsersOrder:
    def test_goes_before_names(self) -> None:
        dataset = data([0, 1], ["bad", "good"])
        assert resolve(dataset, ["bad", "good"], teacher_class_order=[1, 0]) == Classes(2, ["bad", "good"], [1, 0])

    def test_orders_the_teachers_names_where_the_data_have_none(self) -> None:
        classes = resolve(data([0, 1, 2]), ["a", "b", "c"], teacher_class_order=(2, 0, 1))
        assert classes == Classes(3, ["c", "a", "b"], [2, 0, 1])

    def test_without_any_names(self) -> None:
        classes = resolve(data([0, 1]), num_teacher_classes=2, teacher_class_order=[1, 0])
        assert classes == Classes(2, None, [1, 0])

    @pytest.mark.parametrize("order", [[0], [0, 0], [1, 2], [0, 1, 2], [-1, 0]])
    def test_must_hold_each_class_once(self, order: list[int]) -> None:
        with pytest.raises(ValueError, match=re.escape(f"teacher_class_order={order} must hold each")):
            resolve(data([0, 1]), num_teacher_classes=2, teacher_class_order=order)


class TestEncode:
    NAMED = Classes(2, ["bad", "good"], None)
    UNNAMED = Classes(2, None, None)

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (["good", "bad", None], [1, 0, -100]),
            ([1, 0, -1, -100], [1, 0, -100, -100]),
            ([1.0, 0.0, float("nan"), None], [1, 0, -100, -100]),
            ([True, False], [1, 0]),
            (np.array([1, -100, 0]), [1, -100, 0]),
            (np.array([1, np.nan], dtype=np.float32), [1, -100]),
            ([], []),
        ],
    )
    def test_labels(self, labels: Any, expected: list[int]) -> None:
        encoded = self.NAMED.encode(labels)
        assert encoded == expected
        assert {type(label) for label in encoded} <= {int}

    @pytest.mark.parametrize("label", [2, -2, 0.5, 7.0, float("inf"), [0], b"0", {"a": 0}, datetime(2020, 1, 1)])
    def test_values_that_are_no_class(self, label: Any) -> None:
        with pytest.raises(
            ValueError, match=rf"The label {re.escape(repr(label))} is no class index: with 2 classes .* 0 to 1"
        ):
            self.UNNAMED.encode([0, label])

    def test_text_that_is_no_class(self) -> None:
        with pytest.raises(ValueError, match=r"'great' is none of the classes \(bad, good\)"):
            self.NAMED.encode(["good", "great"])
        with pytest.raises(ValueError, match=r"'good' is none of the classes \(unnamed\)"):
            self.UNNAMED.encode(["good"])


LABELS = [0, 0, 0, 0, 1, 1, 1, 2]


def logits_for(predicted: list[int], num_classes: int) -> np.ndarray:
    return 3 * np.eye(num_classes)[predicted] + np.random.default_rng(0).normal(size=(len(predicted), num_classes)) / 9


class TestCheckTeacher:
    def test_a_good_teacher(self) -> None:
        check_teacher(logits_for(LABELS, 3), np.array(LABELS), Classes(3, None, [0, 1, 2]))

    def test_as_good_as_the_majority_is_enough_but_one_answer_for_all_is_warned_of(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        check_teacher(logits_for([0] * 7 + [1], 3), np.array(LABELS), Classes(3, None, [0, 1, 2]))
        check_teacher(logits_for([0] * 8, 3), np.zeros(8, dtype=int), Classes(3, None, [0, 1, 2]))  # one class of rows
        assert not caplog.messages
        for names, name in ((None, "0"), (["tea", "milk", "rum"], "'tea'")):
            check_teacher(logits_for([0] * 8, 3), np.array(LABELS), Classes(3, names, [0, 1, 2]))
            said = f"The teacher gives all 8 labelled rows the class {name}, and they have 3 classes: it has little to"
            assert said in caplog.messages[-1]
        assert len(caplog.messages) == 2

    def test_without_labels_there_is_nothing_to_check(self) -> None:
        check_teacher(logits_for([0, 1], 2), np.array([-100, -100]), Classes(2, None, [0, 1]))

    def test_unlabelled_examples_do_not_count(self) -> None:
        labels = np.array([0, 1, -100, -100, -100, -100])
        check_teacher(logits_for([0, 1, 0, 0, 1, 1], 2), labels, Classes(2, None, [0, 1]))
        with pytest.raises(ValueError, match=r"accuracy on the 2 labelled examples is 0\.000, below the 0\.500"):
            check_teacher(logits_for([1, 0, 0, 0, 1, 1], 2), labels, Classes(2, None, [0, 1]))

    def test_a_weak_teacher(self) -> None:
        predicted = [0, 1, 1, 2, 0, 1, 2, 1]  # 3 of 8 in the best of other orders
        with pytest.raises(ValueError, match=r"is 0\.250, below the 0\.500") as raised:
            check_teacher(logits_for(predicted, 3), np.array(LABELS), Classes(3, None, [0, 1, 2]))
        message = str(raised.value)
        assert "teacher_class_order" not in message and "check_teacher=False" in message
        assert "[[1 2 1]\n [1 1 1]\n [0 1 0]]" in message

    def test_two_classes_of_several_in_each_other_s_place(self) -> None:
        labels = np.repeat(range(4), 100)
        with pytest.raises(ValueError, match=r"examples is 0\.500, and it takes some classes for each other") as raised:
            check_teacher(5 * np.eye(4)[np.array([0, 2, 1, 3])[labels]], labels, Classes(4, None, [3, 2, 1, 0]))
        assert "teacher_class_order=[3, 1, 2, 0] the accuracy would be 1.000" in str(raised.value)

    @pytest.mark.parametrize("rows", [1, 2, 3, 5])
    def test_errors_of_many_classes_are_no_other_order(self, rows: int) -> None:
        labels = np.repeat(np.arange(500), rows)
        generator = np.random.default_rng(rows)
        wrong = generator.random(len(labels)) < 0.5
        predicted = np.where(wrong, generator.integers(500, size=len(labels)), labels)
        check_teacher(np.eye(500)[predicted], labels, Classes(500, None, None))

    def test_a_class_taken_for_another_one_way_is_a_bad_teacher_and_no_other_order(self) -> None:
        confusion = np.array([[9000, 0, 0], [0, 200, 800], [700, 0, 300]])
        labels, predicted = (axis.repeat(confusion.ravel()) for axis in np.indices((3, 3)).reshape(2, -1))
        check_teacher(np.eye(3)[predicted], labels, Classes(3, None, None))

    def test_three_classes_in_a_ring(self) -> None:
        labels = np.repeat(range(5), 60)
        with pytest.raises(ValueError, match=r"teacher_class_order=\[0, 2, 3, 1, 4\] the accuracy would be 1\.000"):
            check_teacher(np.eye(5)[np.array([0, 2, 3, 1, 4])[labels]], labels, Classes(5, None, None))

    def test_a_few_rows_that_another_order_explains_better_are_chance(self) -> None:
        labels = np.array([0] * 90 + [1] * 6 + [2] * 6)
        predicted = np.array([0] * 90 + [1, 1, 2, 2, 2, 2] + [2, 2, 1, 1, 1, 1])
        check_teacher(logits_for(predicted, 3), labels, Classes(3, None, [0, 1, 2]))  # 8 rows against 4

    @pytest.mark.parametrize("teacher_order", [None, [0, 1, 2], [2, 0, 1], [0, 2, 1]])
    def test_the_suggested_order_is_right(self, teacher_order: list[int] | None) -> None:
        # The teacher's own classes: its class own[label] is the data's class `label`.
        own = [1, 2, 0]
        teachers_own_logits = logits_for([own[label] for label in LABELS], 3)
        current = teacher_order or [0, 1, 2]
        assert current != own
        with pytest.raises(ValueError) as raised:
            check_teacher(teachers_own_logits[:, current], np.array(LABELS), Classes(3, None, teacher_order))
        assert "teacher_class_order=[1, 2, 0] the accuracy would be 1.000" in str(raised.value)
        # Set as advised, the teacher passes.
        check_teacher(teachers_own_logits[:, own], np.array(LABELS), Classes(3, None, own))
