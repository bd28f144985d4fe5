"""Where tensors of a training live."""

from __future__ import annotations

import os

import torch

from demokit.errors import DemokitError


def find_device(name: str) -> torch.device:
    """The device of this process: under torchrun, each of a machine's processes has its own GPU.

    Raises:
        DemokitError: there is none, or there are fewer than processes.
    """
    if name == "cpu":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise DemokitError("PyTorch finds no GPU on this machine: take --device cpu.")
    index, num = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= num:
        raise DemokitError(f"This machine has {num} GPUs: start at most so many processes on it.")
    torch.cuda.set_device(index)
    return torch.device(name, index)
