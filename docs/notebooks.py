"""Run the notebooks, each in an empty folder, and keep what they print: `make notebooks`."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parent.joinpath("notebooks").glob("*.ipynb"))
_PATIENCE_S = 600


def executed(path, folder):
    """The notebook with its outputs, run in a folder; raises where a cell fails.

    What goes to stderr, and what only an editor reads, is not kept.
    """
    notebook = nbformat.read(path, as_version=4)
    programs = Path(sys.executable).parent
    where = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    client = NotebookClient(
        notebook,
        timeout=_PATIENCE_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env={**where, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [_kept(each) for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def _kept(output):
    if "execution_count" in output:
        output.execution_count = None
    return output


if __name__ == "__main__":
    for each in NOTEBOOKS:
        with TemporaryDirectory() as scratch:
            nbformat.write(executed(each, scratch), each)
        print(each)
