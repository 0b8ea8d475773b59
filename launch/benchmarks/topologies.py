"""Compiler estimates, not timings: train steps for TPUs that are not there, one host and many.

XLA's TPU compiler (libtpu, without a TPU) compiles the whole update at its lowest effort, which
takes a minute where the default takes many; a default compile may need other memory. A row is the
bytes of one chip, met where they fit into its memory and no batch is gathered; its note has what
the devices send each other. Each row has a process, and one core, to itself: a B8 taught by a B7
takes some 15 GB of the host. Needs libtpu, as the suite `tpu`.

Steps train with RandAugment in bfloat16 on images that the host feeds: 4,096 of them over many
hosts and 512 on one, a B8 16 for each chip, or 8 where a chip has 16 GiB.
"""

from collections.abc import Iterator
import importlib.util
import math
import os
import time
from typing import Any

import jax

from augjax import check, data, defaults, papers, recipe, train
from augjax.train import collectives, dry
from configs.imagenet import efficientnet
from launch.benchmarks import measure

HOSTS = {"v4": "4x4x4", "v5e": "8x8", "v5p": "4x4x4", "v6e": "8x8"}  # 64 chips
WHOLE = {"v5e": "16x16"}  # the largest that a v5e is sold as
SIZE = 224


def resnet50(batch: int) -> Any:
    """THRIVES' recipe of ImageNet under RandAugment."""
    student = defaults.phase(
        **papers.repdistiller_imagenet(100.0, batch),
        model=defaults.model("resnet50", dtype="bfloat16", image_size=SIZE),
        views={"train": defaults.view("flip", defaults.randaugment(9, map="timm"))})
    return defaults.config({"student": student}, log={"every_steps": 100},
                           data={"name": "imagenet2012", "image_size": SIZE, "resident": False})


def shipped(arg: str, batch: int) -> Any:
    """A row of configs/imagenet/efficientnet.py."""
    config = efficientnet.get_config(arg)
    with config.unlocked():
        config.student.batch_size = batch
    return config


STEPS = {
    "EfficientNet-B0": lambda batch: shipped("b0", batch),
    "ResNet-50": resnet50,
    "EfficientNet-B8 taught by B7": lambda batch: shipped("b8,teacher=b7", batch),
}


def compiled(network: str, topology: str, batch: int) -> measure.Work:
    """A row: gigabytes of one chip."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec("libtpu") is None:
            return measure.unmeasured(name, "libtpu is not installed")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        for option, least in (("exec_time_optimization_effort", -1.0),
                              ("memory_fitting_effort", -1.0), ("optimization_level", "O1")):
            jax.config.update(f"jax_{option}", least)
        config = STEPS[network](batch)
        described = data.described("imagenet2012", config.data.image_size)
        mesh = train.topology_mesh(topology)
        hosts, began = len({one.process_index for one in mesh.devices.flat}), time.perf_counter()
        try:
            found, = train.needs(recipe.build(config, described), mesh, "student")
        except check.ConfigError as error:  # it does not fit; the rows after it are compiled
            return measure.unmeasured(name, str(error)[:300])
        return told(name, found, hosts, time.perf_counter() - began)
    return measure.on_one_core("topologies", work)


def told(name: str, found: dry.Needs, hosts: int, took_s: float) -> dict[str, Any]:
    """What the compiler said, as a row."""
    largest = max(found.collectives, key=lambda one: one.bytes)
    rows = sum(one.whole for one in found.rows)
    gathered = rows >= collectives.most(found.batch_size, found.image_shape)
    row = measure.row(
        name, [found.total / 1e9], "GB of a chip", at_most=dry.HBM[found.device_kind] / 1e9,
        note=f"{found.devices} chips, {hosts} hosts; {found.sent / 1e6:.1f} MB sent per chip, most "
             f"{largest.bytes / 1e6:.1f} MB: {collectives.described(largest)}; {rows / 1e6:.1f} MB "
             f"not of parameters' shapes; traced and compiled in {took_s:.0f} s")
    return row | {"verdict": "missed: a batch is gathered"} if gathered else row


def _rows() -> Iterator[tuple[str, measure.Work]]:
    for network in STEPS:
        for shapes, batch in ((dry.SMALLEST, 512), (HOSTS, 4096), (WHOLE, 4096)):
            for kind, shape in shapes.items():
                topology = f"{kind}:{shape}"
                if "B8" in network:
                    batch = math.prod(map(int, shape.split("x"))) * (8 if kind == "v5e" else 16)
                yield f"{network}, {topology}, batch {batch:,}", compiled(network, topology, batch)


ROWS = dict(_rows())
