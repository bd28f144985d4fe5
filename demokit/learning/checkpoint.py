"""Checkpoints: named tensors and a JSON header in one safetensors file, never pickled objects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from demokit.errors import DemokitError
from demokit.reading import MALFORMED, MOST_BYTES, parse_object
from demokit.writing import errno_of, reason, write_whole

KEPT = "what is saved already is kept; --resume goes on from the last checkpoint."
_HEADER, _DIGEST = "demokit", "sha256"
_END = '"}'  # of the header, behind the checksum
_MOST_TENSORS = 10_000


def save_checkpoint(
    path: Path, tensors: dict[str, Tensor], header: dict[str, Any], advice: str = ""
) -> None:
    """Write a checkpoint; its folder must be there.

    `advice` says what to do when it cannot be written; without it, what a training should.

    Raises:
        DemokitError: it cannot be written; the last checkpoint is then as it was.
    """
    data = save(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        metadata={_HEADER: _sealed(header, tensors)},
    )
    of_training = KEPT if path.exists() else "nothing is kept yet; start again with --overwrite."
    write_whole(path, data, advice or of_training, parents=False)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a checkpoint.

    Raises:
        DemokitError: there is no such file, or it is no checkpoint of demokit.
    """
    return parse_checkpoint(path, read_checkpoint(path))


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint, of which the table alone has been looked at.

    Raises:
        DemokitError: there is no such file, or it has no table of tensors.
    """
    if not path.is_file():
        raise DemokitError(f"No checkpoint at {path}: name a file or folder that a training wrote.")
    with _explain_file(path), path.open("rb") as file:
        _table(file)
        file.seek(0)
        return file.read()


def parse_checkpoint(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same as `load_checkpoint`, of the bytes that were read at `path`."""
    with _explain_file(path):
        text = _table(BytesIO(data))["__metadata__"][_HEADER]
        header = parse_object(text)
        # It refuses tensors that overlap, or whose sizes are not those of their places in the
        # file: they take no more memory than the file has bytes. Copies: where memory is not
        # aligned as torch aligns it, kernels add up otherwise.
        tensors = {name: value.clone() for name, value in load(data).items()}
        said = header.pop(_DIGEST, None)  # versions before 0.2 wrote none
        if said is not None and said != _digest(text.removesuffix(f"{said}{_END}"), tensors):
            raise ValueError("its checksum is another")
    return tensors, header


@contextmanager
def _explain_file(path: Path) -> Iterator[None]:
    """Turn what reading a file that is no checkpoint raises into a DemokitError."""
    try:
        yield
    except (SafetensorError, OSError, *MALFORMED) as error:
        if errno_of(error):
            raise DemokitError(f"{path} cannot be read: {reason(error)}.") from error
        raise DemokitError(
            f"{path} is no demokit checkpoint, or a damaged one ({error}): "
            "train again, or name another."
        ) from None


def _sealed(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The header as JSON, with the checksum of all that stands before it, and of the tensors."""
    text = json.dumps({**header, _DIGEST: ""}).removesuffix(_END)
    return text + _digest(text, tensors) + _END


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text, and of every tensor's name, type, shape and bytes."""
    found = sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        found.update(repr((name, values.dtype, tuple(values.shape))).encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextmanager
def explain_content(path: Path) -> Iterator[None]:
    """Turn what taking apart a checkpoint of another shape raises into a DemokitError."""
    try:
        yield
    except MALFORMED as error:
        raise DemokitError(
            f"{path} was written by another version of demokit or by hand ({error}): train again."
        ) from None


def _table(file: IO[bytes]) -> dict[str, Any]:
    """The table of tensors; raises ValueError for one that is too long to be looked at."""
    size = int.from_bytes(file.read(8), "little")
    if size > MOST_BYTES:
        raise ValueError(f"a table of {size} bytes")
    table = parse_object(file.read(size))
    if len(table) > _MOST_TENSORS:
        raise ValueError(f"{len(table)} tensors")
    return table


def check_tensors(
    found: Mapping[str, Tensor], make: Callable[[], Mapping[str, Tensor]], what: str
) -> None:
    """Raise ValueError unless names, shapes and types are those of what `make` makes.

    It makes no more numbers than there are: sizes that a file claims are compared before they
    cost anything.
    """
    with _Bounded(sum(value.numel() for value in found.values())):
        wanted = {name: (value.shape, value.dtype) for name, value in make().items()}
    if wanted != {name: (value.shape, value.dtype) for name, value in found.items()}:
        raise ValueError(f"its {what} are not those of its configuration")


def check_state(found: Mapping[str, Tensor], make: Callable[[], Mapping[str, Tensor]]) -> None:
    """`check_tensors` for what a training goes on from; raises DemokitError."""
    try:
        check_tensors(found, make, "tensors")
    except ValueError as error:
        raise DemokitError(
            f"What the checkpoint keeps to go on from is damaged ({error}): train again."
        ) from error


class _Bounded(TorchFunctionMode):
    """Inside, new tensors have so many numbers together at most; raises ValueError."""

    _MAKE = (torch.rand, torch.randn, torch.zeros, torch.ones, torch.full, torch.empty)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self._MAKE:
            sizes = args[0] if isinstance(args[0], tuple | list) else args
            self._left -= math.prod(sizes)
            if self._left < 0:
                raise ValueError("its configuration claims more numbers than are in the file")
        return func(*args, **(kwargs or {}))
