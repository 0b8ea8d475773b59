"""What terms are shown in tests: the inputs of spec D15, and drawn ones with every kind of tap."""

from dataclasses import replace
import functools

import jax
import jax.numpy as jnp
import numpy as np

from augjax.types import Outputs, Rows, Signals, View

KEY = jax.random.key(3)
ROWS, CLASSES, IMAGES = 6, 5, 10

# Programs of tests run once: what compiles sooner is done sooner.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Inputs of spec D15.
Z_S = np.sin(1 + np.arange(24)).reshape(4, 6).astype(np.float32)
Z_T = 2 * np.cos(0.7 * np.arange(24)).reshape(4, 6).astype(np.float32)


def wave(a, b, shape):
    """relu(sin(a k + b) + 0.3) over the flat index k."""
    return np.maximum(np.sin(a * np.arange(np.prod(shape)) + b) + 0.3, 0).reshape(shape)


MAPS_S = [wave(0.37, 0.1, (4, 4, 4, 3)), wave(0.53, 0.2, (4, 2, 2, 5))]
MAPS_T = [wave(0.29, 0.4, (4, 4, 4, 3)), wave(0.61, 0.5, (4, 2, 2, 5))]


def rows_of(count, classes=CLASSES):
    """Rows with labels in turn, every third mixed, of images 0, 1, ..."""
    index = jnp.arange(count, dtype=jnp.int32)
    lam = jnp.where(index % 3 == 2, 0.75, 1.0).astype(jnp.float32)
    return Rows(jnp.zeros((count, 1, 1, 3), jnp.uint8), index % classes, (index + 1) % classes, lam,
                index, (View("all"),))


def signals_of(rows=None, **outputs):
    """Signals of networks by name: Outputs, or logits alone."""
    made = {name: said if isinstance(said, Outputs) else Outputs(jnp.asarray(said))
            for name, said in outputs.items()}
    count, classes = next(iter(made.values())).logits.shape
    return Signals(rows or rows_of(count, classes), made)


def drawn(seed=0, count=ROWS, width=7, channels=(3, 5, 4), dtype=jnp.float32):
    """Outputs with logits, pooled features and maps f1 (tall), f2 and f3 (wide and square)."""
    draw = np.random.default_rng(seed)

    def positive(*shape):
        return jnp.asarray(np.maximum(draw.normal(0.4, 1.0, shape), 0.01), dtype)

    sizes = ((4, 4), (2, 2), (2, 2))
    return Outputs(
        jnp.asarray(2 * draw.normal(size=(count, CLASSES)), dtype),
        {f"f{place}": positive(count, *size, depth)
         for place, (size, depth) in enumerate(zip(sizes, channels), 1)},
        positive(count, width))


def scene(count=ROWS, channels=(3, 5, 4), dtype=jnp.float32):
    """A student, two teachers (the second of other widths) and a peer, on `count` rows."""
    return signals_of(
        rows_of(count), student=drawn(1, count, dtype=dtype), peer=drawn(4, count, dtype=dtype),
        teacher=drawn(2, count, dtype=dtype), wide=drawn(3, count, 9, (4, 6, 2), dtype=dtype))


def changed(signals, net="student", **parts):
    """The same signals with other outputs of one network."""
    said = replace(signals.outputs[net], **parts)
    return replace(signals, outputs={**signals.outputs, net: said})


def at_work(term, signals):
    """(params, state) of a term that has seen one batch: its constants are set."""

    @jit
    def begin(signals):
        params, state = term.init(KEY, signals)
        return params, term.apply(params, state, signals, KEY)[1]

    return begin(signals)


def value(term, signals):
    """What a fresh term is worth."""

    @jit
    def worth(signals):
        return term.apply(*term.init(KEY, signals), signals, KEY)[0]

    return worth(signals)


def traced(term, signals):
    """The shape of what a fresh term is worth: nothing is compiled."""
    return jax.eval_shape(lambda seen: term.apply(*term.init(KEY, seen), seen, KEY)[0], signals)
