"""A teacher, a student under RandAugment, and the student pruned by 60 %, on real digits.

Claim     a network of a quarter of the teacher's size, and that network with 60 % of its weights
          removed, stay within 1.5 points of the teacher (augmentation_in_compression section IV:
          the smaller or sparser the network, the weaker its augmentation).
Command   python -m launch.train --config=configs/quickstart.py --workdir=runs/quickstart
Data      scikit-learn's 1,797 scans of handwritten digits, 8x8 enlarged to 16x16; 360 to test
Cost      under 90 s on two CPU cores, compile cache cold
Measured  see README
"""

from ml_collections import ConfigDict

from augjax import defaults


def get_config() -> ConfigDict:
    def augmented(magnitude):
        return {"train": defaults.view("crop", defaults.randaugment(magnitude), pad=2)}

    def rate(epochs, peak):
        falling = defaults.schedule("cosine", warmup_epochs=1.0)
        return {"epochs": epochs, "batch_size": 64, "optimizer": defaults.optimizer(
            learning_rate=peak, learning_rate_schedule=falling, weight_decay=5e-4)}

    taught = {
        "model": defaults.model("resnet8_tiny"),
        "teacher": "phase:teacher",
        "terms": {"ce": defaults.term("cross_entropy", 0.1),
                  "kd": defaults.term("hinton", 0.9, tau=4.0)},
    }
    return defaults.config(
        phases={
            "teacher": defaults.phase(
                model=defaults.model("resnet8"), **rate(12.0, 0.1),
                views={"train": defaults.view("crop", pad=2)}),
            "student": defaults.phase(**taught, **rate(14.0, 0.1), views=augmented(5.0)),
            "pruned": defaults.phase(
                **taught, **rate(8.0, 0.05), views=augmented(2.0), init="phase:student",
                transform={"mask": defaults.mask(0.6)}),
        },
        data={"name": "digits"},
        log={"every_steps": 20},
    )
