"""Processes that have imported everything already: forks of one that was started for it.

Importing torch, transformers and datasets takes seconds of every `python …`. A fork has a process of its own, with its
own arguments, folder, environment and streams, and starts at once. What is read from the environment on import (the
caches of the Hugging Face libraries) is that of the tests.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from places import HELPERS, ROOT


def run(
    *argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `python argv…` gives: a script with its arguments, or -m, a module and its arguments."""
    if not hasattr(os, "fork"):
        return subprocess.run([sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: str(Path(folder) / name) for name in ("stdout", "stderr")}
        job = {
            "argv": list(map(str, argv)),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            **streams,
        }
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that forks has ended"
        texts = {name: Path(path).read_text(encoding="utf-8", errors="replace") for name, path in streams.items()}
    return subprocess.CompletedProcess(job["argv"], int(answer), **texts)


@cache
def _server() -> "subprocess.Popen[str]":
    """The process to fork from, one for all tests of this process."""
    path = os.pathsep.join([str(ROOT), str(HELPERS)])
    command = [sys.executable, "-c", "import forked; forked.serve()"]
    environment = {**os.environ, "PYTHONPATH": path}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(server.kill)
    return server


def serve() -> None:
    """Fork for every line of standard input, and answer with the exit code; a fork returns as the program it is."""
    import hf_lelp.cli.distill
    import hf_lelp.compare.comparison
    import hf_lelp.export.export  # noqa: F401

    while line := sys.stdin.readline():
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _end(_exit_code(job))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _exit_code(job: dict[str, Any]) -> int:
    """Run a job as the interpreter runs a program, and give the code that it ends with."""
    try:
        _become(job)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End at once: to take apart all that was imported would take as long as the import."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _become(job: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT), number)
    first, *rest = job["argv"]
    if first == "-m":
        sys.argv = rest
        sys.path[0] = job["cwd"]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")
