"""Reads the python version of the CIFAR archives, which are pickles, without trusting them.

A pickle is a program. This reader lets it build containers, numbers, text and arrays of uint8, and
nothing else: every name it asks for is refused or answered by a stand-in of our own, so that not
even NumPy's own reconstruction code runs on the bytes of a stranger.
"""

import io
import pickle
from typing import Any

import numpy as np

from augjax import check


def load_plain(data: bytes, name: str) -> dict[str, Any]:
    """The dictionary in a pickle, its keys as text; arrays are [...] uint8.

    Raises DataError for anything but plain data, before any of it runs. `name` names the file.
    """
    try:
        value = _Plain(io.BytesIO(data), encoding="bytes").load()
    except check.DataError:
        raise
    except Exception as error:  # a broken pickle raises almost anything
        raise _error(name, f"{type(error).__name__}: {error}") from error
    if not isinstance(value, dict):
        raise _error(name, f"a {type(value).__name__}")
    value = {_text(key): item for key, item in value.items()}
    return {key: item.array if isinstance(item, _Array) else item for key, item in value.items()}


def _error(name: str, got: str) -> check.DataError:
    return check.DataError(check.sentence(
        name, "a pickled dictionary of plain data and uint8 arrays", got,
        "take the archive as published; nothing in this one was run",
    ))


class _Plain(pickle.Unpickler):
    """An unpickler that knows the few names of an array, each as a stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        answers = {
            ("numpy", "ndarray"): "ndarray",  # only ever an argument of _reconstruct
            ("numpy", "dtype"): self._dtype,
            ("numpy.core.multiarray", "_reconstruct"): self._array,
            ("numpy._core.multiarray", "_reconstruct"): self._array,
            ("numpy.core.numeric", "_frombuffer"): self._frombuffer,
            ("numpy._core.numeric", "_frombuffer"): self._frombuffer,
            ("_codecs", "encode"): self._encode,
        }
        if (module, name) not in answers:
            raise _error("archive", f"a pickle that asks for {module}.{name}")
        return answers[module, name]

    def _array(self, *arguments) -> "_Array":
        return _Array()

    def _dtype(self, name, *arguments) -> "_Uint8":
        if name not in ("u1", b"u1"):
            raise _error("archive", f"an array of {name!r}")
        return _Uint8()

    def _frombuffer(self, data, dtype, shape, axes) -> "_Array":
        array = _Array()
        array.__setstate__((1, shape, dtype, axes not in ("C", b"C"), bytes(data)))
        return array

    def _encode(self, text, encoding) -> bytes:
        if encoding not in ("latin1", b"latin1"):
            raise _error("archive", f"bytes in the encoding {encoding!r}")
        return text.encode("latin1")


class _Uint8:
    """Stands for np.dtype("uint8"); what a pickle wants to set on it is ignored."""

    def __setstate__(self, state) -> None:
        del state


class _Array:
    """Stands for an array until its state arrives; then `array` holds it, read-only."""

    array: np.ndarray | None = None

    def __setstate__(self, state) -> None:
        _, shape, dtype, by_columns, data = state
        if not (isinstance(dtype, _Uint8) and isinstance(data, bytes)):
            raise _error("archive", "an array that is not uint8")
        flat = np.frombuffer(data, np.uint8)
        self.array = flat.reshape(shape, order="F" if by_columns else "C")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
