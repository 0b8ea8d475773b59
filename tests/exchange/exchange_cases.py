"""Every importable model: how its PyTorch side is built, and how ours is held against it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.torch import save_file
import torch

from augjax import exchange, models
from augjax.types import Rows, View
from launch.torchvision_beside_torch import load
from torch_drawn import draw_module, normalised, pixels, tapped, Tensors
from torch_repdistiller import COUNTERPARTS

INVERTED = ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")
FEATURES = ("features.1", "features.3", "features.6", "features.13", "features.17")
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def module(source, model):
    """(PyTorch module of 1000 classes, {tap: its submodule}, its head)."""
    vision = load("torchvision")  # timm asks for it too
    if source == "torchvision":
        made = getattr(vision.models, model)()
        mobile = model == "mobilenet_v2"
        taps = FEATURES if mobile else ("relu", *LAYERS)
        head = "classifier.1" if mobile else "fc"
    else:
        import timm

        made = timm.create_model(model, pretrained=False)
        residual = model.startswith("resnet")
        taps = ("act1", *LAYERS) if residual else INVERTED
        head = "fc" if residual else "classifier"
    return made, {f"f{k}": path for k, path in enumerate(taps)}, head


def state_on_meta(source, model, classes):
    """{tensor: value without numbers} of a PyTorch model."""
    if source == "repdistiller":
        tensors = Tensors("meta")
        COUNTERPARTS[model](tensors, torch.empty((1, 3, 32, 32), device="meta"), classes)
        return tensors.values
    with torch.device("meta"):
        return module(source, model)[0].state_dict()


def theirs(source, model, image, mean, std):
    """(tensors, taps, logits) of the PyTorch side with drawn tensors."""
    x = normalised(image, mean, std)
    if source == "repdistiller":
        tensors = Tensors()
        taps, logits = COUNTERPARTS[model](tensors, x, 100)
        return tensors.values, taps, logits
    made, places, head = module(source, model)
    draw_module(made, x)
    return made.state_dict(), *tapped(made, x, places, head)


def net_of(converted):
    """Our network, built as a config would."""
    block = dict(converted.model)
    size = block.pop("image_size")
    return models.build(block.pop("name"), converted.classes, (size, size, 3), **block)


def predicted(converted, image):
    """Outputs of our network for pixels [R, H, W, 3]."""
    predict = jax.jit(net_of(converted).predict)
    return predict((converted.params, converted.stats), rows_of(image))


def rows_of(image):
    count = len(image)
    label = jnp.zeros(count, jnp.int32)
    return Rows(jnp.asarray(image), label, label, jnp.ones(count), label, (View("all"),))


def compared(source, model, folder: Path, size: int, rows: int = 2):
    """{what: (max|difference|, max|theirs|)} for logits, pooled and every tap."""
    found = exchange.find(source, model)
    image = pixels(size, rows)
    tensors, taps, logits = theirs(source, model, image, *found.statistics)
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    converted = exchange.convert(source, model, path, image_size=size)
    path.unlink()
    ours = predicted(converted, image)
    pairs = {"logits": (ours.logits, logits), "pooled": (ours.pooled, taps.pop("pooled"))}
    assert set(taps) == set(ours.features)
    pairs |= {tap: (ours.features[tap], taps[tap].permute(0, 2, 3, 1)) for tap in taps}
    return {name: distance(mine, other.numpy()) for name, (mine, other) in pairs.items()}


def distance(mine, other):
    mine, other = np.asarray(mine, np.float64), np.asarray(other, np.float64)
    assert mine.shape == other.shape
    return float(np.abs(mine - other).max()), float(np.abs(other).max())


def shapes(row, classes):
    """(params, stats) of ours, as shapes."""
    size = max(32, models.MODELS[row.ours].smallest)
    net = models.build(row.ours, classes, (size, size, 3), *row.statistics, **row.options)
    return jax.eval_shape(net.init, jax.random.key(0))


def mapped(source, model, tensors, folder: Path):
    """Our (params, stats) of PyTorch's tensors, by way of a file."""
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    converted = exchange.convert(source, model, path)
    path.unlink()
    return converted


def sensitivity(source, model, folder: Path, share: float = 0.1):
    """{tensor: max|change of our logits| / max|logit|} where one tensor of the file is scaled."""
    found = exchange.find(source, model)
    image = pixels(32, 2)
    tensors, _, _ = theirs(source, model, image, *found.statistics)
    plain = mapped(source, model, tensors, folder)
    net = net_of(plain)
    predict = jax.jit(lambda variables: net.predict(variables, rows_of(image)).logits)
    before = np.asarray(predict((plain.params, plain.stats)))
    changes = {}
    for name, value in tensors.items():
        if not name.endswith("num_batches_tracked"):
            other = mapped(source, model, {**tensors, name: value * (1 + share)}, folder)
            after = np.asarray(predict((other.params, other.stats)))
            changes[name] = float(np.abs(after - before).max() / np.abs(before).max())
    return changes


def swapped(source, model, folder: Path, one: str, other: str):
    """max|change of our logits| / max|logit| where two tensors of a file change places."""
    found = exchange.find(source, model)
    image = pixels(32, 2)
    tensors, _, logits = theirs(source, model, image, *found.statistics)
    tensors = {**tensors, one: tensors[other], other: tensors[one]}
    ours = predicted(mapped(source, model, tensors, folder), image)
    difference, largest = distance(ours.logits, logits.numpy())
    return difference / largest
