"""Contact sheets: a picture that can be read, and captions that are true."""

import json
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from absl import flags
from prepare.image_maker import flower_files, write_tree
import pytest
from test_launch import command, ROOT

from augjax import augment, check, data, defaults, losses, method, models, recipe, train
from augjax.augment import maps
from augjax.prepare import prepare
from augjax.types import Knobs, stateless
from launch import config_file, sheets

sys.path[:0] = [str(ROOT / "configs"), str(ROOT / "tests/study")]

import small_study  # noqa: E402


def test_a_config_makes_a_picture(tmp_path):
    out = tmp_path / "made/sheet.png"
    done = command("launch.preview", "--config=configs/quickstart.py", f"--out={out}",
                   "--phase=student", "--batch=3", "--images=4")
    assert done.returncode == 0, done.stderr
    sheet = Image.open(out).convert("RGB")
    assert f"{sheet.width} x {sheet.height}" in done.stdout
    assert sheet.width > 4 * 96 and sheet.height > 2 * 96
    assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize("arguments, part", [
    (["--out=a.png"], "--config or --ops"),
    (["--ops=torchvison", "--out=a.png"], "Did you mean 'torchvision'"),
    (["--config=configs/quickstart.py", "--out=a.png", "--phase=studnet"], "'student'"),
    (["--config=configs/quickstart.py", "--out=a.png", "--batch=100000"], "0 to "),
    (["--ops=torchvision", "--out=a.jpg", "--images=0"], "ends in .png"),
])
def test_wrong_arguments_end_with_a_sentence(tmp_path, arguments, part):
    arguments = [word.replace("a.", f"{tmp_path}/a.") if "out" in word else word
                 for word in arguments]
    done = command("launch.preview", *arguments)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", maps.MAPS)
def test_operations_of_every_map(name):
    sheet = sheets.of_operations(name, sheets.flower(16))
    chosen = maps.MAPS[name]
    levelless = {"identity", "autocontrast", "equalize", "invert"} & set(chosen.ops)
    assert sheet.height > (len(chosen.ops) - len(levelless)) * 96


def test_words_say_what_is_done():
    chosen = maps.map_named("torchvision")

    def words(op, level, negative=False):
        return sheets.told(op, np.asarray(sheets.lookup(chosen, op, level, negative, 32, 32)))

    assert words("rotate", 12, True) == "-12°"  # spec B3 (iii): level 30 is 30 degrees, ...
    assert words("shear_x", 30) == "+0.3" and words("shear_y", 10, True) == "-0.1"
    assert words("translate_x", 14) == "+6 px" and words("translate_y", 4, True) == "-1 px"
    assert words("posterize", 30) == "4 bits" and words("solarize", 10) == "from 170"
    assert words("color", 30, True) == "x0.10" and words("equalize", 3) == ""
    assert words("rotate", 0) == "0°"


def test_words_of_an_operation_of_one_s_own():
    """A number of a row is a float32, or an integer where that would be NaN or next to nothing."""
    def words(*numbers):
        return sheets.told("own", np.int32([*numbers, 0, 0, 0, 0, 0, 0, 0, 0][:8]))

    assert words() == ""
    assert words(-60) == "-60" and words(60) == "60" and words(1 << 16) == "65536"
    assert words(maps.float_pattern(-0.25)) == "-0.25"
    assert words(maps.float_pattern(0.001)) == "0.001" and words(maps.float_pattern(-0.0)) == "0"
    assert words(3, 0, -4) == "3 0 -4"


def mixed_recipe():
    digits = data.load("digits", limit=64)
    net = models.build("resnet8_tiny", 10, digits.image_shape, mean=[0.3] * 3, std=[0.4] * 3)
    views = augment.make({
        "weak": augment.pipeline(augment.pad_crop(2), augment.apply_policy),
        "mixed": augment.Mixed("weak", augment.mixup),
    }, rows={"weak": 2, "mixed": 2})
    terms = {"ce": losses.cross_entropy(), "rows": stateless(lambda s: fingerprint(s.rows))}
    objective = method.Objective({"student": net}, ("student",), views, terms)
    policies = {"weak": augment.randaugment(9.0), "mixed": augment.beta_mixing()}
    knobs = Knobs(policies, {"ce": 1.0, "rows": 0.0}, 0.1)
    phase = train.Phase("only", objective, knobs, epochs=2, batch_size=16)
    return train.Recipe([phase], digits, log_every=1), phase


def fingerprint(rows):
    """A number that any other pixel, place or share would change."""
    places = jnp.arange(rows.image.size, dtype=jnp.float32).reshape(rows.image.shape)
    return (rows.image * jnp.sin(places)).mean() + (rows.lam * jnp.arange(rows.lam.size)).mean()


def test_what_is_drawn_is_what_the_update_sees(tmp_path):
    """The rows of the sheet are those that the run's own update number 6 logged."""
    made, phase = mixed_recipe()
    train.run(made, tmp_path, devices=jax.devices()[:1])
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [row["rows"] for row in logged if "rows" in row]
    assert len(set(logged)) == 8
    ours = float(jax.jit(fingerprint)(sheets.seen(made, phase, step=6).rows))
    np.testing.assert_allclose(logged[6], ours, rtol=1e-4)
    assert sum(np.isclose(row, ours, rtol=1e-4) for row in logged) == 1


def test_the_program_under_an_image_makes_the_image():
    made, phase = mixed_recipe()
    found = sheets.seen(made, phase, step=1)
    assert {view: len(each) for view, each in found.programs.items()} == {"weak": 2}
    rows = np.asarray(found.rows.image).reshape(16, 4, *made.data.image_shape)
    for row, program in enumerate(found.programs["weak"]):
        words = [sheets.operations(program, b) for b in range(16)]
        assert all(len(lines) == 2 for lines in words)
        assert len({line.split()[0] for lines in words for line in lines}) > 5
        for b in range(16):  # an image whose words say nothing happened was only cropped
            if words[b] == ("identity", "identity"):
                window = found.batch.image[b]
                assert set(np.unique(rows[b, row])) <= {0, *np.unique(window)}


def drawn_rows(monkeypatch, *given):
    """[(name, tiles)] of the sheet of a batch."""
    monkeypatch.setattr(sheets, "sheet", lambda title, rows: rows)
    return sheets.of_batch(*given)


def test_a_mixed_view_stands_below_what_it_was_mixed_from(monkeypatch):
    """And each name beside its own pixels, in a config's order, which is the alphabet's."""
    view = {"mixed": defaults.mixed("train"), "train": defaults.view("crop", pad=1)}
    made = recipe.build(small_study.training(views=view))
    rows = drawn_rows(monkeypatch, made, made.phase("student"), 0, 8)
    assert [name for name, _ in rows] == ["original", "train", "mixed"]
    own = [any("own" in line for tile in tiles for line in tile.captions) for _, tiles in rows]
    assert own == [False, False, True]
    found = sheets.seen(made, made.phase("student"), 0).rows
    assert [kind.name for kind in found.views] == ["mixed", "train"]
    for b in range(8):
        np.testing.assert_array_equal(rows[1][1][b].pixels, found.image[2 * b + 1])


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A training of images of any size, fed from the host."""
    root = tmp_path_factory.mktemp("flowers")
    prepare(write_tree(root / "in", flower_files()), root / "sets", dataset="flowers")
    config = small_study.training(batch_size=2, epochs=3.0)
    config.data.update({"name": "flowers", "dir": str(root / "sets"), "limit": 0,
                        "resident": False})
    return config


def test_images_of_any_size_are_drawn_as_the_run_crops_them(monkeypatch, flowers):
    made = recipe.build(flowers)
    phase = made.phase("student")
    step = made.steps_per_epoch(phase) + 1  # of the second epoch
    rows = drawn_rows(monkeypatch, made, phase, step, 2)
    (batch,) = data.feed(made.data.train, made.seed, 2, step, 1)
    assert rows[0][0] == "as cropped"
    np.testing.assert_array_equal([tile.pixels for tile in rows[0][1]], batch.image)
    assert (batch.image != made.data.train.read(batch.index)).any()


def test_quickstarts_sheet_has_a_row_per_view():
    import quickstart

    made = recipe.build(quickstart.get_config())
    sheet = sheets.of_batch(made, made.phase("student"), 0, 3)
    assert sheet.size == sheets.of_batch(made, made.phase("student"), 1, 3).size


# --- a row of a study ----------------------------------------------------------------------------


@pytest.fixture
def preview(monkeypatch, tmp_path):
    """launch.preview with flags of its own, set to draw two images of a study's batch."""
    def flag(name, default, *rest):
        return SimpleNamespace(name=name, value=default)

    for kind in ("string", "integer"):
        monkeypatch.setattr(flags, f"DEFINE_{kind}", flag)
    monkeypatch.setattr(config_file, "flag", flag)
    module = config_file._module(str(ROOT / "launch/preview.py"))
    module.CONFIG.value, module.OUT.value = small_study.config(), f"{tmp_path}/sheet.png"
    module.IMAGES.value = 2
    return module


def drawn(preview):
    preview.main()
    return np.asarray(Image.open(preview.OUT.value).convert("RGB"))


def refusal(preview):
    with pytest.raises(check.ConfigError) as caught:
        preview.main()
    return str(caught.value)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_row_is_drawn_as_its_own_run_sees_it(preview, seed):
    """Row kd needs row plain, and yet the keys of its phase are those of the first of a run."""
    preview.CONFIG.value = small_study.config(seeds=(seed, 1))
    preview.ROW.value, preview.BATCH.value = "kd", 2
    alone = small_study.training()
    alone.seed = seed
    made = recipe.build(alone)
    wanted = sheets.of_batch(made, made.phase("student"), 2, 2)
    np.testing.assert_array_equal(drawn(preview), np.asarray(wanted))


def test_operations_are_drawn_on_the_first_image_of_a_row(preview, monkeypatch):
    monkeypatch.setattr(preview.sheets, "of_operations", lambda name, image: Image.fromarray(image))
    preview.ROW.value, preview.OPS.value = "plain", "torchvision"
    image = recipe.load_data(small_study.training()).train.read([0])[0]
    np.testing.assert_array_equal(drawn(preview), image)


def test_what_train_would_refuse_is_not_drawn(preview, flowers):
    preview.CONFIG.value = flowers.copy_and_resolve_references()
    assert drawn(preview).size
    preview.CONFIG.value.data.resident = True
    assert "data.resident: expected False" in refusal(preview)


def test_a_study_s_data_may_lie_elsewhere(preview, flowers):
    preview.CONFIG.value = flowers
    preview.DATA_DIR.value = "anywhere"
    assert "--data_dir: expected a study's --config" in refusal(preview)
    assert "--config.data.dir" in refusal(preview)
    row = flowers.copy_and_resolve_references()
    row.data.dir = ""
    preview.CONFIG.value, preview.ROW.value = small_study.config({"plain": row}), "plain"
    preview.DATA_DIR.value = flowers.data.dir
    assert drawn(preview).size
    preview.DATA_DIR.value = ""
    assert "data.dir" in refusal(preview)


def test_phases_of_a_row_are_its_own(preview):
    preview.ROW.value, preview.PHASE.value = "kd", "studnet"
    assert "--phase: expected one of 'student', got 'studnet'" in refusal(preview)


def test_a_study_needs_a_row_and_a_training_has_none(preview):
    said = refusal(preview)
    assert "launch.study" in said and "--row" in said and "'kd', 'plain'" in said
    preview.ROW.value = "pain"
    assert "Did you mean 'plain'" in refusal(preview)
    preview.CONFIG.value = small_study.training()
    assert "--row: expected a study" in refusal(preview)
    preview.CONFIG.value, preview.OPS.value = None, "torchvision"
    assert "--row: expected a study" in refusal(preview)


@pytest.mark.parametrize("row, part", [("found", "schedule"), ("searching", "launch.search")])
def test_a_row_whose_policy_is_not_known_yet_is_refused(preview, row, part):
    searched = defaults.view("crop", defaults.searched())
    replayed = defaults.view("crop", defaults.policy("replay", schedule="row:searching"))
    searching = small_study.training(views={"train": searched})
    with searching.unlocked():
        searching.search = defaults.search(members=2, interval_epochs=1)
    searching.data.holdout = 20
    preview.CONFIG.value = small_study.config(
        {"searching": searching, "found": small_study.training(views={"train": replayed})})
    preview.ROW.value = row
    said = refusal(preview)
    assert f"--row={row}" in said and part in said


# --- words ---------------------------------------------------------------------------------------


def ink(text):
    """Which columns of a sheet's title have any ink, and the title's pixels."""
    tile = sheets.Tile(np.full((2, 2, 3), 255, np.uint8), ())
    page = np.asarray(sheets.sheet(text, [("", [tile])]).convert("L"))[: sheets.LINE + sheets.GAP]
    return (page < 200).any(0), page


@pytest.mark.parametrize("one, other", ["äö", "ÄÖ", "éè", "ßñ", "łø", "λж"])
def test_letters_of_class_names_are_no_boxes(one, other):
    assert not np.array_equal(ink(one)[1], ink(other)[1])


@pytest.mark.parametrize("text", ["sharpness x0.85", "contrast x1.15", "solarize from 213",
                                  "7 bits", "+6 px", "+ äpfel"])
def test_words_stand_apart(text):
    columns, _ = ink(text)
    edges = np.flatnonzero(columns)
    gaps = np.diff(edges) - 1
    between = sorted(gaps)[-text.count(" "):]
    assert min(between) >= 3, f"{between} pixels between the words of {text!r}"


def test_pictures_of_the_readme_are_small():
    for name in ("ops_torchvision", "quickstart_student"):
        path = ROOT / f"docs/{name}.png"
        assert path.stat().st_size < 300_000
        Image.open(path).verify()


