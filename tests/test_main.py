"""The console program: what it says by itself, with the standard library alone, and where its commands lead."""

import codecs
import os
import subprocess
import sys
import tomllib

import pytest
from places import ROOT

import hf_lelp
from hf_lelp.__main__ import COMMANDS, console
from hf_lelp.cli.options import REPLACE, _in_plain_letters

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def hf_lelp_alone(*argv: str) -> subprocess.CompletedProcess[str]:
    """The console program in an interpreter (-S) that sees no installed package."""
    code = "from hf_lelp.__main__ import console; console()"
    command = [sys.executable, "-S", "-c", code, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def test_the_script_is_the_console_program() -> None:
    assert PROJECT["scripts"] == {"hf-lelp": "hf_lelp.__main__:console"}


@pytest.mark.parametrize("argv", [(), ("-h",), ("--help",)])
def test_help_lists_every_command(argv: tuple[str, ...]) -> None:
    done = hf_lelp_alone(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    shown = {words[0]: " ".join(words[1:]) for line in done.stdout.splitlines() if (words := line.split())}
    assert {name: shown.get(name) for name in COMMANDS} == {name: what for name, (_, what) in COMMANDS.items()}


def test_version_is_the_package_s() -> None:
    done = hf_lelp_alone("--version")
    assert (done.returncode, done.stdout) == (0, f"hf-lelp {hf_lelp.__version__}\n")
    assert hf_lelp.__version__ == PROJECT["version"]


def test_an_unknown_command_is_named_with_the_nearest() -> None:
    done = hf_lelp_alone("destill", "--train_file", "mine.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hf-lelp: there is no command destill; did you mean distill?\n"


def test_an_unknown_command_like_none_is_told_which_there_are() -> None:
    done = hf_lelp_alone("xyz")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"hf-lelp: there is no command xyz: there are {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leads_to_its_program(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hf-lelp", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        console()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: hf-lelp {command} ")


def test_a_terminal_that_knows_few_letters_ends_no_run() -> None:
    said = "from hf_lelp.__main__ import main; from hf_lelp.cli.options import configure_logging as c\n"
    said += "c(); print('\\u03c4 \\u4e2d'); main(['--help'], 'hf-lelp distill')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert "--subclass_temperature" in done.stdout.decode("ascii") and done.stdout.decode("ascii").startswith("tau ?")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "+/-2 - tau x ?"), ("latin-1", "±2 - tau × ?")])
def test_what_an_encoding_does_not_have_is_written_in_plain_letters(encoding: str, shown: str) -> None:
    codecs.register_error(REPLACE, _in_plain_letters)
    assert "±2 – τ × 語".encode(encoding, REPLACE).decode(encoding) == shown
