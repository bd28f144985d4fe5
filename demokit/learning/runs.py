"""Names that gmps still takes from here; each has a room of its own."""

import shutil
from pathlib import Path

from demokit.learning import scalars
from demokit.learning.folder import BOARD, METRICS
from demokit.learning.folder import Hold as Hold
from demokit.learning.folder import versions as versions
from demokit.learning.optimizer import optimizer_tensors as optimizer_tensors
from demokit.learning.optimizer import restore_optimizer as restore_optimizer


class ScalarLog(scalars.ScalarLog):
    """Scalars of a run in its folder; `fresh` drops what an earlier run left there."""

    def __init__(self, folder: Path, key: str, *, fresh: bool) -> None:
        super().__init__(folder / METRICS, folder / BOARD, key)
        if fresh:
            (folder / METRICS).unlink(missing_ok=True)
            shutil.rmtree(folder / BOARD, ignore_errors=True)

    def close(self) -> None:
        """Everything is written already."""
