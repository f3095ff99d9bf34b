"""Run the tutorials and keep their figures beside them, where their pages show them.

python docs/site_parts/tutorials.py
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(ROOT.glob("docs/tutorials/*.ipynb"))


def run(notebook: Path, folder: Path) -> Path:
    """Run the code of a notebook in a process of its own, in `folder`; gives the figure that it drew there.

    Raises:
        RuntimeError: if a cell fails, with what was printed.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = folder / f"{notebook.stem}.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script.name], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return folder / f"{notebook.stem}.png"


if __name__ == "__main__":
    for path in NOTEBOOKS:
        with TemporaryDirectory() as temporary:
            shutil.copy(run(path, Path(temporary)), path.with_suffix(".png"))
