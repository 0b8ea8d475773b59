"""Image collections as people have them: ImageNet, Tiny-ImageNet, and any class-per-folder tree.

Each reader takes a listing {path: Place} (of a folder, a zip or a tar) and returns an ImageSet, or
says by a DataError what is missing. Classes are sorted by name, as TFDS sorts ImageNet's synsets.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
import re
import shlex

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
_LIKE_HELD = {*HELD, "dev", "eval", "evaluation", "testing"}  # in any case
_NAMED = 8  # folders in a sentence
Listing = Mapping[str, Place]
Splits = Mapping[str, Mapping[str, Mapping[str, Place]]]  # {split: {class: {file: Place}}}


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
    listing = train | {f"val/{file}": place for file, place in val.items()}
    return imagenet(str(folder), listing, classes_of(listing))


def imagenet(source: str, listing: Listing, splits: Splits) -> ImageSet:
    """ImageNet-2012's train/SYNSET/*.JPEG with val/SYNSET/*.JPEG or with all images flat in val."""
    names = synsets()
    train, val = splits.get("train", {}), _validation(splits)
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
    names, splits = sorted(set(_lines(listing["wnids.txt"]).values())), classes_of(listing)
    train = splits.get("train", {})
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
        val = _validation(splits)
    _require_known(f"{source}, val", val, names)
    return of_images(
        "tiny_imagenet", KNOWN["tiny_imagenet"].version, names, Wanted("jpeg", size=(64, 64)),
        {"train": _labelled(train, names), "validation": _labelled(val, names)},
    )


def class_tree(source: str, listing: Listing, splits: Splits, name: str | None) -> ImageSet:
    """train/CLASS/* with val, valid or validation, or test; PNG throughout stays PNG, else JPEG.

    `splits` are the listing's `classes_of`. One of these becomes the split `validation`; test
    stays `test` beside another. `name` is free but for those of published sets; "imagenet2012" is
    known by its name or its classes. Of other files there, and of class folders without images,
    `ImageSet.told` has a sentence.
    """
    names = sorted(splits["train"])
    if name == "imagenet2012" or name is None and names == list(synsets()):
        return imagenet(source, listing, splits)
    _require_classes(f"{source}, train", names)
    check.require(name is not None, "--dataset", "a name for these images", "none",
                  f"choose one, such as --dataset=flowers: {source} is a tree of "
                  f"{len(names)} classes")
    check.require(
        re.fullmatch(r"[a-z][a-z0-9_]*", name) and name not in _RESERVED, "--dataset",
        "a new name of small letters, digits and _", repr(name),
        f"choose another: the published sets have {', '.join(_RESERVED)}",
    )
    held = _held(source, listing, splits)
    found = {}
    for folder in ("train", *held):
        _require_known(f"{source}, {folder}", splits[folder], names)
        kept = folder == "train" or folder == "test" and len(held) > 1
        items = _labelled(splits[folder], names, prefixed=True)
        found[folder if kept else "validation"] = items
    files = [item.name for items in found.values() for item in items]
    lossless = all(file.lower().endswith(".png") for file in files)
    return of_images(name, "1.0.0", names, Wanted("png" if lossless else "jpeg"), found,
                     _passed_over(listing))


def _require_classes(what: str, names: Sequence[str]) -> None:
    """Raises DataError unless there are two, each of which can be a line of a text file."""
    check.require(len(names) > 1, what, "images in two class folders or more", f"{names[0]} alone",
                  "put the images of each class into a folder of its own", check.DataError)
    strange = [ascii(name) for name in names
               if name.encode(errors="ignore").decode().strip().splitlines() != [name]]
    check.require(not strange, what, "class folders named in UTF-8, on one line, without spaces "
                  "before or behind", named(strange), "rename them", check.DataError)


def _held(source: str, listing: Listing, splits: Splits) -> list[str]:
    """The folders with images to evaluate on; DataError, with a way out, where they are not."""
    held = [folder for folder in HELD if folder in splits]
    if held and len({*VALIDATION} & {*held}) < 2:
        return held
    others = sorted({path.split("/")[0] for path in listing if "/" in path} - {"train"})
    near = [folder for folder in others if folder.lower() in _LIKE_HELD and folder not in HELD]
    fix = "keep one of them" if held else f"rename {near[0]} to val" if near else aside(source)
    raise check.DataError(check.sentence(
        source, "class folders in one of val, valid and validation, or in test, beside train",
        " and ".join(held) or f"none{'; beside train: ' if others else ''}{named(others)}", fix))


def aside(source: str, flat: bool = False) -> str:
    """What a shell does to put every fifth image of train, or of class folders that lie `flat` in
    `source`, into val."""
    packed = not Path(source).is_dir()
    gathered = "mkdir .train && mv -- */ .train && mv .train train && " if flat else ""
    return (
        f"{'if these folders are classes, ' if flat else ''}{'unpack it and ' if packed else ''}"
        f"put some images aside, here every fifth: `cd "
        f"{'FOLDER' if packed else shlex.quote(source)} && {gathered}"
        "find train -type f | sort | awk 'NR%5==0' | while IFS= read -r f; do "
        'v="val${f#train}"; mkdir -p "${v%/*}" && mv "$f" "$v"; done`'
    )


def classes_of(listing: Listing) -> dict[str, dict[str, dict[str, Place]]]:
    """{split: {class: {file: Place}}} of SPLIT/CLASS/FILE and SPLIT/CLASS/images/FILE.

    Raises DataError for two files that would get one name.
    """
    splits = {}
    for path, place in listing.items():
        *folders, file = path.split("/")
        if _of_class(folders) and folders[0] in SPLITS and is_image(file):
            files = splits.setdefault(folders[0], {}).setdefault(folders[1], {})
            if file in files:
                raise check.DataError(check.sentence(
                    f"{files[file]} and {place}", "a name of its own for each image of a class",
                    f"{folders[1]}/{file} for both", "rename one of them"))
            files[file] = place
    return splits


def _validation(splits: Splits) -> Mapping[str, Mapping[str, Place]]:
    return next((splits[name] for name in VALIDATION if name in splits), {})


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
        lines.append(f"no images: {named(empty)}")
    return lines


def named(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
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
