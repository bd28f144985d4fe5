"""In what units networks see values."""

from __future__ import annotations

import torch
from torch import Tensor


def own_where_alike(std: Tensor, least: float | Tensor) -> Tensor:
    """Deviations (...,), but 1 where one is not above `least`.

    What did not differ so far keeps its own unit: in units of nearly nothing, the first that does
    would outweigh all else.
    """
    return torch.where(std > least, std, torch.ones_like(std))
