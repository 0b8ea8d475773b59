"""What one stretch of training is, and what is checked before any of them begins."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from augjax import check, tree
from augjax.data import Dataset, resident, subset
from augjax.method.combine import Combine, weighted_sum
from augjax.method.objective import Objective
from augjax.train import checkpoint, sharding
from augjax.train.evaluate import Branches
from augjax.train.gradients import check_accumulation
from augjax.train.optimizers import Optimizer, sgd
from augjax.types import Edit, Knobs, Net, PyTree, Rows, View

RESERVED = (
    "phases", "seed", "data", "mesh", "checkpoint", "deterministic", "log", "frozen", "population",
    "search",
)


@dataclass(frozen=True)
class Source:
    """A trained network: a learner of a phase, of this run or of another one.

    `origin` is the phase that trained it, needed only for another run's (recipe.py rebuilds it).
    """

    phase: str
    run: str | None = None  # run folder; None: this run
    step: int | None = None  # None: the last one saved
    weights: str = "raw"  # or "ema"
    learner: str = "student"
    origin: "Phase | None" = None
    drop: tuple[str, ...] = ()  # globs of its parameters that are left behind: extra layers
    fresh: tuple[str, ...] = ()  # globs of the taker's parameters that start anew: a head

    def __str__(self) -> str:
        where = f"run:{self.run}#{self.phase}" if self.run else f"phase:{self.phase}"
        return where + (f"@{self.step}" if self.step is not None else "")


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one compiled update.

    init     {learner: Source}; a learner that is not named starts from scratch
    frozen   {onlooker: Source}
    edits    what is done once to the start: prune, drop layers, ... (types.Start -> Start)
    accumulate micro-batches that an update of `batch_size` images is made of, one after the other
    branches   how else than by its first learner's first BatchNorm set it is evaluated
    structure  phases with equal structure share a compiled step; None: this phase alone
    """

    name: str
    objective: Objective
    knobs: Knobs
    epochs: float
    batch_size: int
    optimizer: Optimizer = field(default_factory=sgd)
    init: Mapping[str, Source] = field(default_factory=dict)
    frozen: Mapping[str, Source] = field(default_factory=dict)
    edits: Sequence[Edit] = ()
    combine: Combine = weighted_sum
    ema: float | None = None
    accumulate: int = 1
    evaluate_epochs: float = 1.0
    evaluate_batch: int = 512
    branches: Branches | None = None
    structure: Hashable = None

    @property
    def asked(self) -> Branches:
        """What is evaluated."""
        return self.branches or Branches(((self.objective.learners[0], 0),))


@dataclass(frozen=True)
class Recipe:
    """A list of phases on one data set. `augjax.train.run` trains it; nothing else is needed."""

    phases: Sequence[Phase]
    data: Dataset
    seed: int = 0
    resident: bool = True  # the training images lie on the device; else the host feeds them
    workers: int = 0  # processes that decode on each host; 0: `data.workers_for`
    fsdp: bool = False
    log_every: int = 50  # steps
    save_epochs: float = 1.0
    keep: int = 2  # saves of a phase
    milestones: tuple[int, ...] = ()  # steps that are always kept
    deterministic: bool = False  # a lone run makes the first step of each phase twice
    slot: int | None = None  # of a search's member: alike in all but its keys and its policy

    def steps_per_epoch(self, phase: Phase) -> int:
        return len(self.data.train) // phase.batch_size

    def steps(self, phase: Phase) -> int:
        return max(1, round(phase.epochs * self.steps_per_epoch(phase)))

    def evaluation_due(self, phase: Phase, step: int) -> bool:
        return step % self._every(phase, phase.evaluate_epochs) == 0

    def save_due(self, phase: Phase, step: int, since: int | None = None) -> bool:
        """Whether a save is due at a step; after `since`, at it or before."""
        every = self._every(phase, self.save_epochs)
        return step // every > (step - 1 if since is None else since) // every

    def next_halt(self, phase: Phase, step: int) -> int:
        """The step at which the next epoch, the next evaluation or the end comes."""
        intervals = self.steps_per_epoch(phase), self._every(phase, phase.evaluate_epochs)
        return min(self.steps(phase), *((step // every + 1) * every for every in intervals))

    def _every(self, phase: Phase, epochs: float) -> int:
        return max(1, round(epochs * self.steps_per_epoch(phase)))

    def evaluation_batch(self, phase: Phase, devices: int) -> int:
        """Images that are evaluated at once: no more than the larger of the splits needs, evenly
        over the devices."""
        splits = filter(None, (self.data.test, self.data.holdout))
        most = max((len(split) for split in splits), default=1)
        return min(phase.evaluate_batch, -(-most // devices) * devices)

    def number(self, phase: Phase) -> int:
        return [other.name for other in self.phases].index(phase.name)

    def phase(self, name: str) -> Phase:
        names = [phase.name for phase in self.phases]
        return self.phases[names.index(check.one_of("phase", name, names))]


# --- checks, before any device work --------------------------------------------------------------


def check_recipe(recipe: Recipe, mesh: Mesh) -> None:
    """Raises ConfigError for anything that would fail later, at no cost."""
    names = [phase.name for phase in recipe.phases]
    check.require(len(names) > 0, "phases", "at least one", "none", "name a phase")
    check.require(len(set(names)) == len(names), "phases", "different names", names, "rename one")
    check.require(recipe.log_every >= 1, "log_every", "1 step or more", recipe.log_every,
                  "write a row now and then")
    check.require(recipe.keep >= 1, "keep", "1 save or more", recipe.keep, "keep the last one")
    check.require(recipe.save_epochs > 0, "save_epochs", "more than 0", recipe.save_epochs,
                  "a fraction of an epoch will do")
    check.require(0 <= recipe.seed < 2**32, "seed", "a whole number from 0 to 2^32 - 1",
                  recipe.seed, "0 is as good as any")
    if recipe.resident:
        resident(subset(recipe.data.train, []))  # refuses images of any size
    for number, phase in enumerate(recipe.phases):
        check.require(
            phase.name not in RESERVED, "phase name", "a word of your own",
            f"the reserved word {phase.name!r}", f"choose another than {', '.join(RESERVED)}",
        )
        check_accumulation(phase.name, phase.objective, phase.combine, phase.accumulate)
        _check_sizes(recipe, phase, mesh)
        _check_objective(recipe, phase)
        for place, sources in (("init", phase.init), ("frozen", phase.frozen)):
            for role, source in sources.items():
                if source.run is None:
                    check.one_of(f"source of {role!r} in phase {phase.name!r}", source.phase,
                                 names[:number] or ["scratch"])
                _check_source(f"{phase.name}.{place}.{role}", source, recipe,
                              phase.objective.nets[role])


def _check_sizes(recipe: Recipe, phase: Phase, mesh: Mesh) -> None:
    size = len(recipe.data.train)
    check.require(0 < phase.batch_size <= size, f"{phase.name}.batch_size",
                  f"1 to {size} (the training images)", phase.batch_size, "make it smaller")
    for name, term in phase.objective.terms.items():
        check.require(term.images is None or size <= term.images, f"{phase.name}.terms.{name}",
                      f"places for {size} images (those it trains on)", term.images,
                      f"give it images = {size}")
    for name in ("epochs", "evaluate_epochs"):
        check.require(getattr(phase, name) > 0, f"{phase.name}.{name}", "more than 0",
                      getattr(phase, name), "a fraction of an epoch will do")
    sharding.check_divisible(f"{phase.name}.batch_size", phase.batch_size, mesh)
    check.require(phase.batch_size % phase.accumulate == 0, f"{phase.name}.accumulate",
                  f"a divisor of the batch_size {phase.batch_size}", phase.accumulate,
                  "let every micro-batch have as many images")
    sharding.check_divisible(f"images of a micro-batch of {phase.name}",
                             phase.batch_size // phase.accumulate, mesh)
    check.require(phase.evaluate_batch >= 1, f"{phase.name}.evaluate_batch", "1 image or more",
                  phase.evaluate_batch, "512 is common")
    sharding.check_divisible(f"{phase.name}.evaluate_batch", phase.evaluate_batch, mesh)
    check.require(phase.ema is None or 0 < phase.ema < 1, f"{phase.name}.ema",
                  "a decay between 0 and 1", phase.ema, "0.9999 is common; 0 in a config is none")
    for what, epochs in (("epochs", phase.epochs), ("evaluate_epochs", phase.evaluate_epochs),
                         ("save_epochs", recipe.save_epochs)):
        check.require(epochs * recipe.steps_per_epoch(phase) < 2**31, f"{phase.name}: {what}",
                      "fewer than 2^31 steps", epochs, "a step's number is an int32")


def _check_objective(recipe: Recipe, phase: Phase) -> None:
    """Onlookers have sources, weights have terms, every network knows the data's classes."""
    onlookers, terms = set(phase.objective.onlookers), set(phase.objective.terms)
    for place, names in (("init", phase.init), ("branches", _asked(phase))):
        for name in names:
            check.one_of(f"{phase.name}.{place}", name, phase.objective.learners)
    check.require(set(phase.frozen) == onlookers, f"{phase.name}.frozen",
                  f"a source for each of {sorted(onlookers)}", sorted(phase.frozen),
                  "say where each frozen network comes from")
    check.require(set(phase.knobs.weights) == terms, f"{phase.name}.weights",
                  f"one weight for each of {sorted(terms)}", sorted(phase.knobs.weights),
                  "name the terms")
    taken = terms & {"loss", "gradient_norm", "learning_rate"}
    check.require(not taken, f"{phase.name}.terms", "names that the update does not report itself",
                  sorted(taken), "rename the term")
    rows = abstract_rows(recipe.data.image_shape)
    for name, net in phase.objective.nets.items():
        with check.refusing(f"network {name!r} of phase {phase.name!r}", "one that can be built",
                            "correct its model block"):
            variables = jax.eval_shape(net.init, jax.random.key(0))
            classes = jax.eval_shape(net.predict, variables, rows).logits.shape[-1]
        check.require(
            classes == recipe.data.classes, f"classes of {name!r} in phase {phase.name!r}",
            f"{recipe.data.classes}, as the data set {recipe.data.name!r} has", classes,
            "use a network made for these classes",
        )


def _asked(phase: Phase) -> list[str]:
    """The networks of its branches."""
    if phase.branches is None:
        return []
    check.require(len(phase.branches.asked) > 0, f"{phase.name}.branches", "at least one", "none",
                  "leave branches out")
    return [learner for learner, _ in phase.branches.asked]


def _check_source(what: str, source: Source, recipe: Recipe, net: Net) -> None:
    """The source trained such a network, kept what is asked for and, in another run, is there.

    Such a network: alike in all that is neither dropped nor started anew.
    """
    origin = source.origin or recipe.phase(source.phase)
    check.one_of(f"{what}: learner", source.learner, origin.objective.learners)
    check.one_of(f"{what}: weights", source.weights, ("raw", "ema"))
    check.require(source.weights == "raw" or origin.ema is not None, what,
                  "a phase that kept an average", "weights = ema", "use weights = raw")
    needed, came = (jax.eval_shape(one.init, jax.random.key(0))
                    for one in (net, origin.objective.nets[source.learner]))
    for word, globs, side in (("drop", source.drop, came), ("fresh", source.fresh, needed)):
        paths = sorted(set().union(*(tree.flatten(part) for part in side)))
        for glob in globs:
            check.require(any(tree.matches(path, (glob,)) for path in paths), f"{what}: {word}",
                          f"globs of what the network has, such as {', '.join(paths[:3])}",
                          repr(glob), "correct it or leave it out")
    needed, came = (tree.flatten([tree.without(part, globs) for part in side]) for side, globs in (
        (needed, source.fresh), (came, source.drop + source.fresh)))
    for path in sorted(set(needed) | set(came)):
        shapes = [str(side[path].shape) if path in side else "absent" for side in (needed, came)]
        check.require(shapes[0] == shapes[1], f"{what}: {path}", shapes[0], shapes[1],
                      "take the weights of the same network")
    if source.run is not None:
        saved_step(source, source.run)


def saved_step(source: Source, folder: str | Path) -> int:
    """The step of a source in a run folder; CheckpointError unless it was saved there."""
    steps = checkpoint.steps(folder, source.phase)
    check.require(
        bool(steps) and source.step in (None, *steps), f"source {source}",
        f"a saved step of phase {source.phase!r} in {folder}", f"steps {steps}",
        "train that phase first, or name a step that was kept", check.CheckpointError,
    )
    return steps[-1] if source.step is None else source.step


def check_trains(phase: Phase, moves: PyTree) -> None:
    """Every glob of `trains` names something; `moves` are the parameters and statistics."""
    paths = tree.flatten(moves)
    for glob in phase.objective.trains:
        check.require(
            any(tree.matches(path, (glob,)) for path in paths), f"{phase.name}.trains",
            "globs that each name a parameter or statistic, such as "
            + ", ".join(sorted(paths)[:3]), repr(glob), "correct it or leave it out")


def abstract_rows(image_shape: tuple[int, int, int], count: int = 1) -> Rows:
    """Shapes of `count` plain rows of pixels."""
    whole = jax.ShapeDtypeStruct((count,), jnp.int32)
    share = jax.ShapeDtypeStruct((count,), jnp.float32)
    image = jax.ShapeDtypeStruct((count, *image_shape), jnp.uint8)
    return Rows(image, whole, whole, share, whole, views=(View("test"),))
