"""Trees of people's own: what lies beside the images is told, links are followed, roots found."""

from pathlib import Path
import tarfile

from image_maker import flower_files, scan, tar_of, write_tree, write_zip
import pytest
import tensorflow_datasets as tfds

from augjax import check
from augjax.prepare import image_places, prepare, target_folder

HARD, SOFT = tarfile.LNKTYPE, tarfile.SYMTYPE
PACKINGS = ["folder", "zip", "tar"]


def pack(kind: str, path: Path, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        return write_tree(path, files)
    if kind == "zip":
        return write_zip(path, files)
    path.write_bytes(tar_of(files))
    return path


def found(folder: Path) -> tuple[dict[str, int], list[str]]:
    """({split: images}, class names) of a prepared folder."""
    info = tfds.builder_from_directory(folder).info
    return ({name: split.num_examples for name, split in info.splits.items()},
            info.features["label"].names)


# --- what lies beside the images -----------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
def test_files_that_are_passed_over_are_told(tmp_path, capsys, packing):
    files = {"__MACOSX/train/iris/._0.jpg": b"", "train/.ipynb_checkpoints/0-checkpoint.jpg": b"",
             "train/tulip/": b"", "val/tulip/notes.txt": b"", "train/loose.jpg": scan(0),
             "train/rose/x.JFIF": scan(1), "train/rose/y.jpe": scan(2), "train/iris/a.xml": b"",
             "train/iris/.z.jpg": b"", "val/rose/b.xml": b"", "train/rose/.cache/x.jpg": b""}
    files |= {f"train/iris/sub/{k}.jpg": scan(k) for k in range(5)}
    source = pack(packing, tmp_path / "in", flower_files() | files)
    target = prepare(source, tmp_path / "sets", "flowers")
    assert found(target) == ({"train": 20, "validation": 6}, ["aster", "iris", "rose"])
    assert capsys.readouterr().out.splitlines() == [
        "classes: 3",
        "ignored: 9 files (5 deeper than train/CLASS, 1 in no class folder, 3 of other endings, "
        "such as .xml, .txt)",
        "no images: train/tulip, val/tulip",
    ]


def test_nothing_is_told_where_nothing_is_passed_over(tmp_path, capsys):
    files = flower_files() | {"a.txt": b"", "train/.DS_Store": b""}
    prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "flowers")
    assert capsys.readouterr().out == "classes: 3\n"


def test_links_to_folders_do_not_lead_in_circles(tmp_path, capsys):
    source = write_tree(tmp_path / "in", flower_files())
    (source / "train/iris/again").symlink_to(source / "train")
    target = prepare(source, tmp_path / "sets", "flowers")
    assert found(target)[0] == {"train": 18, "validation": 6}
    assert "ignored: 19 files (18 deeper than train/CLASS" in capsys.readouterr().out


def test_two_files_that_would_get_one_name_are_refused(tmp_path):
    files = flower_files() | {"train/iris/images/9.jpg": scan(1)}
    source = write_tree(tmp_path / "in", files)
    assert found(prepare(source, tmp_path / "sets", "flowers"))[0]["train"] == 19
    write_tree(source, {"train/iris/9.jpg": scan(2)})
    with pytest.raises(check.DataError, match="a name of its own .* got iris/9.jpg for both") as e:
        prepare(source, tmp_path / "others", "flowers")
    assert "in/train/iris/9.jpg" in str(e.value) and "in/train/iris/images/9.jpg" in str(e.value)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_held_images_folder_has_three_names(tmp_path, name):
    files = {path.replace("val/", f"{name}/"): data for path, data in flower_files().items()}
    target = prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "flowers")
    assert found(target)[0] == {"train": 18, "validation": 6}


@pytest.mark.parametrize("packing", PACKINGS)
def test_other_folders_beside_train_are_named(tmp_path, packing):
    files = {path.replace("val/", "dev/"): data for path, data in flower_files().items()}
    with pytest.raises(check.DataError, match="val, valid .* got none; beside train: dev. Rename"):
        prepare(pack(packing, tmp_path / "in", files), tmp_path / "sets", "flowers")


# --- where a tree begins -------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "photos/"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_class_may_be_called_train(tmp_path, packing, below):
    files = {f"__MACOSX/{below}train/train/._0.jpg": b""}
    for split in ("val", "train"):  # an archive begins with val/train
        files |= {f"{below}{split}/{name}/{k}.jpg": scan(k) for name in ("train", "car")
                  for k in (0, 1)}
    target = prepare(pack(packing, tmp_path / "in", files), tmp_path / "sets", "vehicles")
    assert found(target) == ({"train": 4, "validation": 4}, ["car", "train"])


@pytest.mark.parametrize("packing", PACKINGS)
def test_one_of_two_trees_must_be_named(tmp_path, packing):
    files = {f"{root}/{path}": data for root in ("a", "b") for path, data in flower_files().items()}
    with pytest.raises(check.ConfigError, match="one tree with a folder `train`, got .*a, .*b"):
        prepare(pack(packing, tmp_path / "in", files), tmp_path / "sets", "flowers")


def test_annotations_beside_the_images_are_no_tree(tmp_path):
    """As in Kaggle's archive of ImageNet."""
    files = {f"Data/CLS-LOC/{path}": data for path, data in flower_files().items()}
    files = {"Annotations/CLS-LOC/train/iris/0.xml": b""} | files
    target = prepare(write_zip(tmp_path / "in", files), tmp_path / "sets", "flowers")
    assert found(target)[0] == {"train": 18, "validation": 6}


def test_a_class_may_be_called_images(tmp_path):
    files = {f"{split}/{name}/{k}.jpg": scan(k) for split in ("train", "val")
             for name in ("images", "rose") for k in (0, 1)}
    target = prepare(write_tree(tmp_path / "in", files), tmp_path / "sets", "two")
    assert found(target) == ({"train": 4, "validation": 4}, ["images", "rose"])


# --- links in tars -------------------------------------------------------------------------------


def test_links_in_a_tar_are_followed(tmp_path):
    """To files and to folders, hard and symbolic, to what stands later, and through other links."""
    files, links = flower_files(), {
        "./train/iris/0.jpg": (HARD, "./all/iris.jpg"),
        "train/iris/1.jpg": (SOFT, "0.jpg"),
        "train/rose": (SOFT, "../store/red"),
        "store/red": (SOFT, "reds/roses"),
        "val/rose/6.jpg": (SOFT, "../../train/rose/6.jpg"),
        "store/reds/roses/6.jpg": (HARD, ".all/rose.jpg"),
        ".all/broken": (SOFT, "none"),
    }
    files["train/iris/1.jpg"] = files["train/iris/0.jpg"]
    files["train/rose/6.jpg"] = files["val/rose/6.jpg"]
    write_tree(tmp_path / "folder", files)
    kept = {path: data for path, data in files.items()
            if path not in links and f"./{path}" not in links and "train/rose" not in path}
    kept |= {"all/iris.jpg": files["train/iris/0.jpg"], ".all/rose.jpg": files["val/rose/6.jpg"]}
    kept |= {f"store/reds/roses/{k}.jpg": files[f"train/rose/{k}.jpg"] for k in range(6)}
    (tmp_path / "tar").write_bytes(tar_of(kept, links))
    sums = [target_folder.summary(prepare(tmp_path / kind, tmp_path / f"of-{kind}", "flowers"))
            ["sha256"] for kind in ("folder", "tar")]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("kind, target, got", [
    (HARD, "train/iris/none.jpg", "train/iris/none.jpg, which is not in it"),
    (SOFT, "none.jpg", "train/iris/none.jpg, which"), (SOFT, "/etc/motd", "etc/motd, which"),
    (SOFT, "../../../x.jpg", "../x.jpg, which"), (SOFT, "9.jpg", "one that leads in a circle"),
    (SOFT, "8.jpg", "one that leads in a circle"),
])
def test_a_link_that_leads_out_of_its_tar_is_refused(tmp_path, kind, target, got):
    links = {"train/iris/9.jpg": (kind, target), "train/iris/8.jpg": (SOFT, "9.jpg")}
    (tmp_path / "in.tar").write_bytes(tar_of(flower_files(), links))
    with pytest.raises(check.DataError, match="in.tar: train/iris/[89].jpg: expected a link") as e:
        prepare(tmp_path / "in.tar", tmp_path / "sets", "flowers")
    assert f"got {got}" in str(e.value)


@pytest.mark.parametrize("target", ["..", "../..", "../../train", "../../up"])
def test_a_link_to_a_folder_above_itself_is_passed_over(tmp_path, capsys, target):
    """Also through another link; as one in a folder is."""
    links = {"train/iris/again": (SOFT, target), "up": (SOFT, "train/iris")}
    (tmp_path / "in.tar").write_bytes(tar_of(flower_files(), links))
    prepared = prepare(tmp_path / "in.tar", tmp_path / "sets", "flowers")
    assert found(prepared) == ({"train": 18, "validation": 6}, ["aster", "iris", "rose"])
    assert "of other endings, such as again" in capsys.readouterr().out


def test_links_in_a_linked_folder_are_followed(tmp_path):
    """Where all classes are links to a store, and so is train."""
    files = {f"store/{path}": data for path, data in flower_files().items()}
    links = {"train": (SOFT, "data/train"), "val": (SOFT, "store/val")}
    links |= {f"data/train/{name}": (SOFT, f"../../store/train/{name}")
              for name in ("aster", "iris", "rose")}
    (tmp_path / "in.tar").write_bytes(tar_of(files, links))
    listing = image_places.list_tar(tmp_path / "in.tar")
    assert {path: image_places.read(place) for path, place in listing.items()
            if path.startswith(("train/", "val/")) and path[-1] != "/"} == flower_files()


def test_a_sparse_file_of_a_tar_is_refused(tmp_path):
    links = {"train/iris/9.jpg": (tarfile.GNUTYPE_SPARSE, "")}
    (tmp_path / "in.tar").write_bytes(tar_of(flower_files(), links))
    with pytest.raises(check.DataError, match="train/iris/9.jpg is stored with holes"):
        prepare(tmp_path / "in.tar", tmp_path / "sets", "flowers")
