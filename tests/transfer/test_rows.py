"""Windows, views and unlabelled rows beside the training rows."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny
import tiny_media
from datasets import ClassLabel, Dataset, Features, Image, Value

from hf_lelp.data.columns import KIND_COLUMN, ORIGIN_COLUMN
from hf_lelp.data.rows import with_columns
from hf_lelp.transfer.made import Transfer
from hf_lelp.transfer.origins import KINDS, Origins
from hf_lelp.transfer.rows import transfer_rows, without_rows_of

LONG = " ".join(tiny.WORDS)  # 16 words
TEXTS = [LONG, "good movie", " ".join(reversed(tiny.WORDS)), "good movie"]


def rows(texts: list[str] = TEXTS, **columns: Any) -> Dataset:
    return Dataset.from_dict({"text": texts, "label": [index % 2 for index in range(len(texts))], **columns})


def transfer(**settings: Any) -> Transfer:
    defaults = {"columns": ["text"], "label_column": "label", "processing_class": tiny.tokenizer(), "max_length": 8}
    return Transfer(**{**defaults, **settings})


def by_kind(dataset: Dataset, kind: str) -> list[dict[str, Any]]:
    return [row for row in dataset if row[KIND_COLUMN] == KINDS.index(kind)]


def test_windows_follow_their_row_without_a_label() -> None:
    dataset = transfer_rows(rows(group=list("abcd")), transfer(windows=3))
    assert dataset[KIND_COLUMN] == [0] * 4 + [1] * 4
    assert dataset["label"] == [0, 1, 0, 1] + [None] * 4
    assert dataset["group"] == list("abcdaacc")
    assert dataset["text"][:6] == [*TEXTS, " ".join(tiny.WORDS[6:12]), " ".join(tiny.WORDS[12:16])]


def test_equal_rows_have_one_origin() -> None:
    dataset = transfer_rows(rows(), transfer(windows=2))
    assert dataset[ORIGIN_COLUMN] == [0, 1, 2, 1, 0, 2]


def test_unlabelled_rows_of_another_alphabet_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    transfer_rows(rows(), transfer(), Dataset.from_dict({"text": ["good movie bad", "bad good"]}))
    assert "unknown to the student" not in caplog.text
    transfer_rows(rows(), transfer(), Dataset.from_dict({"text": ["good пять фильм слов", "плохо bad"]}))
    assert "67% of the tokens of the unlabelled rows are unknown to the student, and 0% of those" in caplog.text


def test_texts_longer_than_the_student_reads_raise_no_alarm(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = 8
    transfer_rows(rows(), transfer(processing_class=tokenizer, windows=2, views=1), rows(["good"]))
    assert "maximum sequence length" not in caplog.text
    tokenizer(LONG)  # which would be heard
    assert "maximum sequence length" in caplog.text


def test_views_keep_their_row_s_label() -> None:
    dataset = transfer_rows(rows(), transfer(views=2))
    views = by_kind(dataset, "view")
    assert [view["label"] for view in views if view[ORIGIN_COLUMN] == 0] == [0, 0]
    texts = [view["text"] for view in views]
    assert len({*texts}) == len(texts) and not {*texts} & {*TEXTS}  # of equal rows once


def test_classes_by_name_stay() -> None:
    raw = rows().cast_column("label", ClassLabel(names=["no", "yes"]))
    dataset = transfer_rows(raw, transfer(windows=2))
    assert dataset.features["label"] == raw.features["label"]
    assert dataset["label"] == [0, 1, 0, 1, None, None]


def test_unlabelled_rows_are_cleaned_and_expanded(caplog: pytest.LogCaptureFixture) -> None:
    other = " ".join([*tiny.WORDS[8:], *tiny.WORDS[:8]])
    seen = " ".join([*tiny.WORDS[4:], *tiny.WORDS[:4]])
    more = Dataset.from_dict({"text": ["", None, other, "good movie", seen, other], "label": list("abcdef")})
    with caplog.at_level(logging.INFO, "hf_lelp"):
        dataset = transfer_rows(rows(), transfer(windows=2), more, [Dataset.from_dict({"text": [seen]})])
    assert [row["text"] for row in by_kind(dataset, "unlabelled")] == [other]
    made = [row for row in dataset if row[ORIGIN_COLUMN] >= len(TEXTS)]
    assert [row[KIND_COLUMN] for row in made] == [3, 1] and {row["label"] for row in made} == {None}
    assert "2 of 6 unlabelled rows are empty" in caplog.text
    assert "left out 3 unlabelled: 1 in the evaluation data, 2 there already" in caplog.text
    assert "8 rows to learn from (4 rows, 3 windows, 1 unlabelled)" in caplog.text


def test_training_rows_that_are_evaluated_are_told_of_and_nothing_is_made_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = transfer_rows(rows(), transfer(windows=2, views=2), None, [Dataset.from_dict({"text": [LONG]})])
    assert "1 of 4 training rows are evaluation rows too" in caplog.text
    assert len(by_kind(dataset, "row")) == 4 and {*dataset[ORIGIN_COLUMN][4:]} == {1, 2}


def test_both_columns_of_labels_are_blank_in_windows() -> None:
    dataset = transfer_rows(rows(labels=[0, 1, 0, 1]), transfer(windows=2))
    assert dataset["labels"] == dataset["label"] == [0, 1, 0, 1, None, None]


@pytest.mark.parametrize("more", [["", None], []])
def test_unlabelled_data_without_a_text_changes_nothing(more: list[str | None]) -> None:
    unlabelled = Dataset.from_dict({"text": more}, features=Features(text=Value("string")))
    assert len(transfer_rows(rows(), transfer(), unlabelled)) == 4


def test_one_view_that_is_evaluated_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    known, *others = by_kind(transfer_rows(rows([LONG]), transfer(views=4)), "view")
    dataset = transfer_rows(rows([LONG]), transfer(views=4), None, [Dataset.from_dict({"text": [known["text"]]})])
    assert [view["text"] for view in by_kind(dataset, "view")] == [view["text"] for view in others] != []
    assert "left out 1 view: 1 in the evaluation data" in caplog.text


def test_no_row_of_a_file_is_named_for_rows_that_were_made(tmp_path: Path) -> None:
    rows([*TEXTS, *TEXTS]).to_parquet(tmp_path / "rows.parquet")
    shuffled = Dataset.from_parquet(str(tmp_path / "rows.parquet")).shuffle(seed=1)
    dataset = transfer_rows(shuffled, transfer(windows=2, views=2), rows(["good", LONG]))
    assert dataset._indices is None and dataset["text"][:8] == shuffled["text"][:]


def test_undecoded_images_are_left_for_the_check_of_rows() -> None:
    raw = Dataset.from_dict({"image": tiny_media.pictures(2), "label": [0, 1]})
    raw = raw.cast_column("image", Image(decode=False))
    assert len(transfer_rows(raw, transfer(columns=["image"], views=2))) == 2


@pytest.mark.parametrize("stored", [["1", LONG], ["1", None]])
def test_rows_held_back_are_found_however_the_others_are_stored(stored: list[str | None]) -> None:
    unlabelled = Dataset.from_dict({"text": [None, 1] if stored[1] is None else [2, 1]})
    left = without_rows_of(unlabelled, rows(["1", "good"]), ["text"])
    assert 1 not in left["text"][:] and len(left) == 1


def test_words_alone_have_no_views() -> None:
    assert len(transfer_rows(rows(["good", "bad"]), transfer(windows=3, views=2))) == 2


def test_a_row_without_a_text_is_left_for_the_check_of_rows() -> None:
    dataset = transfer_rows(rows([LONG, None, "good movie"]), transfer(windows=2, views=1))
    assert dataset["text"][1] is None and 1 not in dataset[ORIGIN_COLUMN][3:]


def test_a_word_beside_a_text_stands_beside_each_view_of_it() -> None:
    dataset = transfer_rows(rows(other=["word"] * 4), transfer(columns=["text", "other"], views=2))
    views = by_kind(dataset, "view")
    assert len(views) >= 4 and {view["other"] for view in views} == {"word"} and LONG not in [v["text"] for v in views]


def test_columns_that_nobody_reads_are_not_decoded() -> None:
    missing = Dataset.from_dict({"picture": ["/nowhere.png"] * 4}).cast_column("picture", Image())
    dataset = transfer_rows(with_columns(rows(), missing), transfer(windows=2, views=1))
    assert len(dataset) > 4 and dataset.features["picture"] == Image()


def test_images_get_views() -> None:
    raw = Dataset.from_dict({"image": tiny_media.pictures(4), "label": [0, 1, 0, 1]}).cast_column("image", Image())
    dataset = transfer_rows(raw, transfer(columns=["image"], views=3))
    assert len(by_kind(dataset, "view")) == 12
    assert by_kind(dataset, "view")[0]["image"].size == raw[0]["image"].size


def test_images_stay_as_they_are_stored_and_evaluated_ones_are_found() -> None:
    stored = [{"bytes": jpeg(picture), "path": None} for picture in tiny_media.pictures(8)]
    raw = Dataset.from_dict({"image": stored[:4], "label": [0, 1, 0, 1]}).cast_column("image", Image())
    more, evaluation = (
        Dataset.from_dict({"image": part}).cast_column("image", Image()) for part in (stored[3:], stored[6:])
    )
    dataset = transfer_rows(raw, transfer(columns=["image"], views=3), more, [evaluation])
    assert (len(by_kind(dataset, "row")), len(by_kind(dataset, "unlabelled"))) == (4, 2)
    assert {*dataset[ORIGIN_COLUMN]} == {0, 1, 2, 3, 5, 6}  # the first unlabelled one is the last of the rows
    kept = dataset.cast_column("image", Image(decode=False))["image"]
    assert [image["bytes"] for image in kept[:6]] == [image["bytes"] for image in stored[:6]]


def test_images_that_no_view_can_be_made_of() -> None:
    deep = PIL.Image.fromarray(np.full((8, 8), 1000, dtype=np.int32))
    images = [*tiny_media.pictures(2), deep, None]
    raw = Dataset.from_dict(
        {"image": images, "label": [0, 1, 0, 1]}, features=Features(image=Image(), label=Value("int64"))
    )
    dataset = transfer_rows(raw, transfer(columns=["image"], views=3), raw.select([3, 3]))
    assert {*dataset[ORIGIN_COLUMN][4:]} == {0, 1} and not by_kind(dataset, "unlabelled")


def jpeg(picture: PIL.Image.Image) -> bytes:
    content = io.BytesIO()
    picture.convert("RGB").save(content, "JPEG")
    return content.getvalue()


def test_a_transform_stays() -> None:
    raw = rows().with_transform(lambda batch: {**batch, "text": [text.upper() for text in batch["text"]]})
    dataset = transfer_rows(raw, transfer(windows=2))
    assert dataset[len(TEXTS)]["text"] == " ".join(tiny.WORDS[6:12]).upper()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": 2, "max_length": None}, "windows=2 cuts one column of texts"),
        ({"windows": 2, "columns": ["text", "other"]}, "windows=2 cuts one column of texts"),
        ({"views": 1, "columns": ["label"]}, "views=1 alters texts or images, and label holds neither"),
        (
            {"views": 1, "view_kinds": ["flip"]},
            "view_kinds=flip: of text one or more of delete, crop, mask can be made",
        ),
        ({"views": 1, "view_kinds": ["mask"]}, "view_kinds has 'mask', and teacher and student share no mask token"),
    ],
)
def test_what_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transfer_rows(rows(other=TEXTS), transfer(**settings))


def test_unlabelled_rows_need_the_columns() -> None:
    with pytest.raises(ValueError, match="The unlabelled data has no text"):
        transfer_rows(rows(), transfer(), Dataset.from_dict({"body": ["a"]}))


def test_columns_of_the_same_names_are_the_user_s() -> None:
    own = Dataset.from_dict({ORIGIN_COLUMN: [0, 1], KIND_COLUMN: [7, 8]})
    assert Origins.taken_from(own) == (own, None)


def test_a_split_separates_no_row_from_what_was_made_of_it() -> None:
    texts = [" ".join(np.random.default_rng(seed % 40).permutation(tiny.WORDS)) for seed in range(50)]  # ten twice
    _, origins = Origins.taken_from(transfer_rows(rows(texts), transfer(windows=3, views=2)))
    assert origins is not None
    for seed in range(5):
        train, held_back = origins.split(10, seed)
        assert not {*origins.origins[train]} & {*origins.origins[held_back]}
        assert (origins.kinds[held_back] == 0).all() and 10 <= len(held_back) <= 15
    counts = origins.count()
    assert (counts["row"], counts["window"]) == (50, 80) and 70 < counts["view"] <= 80  # of equal rows once
    drawn = origins.sample(20, 0)
    assert (origins.kinds[drawn] == 0).sum() == 20
    assert {*origins.origins[drawn]} == {*origins.origins[drawn[origins.kinds[drawn] == 0]]}
