"""Every Python and shell block of README and of the pages runs, on the tiny models and data of tests/helpers/stage.py.

The blocks of a page run in their order, in one folder and one namespace, as a reader would type them. Programs of this
package run in this process. `make`, `pip` and `python -m` are looked up, not run: what is not there fails.
What trains for long, or is launched on several GPUs, has its options and files read, and nothing runs.
"""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import stage
from markdown_it import MarkdownIt
from places import ROOT
from transformers import trainer

from hf_lelp.__main__ import COMMANDS, main

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted({*ROOT.glob("docs/**/*.md")} - {*ROOT.glob("docs/tutorials/*.md"), *ROOT.glob("docs/**/generated/*")}),
]
# At most five, by a piece of the block: why it does not run.
EXEMPT = {
    "torchvision": "is not among the locked packages",
    "run_on_ray(": "needs Ray and an object store; tests/teacher/test_ray_pass.py runs it on one machine",
    "--share 2/4": "shares are of 2,048 rows, and the tiny data has fewer; tests/test_teacher_pass.py has shares",
    "push_to_hub": "needs the Hub and a token; tests/project/test_hub.py pushes to one of its own",
}

# Programs that `python` or `accelerate launch` starts, and the modules of their options.
READ_ONLY = {
    "run_distill.py": COMMANDS["distill"][0],
    "hf_lelp": COMMANDS["distill"][0],
    "hf_lelp.teacher_pass": COMMANDS["teacher-pass"][0],
}


@dataclass(frozen=True)
class Block:
    """A block of a page: `kind` is python or shell."""

    page: Path
    line: int
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of Python and shell, and the indented ones that begin with a program's name."""
    found = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        kind = {"python": "python", "bash": "shell", "sh": "shell", "shell": "shell"}.get(token.info.strip())
        if token.type == "code_block" and token.content.split()[0] in PROGRAMS:
            kind = "shell"
        if token.map is not None and token.type in ("fence", "code_block") and kind is not None:
            found.append(Block(page, token.map[0] + 1, kind, token.content))
    return found


PROGRAMS = ("hf-lelp", "make", "pip", "python", "accelerate", "srun")
WITH_BLOCKS = [page for page in PAGES if blocks(page)]


def exempt(block: Block) -> bool:
    return any(piece in block.text for piece in EXEMPT)


def test_few_blocks_are_exempt_and_each_is_there() -> None:
    texts = [block.text for page in WITH_BLOCKS for block in blocks(page)]
    assert len(EXEMPT) <= 5 and len(texts) > 30
    assert [piece for piece in EXEMPT if not any(piece in text for text in texts)] == []


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stage")
    stage.build(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, stage.FewSteps])
        patch.chdir(folder)
        (folder / "examples").symlink_to(ROOT / "examples")
        main(["distill", "--config", "my.yaml", "--report_to", "none"])
        yield folder


@pytest.mark.surroundings
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "page"
    shutil.copytree(staged, folder, symlinks=True)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if exempt(block):
            continue
        if block.kind == "python":
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
        else:
            for command in block.text.replace("\\\n", " ").splitlines():
                _run(shlex.split(command, comments=True))


def _run(words: list[str]) -> None:
    """Run a command of this package; of `make` and `pip` see that what is asked for is there."""
    if not words:
        return
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= {*targets}, words
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        asked = re.findall(r"\[([\w,]+)\]", " ".join(words))
        assert {extra for group in asked for extra in group.split(",")} <= {*extras}, words
    elif words[0] == "accelerate" or "run_distill.py" in words[:2]:
        place = next(place for place, word in enumerate(words) if word in READ_ONLY)
        files = [file for option, file in pairwise(words[:place]) if option == "--config_file"]
        assert [file for file in files if not Path(file).is_file()] == []
        import_module(READ_ONLY[words[place]]).PROGRAM.parse(words[place + 1 :], words[place])
    elif words[0] == "python":
        assert words[1] == "-m" and find_spec(words[2]) is not None, words
    else:
        assert words[0] == "hf-lelp" and (words[1] in COMMANDS or words[1].startswith("--")), words
        if words[1] in COMMANDS and "--help" not in words:
            main(words[1:], "hf-lelp")
