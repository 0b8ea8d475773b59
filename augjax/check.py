"""Every error sentence is formed here: what was expected, what came, what to do.

The exit codes are those of DESIGN section 5; `launch` turns each class into its code.
"""

from collections.abc import Iterable
import difflib
from typing import Any


class AugjaxError(Exception):
    """Base of all errors that end a run on purpose."""

    exit_code = 1


class ConfigError(AugjaxError, ValueError):
    """Wrong usage or configuration; nothing was computed."""

    exit_code = 2


class DataError(AugjaxError, ValueError):
    """Data that are missing, unprepared or broken."""

    exit_code = 3


class CheckpointError(AugjaxError, RuntimeError):
    """A checkpoint that is missing, altered or could not be written."""

    exit_code = 4


class NumericsError(AugjaxError, ArithmeticError):
    """A loss or gradient that is not finite."""

    exit_code = 5


class Preempted(AugjaxError):
    """The run was asked to stop, saved its last finished step, and can be started again."""

    exit_code = 75


def sentence(what: str, expected: Any, got: Any, fix: str) -> str:
    """"what: expected E, got G. Fix." """
    return f"{what}: expected {expected}, got {got}. {fix[:1].upper()}{fix[1:]}."


def require(
    holds: bool, what: str, expected: Any, got: Any, fix: str,
    error: type[AugjaxError] = ConfigError,
) -> None:
    """Raises `error` with a full sentence unless `holds`."""
    if not holds:
        raise error(sentence(what, expected, got, fix.rstrip(".")))


def one_of(what: str, name: Any, known: Iterable[str]) -> Any:
    """Returns `name` if it is known, else raises with the nearest known names."""
    known = sorted(known)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Choose one of them."
        listing = ", ".join(map(repr, known))
        raise ConfigError(f"{what}: expected one of {listing}, got {name!r}. {hint}")
    return name
