"""Gives the embeddings of a pretrained encoder of texts, for targets that come without any."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.classifiers import LinearHead, check_weights, load_config, load_processor
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.data.encoding import batches, longest, on_device
from hf_lelp.data.text import set_pad_token
from hf_lelp.padding import with_fitting_side
from hf_lelp.teacher.fingerprint import fingerprints


class Encoder:
    """An encoder of texts as a `TeacherLike` without classes: the mean of its token vectors, (n, D).

    Args:
        model: an encoder of transformers; put on `device`, set to evaluation mode.
        tokenizer: of the model.
        input_columns: one or two text columns.
        max_length: tokens after which a text is cut; `None` is the most that the model takes.
        batch_size: rows per forward pass.
        device: `None` is this process's accelerator.

    Attributes:
        head: of one output, all zeros: an encoder answers nothing.
        fingerprint: hash of all that a row's embedding depends on but the row.
    """

    class_names = None

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        input_columns: Sequence[str] = ("text",),
        max_length: int | None = None,
        batch_size: int = 64,
        device: torch.device | str | None = None,
    ) -> None:
        set_pad_token(tokenizer, model)
        self.input_columns, self.batch_size = list(input_columns), batch_size
        self.max_length = longest(tokenizer, model, max_length)
        self.model = model.eval().to(device if device is not None else PartialState().device)
        self.processing_class = with_fitting_side(tokenizer, self.model)
        _, self.fingerprint = fingerprints(
            self.model, [], self.processing_class, ["mean of tokens", *self.input_columns], self.max_length
        )
        self.size = int(model.config.hidden_size)
        self.head = LinearHead(torch.zeros(1, self.size), torch.zeros(1), self.fingerprint)

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, dtype: str = "auto", **kwargs: Any) -> "Encoder":
        """Load an encoder and its tokenizer from a folder or the Hub.

        Args:
            name_or_path: folder or Hub id.
            dtype: of the weights; "auto" keeps the one that they are saved in.
            **kwargs: settings of `Encoder`.

        Raises:
            ValueError: if it has no tokenizer, its states have no size, or weights are missing.
        """
        name_or_path = os.path.expanduser(name_or_path)
        config, tokenizer = load_config(name_or_path), load_processor(name_or_path)
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or getattr(config, "is_encoder_decoder", False):
            raise ValueError(
                f"embedding_model={name_or_path} is a {config.model_type}, and an encoder of texts is needed, such as a"
                " BERT or a model of sentence-transformers."
            )
        model, loading = AutoModel.from_pretrained(
            name_or_path, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
        # A pooler is not read, and models of masked words have none.
        loading = {"missing_keys": [key for key in loading["missing_keys"] if not key.startswith("pooler.")]}
        check_weights(name_or_path, loading)
        return cls(model, tokenizer, **kwargs)

    @torch.inference_mode()
    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Return `teacher_embedding`, (n, D), and `teacher_logits`, (n, 1), which are zeros.

        Raises:
            ValueError: if a text is no string, naming the row.
        """
        count = len(batch[self.input_columns[0]])
        embedding = np.empty((count, self.size), dtype=np.float32)
        rows = {name: batch[name] for name in self.input_columns}
        for places, inputs in batches(
            self.processing_class, rows, self.input_columns, self.max_length, self.batch_size
        ):
            given = {name: on_device(value, self.model) for name, value in inputs.items()}
            states = self.model(**given).last_hidden_state.float()
            mask = given["attention_mask"].unsqueeze(-1).to(states)
            embedding[places] = ((states * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy()
        return {LOGITS_COLUMN: np.zeros((count, 1), dtype=np.float32), EMBEDDING_COLUMN: embedding}
