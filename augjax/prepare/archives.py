"""The published CIFAR archives: two data sets, each in a binary and a python version.

Binary records are 3,072 bytes of pixels (red, green, blue planes of 32 x 32) behind one byte of
label (CIFAR-10) or two (CIFAR-100: coarse, then fine). The python version pickles dictionaries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import tarfile
from typing import Any
import zlib

import numpy as np

from augjax import check
from augjax.prepare.unpickle import load_plain

PIXELS = 32 * 32 * 3
_LARGEST = 2**29  # bytes; the largest published file has 154 MB
_AGAIN = "fetch the archive again"


@dataclass(frozen=True)
class Layout:
    """Where one published version keeps its parts. `labels`: {feature: key in a python file}."""

    dataset: str
    version: str  # "binary" or "python"
    splits: Mapping[str, tuple[str, ...]]  # {split: files}
    names: Mapping[str, tuple[str, str]]  # {feature: (file, key in a python file)}
    labels: Mapping[str, str]  # in the order of a binary record's label bytes

    def files(self) -> set[str]:
        """Every file that must be there."""
        data = {file for files in self.splits.values() for file in files}
        return data | {file for file, _ in self.names.values()}


LAYOUTS = (
    Layout(
        "cifar10", "binary",
        splits={"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
                "test": ("test_batch.bin",)},
        names={"label": ("batches.meta.txt", "")},
        labels={"label": ""},
    ),
    Layout(
        "cifar10", "python",
        splits={"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        names={"label": ("batches.meta", "label_names")},
        labels={"label": "labels"},
    ),
    Layout(
        "cifar100", "binary",
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        names={"coarse_label": ("coarse_label_names.txt", ""),
               "label": ("fine_label_names.txt", "")},
        labels={"coarse_label": "", "label": ""},
    ),
    Layout(
        "cifar100", "python",
        splits={"train": ("train",), "test": ("test",)},
        names={"coarse_label": ("meta", "coarse_label_names"),
               "label": ("meta", "fine_label_names")},
        labels={"coarse_label": "coarse_labels", "label": "fine_labels"},
    ),
)
FILES = frozenset().union(*(layout.files() for layout in LAYOUTS))
CLASSES = {"cifar10": {"label": 10}, "cifar100": {"coarse_label": 20, "label": 100}}


@dataclass(frozen=True)
class Split:
    """Images [N, 32, 32, 3] uint8 and {feature: [N] int64} in the archive's order."""

    images: np.ndarray
    labels: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Archive:
    """What an archive holds: {feature: class names} and {split: Split}."""

    dataset: str
    names: Mapping[str, tuple[str, ...]]
    splits: Mapping[str, Split]


def read_archive(source: Path, dataset: str | None = None) -> Archive:
    """Reads a .tar, .tar.gz or extracted folder of any of the LAYOUTS; checks files and labels.

    `dataset` picks one where a folder holds several. Raises DataError with the file at fault.
    """
    if source.is_dir():
        folders = _read_folder(source)
    else:
        check.require(
            source.is_file(), "--source", "a CIFAR archive or its folder", f"{source}, not there",
            "give the path of the archive on this disk", check.DataError,
        )
        folders = _read_tar(source)
    layout, files = _recognise(source, folders, dataset)
    names = {feature: _read_names(layout, feature, files) for feature in layout.names}
    splits = {split: _read_split(layout, split, files) for split in layout.splits}
    return Archive(layout.dataset, names, splits)


def holds_cifar(source: Path) -> bool:
    """Whether a folder, or one in it, has a file that is called as one of CIFAR's."""
    folders = (source, *(path for path in source.iterdir() if path.is_dir()))
    return any((folder / file).is_file() for folder in folders for file in FILES)


def _recognise(source, folders, dataset):
    """The one (layout, {file: bytes}) whose files are all there."""
    wanted = [layout for layout in LAYOUTS if dataset in (None, layout.dataset)]
    found = [(layout, files) for files in folders.values() for layout in wanted
             if layout.files() <= set(files)]
    if len(found) == 1:
        return found[0]
    if found:
        kinds = ", ".join(f"{layout.dataset} ({layout.version})" for layout, _ in found)
        raise check.ConfigError(check.sentence(
            str(source), "one archive", kinds, "name the folder of one version, or say --dataset"
        ))
    nearest, missing = None, None
    for layout in wanted:
        for files in folders.values():
            lacking = layout.files() - set(files)
            if lacking != layout.files() and (missing is None or len(lacking) < len(missing)):
                nearest, missing = layout, lacking
    if nearest is None:
        expected = " or ".join(f"{layout.dataset} ({layout.version})" for layout in wanted)
        raise check.DataError(check.sentence(
            str(source), f"the files of {expected}", "none of them",
            "give a published CIFAR archive, or see --help for what else is read"
            + "; a tree must be a plain .tar: unpack its compression first" * source.is_file(),
        ))
    raise check.DataError(check.sentence(
        str(source), f"all files of {nearest.dataset} ({nearest.version})",
        f"none named {', '.join(sorted(missing))}", _AGAIN,
    ))


def _read_folder(source: Path) -> dict[str, dict[str, bytes]]:
    """{folder: {file: bytes}} of the folder itself and the folders in it."""
    folders = {}
    for folder in (source, *sorted(path for path in source.iterdir() if path.is_dir())):
        paths = [folder / file for file in sorted(FILES) if (folder / file).is_file()]
        for path in paths:
            _require_size(path, path.stat().st_size)
        if paths:
            folders[str(folder)] = {path.name: path.read_bytes() for path in paths}
    return folders


def _read_tar(source: Path) -> dict[str, dict[str, bytes]]:
    """The same of a tar file, in memory: nothing is extracted, links are passed over."""
    folders = {}
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                if member.isfile() and file in FILES:
                    _require_size(f"{source}: {member.name}", member.size)
                    data = archive.extractfile(member).read()
                    folders.setdefault(folder, {})[file] = data
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise check.DataError(check.sentence(
            str(source), "a whole .tar or .tar.gz", f"{type(error).__name__}: {error}", _AGAIN
        )) from error
    return folders


def _require_size(name: Any, size: int) -> None:
    check.require(
        size <= _LARGEST, str(name), f"at most {_LARGEST} bytes", size, _AGAIN, check.DataError
    )


def _read_names(layout: Layout, feature: str, files: Mapping[str, bytes]) -> tuple[str, ...]:
    file, key = layout.names[feature]
    if layout.version == "python":
        names = load_plain(files[file], file).get(key, ())
        names = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names]
    else:
        names = [line.strip() for line in files[file].decode("latin1").splitlines() if line.strip()]
    count = CLASSES[layout.dataset][feature]
    check.require(
        len(set(names)) == len(names) == count, file, f"{count} class names", names, _AGAIN,
        check.DataError,
    )
    return tuple(names)


def _read_split(layout: Layout, split: str, files: Mapping[str, bytes]) -> Split:
    read = _read_python if layout.version == "python" else _read_binary
    parts = [read(layout, file, files[file]) for file in layout.splits[split]]
    pixels = np.concatenate([pixels for pixels, _ in parts])  # [N, 3072]
    labels = {feature: np.concatenate([labels[feature] for _, labels in parts])
              for feature in layout.labels}
    for feature, values in labels.items():
        classes = CLASSES[layout.dataset][feature]
        outside = np.flatnonzero((values < 0) | (values >= classes))
        check.require(
            not len(outside), f"{layout.dataset} {split} record {outside[:1]}",
            f"a {feature} in 0..{classes - 1}", values[outside[:1]], _AGAIN, check.DataError,
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)


def _read_binary(layout: Layout, file: str, data: bytes):
    size = len(layout.labels) + PIXELS
    check.require(
        len(data) > 0 and len(data) % size == 0, file, f"whole records of {size} bytes",
        f"{len(data)} bytes, {len(data) % size} too many", _AGAIN, check.DataError,
    )
    table = np.frombuffer(data, np.uint8).reshape(-1, size)
    labels = {name: table[:, column].astype(np.int64) for column, name in enumerate(layout.labels)}
    return table[:, len(layout.labels) :], labels


def _read_python(layout: Layout, file: str, data: bytes):
    content = load_plain(data, file)
    pixels = content.get("data")
    good = isinstance(pixels, np.ndarray) and pixels.ndim == 2 and pixels.shape[1] == PIXELS
    check.require(
        good, file, f"data of [n, {PIXELS}] uint8", getattr(pixels, "shape", pixels), _AGAIN,
        check.DataError,
    )
    labels = {}
    for feature, key in layout.labels.items():
        values = content.get(key)
        whole = isinstance(values, list) and all(type(value) is int for value in values)
        check.require(
            whole and len(values) == len(pixels), file, f"{len(pixels)} whole numbers as {key}",
            f"{len(values)} values" if isinstance(values, list) else type(values).__name__,
            _AGAIN, check.DataError,
        )
        labels[feature] = np.array(values, np.int64)
    return pixels, labels
