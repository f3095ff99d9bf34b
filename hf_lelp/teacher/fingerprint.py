"""Fingerprints of a teacher: hashes of all that its answers depend on.

Weights, configuration and the files of the processing class are hashed as they would be saved. State that no file
holds counts too: what was set on a tokenizer after it was loaded, and which adapters of PEFT are in use. Of a tokenizer
only what a fresh load of its files would not have is hashed, so that most fingerprints are those of earlier versions.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE

from hf_lelp.data.encoding import Processor
from hf_lelp.storage.files import read_json

# Entries of a model's and a tokenizer's files that say where they come from, what the classes are called, or, as
# truncation and padding do, what the last call was: the same teacher in memory and loaded again differs in them.
_NO_PART_IN_RESULTS = {
    *("_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "problem_type"),
    *("id2label", "label2id", "hf_lelp", "name_or_path", "is_local", "local_files_only", "truncation", "padding"),
}
# The same of a tokenizer in memory. `max_length` is a setting of the teacher, and hashed as such.
_NO_PART_OF_TOKENS = {
    *("model_max_length", "chat_template", "response_template", "init_inputs", "files_loaded", "verbose"),
    *("_should_update_post_processor", "_in_target_context_manager", "_processor_class"),
}


def fingerprints(
    model: PreTrainedModel,
    class_order: Sequence[int],
    processing_class: Processor,
    input_columns: Sequence[str],
    max_length: int | None,
) -> tuple[str, str]:
    """Hash of a model and the order of its classes, and hash of all that a row's results depend on but the row.

    Args:
        model: a classifier; its weights, configuration and the adapters in use count.
        class_order: in which it gives its classes.
        processing_class: a tokenizer, an image processor or a feature extractor.
        input_columns: that the teacher reads.
        max_length: after which it cuts its inputs.
    """
    digest = xxhash.xxh3_128()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        for tensor in plain_parts(value) or [value]:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    config = {key: value for key, value in model.config.to_dict().items() if key not in _NO_PART_IN_RESULTS}
    digest.update(_as_json([config, list(class_order)]))
    if adapters := adapters_in_use(model):
        digest.update(_as_json(adapters))
    model_hash = digest.hexdigest()
    digest.update(json.dumps([list(input_columns), max_length]).encode())
    with tempfile.TemporaryDirectory() as folder:
        processing_class.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*.*")):
            content = path.read_bytes()
            if path.suffix == ".json" and isinstance(settings := json.loads(content), dict):
                content = _as_json({key: value for key, value in settings.items() if key not in _NO_PART_IN_RESULTS})
            digest.update(content)
        if unsaved := _unsaved_state(processing_class, folder):
            digest.update(_as_json(unsaved))
    return model_hash, digest.hexdigest()


def _as_json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, default=str).encode()


def adapters_in_use(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Of every module that PEFT wraps: which adapters speak, and how loud. Empty without adapters.

    An adapter's weights are in the state of the model whether it is in use or not.
    """
    found = {}
    for name, module in model.named_modules():
        state = vars(module)
        if "_active_adapter" in state:
            told = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling", "use_dora", "use_rslora")
            found[name] = {key: state[key] for key in told if key in state}
    return found


def plain_parts(tensor: Any) -> list[Any]:
    """The plain tensors that a quantised one is made of; none of a plain one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return []
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in (plain_parts(getattr(tensor, name)) or [getattr(tensor, name)])]


def _unsaved_state(processing_class: Processor, folder: str) -> dict[str, Any]:
    """What was set on a tokenizer and is not in its files, such as its sides of truncation and padding."""
    if not isinstance(processing_class, PreTrainedTokenizerBase):
        return {}  # the others save all that they are
    fresh = vars(type(processing_class).from_pretrained(folder))
    state = vars(processing_class)
    plain = (str, bool, int, float, list, tuple, type(None))
    unsaved = {
        name: value
        for name, value in state.items()
        if name in fresh
        and name not in {*_NO_PART_IN_RESULTS, *_NO_PART_OF_TOKENS}
        and isinstance(value, plain)
        and json.dumps(value, default=str) != json.dumps(fresh[name], default=str)
    }
    # A tokenizer that was called has its sides in its files, where nothing of the last call counts.
    config = read_json(Path(folder) / TOKENIZER_CONFIG_FILE)
    for name in ("truncation_side", "padding_side"):
        if state[name] != config.get(name, getattr(type(processing_class), name)):
            unsaved[name] = state[name]
    return unsaved
