"""A fine-tuned classifier that adds its logits and embeddings to a dataset."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from accelerate import PartialState
from numpy.typing import NDArray
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

# Up to 5.13 at least, `transformers` itself has it only beside torchvision, which is not needed.
from hf_lelp.classifiers import (
    LinearHead,
    auto_class,
    check_embedding,
    check_weights,
    class_names,
    find_heads,
    headless,
    joint_layer,
    load_processor,
    logits_of,
)
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, TEACHER_MARK
from hf_lelp.data.encoding import Processor, batches, encode, longest, on_device, pad
from hf_lelp.data.text import set_pad_token

CHECKED_ROWS = 2  # on which the captured embedding is compared with the model's logits

# Entries of a model's and a tokenizer's files that say where they come from, what the classes are called, or, as
# truncation and padding do, what the last call was: the same teacher in memory and loaded again differs in them.
_NO_PART_IN_RESULTS = {
    *("_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "problem_type"),
    *("id2label", "label2id", "name_or_path", "is_local", "local_files_only", "truncation", "padding"),
}


class Teacher:
    """A classifier of text, images or sound and what prepares its inputs, callable in `dataset.map(..., batched=True)`.

    Each call sorts texts by length, so that little is spent on padding, and gives the results in the rows' order.

    Args:
        model: a fine-tuned classifier; put on `device`, set to evaluation mode, otherwise untouched.
        processing_class: its tokenizer, image processor or feature extractor.
        input_columns: one or two text columns that it reads, or one of images or sound.
        max_length: tokens after which a text is cut, `None` is the most that the model takes; or samples of a sound.
        batch_size: rows per forward pass.
        class_order: the teacher's index of each class, to give logits in another order than the teacher's own.
        device: `None` is this process's accelerator.

    Attributes:
        head: the final linear layer, rows in `class_order`.
        class_names: of the classes in `class_order`; `None` where the model only has LABEL_0, LABEL_1, ….
        fingerprint: hash of the weights, the configuration, the processing class and the settings above that change
            results.

    Raises:
        ValueError: if the model is no classifier of one class per row, or has no final linear layer or a quantised one,
            or `class_order` is no permutation of its classes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processing_class: Processor,
        *,
        input_columns: Sequence[str] = ("text",),
        max_length: int | None = None,
        batch_size: int = 64,
        class_order: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        num_labels = int(model.config.num_labels or 0)
        kind = getattr(model.config, "problem_type", None) or "single_label_classification"
        if num_labels < 2 or kind != "single_label_classification":
            raise ValueError(
                f"The teacher's configuration says problem_type={kind!r} and {num_labels} labels. LELP distils models"
                " that choose one of two or more classes; if this one does, set problem_type and num_labels so."
            )
        self.class_order = list(range(num_labels)) if class_order is None else list(class_order)
        if sorted(self.class_order) != list(range(num_labels)):
            raise ValueError(
                f"class_order={self.class_order} is no permutation of the teacher's {num_labels} classes:"
                f" it must hold each of 0 to {num_labels - 1} once."
            )
        self.processing_class = processing_class
        self.input_columns = list(input_columns)
        self.max_length = longest(processing_class, model, max_length)
        self.batch_size = batch_size
        if isinstance(processing_class, PreTrainedTokenizerBase):
            set_pad_token(processing_class, model)
        self.model = model.eval().to(device if device is not None else PartialState().device)
        heads = find_heads(model, num_labels)
        self._head_names = list(heads)
        for name, layer in heads.items():
            if not layer.weight.is_floating_point() or _parts(layer.weight):
                raise ValueError(
                    f"The final layer {name!r} of this {type(model).__name__} is quantised, and LELP needs it as it was"
                    " trained. Name it in modules_to_not_convert of the quantization_config (of bitsandbytes:"
                    " llm_int8_skip_modules)."
                )
        self._checked = False
        weight, shift = joint_layer(heads.values())
        weight = weight.detach().float().cpu()
        bias = torch.zeros(num_labels) if shift is None else shift.detach().float().cpu()
        model_hash, self.fingerprint = self._hashes()
        self.head = LinearHead(weight[self.class_order], bias[self.class_order], model_hash)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        processing_class: Processor | None = None,
        *,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> "Teacher":
        """Load a fine-tuned classifier, and its processing class where none is given, from a folder or the Hub.

        Args:
            name_or_path: folder or Hub id.
            processing_class: `None` loads the one saved with the model.
            dtype: of the weights; "auto" is the one that they are saved in.
            revision: branch, tag or commit on the Hub.
            trust_remote_code: run model code that comes with the weights.
            **kwargs: settings of `Teacher`.

        Raises:
            ValueError: if the checkpoint has no trained classification layer.
        """
        name_or_path = os.path.expanduser(name_or_path)
        hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(name_or_path, **hub)
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
        """C."""
        return len(self.class_order)

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in `class_order`, or `None` where the model was never given any."""
        names = class_names(self.model.config)
        return names and [names[index] for index in self.class_order]

    def reordered(self, class_order: Sequence[int]) -> "Teacher":
        """The same model giving its classes in another order: class i of the result is `class_order[i]` of this one."""
        return Teacher(
            self.model,
            self.processing_class,
            input_columns=self.input_columns,
            max_length=self.max_length,
            batch_size=self.batch_size,
            class_order=[self.class_order[index] for index in class_order],
            device=self.model.device,
        )

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Run the teacher over a batch of rows.

        Args:
            batch: with the `input_columns`, n rows.

        Returns:
            `teacher_logits`, (n, C), and `teacher_embedding`, (n, D): the final linear layer's output and input; and
            `teacher_fingerprint`, n times that of `head`.

        Raises:
            ValueError: if the captured embedding does not give the model's logits (checked on the first rows).
            KeyError: if an input column is missing.
        """
        count = len(batch[self.input_columns[0]])
        num_classes, size = self.head.weight.shape
        logits = np.empty((count, num_classes), dtype=np.float32)
        embedding = np.empty((count, size), dtype=np.float32)
        for rows, inputs in self._batches(batch, count):
            hidden = self._embed({name: on_device(value, self.model) for name, value in inputs.items()})
            embedding[rows] = hidden.numpy()
            logits[rows] = torch.nn.functional.linear(hidden, self.head.weight, self.head.bias).numpy()
        mark = [self.head.fingerprint] * len(logits)
        return {LOGITS_COLUMN: logits, EMBEDDING_COLUMN: embedding, TEACHER_MARK: mark}

    def _batches(
        self, batch: dict[str, list[Any]], count: int
    ) -> Iterator[tuple[NDArray[np.integer], dict[str, torch.Tensor]]]:
        """Numbers of some rows and the model's inputs for them, until every row had its turn."""
        starts = range(0, count, self.batch_size)
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            tokens = encode(self.processing_class, batch, self.input_columns, self.max_length)
            # Longest first: a batch that does not fit in memory fails at once.
            order = np.argsort([len(ids) for ids in tokens["input_ids"]], kind="stable")[::-1]
            for start in starts:
                rows = order[start : start + self.batch_size]
                some = {name: [values[row] for row in rows] for name, values in tokens.items()}
                yield rows, pad(self.processing_class, some)
            return
        # Pixels and samples of all rows at once may not fit in memory.
        made = batches(self.processing_class, batch, self.input_columns, self.max_length, self.batch_size)
        for start, inputs in zip(starts, made, strict=True):
            yield np.arange(start, min(start + self.batch_size, count)), inputs

    @torch.inference_mode()
    def _embed(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Input of the final linear layer, (n, D), float32, on the CPU."""
        with headless(self.model, self._head_names):
            embedding = logits_of(self.model(**inputs))
        if not self._checked:
            # Of the longest rows, which come first: all of them would be a second pass over the dearest batch.
            few = {name: value[:CHECKED_ROWS] for name, value in inputs.items()}
            check_embedding(self.model, self._head_names, embedding[:CHECKED_ROWS], few)
            self._checked = True
        return embedding.float().cpu()

    def _hashes(self) -> tuple[str, str]:
        """Hash of the model and the order of its classes, and of all that a row's results depend on but the row."""
        digest = xxhash.xxh3_128()
        for name, value in self.model.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            for tensor in _parts(value) or [value]:
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        config = {key: value for key, value in self.model.config.to_dict().items() if key not in _NO_PART_IN_RESULTS}
        digest.update(json.dumps([config, self.class_order], sort_keys=True, default=str).encode())
        model_hash = digest.hexdigest()
        digest.update(json.dumps([self.input_columns, self.max_length]).encode())
        with tempfile.TemporaryDirectory() as folder:
            self.processing_class.save_pretrained(folder)
            for path in sorted(Path(folder).rglob("*.*")):
                content = path.read_bytes()
                if path.suffix == ".json" and isinstance(settings := json.loads(content), dict):
                    settings = {key: value for key, value in settings.items() if key not in _NO_PART_IN_RESULTS}
                    content = json.dumps(settings, sort_keys=True).encode()
                digest.update(content)
        return model_hash, digest.hexdigest()


def _parts(tensor: Any) -> list[Any]:
    """The plain tensors that a quantised one is made of; none of a plain one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return []
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in (_parts(getattr(tensor, name)) or [getattr(tensor, name)])]
