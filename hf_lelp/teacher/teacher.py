"""Wraps a fine-tuned classifier, so that it adds its logits and embeddings to a dataset."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.classifiers import (
    LinearHead,
    auto_class,
    check_embedding,
    check_model,
    check_weights,
    class_names,
    embedding_gap,
    find_heads,
    headless,
    joint_layer,
    load_config,
    load_processor,
    logits_of,
    processor_part,
    tolerance,
)
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, TEACHER_MARK
from hf_lelp.data.encoding import Processor, encode, lengths_of, longest, on_device, pad, taken
from hf_lelp.data.rows import check_batched
from hf_lelp.data.text import check_vocabulary, set_pad_token, vocabulary_size
from hf_lelp.padding import warn_once, with_fitting_side
from hf_lelp.teacher.fingerprint import fingerprints, plain_parts
from hf_lelp.teacher.kinds.one_output import has_one_output, with_first_class
from hf_lelp.teacher.pipeline import OnItsWay, ahead, halved_until_it_fits, in_parts

CHECKED_ROWS = 2  # rows on which the captured embedding is compared with the model's logits
MORE_PADDING = 8  # tokens by which rows of one length are padded to see whether that tells


class Teacher:
    """A classifier of text, images or sound with its processing class, callable in `dataset.map(..., batched=True)`.

    Each call sorts texts by length, which saves padding, and gives the results in the rows' order.

    Args:
        model: a fine-tuned classifier; put on `device`, set to evaluation mode, otherwise untouched.
        processing_class: its tokenizer, image processor or feature extractor, or a whole processor that holds it.
        input_columns: one or two text columns that it reads, or one of images or sound.
        max_length: tokens of a text, or samples of a sound, after which it is cut. For texts, `None` is the most that
            the model takes.
        batch_size: rows per forward pass.
        class_order: the teacher's index of each class, to give logits in another order than the teacher's own.
        activation: "sigmoid" says that a model of one output z is a classifier of two classes of the logits (0, z).
            `None` follows what the model's configuration says.
        device: `None` is this process's accelerator.

    Attributes:
        head: the final linear layer, rows in `class_order`.
        class_names: of the classes in `class_order`; `None` where the model only has LABEL_0, LABEL_1, ….
        fingerprint: hash of all that a row's results depend on but the row: see `hf_lelp.teacher.fingerprint`.
        pipelined: whether batches are made ahead of the model, with more rows where texts are shorter. It is so on an
            accelerator. On a CPU there is nothing to wait for, and batches have a fixed number of rows.

    Raises:
        ValueError: if the model is compiled, or no classifier of one class per row; if its final linear layer is
            missing or quantised; or if `class_order` is no permutation of its classes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processing_class: Any,
        *,
        input_columns: Sequence[str] = ("text",),
        max_length: int | None = None,
        batch_size: int = 64,
        class_order: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        activation: str | None = None,
    ) -> None:
        check_model(model, "teacher")
        self.one_output = has_one_output(model.config, activation)
        outputs = int(model.config.num_labels or 0)
        num_labels = 2 if self.one_output else outputs
        self.class_order = list(range(num_labels)) if class_order is None else list(class_order)
        if sorted(self.class_order) != list(range(num_labels)):
            raise ValueError(
                f"class_order={self.class_order} is no permutation of the teacher's {num_labels} classes:"
                f" it must hold each of 0 to {num_labels - 1} once."
            )
        processor: Processor = processor_part(processing_class, model.config)
        self.input_columns = list(input_columns)
        self.max_length = longest(processor, model, max_length)
        self.batch_size = batch_size
        if isinstance(processor, PreTrainedTokenizerBase):
            set_pad_token(processor, model)
        self.model = model.eval().to(device if device is not None else PartialState().device)
        self.processing_class = processor = with_fitting_side(processor, self.model)
        heads = find_heads(model, outputs)
        self._head_names = list(heads)
        for name, layer in heads.items():
            if not layer.weight.is_floating_point() or plain_parts(layer.weight):
                raise ValueError(
                    f"The final layer {name!r} of this {type(model).__name__} is quantised, and LELP needs it as it was"
                    " trained. Name it in modules_to_not_convert of the quantization_config (of bitsandbytes:"
                    " llm_int8_skip_modules)."
                )
        # Whether the embedding was compared with the model's logits; and also whether padding changes it.
        self._compared = self._checked = False
        self.pipelined = self.model.device.type != "cpu"
        self._unpadded = False  # whether rows run beside rows of their own length alone
        weight, shift = joint_layer(heads.values())
        weight = weight.detach().float().cpu()
        bias = torch.zeros(outputs) if shift is None else shift.detach().float().cpu()
        if self.one_output:
            weight, bias = with_first_class(weight), with_first_class(bias)
        model_hash, self.fingerprint = fingerprints(
            self.model, self.class_order, processor, self.input_columns, self.max_length
        )
        self.head = LinearHead(weight[self.class_order], bias[self.class_order], model_hash)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        processing_class: Processor | None = None,
        *,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> "Teacher":
        """Load a fine-tuned classifier from a folder or the Hub, with its processing class where none is given.

        Args:
            name_or_path: folder or Hub id.
            processing_class: `None` loads the one saved with the model.
            dtype: of the weights; "auto" keeps the one that they are saved in.
            revision: branch, tag or commit on the Hub.
            trust_remote_code: run model code that comes with the weights.
            **kwargs: settings of `Teacher`.

        Raises:
            ValueError: if the checkpoint has no trained classification layer.
        """
        name_or_path = os.path.expanduser(name_or_path)
        hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = load_config(name_or_path, **hub)
        model, loading = auto_class(config).from_pretrained(
            name_or_path, config=config, dtype=dtype, output_loading_info=True, **hub
        )
        advice = " A teacher must be a fine-tuned classifier; fine-tune this checkpoint on your task first."
        check_weights(name_or_path, loading, advice)
        if processing_class is None:
            processing_class = load_processor(name_or_path, **hub)
        return cls(model, processing_class, **kwargs)

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return len(self.class_order)

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in `class_order`, or `None` where the model was never given any."""
        names = None if self.one_output else class_names(self.model.config)
        return names and [names[index] for index in self.class_order]

    def reordered(self, class_order: Sequence[int]) -> "Teacher":
        """Return the same model with its classes reordered: class i of the result is `class_order[i]` of this one."""
        return Teacher(
            self.model,
            self.processing_class,
            input_columns=self.input_columns,
            max_length=self.max_length,
            batch_size=self.batch_size,
            class_order=[self.class_order[index] for index in class_order],
            device=self.model.device,
            activation="sigmoid" if self.one_output else None,
        )

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Run the teacher over a batch of rows.

        Args:
            batch: with the `input_columns`, n rows.

        Returns:
            `teacher_logits`, (n, C), and `teacher_embedding`, (n, D): the final linear layer's output and input; and
            `teacher_fingerprint`, n copies of that of `head`.

        Raises:
            ValueError: if the captured embedding does not give the model's logits (checked on the first rows), or a
                row cannot be read; or if it is one row and no batch.
            KeyError: if an input column is missing.
        """
        check_batched(batch, self.input_columns[0], "teacher")
        count = len(batch[self.input_columns[0]])
        num_classes, size = self.head.weight.shape
        logits = np.empty((count, num_classes), dtype=np.float32)
        embedding = np.empty((count, size), dtype=np.float32)
        for rows, columns in self.in_batches(batch):
            logits[rows], embedding[rows] = columns[LOGITS_COLUMN], columns[EMBEDDING_COLUMN]
        mark = [self.head.fingerprint] * len(logits)
        return {LOGITS_COLUMN: logits, EMBEDDING_COLUMN: embedding, TEACHER_MARK: mark}

    def in_batches(
        self, batch: dict[str, list[Any]], *, encoded: bool = False
    ) -> Iterator[tuple[NDArray[np.integer], dict[str, NDArray[np.float32]]]]:
        """Run the teacher as a call does, and yield the results of each forward pass when it is done.

        Texts come longest first. So the rows without those of the first passes make the same further passes. Where
        memory does not suffice for a pass, it is made in halves, and those that follow are smaller.

        Args:
            batch: see `__call__`, n rows, as for the errors.
            encoded: whether it holds tokens, as the method `encoded` gives them.

        Yields:
            The numbers of some rows, (k,), and their `teacher_logits`, (k, C), and `teacher_embedding`, (k, D).
        """
        batches = ((rows, some, self._padded(some)) for rows, some in self._batches(batch, encoded))
        running: deque[tuple[NDArray[np.integer], OnItsWay]] = deque()
        for rows, some, inputs in ahead(batches) if self.pipelined else batches:
            running.append((rows, OnItsWay(self._embed_rows(some, inputs))))
            if not self.pipelined or len(running) > 1:  # the device has its next batch before results are taken off
                yield self._columns(*running.popleft())
        yield from (self._columns(*left) for left in running)

    def encoded(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Turn a batch of texts into tokens, for `in_batches`; see `__call__`."""
        assert isinstance(self.processing_class, PreTrainedTokenizerBase)
        tokens = encode(self.processing_class, batch, self.input_columns, self.max_length)
        check_vocabulary(self.processing_class, tokens["input_ids"], vocabulary_size(self.model))
        return tokens

    def _columns(self, rows: NDArray[np.integer], embedded: OnItsWay) -> tuple[NDArray[np.integer], dict[str, NDArray]]:
        hidden = embedded.arrived()
        logits = torch.nn.functional.linear(hidden, self.head.weight, self.head.bias)
        return rows, {LOGITS_COLUMN: logits.numpy(), EMBEDDING_COLUMN: hidden.numpy()}

    def _batches(
        self, batch: dict[str, list[Any]], encoded: bool
    ) -> Iterator[tuple[NDArray[np.integer], dict[str, list[Any]]]]:
        """Yield numbers of some rows and these rows encoded, until every row had its turn."""
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            tokens = batch if encoded else self.encoded(batch)
            # Longest first: a batch that does not fit in memory fails at once.
            lengths = np.asarray(lengths_of(tokens))
            order = np.argsort(lengths, kind="stable")[::-1]
            for part in in_parts(lengths[order], lambda: self.batch_size, by_tokens=self.pipelined):
                yield order[part], taken(tokens, order[part])
            return
        # Pixels and samples of all rows at once may not fit in memory.
        count = len(batch[self.input_columns[0]])
        for part in in_parts(np.ones(count, dtype=np.int64), lambda: self.batch_size, by_tokens=False):
            rows = np.arange(count)[part]
            some = taken({name: batch[name] for name in self.input_columns}, rows)
            yield rows, encode(self.processing_class, some, self.input_columns, self.max_length)

    def _embed_rows(self, encoded: dict[str, list[Any]], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the embeddings of encoded and padded rows, (n, D), float32; check the first ones."""
        lengths = np.asarray(lengths_of(encoded))
        several = len({*lengths}) > 1
        if not (self._unpadded and several):
            hidden, fitted = halved_until_it_fits(self._embed, inputs)
            self.batch_size = max(1, self.batch_size * fitted // len(lengths))
            if not self._checked and (several or not self._compared):
                self._check(encoded, lengths, hidden)
            if not (self._unpadded and several):
                return hidden
        hidden = torch.empty((len(lengths), self.head.weight.shape[1]))
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            hidden[rows] = self._embed(self._padded(taken(encoded, rows))).cpu()
        return hidden

    def _padded(self, encoded: dict[str, list[Any]], length: int | None = None) -> dict[str, torch.Tensor]:
        inputs = pad(self.processing_class, encoded, length)
        return {name: on_device(value, self.model) for name, value in inputs.items()}

    def _embed(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the input of the final linear layer, (n, D), float32."""
        with torch.inference_mode(), headless(self.model, self._head_names):
            return logits_of(self.model(**inputs)).float()

    def _check(self, encoded: dict[str, list[Any]], lengths: NDArray[np.integer], hidden: torch.Tensor) -> None:
        """Check that the embeddings of rows give the model's logits, and that these do not depend on padding.

        Two rows are run again: to check all would run the costliest batch twice. They are the shortest ones, without
        the padding that they had; or, where all have one length, with more of it.
        """
        rows = np.argsort(lengths, kind="stable")[:CHECKED_ROWS]
        several = lengths.min() < lengths.max()
        length = int(lengths.max()) + MORE_PADDING
        pads = isinstance(self.processing_class, PreTrainedTokenizerBase) and length <= (self.max_length or length)
        few = taken(encoded, rows)
        inputs = self._padded(few, None if several or not pads else length)
        embedding = hidden[rows].to(self.model.get_submodule(self._head_names[-1]).weight)
        self._compared, self._checked = True, several or pads
        gap = embedding_gap(self.model, self._head_names, embedding, inputs)
        if gap <= max(tolerance(embedding.dtype), tolerance(self.model.dtype)):
            return
        embedded = self._embed(inputs).to(embedding)
        check_embedding(self.model, self._head_names, embedded, inputs)
        self._unpadded = True
        warn_once(
            f"{type(self.model).__name__} sees padding: it changes the logits by up to {gap:.1%} of the largest. Each"
            " row is run beside rows of its own length alone, which takes longer."
        )
