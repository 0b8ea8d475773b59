"""The papers' recipes: the fields of a phase that say how one trains; and KD's, which say what.

Each is a dict for `defaults.phase(**recipe, ...)`, named and numbered as in spec R's table of
recipes. Of another number of epochs the decays stay at the same shares, as kd_thrives_on_da scales
them for its long runs; evaluations come a dozen times in all where nothing else is said.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from augjax import defaults

TOYS = {  # options that make a test's network of one of these families
    "wrn": {"depth": 10, "widen": 1}, "shake": {"depth": 8, "width": 4},
    "pyramidnet": {"depth": 11, "widening": 6},
}
SLOW = ("mobilenetv2", "shufflenetv2")  # networks that RepDistiller starts at a fifth of the rate


def repdistiller(model: str, epochs: float = 240.0, batch: int = 64) -> dict[str, Any]:
    """RD: CIFAR and Tiny-ImageNet in kd_thrives_on_da and, by this spec, in
    augmentation_in_compression. The paper starts all networks at 0.05, the code two at 0.01."""
    rate = 0.01 if model.startswith(SLOW) else 0.05
    return _recipe(epochs, batch, defaults.optimizer(
        learning_rate=rate, learning_rate_schedule=steps(epochs, (0.625, 0.75, 0.875)),
        weight_decay=5e-4))


def fine_tuning(model: str, epochs: float = 240.0, batch: int = 64) -> dict[str, Any]:
    """RD after pruning: a tenth of the rate for half of the epochs (spec C3, "finetune")."""
    recipe = repdistiller(model, epochs / 2, batch)
    recipe["optimizer"].learning_rate /= 10
    return recipe


def repdistiller_imagenet(epochs: float = 100.0, batch: int = 256) -> dict[str, Any]:
    """RD-IN: ResNets on ImageNet in kd_thrives_on_da; its CutMix rows take 200 epochs."""
    return _recipe(epochs, batch, defaults.optimizer(
        learning_rate=0.1, learning_rate_schedule=steps(epochs, (0.3, 0.6, 0.9)),
        weight_decay=1e-4))


def mobilenet_imagenet(epochs: float = 150.0, batch: int = 256) -> dict[str, Any]:
    """MobileNetV2 on ImageNet in augmentation_in_compression, which gives no recipe: RS-Nets'."""
    return _recipe(epochs, batch, defaults.optimizer(
        learning_rate=0.05, learning_rate_schedule=defaults.schedule("cosine"),
        weight_decay=4e-5))


def autoaugment_wrn(epochs: float = 200.0, batch: int = 128) -> dict[str, Any]:
    """AA-wrn: wide ResNets on CIFAR, as AutoAugment and PBA trained them."""
    return _cosine(0.1, 5e-4, epochs, batch)


def autoaugment_shake_shake(dataset: str, epochs: float = 1800.0, batch: int = 128
                            ) -> dict[str, Any]:
    """AA-ss: Shake-Shake networks on CIFAR."""
    return _cosine(0.01, 2.5e-3 if dataset == "cifar100" else 1e-3, epochs, batch)


def autoaugment_pyramidnet(dataset: str, epochs: float = 1800.0, batch: int = 64
                           ) -> dict[str, Any]:
    """AA-pyr: PyramidNet with ShakeDrop on CIFAR."""
    hundred = dataset == "cifar100"
    return _cosine(0.025 if hundred else 0.05, 5e-4 if hundred else 5e-5, epochs, batch)


def autoaugment(network: str, dataset: str, **budget: Any) -> dict[str, Any]:
    """AA-ss, AA-pyr or AA-wrn, as the network asks for; `budget`: epochs, batch, if not its own."""
    if network.startswith("shake_shake"):
        return autoaugment_shake_shake(dataset, **budget)
    if network.startswith("pyramidnet"):
        return autoaugment_pyramidnet(dataset, **budget)
    return autoaugment_wrn(**budget)


def efficientnet(epochs: float = 350.0, batch: int = 4096) -> dict[str, Any]:
    """EN: EfficientNets on ImageNet (TensorFlow's TPU models), with their smoothed labels, averaged
    weights and an evaluation every epoch; circumventing_outliers gives B0 500 epochs."""
    staircase = defaults.schedule("exponential", factor=0.97, every_epochs=2.4, warmup_epochs=5.0)
    return {
        "terms": {"ce": defaults.term("cross_entropy", label_smoothing=0.1)},
        "optimizer": defaults.optimizer(
            "rmsprop_tf", learning_rate=0.016, learning_rate_schedule=staircase, base_batch=256,
            options={"rho": 0.9, "momentum": 0.9, "eps": 1e-3}, weight_decay=1e-5,
            decay=("nets/*/kernel", *(f"nets/*/{layer}/bias" for layer in (
                "squeeze", "excite", "head")))),  # all but BatchNorm's, whose shifts are biases too
        "ema": 0.9999, "epochs": epochs, "batch_size": batch,
        "eval": {"every_epochs": 1.0, "batch_size": 1024},
    }


def role_wise(epochs: float = 200.0, batch: int = 128) -> dict[str, Any]:
    """RW-fp: networks of full precision in role_wise_kd."""
    return _recipe(epochs, batch, defaults.optimizer(
        learning_rate=0.1, learning_rate_schedule=steps(epochs, (0.3, 0.6, 0.9)), nesterov=True,
        weight_decay=5e-4))


def role_wise_quantised(epochs: float = 200.0, batch: int = 128) -> dict[str, Any]:
    """RW-q: quantised networks in role_wise_kd; its release decays at 30, 60 and 80 %, and has
    TensorFlow's Adam, whose eps counts 1 / sqrt(1 - b2^t) times as much in update t as in PyTorch's
    form, which is ours: 32 times in the first."""
    return _recipe(epochs, batch, defaults.optimizer(
        "adam", learning_rate=1e-3, learning_rate_schedule=steps(epochs, (0.3, 0.6, 0.9)),
        eps=1e-5, weight_decay=1e-5, decay=("nets/*/kernel",)))


def cutmix_kd(weak: ConfigDict, rows: int = 0, mix: str = "cutmix", criterion: str = "kl",
              ce: float = 0.1, kd: float = 0.9) -> dict[str, Any]:
    """B8: what a student of kd_thrives_on_da is shown and minimises. Labels look at weak views
    alone, KL at all, each kind with its own batch mean.

    Args:
      weak: the view that is mixed.
      rows: mixed ones of an image; of several, the pick keeps as many as there are images.
      mix: mixup or cutmix.
      criterion: what the pick looks for, as `defaults.pick` has it.
      ce, kd: weights of cross-entropy and of every KL.
    """
    views, pick = {"weak": weak}, {}
    terms = {"ce": defaults.term("cross_entropy", ce, ("weak",)), "kd": kl(kd, "weak")}
    if rows:
        views["mixed"] = defaults.mixed("weak", mix, rows=rows)
        terms["kd_mixed"] = kl(kd, "picked" if rows > 1 else "mixed")
    if rows > 1:
        pick = {"pick": defaults.pick("top", criterion=criterion, share=1 / rows)}
    return {"views": views, "terms": terms, **pick}


def kl(weight: float, *views: str) -> ConfigDict:
    """KD's term at temperature 4, times its square."""
    return defaults.term("hinton", weight, views, tau=4.0, tau_square=True)


def lone(dataset: str, images: int, phase: ConfigDict) -> ConfigDict:
    """The config of one phase, "student"; of so many images, 0 being all; saved when evaluated."""
    return defaults.config(
        {"student": phase}, data={"name": dataset, "limit": images},
        checkpoint={"every_epochs": phase.eval.every_epochs, "keep": 1})


def steps(epochs: float, shares: tuple[float, ...], factor: float = 0.1) -> Mapping[str, Any]:
    """A schedule that multiplies by `factor` after each of these shares of the epochs."""
    return defaults.schedule("piecewise", epochs=tuple(epochs * share for share in shares),
                             factors=(factor,) * len(shares))


def _cosine(rate, weight_decay, epochs, batch):
    return _recipe(epochs, batch, defaults.optimizer(
        learning_rate=rate, learning_rate_schedule=defaults.schedule("cosine"), nesterov=True,
        weight_decay=weight_decay, clip_norm=5.0))


def _recipe(epochs, batch, optimizer):
    return {"optimizer": optimizer, "epochs": epochs, "batch_size": batch,
            "eval": {"every_epochs": max(1.0, epochs / 12)}}
