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
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from demokit.errors import DemokitError
from demokit.reading import is_hollow, read_bytes
from demokit.types import Array

_LARGEST_BYTES = 2**30
# An opcode is a byte, and may make a container of 64; values that many share count once each.
_MOST_OPCODES = 5_000_000
_MOST_VALUES = 5_000_000
_LONGEST_KEY = 64
_SCALARS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"x\x9c": "zlib"}


def read_pickle(path: Path) -> Any:
    """The content of a pickle: dicts, lists, tuples, sets, text, numbers and numpy arrays.

    Raises:
        DemokitError: it names anything else, is damaged, compressed or too large.
    """
    try:
        data = read_bytes(path, _LARGEST_BYTES)
    except ValueError as error:
        raise DemokitError(f"{path} is not read: it has {error}.") from error
    except OSError as error:
        raise DemokitError(f"{path} cannot be read ({error.strerror}).") from error
    if data[:2] in _COMPRESSED:
        raise DemokitError(f"{path} is compressed ({_COMPRESSED[data[:2]]}): decompress it first.")
    try:
        return _Finish(len(data))(_Reader(io.BytesIO(data)).load())
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
        data = _bytes_of(self.data)
        if not isinstance(self.dtype, _DType) or data is None:
            raise _RefusedError("arrays of objects")
        if is_hollow(self.shape):
            raise ValueError("an array of more nothing than any episode has")
        flat = np.frombuffer(data, self.dtype.make())
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
        data = _bytes_of(self.data)
        if data is None:
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


def _bytes_of(data: object) -> bytes | None:
    """Bytes, however they were written; Python 2 has texts for them. None for anything else."""
    if isinstance(data, _Encoded):
        return data.make()
    if isinstance(data, str):
        return data.encode("latin1")
    return bytes(data) if isinstance(data, bytes | bytearray) else None


class _Mapping(dict[Any, Any]):
    """`collections.OrderedDict`, as a plain dict; Python 2 gives its items as an argument."""

    def __init__(self, items: object = (), *_: object) -> None:
        super().__init__()
        for name, value in items if isinstance(items, list | tuple) else ():
            _check_key(name)
            self[name] = value


def _no_bytes(*arguments: object) -> bytes:
    """`bytes()`: how old protocols write none."""
    if arguments:
        raise _RefusedError("bytes made of something")
    return b""


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
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
    ("_codecs", "encode"): _Encoded,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): _Mapping,
    **{(core + "multiarray", "_reconstruct"): _new_array for core in _NUMPY_CORES},
    **{(core + "multiarray", "scalar"): _Scalar for core in _NUMPY_CORES},
    **{(core + "numeric", "_frombuffer"): _from_buffer for core in _NUMPY_CORES},
}


class _Opcodes(dict[int, Any]):
    """What each opcode does, for as many opcodes as a pickle may have."""

    left = _MOST_OPCODES

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _RefusedError(f"more than {_MOST_OPCODES} steps")
        return super().__getitem__(code)


def _check_key(key: object) -> None:
    """Raise `_RefusedError` for a key that costs more than a look: hashing goes all the way down.

    Deep tuples overflow the stack of the interpreter, and shared ones take for ever.
    """
    parts = key if isinstance(key, tuple) and len(key) <= _LONGEST_KEY else (key,)
    if any(isinstance(part, tuple | list | set | frozenset | dict) for part in parts):
        raise _RefusedError("a key made of containers")


# Opcodes that hash -> the keys among what lies on the stack since the last mark.
_KEYS: dict[bytes, Callable[[list[Any]], list[Any]]] = {
    pickle.SETITEM: lambda stack: stack[-2:-1],
    pickle.SETITEMS: lambda stack: stack[::2],
    pickle.DICT: lambda stack: stack[::2],
    pickle.ADDITEMS: lambda stack: stack,
    pickle.FROZENSET: lambda stack: stack,
}


def _with_keys(code: bytes, keys: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """What an opcode does, once its keys are checked."""
    action = pickle._Unpickler.dispatch[code[0]]

    def checked(reader: Any) -> None:
        for key in keys(reader.stack):
            _check_key(key)
        action(reader)

    return checked


def _read_bytearray(reader: Any) -> None:
    """BYTEARRAY8: the only opcode that would take memory by what it claims."""
    size = int.from_bytes(reader.read(8), "little")
    if size > reader.file_size:
        raise ValueError("bytes longer than the file")
    reader.stack.append(reader.read(size))


# The C reader looks ahead in the file and cannot be stopped between two opcodes.
class _Reader(pickle._Unpickler):
    """Reads opcodes; whatever they name is looked up in `_ADMITTED` alone."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        # What Python 2 wrote as a text may be bytes: latin1 keeps each of them.
        super().__init__(file, encoding="latin1")
        self._file, self.file_size = file, len(file.getbuffer())
        self.dispatch = _Opcodes(type(self).dispatch)  # type: ignore[misc]

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
    dispatch[pickle.BYTEARRAY8[0]] = _read_bytearray
    dispatch.update({code[0]: _with_keys(code, keys) for code, keys in _KEYS.items()})


class _Finish:
    """Replaces every stand-in by what it stands for; shared parts stay shared.

    Args:
        most_bytes: of all arrays together; those of a file are not larger than it.
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        # Id of a container or stand-in -> what it became, and how many values it holds.
        self._done: dict[int, tuple[Any, int]] = {}

    def __call__(self, value: Any) -> Any:
        """The value, finished; raises `_RefusedError` and whatever a damaged pickle leads to."""
        return self._finished(value)[0]

    def _finished(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, _Array | _Scalar | _Encoded | dict | list | tuple | set | frozenset):
            key = id(value)
            if key not in self._done:
                self._done[key] = None, 1  # a container that holds itself finds None
                self._done[key] = self._replaced(value)
            return self._done[key]
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value, 1
        raise _RefusedError(f"an object of type {type(value).__name__}")

    def _replaced(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, _Array | _Scalar | _Encoded):
            return self._made(value), 1
        items = [*value, *value.values()] if isinstance(value, dict) else value
        made = [self._finished(item) for item in items]
        size = 1 + sum(size for _, size in made)
        if size > _MOST_VALUES:
            raise _RefusedError(f"more than {_MOST_VALUES} values")
        parts = [part for part, _ in made]
        if isinstance(value, dict):
            return dict(zip(parts[: len(value)], parts[len(value) :], strict=True)), size
        kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
        return kind(parts), size

    def _made(self, value: _Array | _Scalar | _Encoded) -> Any:
        made = value.make()
        self._left -= getattr(made, "nbytes", 0)
        if self._left < 0:
            raise _RefusedError("more arrays than are in it")
        return made
