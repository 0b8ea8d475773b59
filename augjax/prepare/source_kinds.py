"""What lies at a path: looks at files, folders and archives, and has the right reader read them."""

from collections.abc import Iterable, Sequence
import os
from pathlib import Path

from augjax import check
from augjax.prepare import image_layouts, image_places, tfrecords
from augjax.prepare.archives import Archive, CLASSES, FILES, holds_cifar, read_archive
from augjax.prepare.image_layouts import Listing
from augjax.prepare.image_sets import ImageSet

_LOOKED_FOR = (
    "a CIFAR archive or its folder, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, "
    "tiny-imagenet-200 (.zip or folder), a TFDS folder of tfrecord files, or a tree (folder, .zip "
    "or .tar) of train/CLASS/* and val/CLASS/*"
)
_TREE = "tree with a folder `train`"


def recognise(source: Path, dataset: str | None) -> Archive | ImageSet:
    """The images at `source`, an Archive where it is CIFAR as published.

    `dataset` names a class-per-folder tree, or says which where a folder holds several. Raises
    DataError where nothing is known there, ConfigError where `dataset` does not fit.
    """
    check.require(os.path.exists(source), "--source", _LOOKED_FOR, f"{source}, not there",
                  "give the path of an archive or folder on this disk", check.DataError)
    try:
        found = _folder(source, dataset) if source.is_dir() else _file(source, dataset)
    except OSError as error:
        raise check.DataError(check.sentence(
            str(source), "files that can be read", error, "see to their permissions and the disk"
        )) from error
    if isinstance(found, ImageSet):
        check.require(
            dataset in (None, found.name), "--dataset", f"{found.name!r}, which {source} holds",
            repr(dataset), "leave it out",
        )
    return found


def _folder(source: Path, dataset: str | None) -> Archive | ImageSet:
    prepared = tfrecords.find(source, dataset)
    if prepared:
        _require_one(source, prepared, "TFDS folder")
        return tfrecords.read_folder(prepared[0])
    if any((source / tar).is_file() for tar in image_layouts.TARS.values()):
        return image_layouts.imagenet_tars(source)
    if holds_cifar(source):
        return _cifar(source, dataset)
    below = [path for path in sorted(source.iterdir()) if not image_places.is_hidden(path.name)]
    roots = [root for root in (source, source / "ILSVRC/Data/CLS-LOC", *below)
             if (root / "train").is_dir()]
    if not roots:
        files = {path.name: path.iterdir() if path.is_dir() else () for path in below}
        paths = [f"{name}/{path.name}" for name, found in files.items() for path in found]
        raise _unknown(source, [path.name for path in source.iterdir()], _remedy(source, paths))
    if roots[0] != source:  # where a class may be called train, too
        _require_one(source, roots, _TREE)
    return _layout(roots[0], image_places.list_folder(roots[0]), dataset)


def _file(source: Path, dataset: str | None) -> Archive | ImageSet:
    check.require(source.name not in image_layouts.TARS.values(), str(source),
                  "the folder with both of ImageNet's tars", "one of them",
                  f"give --source={source.parent}", check.DataError)
    if image_places.begins_as(source, image_places.ZIP):
        return _layout(source, _below_common(source, image_places.list_zip(source)), dataset)
    packed = image_places.begins_as(source, image_places.COMPRESSED)  # CIFAR is, trees may not be
    if not packed or dataset not in (None, *CLASSES):
        listing = image_places.list_tar(source)
        if not {path.rpartition("/")[2] for path in listing} & FILES:
            return _layout(source, _below_common(source, listing), dataset)
    return _cifar(source, dataset)


def _below_common(source: Path, listing: Listing) -> Listing:
    """The listing seen from the one folder whose `train` has images; itself where there is none.

    Of several the least deep one is meant, as a class may be called train, too.
    """
    splits = (f"/{path}".partition("/train/") for path in listing if image_places.is_image(path))
    heads = {head for head, found, _ in splits if found}
    least = min((head.count("/") for head in heads), default=0)
    roots = sorted(head[1:] for head in heads if head.count("/") == least)
    if not any(roots):
        return listing
    _require_one(source, roots, _TREE)
    prefix = f"{roots[0]}/"
    return {name.removeprefix(prefix): place for name, place in listing.items()
            if name.startswith(prefix)}


def _layout(source: Path, listing: Listing, dataset: str | None) -> ImageSet:
    if "wnids.txt" in listing:
        return image_layouts.tiny_imagenet(str(source), listing)
    splits = image_layouts.classes_of(listing)
    if "train" not in splits:
        trained = [path for path in listing if path.startswith("train/") and path[-1] != "/"]
        raise _unknown(source, trained or listing, _remedy(source, list(listing)))
    return image_layouts.class_tree(str(source), listing, splits, dataset)


def _cifar(source: Path, dataset: str | None) -> Archive:
    if dataset is not None:
        check.one_of("--dataset", dataset, CLASSES)
    return read_archive(source, dataset)


def _require_one(source: Path, found: Sequence[object], kind: str) -> None:
    check.require(len(found) == 1, str(source), f"one {kind}", ", ".join(map(str, found[:8])),
                  "name one of them by --source")


def _remedy(source: Path, paths: Sequence[str]) -> str:
    """What makes a tree of what is almost one, and lies at these paths."""
    meant = {part for path in paths for part in path.split("/")[:-1]
             if part.lower() in ("train", "training")} - {"train"}
    images = (path.split("/") for path in paths if image_places.is_image(path))
    if meant:
        return f"rename {min(meant)} to train"
    if len({parts[-2] for parts in images if len(parts) > 1} - {*image_places.SPLITS}) > 1:
        return image_layouts.aside(str(source), flat=True)
    return "give the path of one of these"


def _unknown(source: Path, names: Iterable[str], fix: str) -> check.DataError:
    got = image_layouts.named(sorted(names)) or "an empty folder"
    return check.DataError(check.sentence(str(source), _LOOKED_FOR, got, fix))
