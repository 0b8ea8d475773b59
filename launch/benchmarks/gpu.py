"""One session on a GPU: the rows that say most first, so that a deadline cuts off the least.

    python -m launch.benchmark gpu --deadline_s=570 --json=FILE.json

The engine beside a plain copy, kornia and a vmapped switch; its share of two train steps; the forms
that were chosen for GPUs without one to measure them on (the histogram of `augment.select`,
depthwise convolutions, stacked populations); steps through edited weights; the rows of the suite
`models`. Without a GPU the same rows run on the CPU with what is small enough there, and say so;
targets are for GPUs. Calls are made 20 at a time there, so that what is timed is the device and not
the way to it. A row that fails says why, the rows after it still run, and the next call tries it
again.

Expected before measuring (engine.md 6): 40 to 90 us for 256x32x32, all of it launches, 0.35 to 0.8
million images/s at 224; of a float32 copy's bandwidth a few per cent at 32 pixels and 20 to 40 at
224; comparing at least as fast as scattering. Measured on a GPU: nothing yet.
"""

from collections.abc import Callable, Iterator
import importlib.util
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from augjax import augment
from augjax.augment.select import darker_by_comparing
from launch.benchmarks import augment as suite
from launch.benchmarks import compress, measure, models, search

Peer = Callable[[np.ndarray], Callable[[], Any]]
SHAPES = {"256x32x32": (256, 32), "4096x32x32": (4096, 32), "256x224x224": (256, 224)}
SHARES = {  # {network: (pixels, batch, pixels and batch on a CPU, largest share)}
    "resnet50": (224, 256, (64, 4), 0.03),
    "resnet20": (32, 512, (32, 32), 0.05),
}
COPIED = {False: 2**26, True: 2**24}  # float32 numbers of the plain copy; True: on a CPU
PAIRS, CALLS = 20, 20


def times() -> int:
    """Calls that are made before one is waited for."""
    return 1 if models.on_cpu() else CALLS


def pixels_of(count: int, size: int) -> np.ndarray:
    """[count, size, size, 3] uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def repeated(call: Callable[[], Any]) -> Callable[[], Any]:
    """Many calls, one wait."""
    return lambda: jax.block_until_ready([call() for _ in range(times())])


def spent(work: Callable[[], Any]) -> list[float]:
    """Seconds of one call of those that `work` makes, many times, after a warm one."""
    work()
    once = measure.seconds(work)
    return [measure.seconds(work) / times() for _ in range(models.often_enough(once))]


# --- what is timed -------------------------------------------------------------------------------


def engine(pixels: np.ndarray) -> Callable[[], Any]:
    """Drawing and doing on images that are on the device."""
    policy, images = augment.randaugment(9.0, map="timm"), jnp.asarray(pixels)
    step = jax.jit(augment.augment).lower(jax.random.key(0), policy, images).compile()
    keys = itertools.cycle(jax.random.split(jax.random.key(1), 50))
    return repeated(lambda: step(next(keys), policy, images))


def copying() -> tuple[Callable[[], Any], int]:
    """A plain copy, and the bytes that one reads and writes."""
    x = jnp.zeros(COPIED[models.on_cpu()], jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return repeated(lambda: copy(x)), 2 * x.nbytes


def kornia(pixels: np.ndarray) -> Callable[[], Any]:
    """kornia's RandAugment on float tensors: on the GPU, or one thread of the CPU."""
    from kornia.augmentation.auto import RandAugment
    import torch

    gpu = torch.cuda.is_available()
    if not gpu:
        torch.set_num_threads(1)
    policy = RandAugment(n=2, m=9)
    batch = torch.tensor(pixels).permute(0, 3, 1, 2).float().div(255)
    batch = batch.to("cuda") if gpu else batch.contiguous()

    def call():
        for _ in range(times()):
            policy(batch)
        if gpu:
            torch.cuda.synchronize()
    return call


def vmapped_switch(pixels: np.ndarray) -> Callable[[], Any]:
    """What one writes first, as in the suite `augment`: one call at a time, as `suite.ours`."""
    return suite.vmapped_switch(jnp.asarray(pixels))


def darker_by_scattering(images: jax.Array) -> jax.Array:
    """`select.darker_by_comparing` by counting into a table, which takes atomic additions."""
    batch, channels = images.shape[0], images.shape[-1]
    table = 256 * jnp.arange(batch * channels, dtype=jnp.int32).reshape(batch, 1, 1, channels)
    counts = jnp.zeros(batch * channels * 256, jnp.int32).at[(images + table).reshape(-1)].add(
        1, mode="promise_in_bounds").reshape(batch, channels, 256)
    return jnp.cumsum(counts, -1) - counts


# --- rows ----------------------------------------------------------------------------------------


def bandwidth(name: str) -> dict[str, Any]:
    """A row: what a plain copy reads and writes in a second."""
    work, moved = copying()
    rates = [moved / seconds / 1e9 for seconds in spent(work)]
    return measure.row(name, rates, "GB/s", note=models.load())


def alone(count: int, size: int) -> measure.Work:
    """A row: microseconds of a batch; how close to a copy's bandwidth, measured beside it."""
    def work(name):
        pixels = pixels_of(count, size)
        own = [seconds * 1e6 for seconds in spent(engine(pixels))]
        copy, moved = copying()
        copied = min(spent(copy))
        row = measure.row(name, own, "us a batch")
        share = 2 * pixels.nbytes / (row["median"] / 1e6) / (moved / copied)
        said = [f"{count / row['median']:.3g} million images/s",
                f"{share:.2%} of the copy's bandwidth, had it to read and write each byte once",
                models.load()]
        return row | {"note": "; ".join(filter(None, said))}
    return work


def over(peer: Peer, count: int, size: int, mine: Peer = engine, needs: str = "jax",
         note: str = "") -> measure.Work:
    """A row: the peer's time over the engine's."""
    def work(name):
        if importlib.util.find_spec(needs) is None:
            return measure.unmeasured(name, f"{needs} is not installed")
        pixels = pixels_of(count, size)
        own, other = mine(pixels), peer(pixels)
        own(), other()
        pairs = models.often_enough(measure.seconds(own) + measure.seconds(other))
        ratios = measure.paired_ratio(own, other, pairs)
        return measure.row(name, ratios, "times the peer's images/s",
                           note="; ".join(filter(None, (note, models.load()))))
    return work


def share(model: str, pixels: int, batch: int, small: tuple[int, int], at_most: float
          ) -> measure.Work:
    """A row: what part of a train step RandAugment takes, 1 - time without / time with."""
    def work(name):
        size, count = small if models.on_cpu() else (pixels, batch)
        policy = augment.randaugment(9.0, map="timm")
        without = models.Step(model, size, count)
        with_it = models.Step(model, size, count, policy)
        without(), with_it()
        pairs = models.often_enough(measure.seconds(without) + measure.seconds(with_it))
        ratios = measure.paired_ratio(with_it, without, pairs)
        return measure.row(name, [1 - ratio for ratio in ratios], "share of the step",
                           at_most=None if models.on_cpu() else at_most,
                           note="; ".join(filter(None, (
                               f"batch {count}, {size} pixels", models.load()))))
    return work


def histogram(count: int, size: int) -> measure.Work:
    """A row: the time of counting into a table over that of the form that `select` has.

    A CPU would write down every comparison, 150 MB an image of 224 pixels: it gets four of them.
    """
    def work(name):
        images = jnp.asarray(pixels_of(4 if models.on_cpu() and size > 32 else count, size))
        comparing, scattering = map(jax.jit, (darker_by_comparing, darker_by_scattering))
        ours = repeated(lambda: comparing(images))
        other = repeated(lambda: scattering(images))
        ours(), other()
        pairs = models.often_enough(measure.seconds(ours) + measure.seconds(other))
        ratios = measure.paired_ratio(ours, other, pairs)
        return measure.row(name, ratios, "comparing, times the speed of scattering", note="; ".join(
            filter(None, (f"{len(images)} images", models.load()))))
    return work


def guarded(work: measure.Work) -> measure.Work:
    """The row, or why it failed: the session goes on."""
    def tried(name):
        try:
            return work(name)
        except Exception as error:  # whatever a framework raises on this machine
            said = str(error).strip().splitlines()[:1] or [""]
            return measure.unmeasured(name, f"failed: {type(error).__name__}: {said[0][:200]}")
    return tried


def _rows() -> Iterator[tuple[str, measure.Work]]:
    yield "copy of float32", bandwidth
    for name, shape in SHAPES.items():
        yield f"engine, {name}", alone(*shape)
    for name in ("256x32x32", "256x224x224"):
        yield f"engine over kornia, {name}", over(
            kornia, *SHAPES[name], needs="kornia", note=suite.ONE_PAIR)
        yield f"engine over vmap(lax.switch), {name}", over(
            vmapped_switch, *SHAPES[name], mine=suite.ours)
    for model, (pixels, batch, small, at_most) in SHARES.items():
        yield f"engine's share of a {model} step", share(model, pixels, batch, small, at_most)
    for name in ("256x32x32", "256x224x224"):
        yield f"histogram of select, {name}", histogram(*SHAPES[name])
    depthwise = {name: work for name, work in models.ROWS.items() if name.startswith("depthwise")}
    yield from depthwise.items()
    yield from compress.FOR_GPUS.items()
    yield from search.ROWS.items()
    yield from ((name, work) for name, work in models.ROWS.items() if name not in depthwise)


ROWS = {name: guarded(work) for name, work in _rows()}
