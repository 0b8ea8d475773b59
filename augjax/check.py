"""Every error sentence is formed here: what was expected, what came, what to do.

The exit codes are those of DESIGN section 5; `launch` turns each class into its code.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import difflib
import sys
import types
from typing import Any, get_args, get_origin, Union


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
    """A loss or gradient that is not finite, or a step that does not repeat."""

    exit_code = 5


class Preempted(AugjaxError):
    """The run was asked to stop, saved its last finished step, and can be started again."""

    exit_code = 75


def tell(text: str, end: str = "\n") -> None:
    """Writes to stderr at once. Whoever read it may be gone (a lost connection); work goes on."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + end)
        sys.stderr.flush()


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


# --- values of a config --------------------------------------------------------------------------

WORDS = {bool: "True or False", int: "a whole number", float: "a finite number", str: "a text"}


def typed(what: str, value: Any, kind: Any) -> None:
    """Raises ConfigError unless a value is of `kind`: a type or an annotation, such as
    `int | tuple[int, ...]`. A whole number is a number, a list is a tuple, and NaN is none."""
    require(fits(value, kind), what, worded(kind), repr(value), "correct its type or leave it out")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value may stand where `kind` is asked for; what is no plain type fits anything."""
    whole, origin = get_args(kind), get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in whole)
    if kind in (None, types.NoneType):
        return value is None
    if kind is bool or isinstance(value, bool):
        other = (int, float, str, tuple, Sequence, Mapping)
        return isinstance(value, bool) and kind not in other and origin not in other
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # NaN is not
    if origin in (tuple, Sequence):
        items = value if isinstance(value, list | tuple) else None
        fixed = origin is tuple and whole and whole[-1] is not Ellipsis
        return items is not None and (not fixed or len(items) == len(whole)) and all(
            fits(item, whole[place] if fixed else whole[0]) for place, item in enumerate(items))
    if kind is tuple:
        return isinstance(value, list | tuple)
    if kind is Mapping or origin is Mapping:
        return isinstance(value, Mapping)
    return kind not in WORDS or isinstance(value, kind)


def worded(kind: Any) -> str:
    """How a kind is called in a sentence."""
    whole, origin = get_args(kind), get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(worded, whole))
    if kind is tuple or origin in (tuple, Sequence):
        of = {worded(part) for part in whole if part is not Ellipsis}
        return "a list" + (f" of which each is {' or '.join(sorted(of))}" if of else "")
    if kind is Mapping or origin is Mapping:
        return "a block of fields"
    return WORDS.get(kind, "nothing" if kind in (None, types.NoneType) else str(kind))


def filled(what: str, given: Any, plain: Any, kinds: Mapping[str, Any], free: Sequence[str] = (),
           more: bool = False) -> dict[str, Any]:
    """The fields of a block and, for those it lacks, their defaults in the block `plain`.

    kinds  {field: annotation}, where a default does not tell the type, as an empty list
    free   fields whose blocks are left alone; other blocks are filled likewise
    more   fields that `plain` has not are left alone instead of refused
    Raises ConfigError for an unknown field and for a value of another type than its default.
    """
    typed(what, given, Mapping)
    whole = dict(given)
    for field, value in given.items():
        if more and field not in plain:
            continue
        default = plain[one_of(f"field of {what}", field, plain)]
        if hasattr(default, "keys") and field not in free:
            whole[field] = filled(f"{what}.{field}", value, default, kinds, free)
        else:
            kind = Mapping if hasattr(default, "keys") else type(default)
            typed(f"{what}.{field}", value, kinds.get(field, kind) if kind is tuple else kind)
    return whole | {field: plain[field] for field in plain if field not in given}


@contextlib.contextmanager
def placed(where: str) -> Iterator[None]:
    """Puts the place in a config in front of what a part refuses."""
    try:
        yield
    except AugjaxError as error:
        raise type(error)(f"{where}: {error}") from error


@contextlib.contextmanager
def refusing(what: str, expected: str, fix: str) -> Iterator[None]:
    """Says as ConfigError what a part, far below, made of values that it cannot work with."""
    try:
        yield
    except AugjaxError:
        raise
    except Exception as error:  # noqa: BLE001 whatever it is, the config is at fault
        told = (str(error).strip() or "no more words").splitlines()[0].rstrip(".")[:300]
        raise ConfigError(
            sentence(what, expected, f"{type(error).__name__}: {told}", fix)) from error
