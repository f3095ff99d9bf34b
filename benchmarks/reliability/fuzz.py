"""Give every loader of the library damaged and forged files, and see that it refuses them in its own words.

    python -m benchmarks.reliability.fuzz                                  # 13,500 inputs; writes results/fuzz.json
    python -m benchmarks.reliability.fuzz --inputs 50 --only projections

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # and not where a test imports this
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}

import torch
import transformers
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.places import RESULTS
from benchmarks.reliability.bad_data_case import is_our_own
from benchmarks.reliability.fuzz_changes import changed
from benchmarks.reliability.fuzz_targets import TARGETS, Target
from hf_lelp.storage.files import write_atomically

RESULT = RESULTS / "fuzz.json"
MEMORY = 2**30
SECONDS = 20
FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


class Breach(BaseException):
    """Something that no artefact may lead to; not an Exception, so that no loader can take it for bad input."""


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
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file of the counts")
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
