"""The training loop against the bare compiled step, and what surrounds the first step.

Expected before measuring: the loop adds one dispatch and two integer comparisons to a step, so
0.99 for a ResNet-20 at batch 256 on a CPU and 0.95 where a step takes milliseconds.
"""

from collections.abc import Callable
from dataclasses import replace
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from augjax import data, recipe, train
from augjax.train import checkpoint, loop, ready, sharding, start
from augjax.train.report import Reporter
from augjax.train.stop import Stop
from configs import quickstart
from configs.cifar import resnet20
from launch.benchmarks import measure


def noise(images: int, classes: int = 10) -> data.Dataset:
    """CIFAR-shaped noise: the step does not care what it sees."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (images, 32, 32, 3), np.uint8)
    split = data.from_arrays("cifar10", pixels, np.arange(images) % classes, list("0123456789"))
    return data.Dataset("cifar10", split.class_names, (32, 32, 3), split, data.limited(split, 512))


def cifar_recipe(policy: str = "randaugment", batch: int = 256) -> train.Recipe:
    """ResNet-20 of configs/cifar/resnet20.py on noise, so that no data are needed."""
    config = resnet20.get_config("scale=full")
    config.student.batch_size = batch
    with config.unlocked():
        config.student.views.train.policy.kind = policy
    phases = recipe.build_phases(
        recipe.expanded(config), recipe.Pictures("cifar10", 10, (32, 32, 3)))
    return train.Recipe(phases, noise(2048), log_every=10)


def quick_recipe() -> train.Recipe:
    """The quick start's smallest network, trained alone."""
    built = recipe.build(quickstart.get_config())
    student = built.phase("student")
    alone = replace(student.objective, nets={"student": student.objective.nets["student"]},
                    terms={"ce": student.objective.terms["ce"]})
    knobs = replace(student.knobs, weights={"ce": 1.0})
    phase = replace(student, objective=alone, knobs=knobs, frozen={}, structure=None)
    return replace(built, phases=[phase])


class Bench:
    """One phase, compiled and ready, with its loop and its bare step as things to time."""

    def __init__(self, built: train.Recipe, steps: int):
        mesh = sharding.make_mesh()
        self.folder, self.steps = tempfile.TemporaryDirectory(), steps
        workdir, self.phase = Path(self.folder.name), replace(built.phases[0], epochs=1e6)
        self.recipe = replace(built, phases=[self.phase], save_epochs=1e6)
        with jax.set_mesh(mesh):
            writer = checkpoint.Writer(workdir, 1)
            self.shared = ready.Run(self.recipe, workdir, mesh, Stop(), writer,
                                   start.all_shapes(self.recipe, mesh),
                                   resident=ready.place_data(self.recipe, mesh))
            self.state, self.frozen = ready.ready(self.shared, self.phase, 0)
            self.update = ready.compile_step(self.shared, self.phase, self.state, self.frozen)
            self.plan = ready.place_plan(self.shared, start.plan(self.phase, self.recipe, 0))
        self.reporter = Reporter(self.recipe, self.phase, workdir, 0)
        self.reporter._progress.quiet = True

    def bare(self) -> None:
        """The compiled step, called as fast as Python can, and nothing else."""
        for _ in range(self.steps):
            self.state, report = self.update(
                self.state, self.frozen, self.shared.resident, self.plan)
        jax.block_until_ready(report)

    def looped(self) -> None:
        """The same steps through the loop's own body: rows, reports, saves and stops asked for."""
        feeding = ready.sources(self.shared, self.phase, 0, self.steps)
        for step in range(1, self.steps + 1):
            self.state, report = self.update(
                self.state, self.frozen, next(feeding), self.plan)
            self.reporter.pend(step, report)
            loop.between(self.shared, self.phase, self.state, step, self.reporter)
        self.reporter.drain()


def loop_over_step(built: Callable[[], train.Recipe], steps: int, at_least: float):
    def work(name: str) -> dict[str, Any]:
        bench = Bench(built(), steps)
        ratios = measure.paired_ratio(bench.looped, bench.bare, pairs=20)
        one = measure.seconds(bench.bare) / steps * 1000
        return measure.row(name, ratios, "loop images/s over bare images/s", at_least=at_least,
                           note=f"{steps} steps a call, {one:.1f} ms a step")
    return work


def augmentation_share(name: str) -> dict[str, Any]:
    """What part of a ResNet-20 step RandAugment takes: 1 - time without / time with."""
    with_it, without = Bench(cifar_recipe(), 1), Bench(cifar_recipe("none"), 1)
    ratios = measure.paired_ratio(with_it.bare, without.bare, pairs=20)
    return measure.row(name, [1 - ratio for ratio in ratios], "share of the step", at_most=0.05)


def first_step(warm: bool):
    """Seconds from the command to the first training row, in a process of its own."""
    def work(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as cache:
            runs = [_seconds_to_first_row(cache) for _ in range(4 if warm else 1)]
            cold = [runs[0]] if warm else [runs[0], *(_cold_again() for _ in range(2))]
        return measure.row(name, runs[1:] if warm else cold, "s")
    return work


def _cold_again() -> float:
    with tempfile.TemporaryDirectory() as cache:
        return _seconds_to_first_row(cache)


def _seconds_to_first_row(cache: str) -> float:
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "launch.train", "--config=configs/quickstart.py",
                   f"--workdir={workdir}/run", "--config.log.every_steps=1"]
        began = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, "AUGJAX_CACHE": cache},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = Path(workdir, "run", "metrics.jsonl")
        while process.poll() is None and not (rows.exists() and rows.stat().st_size):
            time.sleep(0.02)
        took = time.perf_counter() - began
        process.kill()
        process.wait()
        return took


def save_stall(name: str) -> dict[str, Any]:
    """How long the loop stands still for one save, over the time of one step of the network."""
    bench = Bench(cifar_recipe(), 1)
    step_s = statistics.median(measure.seconds(bench.bare) for _ in range(5))
    stalls = []
    for number in range(1, 21):
        stalls.append(measure.seconds(
            lambda: bench.shared.writer.save("student", number, bench.state)))
        bench.shared.writer.wait()
    ratios = [stall / step_s for stall in stalls[1:]]
    return measure.row(name, ratios, "stall over step", at_most=0.5,
                       note=f"median stall {statistics.median(stalls) * 1000:.0f} ms")


ROWS = {
    "loop, ResNet-20, batch 256": loop_over_step(cifar_recipe, 2, at_least=0.97),
    "loop, quick start's smallest network": loop_over_step(quick_recipe, 20, at_least=0.9),
    "augmentation's share, ResNet-20, batch 256": augmentation_share,
    "first row, cold compile cache, quick start": first_step(warm=False),
    "first row, warm compile cache, quick start": first_step(warm=True),
    "checkpoint stall, ResNet-20": save_stall,
}
