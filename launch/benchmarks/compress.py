"""What compressing costs: steps through edited weights, a pruning, a study's next run, populations.

A masked step shows the network its weights times a mask of 60 % zeros, a W4/A4 step its weights and
activations in 4 bits (DoReFa), each beside the network's dense step in float32 (accelerators:
bfloat16). A CPU's rows have a process with one core each, and 32 images for 128: a mask costs as
much for either, so that its share is four times as large. A study's next run differs in magnitude
and seed; its process knows the programs, a disk what else was compiled, as with `launch.study`. A
population is beside the lone step of its phase, called for one member after the other to the same
number of steps; looped, those are the same calls in another frame.

Expected before measuring: masked 1.01, for a byte read beside each weight's 20; W4/A4 1.1 to 1.2,
for passes over every map; pruning 0.5 to 1 s, most of it a partition; a next run 1 to 2 s, most of
them traces; looped 1.00; stacked on a CPU 0.3, grouped convolutions being slow there.
"""

from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import replace
import io
from pathlib import Path
import tempfile
import time
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp

from augjax import augment, compress, data, defaults, losses, method, recipe, train, tree
from augjax import models as zoo
from augjax.models.layers import Hook
from augjax.train import checkpoint, metrics, population, ready, start
from augjax.train.state import TrainState
from augjax.train.stop import Stop
from augjax.types import Batch, chain, Edit, identity, Knobs, Start, Transform
from launch.benchmarks import distill, measure, models, stacked

Call = distill.Call
SPARSITY, BITS, CLASSES = 0.6, 4, 10


def note(*said: str) -> str:
    return "; ".join(filter(None, (*said, models.load())))


# --- steps through edited weights ----------------------------------------------------------------


class Case(NamedTuple):
    """A network, and what it sees in a step."""

    model: str = "resnet18_cifar"
    batch: int = 128
    pixels: int = 32


class Edited(NamedTuple):
    """How a network is shown its weights and what its layers read."""

    transform: Transform = identity()
    edit: Edit = lambda begun: begun
    activation: Hook | None = None


DENSE = Edited()
MASKED = Edited(chain(mask=compress.mask()), compress.prune_to(SPARSITY))
QUANTISED = Edited(chain(dorefa=compress.dorefa(zoo.FULL_PRECISION)), compress.quantise_to(BITS),
                   compress.quantise_activations(BITS))


def begun(case: Case, edited: Edited) -> tuple[method.Objective, TrainState, Knobs]:
    """A network that learns labels, its first state and its knobs; at rate 0 it stays as it is."""
    net = zoo.build(case.model, CLASSES, (case.pixels, case.pixels, 3), models.MEAN, models.STD,
                    dtype=jnp.float32 if models.on_cpu() else jnp.bfloat16,
                    activation=edited.activation)
    objective = method.Objective(
        {"student": net}, ("student",), augment.make({"train": augment.pipeline()}),
        {"ce": losses.cross_entropy()}, transform=edited.transform)
    params, stats = ({"student": part} for part in distill.drawn(net))
    first = edited.edit(Start(params, stats, edited.transform.init(params)))
    params = {"nets": first.params, "terms": {"ce": {}}}
    state = TrainState(params, first.stats, first.transform, {"ce": {}},
                       distill.OPTIMIZER.init(params), ema={}, key=jax.random.key(1),
                       step=jnp.int32(0), meters={}, frozen={})
    return objective, state, Knobs({}, {"ce": 1.0}, learning_rate=0.0)


def stepping(case: Case, edited: Edited) -> Call:
    """A call that updates the network on noise and returns the last metrics."""
    objective, state, knobs = begun(case, edited)
    batch = Batch(*models.noise(case.pixels, case.batch, CLASSES), jnp.arange(case.batch))
    update = train.make_update(objective, distill.OPTIMIZER)
    compiled = jax.jit(update, donate_argnums=0).lower(state, batch, knobs).compile()

    def call():
        nonlocal state
        for _ in range(distill.times()):
            state, metrics = compiled(state, batch, knobs)
        return jax.block_until_ready(metrics)
    return call


def over_dense(edited: Edited, at_most: float) -> measure.Work:
    """A row: the time of an edited step over that of a dense one."""
    def work(name):
        case = Case(batch=32) if models.on_cpu() else Case()
        dense, other = stepping(case, DENSE), stepping(case, edited)
        dense(), other()
        calls_s = measure.seconds(dense), measure.seconds(other)
        ratios = measure.paired_ratio(dense, other, models.often_enough(sum(calls_s) / 2))
        spent = [1000 * seconds / distill.times() for seconds in calls_s]
        return measure.row(name, ratios, "times the dense step's time", at_most=at_most, note=note(
            f"{case.model}, batch {case.batch}, {case.pixels} pixels",
            "ms: dense {:.1f}; edited {:.1f}".format(*spent)))
    return work


# --- a pruning, a next run -----------------------------------------------------------------------


def pruning(model: str = "resnet50", pixels: int = 224, at_most: float = 2.0) -> measure.Work:
    """A row: seconds of pruning by L1, all weights ranked together, warm; the note has the cold."""
    def work(name):
        net = zoo.build(model, 1000, (pixels, pixels, 3), models.MEAN, models.STD)
        params = {"student": distill.drawn(net)[0]}
        masks = compress.mask().init(params)

        def call():
            jax.block_until_ready(compress.prune_l1(params, masks, SPARSITY))

        cold = measure.seconds(call)
        warm = [measure.seconds(call) for _ in range(models.PAIRS)]
        return measure.row(name, warm, "s", at_most=at_most, note=note(
            f"{SPARSITY:.0%} of {tree.count(masks):,} weights", f"the first time {cold:.2f} s"))
    return work


def config_of(model: str, magnitude: float, seed: int, batch: int = 64) -> Any:
    """A network that learns digits under RandAugment."""
    policy = defaults.randaugment(magnitude)
    student = defaults.phase(
        model=defaults.model(model, dtype="float32" if models.on_cpu() else "bfloat16"),
        views={"train": defaults.view("crop", policy, pad=2)}, batch_size=batch,
        optimizer=defaults.optimizer(learning_rate=0.01))
    return defaults.config({"student": student}, seed=seed, log={"every_steps": 1},
                           data={"name": "digits"})


def to_first_update(made: train.Recipe, workdir: Path) -> tuple[float, int]:
    """(seconds from the call of `train.run` to its first update's numbers, programs compiled), by
    the run's own log, whose clock stands while it opens its files."""
    began = time.time()
    with contextlib.redirect_stderr(io.StringIO()):  # the lines that tell of progress
        train.run(made, workdir)
    events = metrics.read_events(workdir)
    stepping_from, = [event["time"] for event in events if event["event"] == "phase"]
    first = next(row for row in metrics.read(workdir) if row["kind"] == "train")
    compiled = sum(event["event"] == "compiled" for event in events)
    return stepping_from - began + first["seconds"], compiled


@contextlib.contextmanager
def compile_cache(folder: str) -> Iterator[None]:
    """What takes a second to compile is kept in a folder, and sought nowhere else."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


def next_run(model: str = "resnet8", later: int = 20, at_most: float = 5.0) -> measure.Work:
    """A row: seconds to the first update of `later` runs, of other magnitudes and seeds."""
    def work(name):
        digits, runs = data.digits(), []
        with tempfile.TemporaryDirectory() as folder, compile_cache(f"{folder}/cache"):
            for seed in range(1 + later):
                made = recipe.build(config_of(model, 2.0 + seed, seed), digits)
                short = replace(made.phases[0], epochs=2 / made.steps_per_epoch(made.phases[0]))
                runs.append(to_first_update(replace(made, phases=[short]), Path(folder, str(seed))))
        (first_s, programs), *rest = runs
        return measure.row(name, [seconds for seconds, _ in rest], "s", at_most=at_most, note=note(
            f"{model}, digits", f"the first run {first_s:.1f} s with {programs} programs",
            f"{sum(more for _, more in rest)} compiled by the others"))
    return work


# --- populations ---------------------------------------------------------------------------------


class Group(NamedTuple):
    """Members: a network under every magnitude, from every seed."""

    model: str = "resnet8"
    magnitudes: tuple[float, ...] = (2.0, 6.0, 10.0)
    seeds: int = 4
    batch: int = 64
    pixels: int = 16


SMALL, LARGE = Group(), Group(batch=128, pixels=32)  # on a CPU, on an accelerator
AIMS = {"looped": (None, 1.0), "stacked": (2.0, None)}  # at least, on an accelerator, on a CPU


def recipes_of(group: Group) -> list[train.Recipe]:
    """The members' runs, of one network."""
    digits = data.digits(group.pixels)
    made = [recipe.build(config_of(group.model, magnitude, seed, group.batch), digits)
            for magnitude in group.magnitudes for seed in range(group.seeds)]
    objective = made[0].phases[0].objective  # so that its network's `init` is compiled once
    return [replace(one, phases=[replace(one.phases[0], objective=objective)]) for one in made]


def advancing(recipes: Sequence[train.Recipe], lowering: str, steps: int
              ) -> tuple[Call, Call, Call]:
    """Calls that update every run so many times on one device, as a population and one after the
    other; and a call for (states of the population's members, of the others)."""
    mesh = train.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        resident = ready.place_data(recipes[0], mesh)
        shapes, writer = start.all_shapes(recipes[0], mesh), checkpoint.Writer(Path(folder), 1)
        runs = [ready.Run(made, Path(folder), mesh, Stop(), writer, shapes, resident=resident)
                for made in recipes]
        shared, phase = runs[0], recipes[0].phases[0]
        own = [ready.ready(run, run.recipe.phases[0], 0)[0] for run in runs]
        lone = ready.compile_step(shared, phase, own[0], {})
        many = population.make_population(shared, phase, own[0], {}, len(runs), lowering)
        members = many.join(jax.tree.map(jnp.copy, own))  # either way donates its states
        frozen = many.join([{}] * len(runs))
        plans = [start.plan(made.phases[0], made, 0) for made in recipes]
        placed, apart = many.place(plans), [ready.place_plan(shared, plan) for plan in plans]

    def together():
        nonlocal members
        members, reports = many.advance(members, frozen, resident, placed, steps)
        jax.block_until_ready(reports)

    def in_sequence():
        reports = [None] * len(runs)
        for number, plan in enumerate(apart):
            for _ in range(steps):
                own[number], reports[number] = lone(own[number], {}, resident, plan)
        jax.block_until_ready(reports)

    return together, in_sequence, lambda: (
        [many.part(members, number) for number in range(len(runs))], own)


def population_over_runs(lowering: str, **changes: Any) -> measure.Work:
    """A row: steps/s of a population over those of its runs in sequence; `changes` of its Group."""
    def work(name):
        group = (SMALL if models.on_cpu() else LARGE)._replace(**changes)
        aim, steps = AIMS[lowering][models.on_cpu()], 1 if models.on_cpu() else 10
        recipes = recipes_of(group)
        together, in_sequence, _ = advancing(recipes, lowering, steps)
        together(), in_sequence()
        calls_s = measure.seconds(together), measure.seconds(in_sequence)
        ratios = measure.paired_ratio(together, in_sequence, models.often_enough(sum(calls_s) / 2))
        spent = [1000 * seconds / steps / len(recipes) for seconds in calls_s]
        return measure.row(name, ratios, "times the runs' steps/s", aim, note=note(
            f"{len(recipes)} of {group.model}, batch {group.batch}, {group.pixels} pixels",
            "ms a step: population {:.2f}; alone {:.2f}".format(*spent)))
    return work


# --- rows ----------------------------------------------------------------------------------------


def held(work: measure.Work) -> measure.Work:
    return lambda name: (measure.on_one_core("compress", work) if models.on_cpu() else work)(name)


def _steps() -> Iterator[tuple[str, measure.Work]]:
    case = "ResNet-18, batch 128 (CPU: 32)"
    yield f"masked step over dense step, {case}", over_dense(MASKED, 1.03)
    yield f"DoReFa W4/A4 step over full precision, {case}", over_dense(QUANTISED, 1.25)


def _populations(title: str, *lowerings: str, **group: Any) -> Iterator[tuple[str, measure.Work]]:
    for lowering in lowerings:
        yield (f"population of {title}, {lowering}, over runs in sequence",
               population_over_runs(lowering, **group))


def _rows() -> Iterator[tuple[str, measure.Work]]:
    yield from _steps()
    yield "global L1 pruning of a ResNet-50", pruning()
    yield "second run of a study, to its first update", next_run()
    yield from _populations("12 ResNet-8", "looped", "stacked")
    wrn = {"model": "wrn_16_1", "magnitudes": (2.0, 6.0, 10.0, 14.0)}
    yield from _populations("16 WRN-16-1", "looped", **wrn)
    yield from stacked.rows()


ROWS = {name: held(work) for name, work in _rows()}
FOR_GPUS = dict((  # for the suite `gpu`
    *_populations("12 ResNet-8", "stacked", "looped"),
    *_populations("12 ResNet-20", "stacked", "looped", model="resnet20"), *stacked.rows(),
    *_steps()))
