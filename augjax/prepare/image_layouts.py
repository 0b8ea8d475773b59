"""Image collections as people have them: ImageNet, Tiny-ImageNet, and any class-per-folder tree.

Each reader takes a listing {path: Place} (of a folder, a zip or a tar) and returns an ImageSet, or
says by a DataError what is missing. Classes are sorted by name, as TFDS sorts ImageNet's synsets.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
import re

import tensorflow_datasets as tfds

from augjax import check
from augjax.prepare import image_places
from augjax.prepare.image_places import is_image, SPLITS, VALIDATION
from augjax.prepare.image_sets import Item, ImageSet, KNOWN, of_images, Place, Wanted

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_TFDS = Path(tfds.__file__).parent / "datasets/imagenet2012"
_RESERVED = (*KNOWN, "digits")
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
HELD = (*VALIDATION, "test")
_NAMED = 8  # folders in a sentence
Listing = Mapping[str, Place]


def synsets() -> tuple[str, ...]:
    """ImageNet-2012's 1,000 synsets in the order of TFDS's labels, from the installed TFDS."""
    return tuple(_tfds_lines("labels.txt", 1000))


def imagenet_tars(folder: Path) -> ImageSet:
    """ILSVRC2012_img_train.tar (a tar of class tars) and ILSVRC2012_img_val.tar in one folder."""
    missing = [file for file in TARS.values() if not (folder / file).is_file()]
    check.require(not missing, str(folder), " and ".join(TARS.values()),
                  f"none named {', '.join(missing)}", "put both into one folder", check.DataError)
    train = {}
    outer = image_places.list_tar(folder / TARS["train"])
    for name, place in outer.items():
        if name.endswith("/"):
            continue
        synset = name.removesuffix(".tar")
        check.require(synset != name, place.path, "one tar for each class", name,
                      "fetch it again", check.DataError)
        inner = image_places.list_tar(folder / TARS["train"], place.offset, place.size)
        train |= {f"train/{synset}/{file}": place for file, place in inner.items()}
    val = image_places.list_tar(folder / TARS["validation"])
    return imagenet(str(folder), train | {f"val/{file}": place for file, place in val.items()})


def imagenet(source: str, listing: Listing) -> ImageSet:
    """ImageNet-2012's train/SYNSET/*.JPEG with val/SYNSET/*.JPEG or with all images flat in val."""
    names = synsets()
    train, val = by_class(listing, "train"), by_class(listing, *VALIDATION)
    for split, classes in {"train": train, "val": val}.items():
        missing, foreign = sorted({*names} - {*classes}), sorted({*classes} - {*names})
        flat = split == "val" and not classes
        check.require(
            flat or not (missing or foreign), f"{source}, {split}",
            "the 1000 class folders of imagenet2012",
            f"none for {', '.join(missing[:5]) or 'none'}, others {', '.join(foreign[:5])}",
            "name another set by --dataset, or fetch it again", check.DataError,
        )
    validation = _labelled(val, names) if val else _flat_validation(source, listing, names)
    return of_images(
        "imagenet2012", KNOWN["imagenet2012"].version, names, Wanted("jpeg"),
        {"train": _labelled(train, names), "validation": validation},
    )


def tiny_imagenet(source: str, listing: Listing) -> ImageSet:
    """tiny-imagenet-200: train/WNID/images, and val by its annotations or by folders, too.

    Classes are the sorted lines of wnids.txt; the unlabelled test images are left out.
    """
    names = sorted(set(_lines(listing["wnids.txt"]).values()))
    train = by_class(listing, "train")
    _require_known(f"{source}, train", train, names)
    if "val/val_annotations.txt" in listing:
        val = {}
        annotations = listing["val/val_annotations.txt"]
        for number, line in _lines(annotations).items():
            file, _, rest = line.partition("\t")
            wnid = rest.partition("\t")[0]
            check.require(bool(wnid), f"{annotations}, line {number}",
                          "a file and its class, with a tab between them", repr(line[:80]),
                          "fetch it again", check.DataError)
            path = f"val/images/{file}"
            check.require(path in listing, source, f"{path}, which its annotations name", "none",
                          "fetch it again", check.DataError)
            val.setdefault(wnid, {})[file] = listing[path]
    else:
        val = by_class(listing, *VALIDATION)
    _require_known(f"{source}, val", val, names)
    return of_images(
        "tiny_imagenet", KNOWN["tiny_imagenet"].version, names, Wanted("jpeg", size=(64, 64)),
        {"train": _labelled(train, names), "validation": _labelled(val, names)},
    )


def class_tree(source: str, listing: Listing, name: str | None) -> ImageSet:
    """train/CLASS/* with val, valid or validation, or test; PNG throughout stays PNG, else JPEG.

    One of these becomes the split `validation`; test stays `test` beside another. `name` is free
    but for those of published sets; "imagenet2012" is known by its name or its classes. Of other
    files there, and of class folders without images, `ImageSet.told` has a sentence.
    """
    train = by_class(listing, "train")
    if name == "imagenet2012" or name is None and set(train) == set(synsets()):
        return imagenet(source, listing)
    check.require(name is not None, "--dataset", "a name for these images", "none",
                  f"choose one, such as --dataset=flowers: {source} is a tree of "
                  f"{len(train)} classes")
    check.require(
        re.fullmatch(r"[a-z][a-z0-9_]*", name) and name not in _RESERVED, "--dataset",
        "a new name of small letters, digits and _", repr(name),
        f"choose another: the published sets have {', '.join(_RESERVED)}",
    )
    names = sorted(train)
    held = [folder for folder in HELD if by_class(listing, folder)]
    others = sorted({path.split("/")[0] for path in listing if "/" in path} - {"train"})
    check.require(
        bool(held) and len({*VALIDATION} & {*held}) < 2, source,
        "class folders in one of val, valid and validation, or in test, beside train",
        " and ".join(held) or f"none{'; beside train: ' if others else ''}{_named(others)}",
        "put some images aside, in the same class folders", check.DataError,
    )
    splits = {"train": _labelled(train, names, prefixed=True)}
    for folder in held:
        classes = by_class(listing, folder)
        _require_known(f"{source}, {folder}", classes, names)
        split = "test" if folder == "test" and len(held) > 1 else "validation"
        splits[split] = _labelled(classes, names, prefixed=True)
    places = [item.name for items in splits.values() for item in items]
    lossless = all(path.lower().endswith(".png") for path in places)
    return of_images(name, "1.0.0", names, Wanted("png" if lossless else "jpeg"), splits,
                     _passed_over(listing))


def by_class(listing: Listing, *splits: str) -> dict[str, dict[str, Place]]:
    """{class: {file: Place}} of SPLIT/CLASS/FILE and SPLIT/CLASS/images/FILE.

    Raises DataError for two files that would get one name.
    """
    classes = {}
    for path, place in listing.items():
        *folders, file = path.split("/")
        if _of_class(folders) and folders[0] in splits and is_image(file):
            files = classes.setdefault(folders[1], {})
            if file in files:
                raise check.DataError(check.sentence(
                    f"{files[file]} and {place}", "a name of its own for each image of a class",
                    f"{folders[1]}/{file} for both", "rename one of them"))
            files[file] = place
    return classes


def _of_class(folders: Sequence[str]) -> bool:
    return len(folders) == 2 or len(folders) == 3 and folders[2] == "images"


def _passed_over(listing: Listing) -> list[str]:
    """Sentences on the files in a tree's splits that are none of its images, and on class folders
    that have no images."""
    places, endings, classes, filled = Counter(), Counter(), set(), set()
    for path in listing:
        *folders, file = path.split("/")
        if not folders or folders[0] not in SPLITS:
            continue
        classes.add("/".join(folders[:2]))
        if file and not is_image(file):
            endings[Path(file).suffix or file] += 1
        elif file and not _of_class(folders):
            places["in no class folder" if len(folders) == 1 else "deeper than train/CLASS"] += 1
        elif file:
            filled.add("/".join(folders[:2]))
    counts, lines = [f"{places[where]} {where}" for where in sorted(places)], []
    if endings:
        most = ", ".join(ending for ending, _ in endings.most_common(3))
        counts.append(f"{endings.total()} of other endings, such as {most}")
    if counts:
        total = places.total() + endings.total()
        lines.append(f"ignored: {total} files ({', '.join(counts)})")
    empty = sorted(folder for folder in classes - filled if "/" in folder)
    if empty:
        lines.append(f"no images: {_named(empty)}")
    return lines


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _labelled(
    classes: Mapping[str, Mapping[str, Place]], names: Sequence[str], prefixed: bool = False
) -> list[Item]:
    """Items with the class's rank as label; names are prefixed by the class where files repeat."""
    rank = {name: label for label, name in enumerate(names)}
    return [Item(f"{name}/{file}" if prefixed else file, rank[name], place)
            for name, files in classes.items() for file, place in files.items()]


def _flat_validation(source: str, listing: Listing, names: Sequence[str]) -> list[Item]:
    """Image n of ILSVRC2012_val_{n:08}.JPEG has the class of line n in TFDS's list."""
    rank = {name: label for label, name in enumerate(names)}
    lines = _tfds_lines("validation_labels.txt", 50_000)
    items = []
    for path, place in listing.items():
        split, _, file = path.partition("/")
        if split in VALIDATION and is_image(path):
            match = _VALIDATION.fullmatch(file.rpartition("/")[2])
            number = int(match.group(1)) if match else 0
            check.require(
                1 <= number <= len(lines), f"{source}, {path}",
                "class folders or ILSVRC2012_val_00000001.JPEG to 00050000.JPEG", file,
                "fetch it again", check.DataError,
            )
            items.append(Item(match.group(0), rank[lines[number - 1]], place))
    return items


def _require_known(what: str, classes: Mapping[str, object], names: Sequence[str]) -> None:
    foreign = sorted(set(classes) - set(names))
    check.require(not foreign, what, f"classes among the {len(names)} known ones",
                  ", ".join(foreign[:8]), "remove or rename these folders", check.DataError)


def _lines(place: Place) -> dict[int, str]:
    """{number from 1: line} of a text file, without the empty ones."""
    with image_places.readable(Path(place.path), "a text file in it"):
        text = image_places.read(place).decode()
    return {number: line.strip() for number, line in enumerate(text.splitlines(), 1)
            if line.strip()}


def _tfds_lines(file: str, count: int) -> list[str]:
    path = _TFDS / file
    lines = path.read_text().split() if path.is_file() else []
    check.require(len(lines) == count, str(path), f"{count} synsets (of TFDS 4.9.10)", len(lines),
                  "install tensorflow-datasets 4.9.10", check.DataError)
    return lines
