"""Other people's RandAugment, each as (pixels [B, S, S, 3] uint8) -> a call that does the batch.

Every call ends with its result in memory. Peers are optional: what is not installed is not
measured. Sources: timm/data/auto_augment.py, torchvision/transforms, kornia/augmentation/auto.
"""

from collections.abc import Callable
import importlib.util
import multiprocessing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from launch import torchvision_beside_torch

Call = Callable[[], Any]
NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


def _timm() -> ModuleType:
    """timm.data.auto_augment by its path: the package imports torchvision."""
    root = importlib.util.find_spec("timm").submodule_search_locations[0]
    path = Path(root) / "data/auto_augment.py"
    spec = importlib.util.spec_from_file_location("timm_auto_augment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _timm_policy(interpolation, probability):
    options = {"img_mean": (128,) * 3}
    if interpolation is not None:  # None is timm's default: bilinear or bicubic by chance
        options["interpolation"] = interpolation
    return _timm().rand_augment_transform(f"rand-m9-n2-p{probability}", options)


def timm(interpolation: int | None, probability: float = 1.0) -> Callable[[np.ndarray], Call]:
    """timm's RandAugment on PIL images, arrays in and out, in this process."""
    def peer(pixels):
        policy = _timm_policy(interpolation, probability)
        return lambda: [np.asarray(policy(Image.fromarray(image))) for image in pixels]
    return peer


def timm_processes(interpolation: int, processes: int) -> Callable[[np.ndarray], Call]:
    """The same in worker processes that hold their images; the results travel back."""
    def peer(pixels):
        pool = multiprocessing.get_context("spawn").Pool(
            processes, initializer=_work_on, initargs=(pixels, interpolation))
        parts = np.array_split(np.arange(len(pixels)), processes)
        return lambda: np.concatenate(pool.map(_worked, parts, chunksize=1))
    return peer


_held: dict[str, Any] = {}


def _work_on(pixels, interpolation):
    _held.update(pixels=pixels, policy=_timm_policy(interpolation, 1.0))


def _worked(part):
    images = (Image.fromarray(_held["pixels"][b]) for b in part)
    return np.stack([np.asarray(_held["policy"](image)) for image in images])


def _torchvision() -> ModuleType:
    return torchvision_beside_torch.load("torchvision.transforms")


def torchvision_pil(pixels: np.ndarray) -> Call:
    """torchvision's RandAugment on PIL images, arrays in and out, nearest."""
    policy = _torchvision().RandAugment(2, 9, fill=[128] * 3)
    return lambda: [np.asarray(policy(Image.fromarray(image))) for image in pixels]


def torchvision_tensor(pixels: np.ndarray) -> Call:
    """torchvision's RandAugment on uint8 tensors, one thread, nearest, image by image."""
    import torch

    torch.set_num_threads(1)
    policy = _torchvision().RandAugment(2, 9, fill=[128] * 3)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return lambda: [policy(image) for image in batch]


def kornia(pixels: np.ndarray) -> Call:
    """kornia's RandAugment on float tensors, one thread: one pair of operations per batch."""
    from kornia.augmentation.auto import RandAugment
    import torch

    torch.set_num_threads(1)  # its threads keep spinning and slow what is timed next
    policy = RandAugment(n=2, m=9)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return lambda: policy(batch)
