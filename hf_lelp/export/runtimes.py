"""Runs a classifier outside transformers: as `torch.export`, ONNX or int8 ONNX, checked against PyTorch.

Every form takes the processor's output and gives the C class logits, whatever the student's head. ONNX needs the
packages of `pip install hf-lelp[onnx]`.
"""

import logging
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_lelp.export.fidelity import class_logits
from hf_lelp.storage.files import new_files

# Class logits may differ by so much from rounding; relative to the largest logit if that is above 1.
TOLERANCE = 1e-4

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Runtime:
    """A way to run a classifier.

    Attributes:
        name: of the runtime, for tables.
        logits: maps inputs to class logits, (N, C).
        size: bytes on disk.
    """

    name: str
    logits: Callable[[Batch], NDArray[np.float32]]
    size: int

    def run(self, batches: Sequence[Batch]) -> NDArray[np.float32]:
        """Compute the class logits of all batches, (N, C)."""
        return np.concatenate([self.logits(batch) for batch in batches])


def torch_runtime(model: PreTrainedModel) -> Runtime:
    """Wrap the model itself, in PyTorch on the CPU; its size is that of its weights."""
    _on_cpu(model)
    return Runtime(
        "PyTorch",
        lambda batch: class_logits(model, [batch]),
        sum(parameter.nbytes for parameter in model.parameters()),
    )


def save_torch_export(model: PreTrainedModel, batches: Sequence[Batch], path: Path) -> Runtime:
    """Save the model as a `torch.export` program that takes any number of rows and tokens.

    It runs without transformers: `torch.export.load(path).module()(**inputs)` gives the class logits.

    Args:
        model: any classifier, on the CPU.
        batches: real inputs of several shapes; the program is checked on all of them.
        path: of the .pt2 file.

    Raises:
        RuntimeError: if the model cannot be exported, or the saved program's logits differ from the model's.
        ValueError: if the model is not on the CPU in float32.
    """
    _save_checked(
        lambda file: torch.export.save(_exported(model, batches), file), load_torch_export, path, model, batches
    )
    return load_torch_export(path)


def load_torch_export(path: Path) -> Runtime:
    """Load a program saved by `save_torch_export`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    _require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if changed := archive.testzip():
                raise ValueError(f"{changed} in it has changed")
        module = torch.export.load(path).module()
    except Exception as error:  # torch raises any kind for damaged files
        raise ValueError(f"{path} is no whole torch.export program ({error}). Export it again.") from error

    @torch.inference_mode()
    def logits(batch: Batch) -> NDArray[np.float32]:
        return module(**batch).numpy()

    return Runtime("torch.export", logits, _size(path))


def save_onnx(model: PreTrainedModel, batches: Sequence[Batch], path: Path) -> Runtime:
    """Save the model as ONNX that takes any number of rows and tokens and has one output, "logits".

    Args:
        model: any classifier, on the CPU.
        batches: real inputs of several shapes; ONNX Runtime checks the file on all of them.
        path: of the .onnx file.

    Raises:
        ImportError: if ONNX is not installed.
        RuntimeError: if the model cannot be exported, or the file's logits differ from the model's.
        ValueError: if the model is not on the CPU in float32.
    """
    _require_onnx()

    def save(file: Path) -> None:
        # PyTorch's own exporter is maintained with torch. optimum-onnx ends at transformers 4. transformers.exporters
        # is experimental, changes between releases and calls this one too. The files were equally exact.
        with _quiet("torch.onnx"):
            program = torch.onnx.export(
                _exported(model, batches), input_names=list(batches[0]), output_names=["logits"], verbose=False
            )
        assert program is not None
        _name_axes(program.model.graph)
        program.save(file)

    _save_checked(save, load_onnx, path, model, batches)
    return load_onnx(path)


def _name_axes(graph: Any) -> None:
    """Name the free axes of an exported graph as servers expect them: `batch_size`, and `sequence_length` of tokens.

    The exporter calls them s0, s1 and the like, everywhere by the same name.
    """
    names: dict[str, str] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                names.setdefault(str(size.value), "batch_size" if axis == 0 else "sequence_length")
    nodes = [output for node in graph.all_nodes() for output in node.outputs]
    for value in [*graph.inputs, *nodes]:
        if value.shape is not None:
            for axis, size in enumerate(value.shape):
                if not isinstance(size, int) and str(size.value) in names:
                    value.shape[axis] = names[str(size.value)]


def save_int8(onnx_path: Path, path: Path) -> Runtime:
    """Quantise an ONNX file's weights to int8, and its activations at run time (dynamic quantisation).

    Its answers differ from the model's: `measure` tells how often.

    Args:
        onnx_path: made by `save_onnx`.
        path: of the quantised .onnx file.

    Raises:
        ImportError: if ONNX is not installed.
    """
    _require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with new_files(path.parent) as made, tempfile.TemporaryDirectory() as folder, _quiet("root"):
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(onnx_path, folded, skip_symbolic_shape=True)
        # One scale a channel, and 7 bits: without VNNI a processor silently saturates sums of 8-bit products.
        quantize_dynamic(folded, made / path.name, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    return load_onnx(path, "ONNX int8")


def load_onnx(path: Path, name: str = "ONNX") -> Runtime:
    """Load a file saved by `save_onnx` or `save_int8`, on the CPU with as many threads as PyTorch has.

    Raises:
        FileNotFoundError: if there is none.
        ImportError: if ONNX Runtime is not installed.
        ValueError: if it is cut short or no ONNX. A changed weight goes unnoticed: compare "sha256" in export.json.
    """
    _require_onnx()
    import onnxruntime

    _require_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has its own kinds
        raise ValueError(f"{path} cannot be read by ONNX Runtime ({error}). Export it again.") from error
    # The exporter drops inputs that the model ignores.
    inputs = {value.name for value in session.get_inputs()}
    return Runtime(
        name,
        lambda batch: session.run(["logits"], {key: batch[key].numpy() for key in batch.keys() & inputs})[0],
        _size(path),
    )


class _ClassLogits(nn.Module):
    """The model with its class logits as the only output: some models also return a cache or hidden states.

    Args:
        model: a classifier.
        names: of its inputs. torch.export names shapes by the signature, which `**inputs` alone would leave empty.
    """

    def __init__(self, model: PreTrainedModel, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model

        def forward(**inputs: Tensor) -> Tensor:
            return model(**inputs).logits

        forward.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # type: ignore[attr-defined]
        self.forward = forward


def _exported(model: PreTrainedModel, batches: Sequence[Batch]) -> torch.export.ExportedProgram:
    """Export the model's graph for any number of rows, and of tokens where inputs are (rows, tokens)."""
    longest = max(batches, key=lambda batch: next(iter(batch.values()))[0].numel())
    # Two rows: torch.export takes a size of one for a constant.
    sample = {name: torch.cat([value[:1]] * 2) for name, value in longest.items()}
    # And two tokens: a decoder may have read rows of one alone.
    sample = {name: value.repeat(1, 2) if value.shape[1:] == (1,) else value for name, value in sample.items()}
    free = torch.export.Dim.DYNAMIC
    shapes = {name: {axis: free for axis in range(2 if value.dim() == 2 else 1)} for name, value in sample.items()}
    cached = getattr(model.config, "use_cache", None)
    if cached:
        model.config.use_cache = False  # a classifier does not generate
    try:
        with torch.no_grad():
            return torch.export.export(
                _ClassLogits(model.eval(), sample), (), kwargs=sample, dynamic_shapes=shapes, strict=False
            )
    finally:
        if cached:
            model.config.use_cache = cached


def _save_checked(
    save: Callable[[Path], object],
    load: Callable[[Path], Runtime],
    path: Path,
    model: PreTrainedModel,
    batches: Sequence[Batch],
) -> None:
    """Save to `path`, and keep the file only if it loads again and gives the model's logits."""
    _on_cpu(model)
    expected = class_logits(model, batches)
    with new_files(path.parent) as folder:
        file = folder / path.name  # ONNX keeps weights beyond 2 GB beside it
        try:
            save(file)
            found = load(file).run(batches)
        except Exception as error:
            raise RuntimeError(f"{type(model).__name__} cannot be exported as {path.name}: {error}") from error
        difference = float(np.abs(expected - found).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise RuntimeError(
                f"{type(model).__name__} exported as {path.name}: its class logits differ from PyTorch's by up to"
                f" {difference:.3g} on {len(expected)} real inputs, where {TOLERANCE:g} may be rounding. The file was"
                " not kept: the exporter translates this model wrongly. Try another version of torch or onnxscript."
            )


def _size(path: Path) -> int:
    weights = path.with_name(f"{path.name}.data")  # ONNX puts weights beyond 2 GB here
    return path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def _on_cpu(model: PreTrainedModel) -> None:
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(
            f"The model is on {model.device} in {model.dtype}: exports are made and measured on the CPU in float32."
            " Call model.float().cpu() first."
        )


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}. Exporting to ONNX needs: pip install 'hf-lelp[onnx]'") from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Hide a library's notes within the block, such as that torchvision's operators are missing."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
