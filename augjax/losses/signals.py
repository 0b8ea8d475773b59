"""How losses find what they score."""

from collections.abc import Callable, Sequence

import jax

from augjax import check
from augjax.losses.precise import in_float32
from augjax.types import Outputs, Signals

LOGITS, POOLED = "logits", "pooled"  # taps that a network has beside its maps


def outputs_of(signals: Signals, net: str, loss: str) -> Outputs:
    """What `net` said of the rows. Raises ConfigError, naming `loss`, if there is no such net."""
    what = f"network scored by {loss}"
    check.require(net != "teacher" or net in signals.outputs, what,
                  f"one of {', '.join(map(repr, sorted(signals.outputs)))}", repr(net),
                  "set the phase's teacher to run:DIR or phase:NAME")
    return signals.outputs[check.one_of(what, net, signals.outputs)]


def mean_logits(said: Sequence[jax.Array]) -> jax.Array:
    """The mean of several networks' logits, in float32; of one, those logits."""
    return sum(map(in_float32, said)) / len(said) if len(said) > 1 else said[0]


def student_and_teacher(
    signals: Signals,
    student: str,
    teacher: str | tuple[str, ...],
    loss: str,
    mean: Callable[[Sequence[jax.Array]], jax.Array] = mean_logits,
) -> tuple[jax.Array, jax.Array]:
    """The logits of both, [R, K] each; of several teachers their mean.

    Raises ConfigError, naming `loss`, for an unknown network, none at all, or other classes.
    """
    z_s = outputs_of(signals, student, loss).logits
    said = [outputs_of(signals, name, loss).logits for name in names_of(teacher, loss)]
    for z_t in said:
        same_classes(z_s, z_t, loss)
    return z_s, mean(said)


def names_of(teacher: str | tuple[str, ...], loss: str) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    names = (teacher,) if isinstance(teacher, str) else tuple(teacher)
    check.require(len(names) > 0, f"teacher of {loss}", "the name of one network or more", "none",
                  "write for example teacher")
    return names


def same_classes(z_s: jax.Array, z_t: jax.Array, loss: str) -> None:
    """Raises ConfigError where student and teacher do not tell the same classes of the rows."""
    check.require(
        z_s.shape == z_t.shape, f"logits of student and teacher in {loss}",
        f"one shape, {z_t.shape}", z_s.shape, "give both networks the same rows and classes")


def tap_of(signals: Signals, net: str, tap: str, loss: str) -> jax.Array:
    """What a network said at a tap: "logits" [R, K], "pooled" [R, D], or a map [R, H, W, D].

    Raises ConfigError, naming `loss` and the taps that exist, for an unknown network or tap.
    """
    outputs = outputs_of(signals, net, loss)
    taps = {LOGITS: outputs.logits, POOLED: outputs.pooled, **outputs.features}
    there = {name: said for name, said in taps.items() if said is not None}
    return there[check.one_of(f"tap of {net!r} in {loss}", tap, there)]


def maps_of(
    signals: Signals, student: str, teacher: str, taps: tuple[str, ...],
    teacher_taps: tuple[str, ...], loss: str, least: int = 1,
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """{student's tap: (its map, the teacher's)}, [R, H, W, D] each, in the order of the taps.

    Raises ConfigError, naming `loss`: fewer taps than `least`, another number of them for the
    teacher, a name twice, an unknown name, or what is no map.
    """
    check.require(len(taps) >= least and len(set(taps)) == len(taps), f"taps of {loss}",
                  f"at least {least}, each once", taps, "name maps of the student")
    check.require(len(teacher_taps) == len(taps), f"teacher_taps of {loss}",
                  f"{len(taps)}, one for each of {taps}", teacher_taps, "name as many maps")
    pairs = {}
    for tap, other in zip(taps, teacher_taps):
        pairs[tap] = (tap_of(signals, student, tap, loss), tap_of(signals, teacher, other, loss))
        for name, said in ((tap, pairs[tap][0]), (other, pairs[tap][1])):
            check.require(said.ndim == 4, f"tap {name!r} in {loss}", "a map [R, H, W, D]",
                          list(said.shape), "name a feature map")
    return pairs
