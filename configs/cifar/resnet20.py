"""ResNet-20 on CIFAR-10 under RandAugment: the base recipe of the small studies.

Claim     ResNet-20 learns CIFAR-10 with RandAugment M 9 (augmentation_in_compression's network;
          recipe RD of the spec, which the paper does not state).
Command   python -m launch.train --config=configs/cifar/resnet20.py --config.data.dir=DIR \\
              --workdir=runs/resnet20
Cost      not measured on a GPU; about 200 images/s on two CPU cores
Measured  not measured
Rows      ":scale=full" (240 epochs) | ":scale=small" (5,000 images, 3 epochs)
          | ":scale=tiny" (two steps, for tests)
"""

from ml_collections import ConfigDict

from augjax import check, defaults

SCALES = {  # epochs, images (0: all), batch
    "full": (240.0, 0, 64),
    "small": (3.0, 5000, 64),
    "tiny": (1.0, 32, 16),
}


def get_config(arg: str = "scale=full") -> ConfigDict:
    scale = check.one_of("configs/cifar/resnet20.py:scale", arg.removeprefix("scale="), SCALES)
    epochs, limit, batch = SCALES[scale]
    steps_down = defaults.schedule(
        "piecewise", epochs=tuple(epochs * share for share in (0.625, 0.75, 0.875)),
        factors=(0.1, 0.1, 0.1))
    return defaults.config(
        phases={
            "student": defaults.phase(
                model=defaults.model("resnet20"),
                views={"train": defaults.view("crop_flip", defaults.randaugment(9.0))},
                optimizer=defaults.optimizer(learning_rate=0.05, weight_decay=5e-4,
                                             learning_rate_schedule=steps_down),
                epochs=epochs, batch_size=batch,
            ),
        },
        data={"name": "cifar10", "limit": limit},
    )
