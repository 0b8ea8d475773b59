"""A policy schedule that a population learns, against none, a random one and RandAugment.

Claim     a schedule learnt on 4,000 images ends above no policy and, within noise, where the best
          fixed policies do (Ho et al. 2019: WRN-40-2 on CIFAR-10; role_wise_kd section 3.1)
Command   python -m launch.study --config=configs/cifar/pba.py --data_dir=DIR --workdir=runs/pba
          (the search alone: launch.search --config=configs/cifar/pba.py:part=search)
Cost      scale=small: 19 runs, 0.65 device-hours on two busy CPU cores; full: not measured
Measured  scale=small, CIFAR-10 (JPEG copy), n 3, two CPU cores: replayed 43.36 ± 0.49, none 43.88 ±
          0.56, random 42.62 ± 0.72, ra_m3 43.41 ± 0.94 (README); full: not measured
Args      scale=full|small|tiny, part=study|search, dataset=cifar10|cifar100

search      16 members, a decision every 3 epochs, 4,000 training images, 36,000 that reward (P5);
            the winner's own network, trained on the reduced set alone, is its row in the table
replayed    all images under what was found, stretched to the training's epochs
none        no policy
random      30 entries with probabilities and levels drawn once, uniformly: a policy that cost
            nothing to find, and as much to train with
ra_mM       RandAugment at magnitude M; its best is chosen on held-out images

All rows crop, flip and cut 16 pixels out after their policy, as PBA's release does (spec B1, P2).
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict
import numpy as np

from augjax import defaults, papers

ENTRIES = 30
CLAIMS = {"none": "PBA (circumventing_outliers, Table 2: error 3.9, 2.6 of WRN-28-10)"}


class Scale(NamedTuple):
    model: str
    epochs: float
    images: int  # 0: all
    held_out: int
    reduced: tuple[int, int]  # of the search: training images, images that reward
    search_epochs: float
    search: dict[str, Any]
    magnitudes: tuple[float, ...]
    batch: int = 128


SCALES = {
    "full": Scale("wrn_40_2", 200.0, 0, 5000, (4000, 36000), 200.0, {},
                  (3.0, 6.0, 9.0, 12.0, 15.0, 18.0)),
    "small": Scale("resnet8", 4.0, 5000, 1000, (1000, 1000), 12.0, {"members": 8},
                   (3.0, 9.0, 15.0), 64),
    "tiny": Scale("resnet8_tiny", 1.0, 32, 10, (32, 20), 2.0,
                  {"members": 2, "interval_epochs": 1}, (9.0,), 16),
}
WORDS = {"scale": tuple(SCALES), "part": ("study", "search"), "dataset": ("cifar10", "cifar100")}


def get_config(arg: str = "") -> ConfigDict:
    chosen = defaults.chosen(arg, WORDS)
    name, dataset = chosen["scale"], chosen["dataset"]
    scale = SCALES[name]
    searching = search(scale)
    if chosen["part"] == "search":
        return searching
    at = {m: f"ra_m{m:g}" for m in scale.magnitudes}
    policies = {
        "replayed": defaults.policy("replay", fill="mean", schedule="row:search"),
        "none": None, "random": drawn(),
        **{row: defaults.randaugment(m) for m, row in at.items()}}
    rows = {"search": searching} | {
        row: train(scale, dataset, policy) for row, policy in policies.items()}
    return defaults.study(
        f"Learnt schedules: {scale.model} on {dataset}", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(),
        scale=name, seeds=(0,) if name == "tiny" else (0, 1, 2), seeds_of={"search": (0,)},
        data_note="the JPEG copy, where it is that",
        comparisons=tuple(
            defaults.comparison(f"replayed > {other}", CLAIMS.get(other, "ours"))
            for other in ("none", "random", *at.values())),
        optima={"randaugment": defaults.optimum(
            "magnitude", tuple(at), "sparsity", (0.0,), (tuple(at.values()),), ("none",))})


def search(scale: Scale) -> ConfigDict:
    """On CIFAR-10, whatever the schedule is for, as both papers do."""
    images, rewarding = scale.reduced
    view = defaults.view("autoaugment_cifar", defaults.searched())
    return defaults.config(
        {"student": phase(scale, view, scale.search_epochs)},
        data={"name": "cifar10", "limit": images, "holdout": rewarding},
        checkpoint={"every_epochs": max(1.0, scale.search_epochs / 12), "keep": 1},
        search=defaults.search(**scale.search))


def train(scale: Scale, dataset: str, policy: ConfigDict | None) -> ConfigDict:
    return defaults.config(
        {"student": phase(scale, defaults.view("autoaugment_cifar", policy), scale.epochs)},
        data={"name": dataset, "limit": scale.images, "holdout": scale.held_out},
        checkpoint={"every_epochs": max(1.0, scale.epochs / 12), "keep": 1})


def phase(scale: Scale, view: ConfigDict, epochs: float) -> ConfigDict:
    return defaults.phase(model=defaults.model(scale.model), views={"train": view},
                          **papers.autoaugment_wrn(epochs, scale.batch))


def drawn() -> ConfigDict:
    """PBA's policy with numbers that nobody learnt; the same in every run."""
    draw = np.random.Generator(np.random.Philox(0))
    return defaults.policy(
        "pba", fill="mean", probabilities=tuple(draw.integers(0, 11, ENTRIES) / 10),
        levels=tuple(map(float, draw.integers(0, 10, ENTRIES))))
