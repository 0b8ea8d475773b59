"""Contact sheets: a picture that can be read, and captions that are true."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from test_launch import command, ROOT

from augjax import augment, data, losses, method, models, recipe, train
from augjax.augment import maps
from augjax.types import Knobs, stateless
from launch import sheets

sys.path.insert(0, str(ROOT / "configs"))


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


def test_quickstarts_sheet_has_a_row_per_view():
    import quickstart

    made = recipe.build(quickstart.get_config())
    sheet = sheets.of_batch(made, made.phase("student"), 0, 3)
    assert sheet.size == sheets.of_batch(made, made.phase("student"), 1, 3).size


def test_pictures_of_the_readme_are_small():
    for name in ("ops_torchvision", "quickstart_student"):
        path = ROOT / f"docs/{name}.png"
        assert path.stat().st_size < 300_000
        Image.open(path).verify()


