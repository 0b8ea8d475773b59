"""Small archives with the record layouts of the four published CIFAR versions, for tests."""

import io
from pathlib import Path
import pickle
import tarfile

import numpy as np

from augjax.prepare.archives import CLASSES, LAYOUTS, Layout, Split

COUNTS = {"train": 100, "test": 100}  # a record for each of 100 classes, 10 for each of 10
KINDS = {f"{layout.dataset}-{layout.version}": layout for layout in LAYOUTS}
FOLDERS = {
    "cifar10-binary": "cifar-10-batches-bin", "cifar10-python": "cifar-10-batches-py",
    "cifar100-binary": "cifar-100-binary", "cifar100-python": "cifar-100-python",
}


def class_names(dataset: str) -> dict[str, list[str]]:
    return {feature: [f"{feature} {n}" for n in range(classes)]
            for feature, classes in CLASSES[dataset].items()}


def random_splits(dataset: str, seed: int = 0) -> dict[str, Split]:
    """Noise, and labels that hold every class equally often, shuffled."""
    generator, splits = np.random.default_rng(seed), {}
    for name, count in COUNTS.items():
        fine = generator.permutation(np.arange(count) % CLASSES[dataset]["label"])
        labels = {"coarse_label": fine // 5} if dataset == "cifar100" else {}
        labels["label"] = fine
        splits[name] = Split(generator.integers(0, 256, (count, 32, 32, 3), np.uint8), labels)
    return splits


def files_of(kind: str, splits: dict[str, Split], protocol: int = 2) -> dict[str, bytes]:
    """{file: bytes} in the layout of `kind`."""
    layout, files = KINDS[kind], {"readme.html": b"<html>"}
    names = class_names(layout.dataset)
    for feature, (file, _) in layout.names.items():
        files[file] = ("\n".join(names[feature]) + "\n\n").encode()
    if layout.version == "python":
        meta = {key: names[feature] for feature, (_, key) in layout.names.items()}
        files[next(iter(layout.names.values()))[0]] = _pickle(meta, protocol)
    for name, split in splits.items():
        parts = np.array_split(np.arange(len(split.images)), len(layout.splits[name]))
        for file, part in zip(layout.splits[name], parts):
            files[file] = _data_file(layout, split, part, protocol)
    return files


def _data_file(layout: Layout, split: Split, part: np.ndarray, protocol: int) -> bytes:
    pixels = split.images[part].transpose(0, 3, 1, 2).reshape(len(part), -1)
    if layout.version == "binary":
        columns = [split.labels[feature][part, None].astype(np.uint8) for feature in layout.labels]
        return np.hstack([*columns, pixels]).tobytes()
    content = {"data": pixels, "batch_label": "a batch", "filenames": ["a.png"] * len(part)}
    content |= {key: split.labels[feature][part].tolist() for feature, key in layout.labels.items()}
    return _pickle(content, protocol)


def _pickle(content: dict, protocol: int) -> bytes:
    def plain(value):
        return value.encode() if isinstance(value, str) else value

    content = {key.encode(): [plain(v) for v in value] if isinstance(value, list) else plain(value)
               for key, value in content.items()}
    return pickle.dumps(content, protocol)


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def write_tar(path: Path, folder: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
