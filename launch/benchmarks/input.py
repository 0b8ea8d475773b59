"""Feeding ImageNet: images a second of one core, beside torchvision's pipeline in the same run.

JPEGs of 500 x 375 at quality 90, cut from scikit-learn's two photographs, so that their entropy is
a photograph's; ours in array_record, torchvision's as files in class folders, both in the page
cache. The peer is what its references do: Pillow opens a file, converts, RandomResizedCrop(224),
PILToTensor, a DataLoader without workers that collates; its flip is left out, as ours is the
device's. Rows of one core run in a process that has one, and count the seconds that the process
computed (CPU time), so that a neighbour on the machine takes nothing from either side; stalls and
workers are by the clock on the wall.

The pixels are equal where the boxes are (tests/data/test_cropped.py), so what can be saved is the
rows below the box, which are not decoded, and what is not Pillow's: torchvision's own randomness,
its tensors and their collation; a row says what is left if feeding cost nothing. What helps is to
decode less, which changes pixels: `launch.prepare --short_side=256`, or `draft` for large images.

Rows of an H100 divide what such a card is expected to train by what was measured here; no such
card was measured (users.md 3b: an A100's published figures by the ratio of bandwidths).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import importlib.util
import io
import itertools
import os
from pathlib import Path
import statistics
import tempfile
import time
from typing import Any, NamedTuple

from array_record.python.array_record_module import ArrayRecordWriter
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from augjax import data
from augjax.data.cropped import Cut, training_crop
from launch import torchvision_beside_torch
from launch.benchmarks import measure

COUNT, BATCH, SIZE, PAIRS = 96, 32, 224, 20
LARGE = 1125  # pixels of the short side of what a telephone takes, or less
WINDOWS = 20  # measurements of a row that is no ratio
H100 = {"EfficientNet-B0": (5700, 6400), "ResNet-50": (4100, 4400)}  # images/s, estimates
NAME = "photographs"


class Encoded(NamedTuple):
    """One image as it is stored."""

    file_name: str
    encoded: bytes
    label: int


# --- images --------------------------------------------------------------------------------------


@functools.cache
def photographs(count: int, short: int | None = None) -> tuple[Encoded, ...]:
    """JPEGs of 500 x 375, cut and mirrored from two photographs; or of another `short` side."""
    width, height = 500, 375
    rng, whole = np.random.default_rng(0), load_sample_images().images
    made = []
    for number in range(count):
        pixels = whole[number % 2]
        top, left = (rng.integers(0, have - want + 1)
                     for have, want in zip(pixels.shape, (height, width)))
        pixels = pixels[top : top + height, left : left + width]
        picture = Image.fromarray(pixels[:, :: rng.choice((-1, 1))])
        if short:
            wide, tall = (side * short // min(width, height) for side in (width, height))
            picture = picture.resize((wide, tall), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        made.append(Encoded(f"{number:04d}.jpg", file.getvalue(), number % 2))
    return tuple(made)


def write_folder(data_dir: Path, name: str, splits: Mapping[str, Sequence[Encoded]],
                 class_names: Sequence[str]) -> Path:
    """A prepared folder data_dir/NAME/1.0.0, as launch.prepare makes of a tree of images."""
    folder = Path(data_dir) / name / "1.0.0"
    folder.mkdir(parents=True)
    infos = []
    for split, images in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, filetype_suffix="array_record", split=split)
        path = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for image in images:
            example = tf_example_pb2.Example()
            feature = example.features.feature
            feature["file_name"].bytes_list.value.append(image.file_name.encode())
            feature["image"].bytes_list.value.append(image.encoded)
            feature["label"].int64_list.value.append(image.label)
            writer.write(example.SerializeToString(deterministic=True))
        writer.close()
        infos.append(tfds.core.SplitInfo(
            name=split, shard_lengths=[len(images)], num_bytes=path.stat().st_size,
            filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, split_infos=infos, version="1.0.0", check_data=False,
        features=tfds.features.FeaturesDict({
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(class_names)),
        }))
    return folder


_kept: list[tempfile.TemporaryDirectory] = []  # until this process ends


def _new_folder() -> Path:
    _kept.append(tempfile.TemporaryDirectory())
    return Path(_kept[-1].name)


def prepared(images: Sequence[Encoded], cut: Cut) -> data.Source:
    """The images as the training images of a prepared data set."""
    root = _new_folder()
    write_folder(root, NAME, {"train": images, "test": images[:1]}, ("china", "flower"))
    return data.load(NAME, root, image_size=cut.size, crop=cut.rule, draft=cut.draft).train


def in_files(images: Sequence[Encoded]) -> list[tuple[str, int]]:
    """[(path, label)] of the images as files in class folders."""
    root, files = _new_folder(), []
    for image in images:
        path = root / str(image.label) / image.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image.encoded)
        files.append((str(path), image.label))
    return files


# --- what is timed -------------------------------------------------------------------------------


def fed(source: data.Source) -> Callable[[], Any]:
    """Our whole pipeline, one epoch of it a call, decoded by one thread."""
    steps, epochs = len(source) // BATCH, itertools.count()
    return lambda: [batch.image[0, 0, 0, 0] for batch in data.feed(
        source, 0, BATCH, next(epochs) * steps, steps, threads=1)]


def evaluated(source: data.Source) -> Callable[[], Any]:
    return lambda: [batch.image[0, 0, 0, 0]
                    for batch in data.in_order(source, BATCH, threads=0)]


def decoded(images: Sequence[Encoded]) -> Callable[[], Any]:
    return lambda: [Image.open(io.BytesIO(image.encoded)).load() for image in images]


def cropped(images: Sequence[Encoded], cut: Cut) -> Callable[[], Any]:
    epochs = itertools.count()

    def work():
        epoch = next(epochs)
        for index, image in enumerate(images):
            training_crop(image.encoded, cut, 0, epoch, index)
    return work


def _torch(*names: str) -> list[Any]:
    modules = [torchvision_beside_torch.load(name) for name in names]
    import torch

    torch.set_num_threads(1)
    return modules


def torchvision_cropped(images: Sequence[Encoded], cut: Cut) -> Callable[[], Any]:
    """Decoding and RandomResizedCrop alone, from memory."""
    transforms, = _torch("torchvision.transforms")
    crop = transforms.RandomResizedCrop(cut.size)
    return lambda: [crop(Image.open(io.BytesIO(image.encoded)).convert("RGB")) for image in images]


def torchvision_loaded(files: Sequence[tuple[str, int]], training: bool) -> Callable[[], Any]:
    """The pipeline of torchvision's references, one epoch of it a call."""
    transforms, = _torch("torchvision.transforms")
    from torch.utils.data import DataLoader

    seen = ([transforms.RandomResizedCrop(SIZE)] if training else
            [transforms.Resize(SIZE * 8 // 7), transforms.CenterCrop(SIZE)])
    transform = transforms.Compose([*seen, transforms.PILToTensor()])

    class Files:
        def __len__(self):
            return len(files)

        def __getitem__(self, number):
            path, label = files[number]
            with open(path, "rb") as file:
                return transform(Image.open(file).convert("RGB")), label

    loader = DataLoader(Files(), BATCH, shuffle=training)
    return lambda: [images[0, 0, 0, 0] for images, _ in loader]


# --- rows ----------------------------------------------------------------------------------------


def core_seconds(work: Callable[[], Any]) -> float:
    """CPU time of one call, of all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def paired_ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> list[float]:
    """As `measure.paired_ratio`, by CPU time."""
    ours(), theirs()
    pairs = []
    for number in range(PAIRS):  # who goes first alternates
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        pair = {first: core_seconds(first), second: core_seconds(second)}
        pairs.append(pair[theirs] / pair[ours])
    return pairs


def _note(speed: float, *more: str) -> str:
    return "; ".join((f"{speed:,.0f} images/s", *more, f"load {os.getloadavg()[0]:.1f}"))


def _speed(seconds: float) -> float:
    return COUNT / seconds


def alone(make: Callable[[], Callable[[], Any]]) -> measure.Work:
    """A row of images/s on one core, without a peer."""
    def work(name: str) -> dict[str, Any]:
        call = make()
        call()
        speeds = [_speed(core_seconds(call)) for _ in range(WINDOWS)]
        size = statistics.mean(len(image.encoded) for image in photographs(COUNT))
        return measure.row(name, speeds, "images/s of a core",
                           note=f"{size / 1000:.0f} kB an image; load {os.getloadavg()[0]:.1f}")
    return measure.on_one_core("input", work)


def beside(make: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]],
           at_least: float | None = None, note: str = "", count: int = 0) -> measure.Work:
    """A row: the peer's time over ours for the same images, in interleaved pairs on one core."""
    def work(name: str) -> dict[str, Any]:
        if importlib.util.find_spec("torchvision") is None:
            return measure.unmeasured(name, "torchvision is not installed")
        ours, theirs = make()
        ratios = paired_ratio(ours, theirs)
        speed = (count or COUNT) / statistics.median(core_seconds(ours) for _ in range(5))
        return measure.row(name, ratios, "times torchvision's images/s of a core", at_least,
                           note=_note(speed, *filter(None, [note])))
    return measure.on_one_core("input", work)


def pipelines(short: int | None = None) -> tuple[Callable[[], Any], Callable[[], Any]]:
    source = prepared(photographs(COUNT, short=short), Cut(SIZE))
    return fed(source), torchvision_loaded(in_files(photographs(COUNT)), training=True)


def large_pipelines() -> tuple[Callable[[], Any], Callable[[], Any]]:
    images = photographs(BATCH, short=LARGE)
    return (fed(prepared(images, Cut(SIZE, draft=True))),
            torchvision_loaded(in_files(images), training=True))


def evaluations(rule: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    source = prepared(photographs(COUNT), Cut(SIZE, rule))
    return evaluated(source), torchvision_loaded(in_files(photographs(COUNT)), training=False)


def stalled(times: float) -> measure.Work:
    """The share of a step in which it waits for its batch: the step takes `times` as long as one
    core takes to make the batch; it sleeps, as a host does whose device works."""
    def work(name: str) -> dict[str, Any]:
        source = prepared(photographs(COUNT), Cut(SIZE))
        call = fed(source)
        call()
        step_s = times * min(measure.seconds(call) for _ in range(5)) * BATCH / COUNT
        shares, feeding = [], data.feed(source, 0, BATCH, 0, 2 + WINDOWS, threads=1)
        next(feeding)
        for _ in range(1 + WINDOWS):
            time.sleep(step_s)
            waited = measure.seconds(lambda: next(feeding))
            shares.append(waited / (waited + step_s))
        return measure.row(name, shares[1:], "of the step",
                           note=f"step {1000 * step_s:.0f} ms; load {os.getloadavg()[0]:.1f}")
    return measure.on_one_core("input", work)


def in_workers(count: int) -> measure.Work:
    def work(name: str) -> dict[str, Any]:
        source = prepared(photographs(COUNT), Cut(SIZE))
        ahead = 4 * count  # batches that were ready before the clock began
        feeding = data.feed(source, 0, BATCH, 0, ahead + count * WINDOWS, threads=1, workers=count)
        for _ in range(ahead):
            next(feeding)
        speeds = [count * BATCH / measure.seconds(lambda: [next(feeding) for _ in range(count)])
                  for _ in range(WINDOWS)]
        return measure.row(name, speeds, "images/s", note=f"{os.cpu_count()} hyperthreads; "
                           f"load {os.getloadavg()[0]:.1f}")
    return work


def cores_for(network: str) -> measure.Work:
    """How many cores like this one feed an H100."""
    def work(name: str) -> dict[str, Any]:
        call = fed(prepared(photographs(COUNT), Cut(SIZE)))
        call()
        speeds = [_speed(core_seconds(call)) for _ in range(WINDOWS)]
        (slow, fast), ours = measure.interval(speeds), statistics.median(speeds)
        low, high = H100[network]
        return measure.row(name, speeds, "cores", note=(
            f"computed: {low:,} to {high:,} images/s, estimated (users.md 3b), over {ours:,.0f}")
            ) | {"median": (low + high) / 2 / ours, "low": low / fast, "high": high / slow}
    return measure.on_one_core("input", work)


def _rows() -> Iterator[tuple[str, measure.Work]]:
    cut = Cut(SIZE)
    yield "decode", alone(lambda: decoded(photographs(COUNT)))
    yield "decode and crop", alone(lambda: cropped(photographs(COUNT), cut))
    yield "whole pipeline", alone(lambda: fed(prepared(photographs(COUNT), cut)))
    yield "decode and crop, torchvision", beside(lambda: (
        cropped(photographs(COUNT), cut), torchvision_cropped(photographs(COUNT), cut)))
    yield "whole pipeline, torchvision", beside(pipelines, 1.5)
    yield "decode and crop, torchvision's whole pipeline", beside(
        lambda: (cropped(photographs(COUNT), cut), pipelines()[1]), note="if feeding cost nothing")
    yield f"whole pipeline, short sides of {LARGE}, with draft, torchvision without", beside(
        large_pipelines, note="other pixels", count=BATCH)
    yield "whole pipeline, prepared with a short side of 256, torchvision from originals", beside(
        lambda: pipelines(short=256), note="other pixels")
    yield "evaluation, resnet, torchvision", beside(lambda: evaluations("resnet"))
    yield "evaluation, efficientnet, torchvision's resnet", beside(
        lambda: evaluations("efficientnet"), note="not the same work")
    for times in (0.5, 1.25, 2.0):
        yield f"stall share, a step of {times} times its batch", stalled(times)
    for count in (1, 2):
        yield f"whole pipeline in {count} worker{'s' * (count > 1)}", in_workers(count)
    for network in H100:
        yield f"cores that an H100 needs for {network}", cores_for(network)


ROWS = dict(_rows())
