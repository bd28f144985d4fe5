"""Reading other people's pickles: arrays, numbers, text and plain containers, nothing else.

A pickle is a program. This reader runs none of what it names: every name it admits stands for a
class of ours that only collects its arguments, and arrays are built from bytes at the end. Files
of `joblib.dump` hold the bytes of arrays between the pickle's opcodes; these are read too.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from demokit.errors import DemokitError
from demokit.types import Array

_LARGEST_BYTES = 2**30
_SCALARS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"x\x9c": "zlib"}


def read_pickle(path: Path) -> Any:
    """The content of a pickle: dicts, lists, tuples, sets, text, numbers and numpy arrays.

    Raises:
        DemokitError: it names anything else, is damaged, compressed or too large.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DemokitError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB: not read.")
        data = path.read_bytes()
    except OSError as error:
        raise DemokitError(f"{path} cannot be read ({error.strerror}).") from error
    if data[:2] in _COMPRESSED:
        raise DemokitError(f"{path} is compressed ({_COMPRESSED[data[:2]]}): decompress it first.")
    try:
        return _finished(_Reader(io.BytesIO(data)).load(), {})
    except _RefusedError as refused:
        raise DemokitError(
            f"{path} was not read: it asks for {refused}, and only arrays and plain containers "
            "are read from pickles."
        ) from None
    # A damaged pickle can raise anything, and so can a hostile one.
    except Exception as error:
        raise DemokitError(f"{path} is damaged or no pickle ({type(error).__name__}).") from error


class _RefusedError(Exception):
    """The pickle asks for something that is not admitted."""


class _DType:
    """`numpy.dtype(text, align, copy)`, to be completed by its byte order."""

    def __init__(self, text: object, *_: object) -> None:
        if not isinstance(text, str) or not _SCALARS.fullmatch(text):
            raise _RefusedError(f"arrays of '{text}'")
        self.text = text

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.text = state[1] + self.text.lstrip("<>=|")

    def make(self) -> np.dtype[Any]:
        return np.dtype(self.text)


class _Array:
    """An array in the making: shape, dtype, order and bytes."""

    shape: tuple[int, ...] = ()
    dtype: Any = None
    order = "C"
    data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, is_fortran, self.data = state
        self.order = "F" if is_fortran else "C"

    def make(self) -> Array:
        data = self.data.make() if isinstance(self.data, _Encoded) else self.data
        if not isinstance(self.dtype, _DType) or not isinstance(data, bytes | bytearray):
            raise _RefusedError("arrays of objects")
        flat = np.frombuffer(bytes(data), self.dtype.make())
        native = flat.astype(flat.dtype.newbyteorder("="))
        return native.reshape(self.shape, order="F" if self.order == "F" else "C")


class _JoblibArray(_Array):
    """joblib's wrapper: its attributes stand in the pickle, the array's bytes after them."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shape = tuple(int(n) for n in state["shape"])
        self.dtype, self.order = state["dtype"], state["order"]
        self.alignment = state.get("numpy_array_alignment_bytes")

    def read(self, file: io.BytesIO) -> None:
        """Take the array's bytes from the file."""
        if not isinstance(self.dtype, _DType):
            raise _RefusedError("arrays of objects")
        if self.alignment is not None:
            file.read(file.read(1)[0])
        size = math.prod(self.shape) * self.dtype.make().itemsize
        left = len(file.getbuffer()) - file.tell()
        if any(n < 0 for n in self.shape) or size > left:
            raise ValueError("an array longer than the file")
        self.data = file.read(size)


class _Scalar:
    """`numpy.scalar(dtype, bytes)`."""

    def __init__(self, dtype: object, data: object) -> None:
        if not isinstance(dtype, _DType):
            raise _RefusedError("a scalar of objects")
        self.dtype, self.data = dtype, data

    def make(self) -> Any:
        data = self.data.make() if isinstance(self.data, _Encoded) else self.data
        if not isinstance(data, bytes):
            raise _RefusedError("a scalar of objects")
        return np.frombuffer(data, self.dtype.make())[0].item()


class _Encoded:
    """`_codecs.encode(text, "latin1")`: how old protocols write bytes."""

    def __init__(self, text: object, encoding: object) -> None:
        if not isinstance(text, str) or encoding != "latin1":
            raise _RefusedError("an encoding other than latin1")
        self.text = text

    def make(self) -> bytes:
        return self.text.encode("latin1")


class _Mapping(dict[Any, Any]):
    """`collections.OrderedDict` or `defaultdict`, as a plain dict."""

    def __init__(self, *_: object) -> None:
        super().__init__()


def _new_array(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
    """`numpy._frombuffer`, protocol 5."""
    array = _Array()
    array.data, array.dtype, array.shape, array.order = data, dtype, shape, order
    return array


_NUMPY_CORES = ("numpy.core.", "numpy._core.")
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
    ("_codecs", "encode"): _Encoded,
    ("collections", "OrderedDict"): _Mapping,
    **{(core + "multiarray", "_reconstruct"): _new_array for core in _NUMPY_CORES},
    **{(core + "multiarray", "scalar"): _Scalar for core in _NUMPY_CORES},
    **{(core + "numeric", "_frombuffer"): _from_buffer for core in _NUMPY_CORES},
}


# The C reader looks ahead in the file and cannot be stopped between two opcodes.
class _Reader(pickle._Unpickler):
    """Reads opcodes; whatever they name is looked up in `_ADMITTED` alone."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; raises `_RefusedError` for any that is not admitted."""
        if (module, name) not in _ADMITTED:
            raise _RefusedError(f"'{module}.{name}'")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Persistent ids name things outside the file: refused."""
        raise _RefusedError(f"the outside object {pid!r}")

    def get_extension(self, code: int) -> Any:
        """Extension codes name classes too: refused."""
        raise _RefusedError(f"extension {code}")

    def load_build(self) -> None:
        """BUILD: only our stand-ins take a state; joblib's array takes its bytes after it."""
        target = self.stack[-2]
        if not isinstance(target, _DType | _Array):
            raise _RefusedError(f"a state for {type(target).__name__}")
        target.__setstate__(self.stack.pop())
        if isinstance(target, _JoblibArray):
            target.read(self._file)

    dispatch[pickle.BUILD[0]] = load_build


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """`value` with every stand-in replaced by what it stands for; shared parts stay shared.

    `done` maps the id of each container to its replacement, so that a small pickle which repeats
    itself many times stays small.
    """
    if isinstance(value, _Array | _Scalar | _Encoded | dict | list | tuple | set | frozenset):
        key = id(value)
        if key not in done:
            done[key] = None  # a container that holds itself finds None
            done[key] = _replaced(value, done)
        return done[key]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise _RefusedError(f"an object of type {type(value).__name__}")


def _replaced(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _Array | _Scalar | _Encoded):
        return value.make()
    if isinstance(value, dict):
        return {_finished(k, done): _finished(v, done) for k, v in value.items()}
    kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
    return kind(_finished(item, done) for item in value)
