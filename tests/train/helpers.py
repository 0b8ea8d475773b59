"""A run small enough to be repeated dozens of times: 96 drawn images, three phases, all the parts.

Phase "teacher" is plain; "student" distils it, with random views, momentum, weight decay and an
average; "pruned" goes on from the student with half of its weights masked.
"""

from collections.abc import Callable
from dataclasses import replace
import functools
from pathlib import Path
import shutil

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from augjax import compress, losses, method, models, schedule, train, tree
from augjax.data import Dataset, from_arrays
from augjax.models.norm import BatchNorm
from augjax.train import Phase, Recipe, Source, checkpoint, metrics
from augjax.types import Knobs, Outputs, Rows, Start, View, stateless

CLASSES, SHAPE, BATCH = 4, (8, 8, 3), 16
LAST = {"teacher": 6, "student": 9, "pruned": 6}  # steps of the phases of `three_phases`


# --- data and networks ---------------------------------------------------------------------------


def pictures(train_images: int = 96, test_images: int = 40, holdout_images: int = 0) -> Dataset:
    """Noise around one drawn image per class; the same in every process."""
    draw = np.random.Generator(np.random.Philox(7))
    prototypes = draw.integers(60, 196, (CLASSES, *SHAPE))
    names = tuple("abcd")

    def split(name, count):
        labels = np.arange(count) % CLASSES
        images = prototypes[labels] + draw.integers(-60, 60, (count, *SHAPE))
        return from_arrays(name, images.astype(np.uint8), labels, names)

    held = split("held", holdout_images) if holdout_images else None
    return Dataset("pictures", names, SHAPE, split("train", train_images),
                   split("test", test_images), held)


class Small(nn.Module):
    """Convolution, BatchNorm, mean, linear head: the least that has every kind of parameter."""

    width: int = 8
    classes: int = CLASSES
    domains: int = 1
    images: int | None = None  # that share BatchNorm's statistics

    @nn.compact
    def __call__(self, x, mode):
        x = nn.Conv(self.width, (3, 3), strides=2, use_bias=False, name="conv")(x)
        x = nn.relu(BatchNorm(self.domains, images=self.images, name="norm")(x, mode))
        pooled = x.mean((1, 2))
        return Outputs(nn.Dense(self.classes, name="head")(pooled), {"f0": x}, pooled)


@functools.cache  # so that its `init` is compiled once
def small(*args, **kwargs):
    """A Net from `Small`; arguments as there."""
    return models.from_linen(Small(*args, **kwargs), SHAPE, [0.5] * 3, [0.25] * 3)


# --- views ---------------------------------------------------------------------------------------


def plain(key, batch, policies) -> Rows:
    """The images as they are."""
    del key, policies
    ones = jnp.ones(batch.label.shape, jnp.float32)
    return Rows(batch.image, batch.label, batch.label, ones, batch.index, (View("train"),))


def noisy(key, batch, policies) -> Rows:
    """Mirrored or not, rolled, and brightened by up to `magnitude`: a key for every image."""
    magnitude = policies["train"]["magnitude"]

    def one(place, image):  # keyed by the image's global position in the batch
        mirror, roll, bright = jax.random.split(jax.random.fold_in(key, place), 3)
        image = jnp.where(jax.random.bernoulli(mirror), image[:, ::-1], image)
        image = jnp.roll(image, jax.random.randint(roll, (), -1, 2), axis=0)
        more = jnp.round(magnitude * jax.random.uniform(bright, minval=-1)).astype(jnp.int32)
        return jnp.clip(image.astype(jnp.int32) + more, 0, 255).astype(jnp.uint8)

    images = jax.vmap(one)(jnp.arange(batch.label.shape[0]), batch.image)
    return replace(plain(key, batch, policies), image=images)


def fingerprint(name: str = "pixels"):
    """A Term that learns nothing and reports an exact number (below 2**20) that any pixel changes.

    "pixels" stands for all pixels of all rows in their order, "order" for the images' indices.
    """

    def value(signals):
        seen = signals.rows.image if name == "pixels" else signals.rows.index
        flat = seen.reshape(seen.shape[0], -1).astype(jnp.uint32)
        odd = 2 * jnp.arange(flat.size, dtype=jnp.uint32).reshape(flat.shape) + 1
        total = jnp.sum(flat * (odd * jnp.uint32(2654435761)))  # modulo 2**32, in any order
        return (total >> 12).astype(jnp.float32)

    return stateless(value)


# --- recipes -------------------------------------------------------------------------------------


def objective(terms=None, nets=None, learners=("student",), views=plain, **options):
    return method.Objective(
        nets or {"student": small()}, learners, views, terms or {"ce": losses.cross_entropy()},
        **options,
    )


def knobs(terms=("ce",), rate: float = 0.05, **policies) -> Knobs:
    weights = terms if isinstance(terms, dict) else dict.fromkeys(terms, 1.0)
    return Knobs({"train": policies} if policies else {}, weights, rate)


def phase(name: str = "only", made=None, epochs: float = 1, **options) -> Phase:
    """A phase of 6 steps an epoch."""
    made = made or objective()
    options.setdefault("knobs", knobs(tuple(made.terms)))
    options.setdefault("batch_size", BATCH)
    return Phase(name, made, epochs=epochs, evaluate_batch=16, **options)


def recipe(*phases: Phase, **options) -> Recipe:
    options.setdefault("data", pictures())
    options.setdefault("log_every", 2)
    return Recipe(phases or (phase(),), **options)


def prune(share: float) -> Callable[[Start], Start]:
    return lambda start: replace(
        start, transform=compress.prune_l1(start.params, start.transform, share)
    )


def three_phases(structure: str | None = "three", epochs: float = 1.5, magnitude: float = 24.0,
                 kd: float = 0.9, rate: float = 0.1, evaluate_student_epochs: float = 2 / 3,
                 **options) -> Recipe:
    """teacher (6 steps), student (9), pruned (6): everything that a resumed run must carry over."""
    marks = {"pixels": fingerprint("pixels"), "order": fingerprint("order")}
    teach = objective({"ce": losses.cross_entropy(), **marks})
    distil = objective(
        {"ce": losses.cross_entropy(), "kd": losses.hinton(), **marks},
        {"student": small(4), "teacher": small()}, views=noisy, transform=compress.mask(),
    )
    none = {"pixels": 0.0, "order": 0.0}
    turned = Knobs({"train": {"magnitude": schedule.linear(magnitude, 0.0)}},
                   {"ce": 1 - kd, "kd": kd, **none}, schedule.cosine(rate))
    shared = dict(
        knobs=turned, optimizer=train.sgd(0.9, weight_decay=5e-3), ema=0.9,
        frozen={"teacher": Source("teacher")}, structure=structure and structure + " student",
        evaluate_epochs=evaluate_student_epochs,
    )
    options.setdefault("data", pictures(holdout_images=20))
    return recipe(
        phase("teacher", teach, 1, knobs=knobs({"ce": 1.0, **none}, rate), evaluate_epochs=0.5,
              optimizer=train.sgd(0.9), structure=structure and structure + " teacher"),
        phase("student", distil, epochs, **shared),
        phase("pruned", distil, 1, init={"student": Source("student")}, edits=(prune(0.5),),
              **shared),
        save_epochs=0.5, **options,
    )


# --- what came of a run --------------------------------------------------------------------------


def rows(workdir: Path, kind: str | None = None) -> list[dict]:
    """The rows of metrics.jsonl without their time fields and what became of saves."""
    return [
        {name: value for name, value in row.items()
         if name not in (*metrics.TIME_FIELDS, "saves_failed")}
        for row in metrics.read(workdir) if kind in (None, row["kind"])
    ]


def saved(workdir: Path, phase: str, step: int | str | None = None) -> dict[str, np.ndarray]:
    """{path: array} of a save, the last one of the phase if no step is given; keys as raw words."""
    import orbax.checkpoint.experimental.v1 as ocp

    step = checkpoint.steps(workdir, phase)[-1] if step is None else step
    folder = checkpoint.folder_of(workdir, phase, step)
    checkpoint.verify(folder)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # wherever it was written
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
                        ocp.metadata(folder).metadata)
    return {path: raw(leaf) for path, leaf in tree.flatten(ocp.load(folder, like)).items()}


def raw(leaf) -> np.ndarray:
    """A leaf's bits, comparable: a key becomes its words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def assert_equal_trees(left: dict, right: dict, only: str = "") -> None:
    """Bit for bit, leaf by leaf, over the paths that begin with `only`."""
    paths = sorted(path for path in set(left) | set(right) if path.startswith(only))
    assert paths
    different = [
        path for path in paths
        if path not in left or path not in right or left[path].dtype != right[path].dtype
        or left[path].tobytes() != right[path].tobytes()
    ]
    assert not different


def assert_same_run(one: Path, other: Path, phases=tuple(LAST)) -> None:
    """Every row of the log and the whole last save of every phase, bit for bit."""
    assert rows(one) == rows(other)
    for name in phases:
        assert_equal_trees(saved(one, name), saved(other, name))


def assert_every_step_once(workdir: Path, made: Recipe) -> None:
    """metrics.jsonl holds each row that is due, once, in order."""
    due = []
    for part in made.phases:
        total = made.steps(part)
        for step in range(1, total + 1):
            if step % made.log_every == 0 or step == total:
                due.append((part.name, "train", step))
            if made.evaluation_due(part, step) or step == total:
                due.append((part.name, "eval", step))
    assert [(row["phase"], row["kind"], row["step"]) for row in metrics.read(workdir)] == due


def copied(workdir: Path, to: Path) -> Path:
    shutil.copytree(workdir, to)
    return to
