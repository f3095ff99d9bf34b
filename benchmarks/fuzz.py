"""Give every loader of the library damaged and forged files, and see that it refuses them in its own words.

    python -m benchmarks.fuzz                                        # 13,500 inputs; writes results/fuzz.json
    python -m benchmarks.fuzz --inputs 50 --only projections

An input is a good artefact with one file changed by hypothesis: cut, bits flipped, bytes overwritten or put in, a JSON
or YAML value replaced, the header of a safetensors file forged, or the whole file made of anything. The loader may give
what was saved, or end in a `raise` of the library's own, of ValueError or FileNotFoundError (a program: with its
usage). Everything else is a failure, an error of another library too, and so are unpickling, a new process, a
connection, a file opened beside the artefact, more than 20 seconds, and more than a GiB of memory.
"""

import argparse
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # and not where a test imports this
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}

import numpy as np
import torch
import transformers
import yaml
from datasets import Dataset
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

from benchmarks.bad_data import is_our_own
from hf_lelp import ClassProjections, Teacher, load_student
from hf_lelp.checkpoints import check_checkpoint, check_settings, load_rest, save_for_resuming
from hf_lelp.checksums import CHECKSUMS_NAME, WEIGHTS, write_checksums
from hf_lelp.columns import teacher_columns
from hf_lelp.compare import CompareArguments
from hf_lelp.distill import DistillArguments
from hf_lelp.export import _earlier
from hf_lelp.files import write_atomically
from hf_lelp.options import parse_options
from hf_lelp.runs import _checksum, _read
from hf_lelp.students import place_student_head, student_head

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
MEMORY = 2**30
SECONDS = 20
FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


class Breach(BaseException):
    """Something that no artefact may lead to; not an Exception, so that no loader can take it for bad input."""


@dataclass(frozen=True)
class Target:
    """A loader.

    Attributes:
        name: for the table.
        inputs: as many as a whole campaign has.
        make: writes a good artefact to a folder.
        load: reads it; what it returns is equal for equal artefacts.
        names: of the files that are changed, or patterns.
        exact: whether the artefact tells a change: then nothing else than what was saved may come out.
    """

    name: str
    inputs: int
    make: Callable[[Path], None]
    load: Callable[[Path], Any]
    names: tuple[str, ...]
    exact: bool = True


# ---- The loaders ----


def _projections() -> ClassProjections:
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 8, 3)))[0].transpose(0, 2, 1)
    return ClassProjections(
        mean=torch.arange(16.0).reshape(2, 8),
        directions=torch.from_numpy(directions.copy()).float(),
        variance=torch.ones(2, 3),
        count=torch.tensor([5, 7]),
        null_space=True,
        teacher="0123456789abcdef",
    )


def make_projections(folder: Path) -> None:
    _projections().save_pretrained(folder)


def load_projections(folder: Path) -> str:
    return ClassProjections.from_pretrained(folder).fingerprint


def _model(form: str) -> transformers.PreTrainedModel:
    model = tiny.named(tiny.classifier(hidden_size=8))
    place_student_head(model, 2, form)
    return model


def make_student(folder: Path) -> None:
    _model("subclass").save_pretrained(folder)


def make_checked_student(folder: Path) -> None:
    make_student(folder)
    write_checksums(folder, WEIGHTS)


def load_weights(folder: Path) -> list[bytes]:
    return [value.numpy().tobytes() for value in load_student(str(folder)).state_dict().values()]


SETTINGS = {"classes": tiny.LABEL_NAMES, "teacher": "0123456789abcdef", "num_subclasses": 2, "seed": 42}


def make_checkpoint(folder: Path) -> None:
    model = _model("auxiliary")
    model.save_pretrained(folder)
    save_for_resuming(folder, student_head(model), SETTINGS)
    _projections().save_pretrained(folder / "class_projections")
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    write_checksums(folder)


def load_checkpoint(folder: Path) -> tuple[str, bytes]:
    check_checkpoint(folder)
    check_settings(str(folder), SETTINGS)
    model = _model("auxiliary")
    head = student_head(model)
    load_rest(str(folder), model, head)
    projections = ClassProjections.from_pretrained(folder / "class_projections")
    assert projections is not None and head is not None
    return projections.fingerprint, head.state_dict()["auxiliary.weight"].numpy().tobytes()


def make_run(folder: Path) -> None:
    logits, labels = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) % 2
    figures = json.dumps({"accuracy": 0.5, "train_seconds": 1.0, "settings": {"num_subclasses": 2}})
    metadata = {"figures": figures, "checksum": _checksum(figures, logits, labels)}
    save_file({"logits": logits, "labels": labels}, folder / "run.safetensors", metadata)


def load_run(folder: Path) -> tuple[str, bytes, bytes]:
    run = _read(folder / "run.safetensors", "kd", 0)
    return json.dumps(run.figures), run.logits.tobytes(), run.labels.tobytes()


def make_export(folder: Path) -> None:
    (folder / "export.json").write_text(json.dumps({"plain": {"rows": 6, "agreement": 1.0}}, indent=2))


def make_configuration(folder: Path) -> None:
    options = {"teacher_model": "t", "student_model": "s", "train_file": "d.csv", "num_subclasses": 4, "max_steps": 3}
    options |= {"learning_rate": "1e-3", "output_dir": str(folder / "out"), "use_cpu": True, "report_to": "none"}
    (folder / "distill.yaml").write_text(yaml.safe_dump(options | {"method": ["kd", "lelp"]}))
    (folder / "compare.yaml").write_text(
        yaml.safe_dump(options | {"methods": ["kd:temperature=2", "lelp"], "seeds": 2})
    )


def load_configuration(folder: Path) -> None:
    for kind, name in ((DistillArguments, "distill.yaml"), (CompareArguments, "compare.yaml")):
        with open(os.devnull, "w", errors="backslashreplace") as nowhere, redirect_stderr(nowhere):
            parse_options(kind, ["--config", str(folder / name)], description="")


def make_shard(folder: Path) -> None:
    load_shard(folder)


def load_shard(folder: Path) -> dict[str, Any]:
    """What the teacher says of a few rows, from its shard in the folder or, where that is not whole, run again."""
    rows = Dataset.from_dict({"text": tiny.texts(5)})
    columns: dict[str, Any] = teacher_columns(rows, _teacher(), folder)[:]
    return columns


@cache
def _teacher() -> Teacher:
    return Teacher(tiny.named(tiny.classifier(hidden_size=8)), tiny.tokenizer())


PROJECTIONS = ("config.json", "class_projections.safetensors")
STUDENT = ("config.json", "model.safetensors")
CHECKPOINT = ("distillation.json", "auxiliary_head.safetensors", "trainer_state.json", CHECKSUMS_NAME)
TARGETS = (
    Target("projections", 4000, make_projections, load_projections, PROJECTIONS),
    Target("teacher's shards", 1500, make_shard, load_shard, ("teacher/**/*.arrow", "teacher/**/*.json")),
    Target("runs of compare", 2500, make_run, load_run, ("run.safetensors",)),
    Target("checkpoint", 1500, make_checkpoint, load_checkpoint, CHECKPOINT),
    Target("student with checksums", 1000, make_checked_student, load_weights, ("model.safetensors", CHECKSUMS_NAME)),
    Target("student without checksums", 1500, make_student, load_weights, STUDENT, exact=False),
    Target("export.json", 500, make_export, lambda folder: _earlier(folder / "export.json"), ("export.json",), False),
    Target("options in YAML", 1000, make_configuration, load_configuration, ("distill.yaml", "compare.yaml"), False),
)


# ---- What is done to a file ----

HOSTILE = st.sampled_from(
    ["../outside", "/etc/passwd", "__import__('os').system('true')", "!!python/object/apply:os.system ['true']", "\0"]
)
ODD = (
    st.none()
    | st.booleans()
    | st.integers(-10, 10**4)
    | st.sampled_from([2**31, 2**62, 2**64, 10**30])
    | st.floats()
    | st.text(max_size=20)
    | HOSTILE
)
VALUES = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
NESTED = st.integers(10, 100_000).map(lambda depth: b"[" * depth)


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    """The file's bytes, damaged or forged."""
    kind = draw(st.sampled_from(["cut", "flip", "overwrite", "insert", "json", "header", "anything", "nested"]))
    start = draw(st.integers(0, max(len(original) - 1, 0)))
    match kind:
        case "cut":
            return original[:start]
        case "flip":
            content = bytearray(original)
            for place in draw(st.lists(st.integers(0, 8 * len(original) - 1), min_size=1, max_size=3, unique=True)):
                content[place // 8] ^= 1 << place % 8
            return bytes(content)
        case "overwrite":
            other = draw(st.binary(min_size=1, max_size=16))
            return original[:start] + other + original[start + len(other) :]
        case "insert":
            return original[:start] + draw(st.binary(min_size=1, max_size=16)) + original[start:]
        case "anything":
            return draw(st.binary(max_size=200))
        case "nested":
            return draw(NESTED)
    size = int.from_bytes(original[:8], "little")
    if kind == "header" and size < len(original):  # of safetensors: its length alone, or what it says
        if draw(st.booleans()):
            return (
                draw(st.integers(0, 2**64 - 1) | st.sampled_from([size + 1, 10**8, 2**63])).to_bytes(8, "little")
                + (original[8:])
            )
        header = json.dumps(replaced(draw, json.loads(original[8 : 8 + size]))).encode()
        return len(header).to_bytes(8, "little") + header + original[8 + size :]
    try:
        content = yaml.safe_load(original)  # JSON too
    except (ValueError, yaml.YAMLError):
        content = draw(VALUES)
    return json.dumps(replaced(draw, content)).encode()


def replaced(draw: st.DrawFn, content: Any) -> Any:
    """The same with one value, somewhere in it, replaced or taken out, or one more."""
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    if isinstance(content, list):
        place = draw(st.integers(0, len(content) - 1))
        return [*content[:place], replaced(draw, content[place]), *content[place + 1 :]]
    name = draw(st.sampled_from(sorted(content)))
    match draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"])):
        case "remove":
            return {key: value for key, value in content.items() if key != name}
        case "rename":
            other = draw(st.text(max_size=8) | HOSTILE)
            return {other if key == name else key: value for key, value in content.items()}
        case "add":
            return {**content, draw(st.text(max_size=8) | HOSTILE): draw(VALUES)}
    return {**content, name: replaced(draw, content[name])}


# ---- The campaign ----

_inside: list[Path] = []  # the folder of the artefacts that are being read


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _inside:
        return
    if event in FORBIDDEN:
        raise Breach(f"{event} {arguments}")
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(str(_inside[0].parent)) and not path.startswith(str(_inside[0])):
            raise Breach(f"{path} was opened")


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Within the block nothing may be unpickled, run or opened outside the folder, and there is a limit on time."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Breach("a pickle was read")

    def too_long(*args: Any) -> None:
        raise Breach(f"more than {SECONDS} s")

    kept = {(module, name): getattr(module, name) for module, name in ((pickle, "Unpickler"), (torch, "load"))}
    signal.signal(signal.SIGALRM, too_long)
    for module, name in kept:
        setattr(module, name, refuse)
    _inside.append(folder)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        _inside.clear()
        for (module, name), function in kept.items():
            setattr(module, name, function)


def outcome(target: Target, folder: Path, expected: Any) -> str:
    """What the loader makes of the artefact: "the same", "another", "refused", or the failure."""
    try:
        with watched(folder):
            found = target.load(folder)
    except SystemExit as error:
        return "refused" if error.code == 2 else f"the exit status {error.code}"
    except (Exception, Breach) as error:
        # Without memory torch raises RuntimeError, which a loader may pass on in words of its own.
        enough = not isinstance(error.__cause__, MemoryError) and "allocate" not in str(error)
        return "refused" if is_our_own(error) and enough else f"{type(error).__name__}: {error}"
    return "the same" if found == expected else "another"


def campaign(target: Target, inputs: int, folder: Path, number: int) -> dict[str, Any]:
    """Try so many changed artefacts; the counts of what came out, and each failure."""
    good, tried = folder / "good", folder / "artefact"
    good.mkdir(parents=True)
    target.make(good)
    expected = target.load(good)
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}

    @seed(number)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(good, tried)
        names = [str(path.relative_to(good)) for name in target.names for path in sorted(good.glob(name))]
        name = data.draw(st.sampled_from(names))
        (tried / name).write_bytes(data.draw(changed((good / name).read_bytes())))
        found = outcome(target, tried, expected)
        if found == "another" and target.exact:
            found = "another content, and no word"
        kind = found if found in ("the same", "another", "refused") else "failed"
        counts[kind] += 1
        if kind == "failed" and len(failures) < 20:
            failures.setdefault(found[:300], f"{name}: {(tried / name).read_bytes()[:300]!r}")

    attempt()
    return {"inputs": counts.total(), **counts, "failures": failures}


def main() -> None:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, metavar="LOADER", help=f"of: {', '.join(names)}")
    parser.add_argument("--inputs", type=int, help="for each loader (default: 500 to 4,000)")
    parser.add_argument("--seed", type=int, default=0, help="of hypothesis")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file of the counts")
    options = parser.parse_args()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    logging.disable(logging.ERROR)
    sys.addaudithook(_watch)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        (Path(name) / "outside").write_text("secret")
        for target in TARGETS:
            target.load(_made(target, Path(name) / f"first {target.name}"))  # what is imported late is in memory now
        with suppress(ValueError):  # a system without such limits has none
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for target in TARGETS:
            if options.only is None or target.name in options.only:
                folder = Path(name) / target.name.replace(" ", "_")
                found[target.name] = campaign(target, options.inputs or target.inputs, folder, options.seed)
                print(target.name, found[target.name], flush=True)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    total = sum(result["inputs"] for result in found.values())
    text = json.dumps(
        {"seed": options.seed, "inputs": total, "memory_grown_mb": round(grown), "loaders": found}, indent=1
    )
    write_atomically(options.output, lambda path: path.write_text(text + "\n"))
    if any(result["failures"] for result in found.values()):
        sys.exit("Some inputs did something else than be refused.")


def _made(target: Target, folder: Path) -> Path:
    folder.mkdir()
    target.make(folder)
    return folder


if __name__ == "__main__":
    main()
