"""The words of the house: what flows between the parts of a training step.

The one legend of shapes, used in every docstring and comment:

    B  images in the global batch          H, W, C  height, width, channels
    V  views of one image                  K        classes
    R  rows: what a network sees           D        channels of a feature map
    L  layers of an augmentation policy    []       a scalar

Layout is NHWC, colour order RGB, pixels 0..255.
"""

from collections.abc import Callable, Mapping
import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from augjax import check

PyTree = Any
Params = PyTree
Stats = PyTree


def record(cls):
    """A frozen dataclass that JAX sees as a tree; `static()` fields belong to its structure."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


def static(**kwargs):
    """A field of a `record` that is part of the program, not of the data."""
    return field(metadata={"static": True}, **kwargs)


# --- what the data bring -------------------------------------------------------------------------


@record
class Batch:
    """A global batch as the source holds it."""

    image: jax.Array  # [B, H, W, C] uint8
    label: jax.Array  # [B] int32
    index: jax.Array  # [B] int32, the image's position in its data set


@dataclass(frozen=True)
class View:
    """A named kind of row: `rows` of them in every group, normalised by BatchNorm set `domain`."""

    name: str
    rows: int = 1
    domain: int = 0


@record
class Rows:
    """What the networks see, example-major: R = groups x (rows of all views), groups outermost.

    A group is one image of the batch unless a pick has kept fewer rows than there are images.
    A batch that is sharded over devices by groups therefore stays where it is, and a view is a
    static slice of every group.
    """

    image: jax.Array  # [R, H, W, C] uint8, or float32 in 0..255 after mixing
    label: jax.Array  # [R] int32
    mix_label: jax.Array  # [R] int32, the label of the image mixed in
    lam: jax.Array  # [R] float32, the share of `label`; 1 where nothing is mixed
    index: jax.Array  # [R] int32
    views: tuple[View, ...] = static()

    @property
    def groups(self) -> int:
        return self.label.shape[0] // sum(view.rows for view in self.views)


@record
class Outputs:
    """What a network says of its rows."""

    logits: jax.Array  # [R, K] float32
    features: Mapping[str, jax.Array] = field(default_factory=dict)  # {tap: [R, H', W', D]}
    pooled: jax.Array | None = None  # [R, D]


@record
class Signals:
    """All that a loss may look at: the rows and what every network said of them."""

    rows: Rows
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    notes: Mapping[str, jax.Array] = field(default_factory=dict)  # {metric: []}, left on the way

    def only(self, names: tuple[str, ...]) -> "Signals":
        """The same signals, restricted to the rows of the named views; ConfigError if one is not
        there, as after a pick that has chosen among its rows."""
        views = self.rows.views
        for name in names:
            check.one_of("view of a term", name, [view.name for view in views])
        kept = tuple(view for view in views if view.name in names)
        rows, outputs = take_views((self.rows, self.outputs), views, names)
        return Signals(dataclasses.replace(rows, views=kept), outputs, self.notes)


def take_views(tree: PyTree, views: tuple[View, ...], names: tuple[str, ...]) -> PyTree:
    """Keeps the rows of the named views in every [R, ...] leaf, in the order of `views`."""
    if all(view.name in names for view in views):
        return tree
    columns, start = [], 0
    for view in views:
        if view.name in names:
            columns.extend(range(start, start + view.rows))
        start += view.rows

    def take(leaf):  # [R, ...] -> [groups, rows of a group, ...] -> [R', ...]
        grouped = leaf.reshape(-1, start, *leaf.shape[1:])
        kept = jnp.stack([grouped[:, column] for column in columns], axis=1)
        return kept.reshape(-1, *leaf.shape[1:])

    return jax.tree.map(take, tree)


# --- the parts: pairs and triples of pure functions ----------------------------------------------


class Net(NamedTuple):
    """A network behind three pure functions. It owns its resize, normalisation and compute type.

    init(key) -> (params, stats)
    train((params, stats), rows, key) -> (Outputs, stats)    batch statistics, dropout
    predict((params, stats), rows, domain) -> Outputs        running statistics of one BatchNorm set
    """

    init: Callable[..., tuple[Params, Stats]]
    train: Callable[..., tuple[Outputs, Stats]]
    predict: Callable[..., Outputs]


class Term(NamedTuple):
    """One summand of the objective, possibly with parameters and state of its own.

    init(key, signals) -> (params, state)                        `signals` hold shapes only
    apply(params, state, signals, key) -> (value [], state)
    notes(params, state) -> {metric: [] float32}                 what the log is told beside `value`

    `per_example` promises a mean over rows of what each row gives by itself, so that a batch may
    be seen in parts (gradient accumulation); pairs of rows and sums over rows are nothing such.
    `images` says that it keeps something for images of index 0 to `images` - 1, as a memory does;
    a larger training set is refused (`train.phases.check_recipe`).
    """

    init: Callable[..., tuple[Params, PyTree]]
    apply: Callable[..., tuple[jax.Array, PyTree]]
    per_example: bool = False
    notes: Callable[[Params, PyTree], Mapping[str, jax.Array]] = lambda params, state: {}
    images: int | None = None  # None: it keeps nothing of single images


def stateless(loss: Callable[[Signals], jax.Array], per_example: bool = False) -> Term:
    """A Term from any function of the signals that returns a scalar; `per_example` as in Term."""
    return Term(
        init=lambda key, signals: ({}, {}),
        apply=lambda params, state, signals, key: (loss(signals), state),
        per_example=per_example,
    )


def on_views(term: Term, names: tuple[str, ...]) -> Term:
    """The same term, which looks at the rows of the named views alone."""
    return term._replace(
        init=lambda key, signals: term.init(key, jax.eval_shape(lambda s: s.only(names), signals)),
        apply=lambda params, state, signals, key: term.apply(
            params, state, signals.only(names), key
        ),
    )


class Transform(NamedTuple):
    """Edits weights on their way into the forward pass: a mask, fake quantisation, a chain of them.

    init(params) -> state
    apply(params, state) -> params        same tree, shapes and types; identity right after `init`
    """

    init: Callable[[Params], PyTree]
    apply: Callable[[Params, PyTree], Params]


def identity() -> Transform:
    """Leaves every weight as it is."""
    return Transform(init=lambda params: {}, apply=lambda params, state: params)


def chain(**transforms: Transform) -> Transform:
    """Applies named transforms in the order given; its state is {name: state}."""

    def init(params):
        return {name: part.init(params) for name, part in transforms.items()}

    def apply(params, state):
        for name, part in transforms.items():
            params = part.apply(params, state[name])
        return params

    return Transform(init, apply)


@record
class Start:
    """What a phase takes over from another one, or from scratch, and may edit before it begins."""

    params: Mapping[str, Params]  # {learner: parameters}
    stats: Mapping[str, Stats]  # {learner: BatchNorm statistics}
    transform: PyTree  # state of the phase's Transform


Edit = Callable[[Start], Start]  # keeps shapes and types, so that nothing recompiles


@record
class Clock:
    """Where a phase stands before an update."""

    step: Any  # [] int32, updates done in this phase
    epoch: Any  # [] float32, step / steps per epoch
    progress: Any  # [] float32 in 0..1, step / steps of the phase


@record
class Knobs:
    """What a search or a schedule may turn without compiling anything: all of it is traced.

    A leaf is a number, an array, or a function of the host's Clock that returns one
    (`augjax.schedule`).
    """

    policies: Mapping[str, PyTree]  # {view: policy}
    weights: Mapping[str, Any]  # {term: [] float32}
    learning_rate: Any  # [] float32
    clock: Clock | None = None
