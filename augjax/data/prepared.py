"""Which folder holds a prepared data set, and what is said where none does."""

from collections.abc import Sequence
import json
from pathlib import Path
import re

import tensorflow_datasets as tfds

from augjax import check

ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
AGAIN = "prepare the data again from an intact archive"


def prepared_folder(name: str, data_dir: str | Path) -> Path:
    """The newest data_dir/name/version that is array_record; DataError says what is there."""
    root = Path(data_dir).expanduser()
    found = {}
    for path in (root / name).glob("*/dataset_info.json"):
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name):
            found[path.parent] = _file_format(path)
    ready = [folder for folder, kind in found.items() if kind == "array_record"]
    if ready:
        return max(ready, key=lambda folder: tuple(map(int, folder.name.split("."))))
    if found:
        got = ", ".join(f"{folder} as {kind}" for folder, kind in sorted(found.items()))
    else:
        place = root / name if (root / name).is_dir() else root
        got = f"{place}, {_contents(place)}"
    source = ARCHIVES.get(name, "PATH")
    raise check.DataError(check.sentence(
        name, f"a prepared data set of array_record files in {root / name}/VERSION", got,
        f"run `python -m launch.prepare --source={source} --data_dir={root}`",
    ))


def evaluation_split(name: str, data_dir: str | Path) -> str:
    """test, or validation where a prepared folder has no split of that name."""
    splits = metadata(prepared_folder(name, data_dir)).splits
    found = [split for split in ("test", "validation") if split in splits]
    check.require(bool(found), name, "a split `test` or `validation` beside `train`",
                  sorted(splits), "prepare it with images to test on", check.DataError)
    return found[0]


def metadata(folder: Path) -> tfds.core.DatasetInfo:
    """What TFDS knows of a prepared folder; DataError where that is broken."""
    try:
        info = tfds.builder_from_directory(folder).info
        assert info.features is not None and info.splits is not None
        return info
    except Exception as error:  # whatever TFDS says of a broken folder
        raise check.DataError(check.sentence(
            str(folder), "metadata that TFDS can read", f"{type(error).__name__}: {error}", AGAIN
        )) from error


def _file_format(path: Path) -> str:
    try:
        return str(json.loads(path.read_text()).get("fileFormat", "tfrecord"))
    except (OSError, ValueError, AttributeError) as error:
        raise check.DataError(check.sentence(
            str(path), "TFDS metadata", error, AGAIN
        )) from error


def _contents(place: Path) -> str:
    if not place.is_dir():
        return "which is not a folder" if place.exists() else "which does not exist"
    names: Sequence[str] = sorted(path.name for path in place.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"which holds {', '.join(names[:8])}{more}" if names else "which is empty"
