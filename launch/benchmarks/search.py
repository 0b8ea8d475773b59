"""What learning a policy costs: A2-Aug's branches, a search's decisions, and a whole search.

A step of A2-Aug with four branches, each with its RandAugment and its BatchNorm set, stands beside
four steps of the same network, one under each of these augmentations. A CPU's row has a process
with one core, a smaller network and a quarter of the batch. What a search spends on exploring,
exploiting and exchanging states is by its own log. Populations are in the suite `compress`.

The whole search is the paper's: 16 WRN-40-2, 4,000 images, 200 epochs, a decision every 3 epochs,
rewards on 36,000 images; of it some intervals are run, on noise, and the rest is taken to be as
long as they are, the first, which compiles, excepted. Published: 5 hours on a Titan XP (Ho et al.
2019). It wants an accelerator.

Expected before measuring: A2 0.95 to 1.0, one dispatch and larger convolutions for four; decisions
0.1 % of a search on a CPU. What came on a CPU: 1.23, of which 1.15 are a plain step's on as many
rows: convolutions of 128 images take more than four times those of 32, whose activations stay in
the cache; A2's own share is 1.06.
"""

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import replace
import io
import tempfile
from typing import Any

from augjax import a2, augment, data, defaults, papers, recipe, search
from augjax.train import metrics
from launch.benchmarks import compress, measure, models
from launch.benchmarks.train import Bench, noise

BRANCHES = 4
PUBLISHED_S = 5 * 3600


def branches_over_steps(ours: str, peer: str, at_most: float | None = None) -> measure.Work:
    """A row: the time of `ours` over that of `peer`, two of `steps`."""
    def work(name):
        model, batch = ("resnet8", 32) if models.on_cpu() else ("resnet18_cifar", 128)
        made = steps(model, batch, {ours, peer})
        for call in made.values():
            call()
        calls_s = {who: measure.seconds(call) for who, call in made.items()}
        pairs = models.often_enough(sum(calls_s.values()) / 2)
        ratios = measure.paired_ratio(made[peer], made[ours], pairs)
        spent = "; ".join(f"{who} {1000 * seconds / compress.distill.times():.0f} ms"
                          for who, seconds in calls_s.items())
        return measure.row(name, ratios, "times its time", at_most=at_most,
                           note=compress.note(f"{model}, batch {batch}", spent))
    return work


def steps(model: str, batch: int, wanted: set[str]) -> dict[str, Callable[[], None]]:
    """{name: its updates}: "joint", A2-Aug's of BRANCHES branches; "plain", one for each of these
    augmentations; "wide", one under the first of them on as many rows as all have together."""
    drawn, images = augment.sample_augmentations(BRANCHES, 0), noise(512)

    def bench(make, rows, augmentations):
        phase = make(papers.autoaugment_wrn(1.0, rows), defaults.model(model), augmentations,
                     "autoaugment_cifar", "mean")
        config = defaults.config({"student": phase}, data={"name": "cifar10"})
        return Bench(recipe.build(config, images), compress.distill.times()).bare

    def plain():
        alone = [bench(a2.alone, batch, one) for one in drawn]
        return lambda: [call() for call in alone]

    made = {"joint": lambda: bench(a2.joint, batch, drawn), "plain": plain,
            "wide": lambda: bench(a2.alone, BRANCHES * batch, drawn[0])}
    return {name: made[name]() for name in sorted(wanted)}


def intervals(dataset: data.Dataset, model: str, batch: int, epochs: int, **options: Any
              ) -> list[dict[str, Any]]:
    """The rows of a search's log, one for each decision."""
    view = defaults.view("autoaugment_cifar", defaults.searched())
    student = defaults.phase(model=defaults.model(model), views={"train": view},
                             **papers.autoaugment_wrn(float(epochs), batch))
    config = defaults.config({"student": student}, data={"name": dataset.name},
                             checkpoint={"every_epochs": 1e6, "keep": 1},
                             search=defaults.search(**options))
    with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stderr(io.StringIO()):
        search.run(recipe.build_search(config, dataset), workdir)
        return [row for row in metrics.read(workdir) if row["kind"] == "train"]


def parted(images: int, held_out: int) -> data.Dataset:
    """Noise, of which some is held out."""
    whole = noise(images + held_out)
    train, held = data.holdout(whole.train, held_out)
    return replace(whole, train=train, holdout=held)


def bookkeeping(name: str) -> dict[str, Any]:
    """A row: what exploring, exploiting and exchanging states took of every interval but the first
    and the last, which decides nothing."""
    small = models.on_cpu()
    model, batch = ("resnet8_tiny", 32) if small else ("resnet20", 128)
    rows = intervals(parted(412, 100), model, batch, 24, interval_epochs=1)[1:-1]
    shares = [row["bookkeeping_s"] / row["seconds"] for row in rows]
    return measure.row(name, shares, "of the search's time", at_most=0.02, note=compress.note(
        f"16 of {model}, 412 images, a decision every epoch (PBA: 3 epochs of 4,000)"))


def whole_search(measured: int = 6) -> Callable[[str], dict[str, Any]]:
    """A row: minutes of the published search."""
    def work(name):
        if models.on_cpu():
            return measure.unmeasured(name, "some days on a CPU")
        rows = intervals(parted(4000, 36000), "wrn_40_2", 128, 3 * (1 + measured))[1:]
        whole = [row["seconds"] * 200 / 3 / 60 for row in rows]
        return measure.row(name, whole, "minutes", note=compress.note(
            f"from {measured} intervals; published {PUBLISHED_S / 60:.0f} on a Titan XP"))
    return work


def _rows() -> Iterator[tuple[str, measure.Work]]:
    rows = f"a plain step of {BRANCHES} times the rows"
    yield f"A2 of {BRANCHES} branches over {BRANCHES} steps", branches_over_steps(
        "joint", "plain", at_most=1.05)
    yield f"A2 of {BRANCHES} branches over {rows}", branches_over_steps("joint", "wide")
    yield f"{rows} over {BRANCHES} steps", branches_over_steps("wide", "plain")
    yield "decisions of a search of 16", bookkeeping
    yield "the published PBA search", whole_search()


def held(work: measure.Work) -> measure.Work:
    return lambda name: (measure.on_one_core("search", work) if models.on_cpu() else work)(name)


ROWS = {name: held(work) for name, work in _rows()}
