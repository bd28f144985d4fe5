"""Checkpoints: named tensors and a JSON header in one safetensors file, never pickled objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from demokit.errors import DemokitError
from demokit.writing import write_whole

KEPT = "what is saved already is kept; --resume goes on from the last checkpoint."
_HEADER = "demokit"


def save_checkpoint(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a checkpoint; its folder must be there.

    Raises:
        DemokitError: it cannot be written; the last checkpoint is then as it was.
    """
    data = save(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        metadata={_HEADER: json.dumps(header)},
    )
    write_whole(path, data, KEPT, parents=False)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a checkpoint.

    Raises:
        DemokitError: there is no such file, or it is no checkpoint of demokit.
    """
    if not path.is_file():
        raise DemokitError(f"No checkpoint at {path}: name a file or folder that a training wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DemokitError(
            f"{path} is no demokit checkpoint, or a damaged one ({error}): "
            "train again, or name another."
        ) from None
    return tensors, header
