"""MobileNetV2 on ImageNet under RandAugment of many magnitudes, dense and pruned.

Claim     the sparser the network, the weaker its best and its largest useful augmentation
          (augmentation_in_compression, Figure 2, which is only plotted)
Command   python -m launch.study --config=configs/imagenet/compression_magnitude.py \\
              --data_dir=DIR --workdir=runs/imagenet_magnitude
Cost      not measured
Measured  not measured
Args      scale=full|tiny

Magnitudes are chosen on 50,000 held-out training images and told on the test images. The paper says
neither recipe (papers.mobilenet_imagenet) nor how many magnitudes: here every third from 0 to 30.
"""

from ml_collections import ConfigDict

from augjax import defaults, papers

SPARSITIES = (0.0, 0.2, 0.4, 0.6)
MAGNITUDES = tuple(map(float, range(0, 31, 3)))
SCALES = {  # {scale: (network, pixels, magnitudes, images or 0 for all, held-out images)}
    "full": ("mobilenetv2", 224, MAGNITUDES, 0, 50_000),
    "tiny": ("resnet8_tiny", 32, (6.0,), 32, 1000),
}


def get_config(arg: str = "") -> ConfigDict:
    scale, sparsities = defaults.chosen(arg, {"scale": tuple(SCALES)})["scale"], SPARSITIES
    magnitudes = SCALES[scale][2]
    plain = {p: f"p{100 * p:.0f}_none" for p in sparsities}
    grid = {(p, m): f"p{100 * p:.0f}_m{m:g}" for p in sparsities for m in magnitudes}
    rows = {name: training(scale, p, None) for p, name in plain.items()}
    rows |= {name: training(scale, p, m) for (p, m), name in grid.items()}
    return defaults.study(
        "Magnitudes for sparsities: MobileNetV2 on ImageNet", rows,
        claim=__doc__.split("Command")[0].split("Claim")[1].strip(), scale=scale, seeds=(0,),
        optima={"magnitudes": defaults.optimum(
            "magnitude", magnitudes, "sparsity", sparsities,
            tuple(tuple(grid[p, m] for m in magnitudes) for p in sparsities),
            tuple(plain.values()))},
    )


def training(scale: str, sparsity: float, magnitude: float | None) -> ConfigDict:
    """One network: dense from scratch, or pruned from the dense one without RandAugment."""
    network, pixels, _, limit, held_out = SCALES[scale]
    recipe = papers.mobilenet_imagenet() if scale == "full" else papers.mobilenet_imagenet(1.0, 16)
    policy = None if magnitude is None else defaults.randaugment(magnitude)
    student = defaults.phase(
        model=defaults.model(network, dtype="bfloat16" if scale == "full" else "float32",
                             image_size=pixels),
        views={"train": defaults.view("flip", policy)},
        init="row:p0_none" if sparsity else "scratch",
        transform={"mask": defaults.mask(sparsity)}, **recipe)
    return defaults.config(
        {"student": student}, checkpoint={"every_epochs": 1.0, "keep": 1},
        data={"name": "imagenet2012", "image_size": pixels, "resident": False, "limit": limit,
              "holdout": held_out})
