"""A network taken in is a run folder like any other: evaluated, taught by, started from."""

import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weight_files import CLASSES, drawn, SIZE, written

from augjax import check, defaults, exchange, models, recipe, train, tree
from augjax.exchange import run_folder
from augjax.train import checkpoint, sharding, start
from models.zoo_rows import rows_of

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)  # CIFAR-100's, not the digits'


def config_of(converted, **changes):
    return json.loads(defaults.config(
        phases={exchange.PHASE: defaults.phase(model=defaults.model(**converted.model))},
        data={"name": converted.data}, **changes).to_json())


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """(run folder, what was converted): RepDistiller's resnet8 for the digits, drawn."""
    folder = tmp_path_factory.mktemp("taken")
    path = written(folder / "weights.safetensors")
    converted = exchange.convert("repdistiller", "resnet8", path, "digits")
    exchange.write_run(folder / "run", converted, config_of(converted))
    return folder / "run", converted


def source_of(workdir, where="teacher"):
    return recipe.parse_source(where, f"run:{workdir}", "raw", {})


def read(workdir):
    """(Net, params, stats) as a config that names the folder gets them."""
    source = source_of(workdir)
    params, stats, _ = start.read(source, None, Path("."), sharding.make_mesh(jax.devices()[:1]))
    return source.origin.objective.nets["student"], params["student"], stats


def test_every_number_arrives(taken):
    _, converted = taken
    params, stats = drawn()
    for ours, theirs in ((converted.params, params), (converted.stats, stats)):
        assert tree.digest(ours) == tree.digest(theirs)


def test_reading_back_gives_the_logits_of_the_mapped_tree(taken):
    """Through config.json, data.json and the checkpoint; it sees 32 pixels and its own mean."""
    workdir, converted = taken
    rows = rows_of(4, SIZE)
    net, params, stats = read(workdir)
    here = models.build("resnet8", CLASSES, (32, 32, 3), MEAN, STD)
    outputs = jax.jit(net.predict)((params, stats), rows)
    expected = jax.jit(here.predict)((converted.params, converted.stats), rows)
    np.testing.assert_array_equal(outputs.logits, expected.logits)
    assert outputs.features["f0"].shape == (4, 32, 32, 16)
    digits = models.build("resnet8", CLASSES, (SIZE, SIZE, 3), (0.3,) * 3, (0.37,) * 3)
    other = jax.jit(digits.predict)((converted.params, converted.stats), rows)
    assert float(jnp.abs(other.logits - outputs.logits).max()) > 1e-2


def test_the_folder_says_where_it_is_from(taken):
    workdir, converted = taken
    known = json.loads((workdir / "provenance.json").read_text())
    assert known["weights"] == dict(converted.origin)
    assert known["weights"]["source"] == "repdistiller" and len(known["weights"]["sha256"]) == 64
    assert known["starts"][0]["versions"]["jax"]
    summary = json.loads((workdir / "summary.json").read_text())["phases"][exchange.PHASE]
    assert summary["probe_accuracy"] == "not measured"
    assert summary["parameters"] == tree.count(converted.params)
    assert checkpoint.steps(workdir, exchange.PHASE) == [0]
    checkpoint.verify(checkpoint.folder_of(workdir, exchange.PHASE, 0))


def student(model, **changes):
    """A phase of two steps on 32 digits."""
    return defaults.config(
        phases={"student": defaults.phase(model=defaults.model(model), batch_size=16,
                                          eval={"batch_size": 64}, **changes)},
        data={"name": "digits", "limit": 32})


def test_a_teacher_in_two_steps(taken, tmp_path):
    """What the phase keeps of its teacher is the network taken in, bit for bit."""
    workdir, converted = taken
    config = student("resnet8_tiny", teacher=f"run:{workdir}",
                     terms={"kd": defaults.term("hinton", tau=4.0)})
    summary = train.run(recipe.build(config), tmp_path / "run", devices=jax.devices()[:1])
    phase = summary["phases"]["student"]
    assert phase["steps"] == 2
    digest = tree.digest({"": (converted.params, converted.stats)})
    assert phase["frozen"]["teacher"]["sha256"] == digest


def test_a_start(taken):
    workdir, converted = taken
    built = recipe.build(student("resnet8", init=f"run:{workdir}"))
    mesh = sharding.make_mesh(jax.devices()[:1])
    train.phases.check_recipe(built, mesh)
    begun = start.start(built.phases[0], built, Path("."), mesh)
    assert tree.digest(begun.params["student"]) == tree.digest(converted.params)
    assert tree.digest(begun.stats["student"]) == tree.digest(converted.stats)


def test_a_student_of_another_network_is_refused(taken):
    built = recipe.build(student("resnet20", init=f"run:{taken[0]}"))
    with pytest.raises(check.ConfigError, match="Take the weights of the same network"):
        train.phases.check_recipe(built, sharding.make_mesh(jax.devices()[:1]))


def test_given_statistics_and_resolution_are_the_network_s(tmp_path):
    path = written(tmp_path / "w.safetensors")
    converted = exchange.convert("repdistiller", "resnet8", path, "digits", (0.1,) * 3, (0.2,) * 3,
                                 image_size=24)
    exchange.write_run(tmp_path / "a/b/run", converted, config_of(converted))
    net, params, stats = read(tmp_path / "a/b/run")
    outputs = jax.eval_shape(net.predict, (params, stats), rows_of(2, SIZE))
    assert outputs.features["f3"].shape == (2, 6, 6, 64)
    for wrong in ({"mean": (0.5,)}, {"std": (60.0,) * 3}, {"image_size": 4}, {"image_size": -1}):
        with pytest.raises(check.ConfigError):
            exchange.convert("repdistiller", "resnet8", path, "digits", **wrong)


def test_a_file_is_no_source_and_the_command_is_named():
    for text in ("file:a.safetensors", "file:a.pth"):
        with pytest.raises(check.ConfigError, match=r"python -m launch\.convert"):
            recipe.parse_source("student.teacher", text, "raw", {})


# --- nothing half-made ---------------------------------------------------------------------------


def test_a_folder_that_is_there_is_left_alone(taken, tmp_path):
    _, converted = taken
    (tmp_path / "run").mkdir()
    with pytest.raises(check.ConfigError, match="Choose another"):
        exchange.write_run(tmp_path / "run", converted, config_of(converted))
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt(),
                                   check.DataError("no test images")])
def test_an_interrupted_conversion_leaves_nothing(taken, tmp_path, error):
    def probe(folder):
        assert (folder / "config.json").exists()
        raise error

    raised = check.CheckpointError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised):
        exchange.write_run(tmp_path / "a/run", taken[1], config_of(taken[1]), probe)
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_seen_before_writing(taken, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: type("", (), {"free": 9}))
    with pytest.raises(check.CheckpointError, match="0 MiB free"):
        exchange.write_run(tmp_path / "run", taken[1], config_of(taken[1]))
    assert not list(tmp_path.iterdir())


# --- the command ---------------------------------------------------------------------------------


def command(module, *arguments, code=""):
    cache = str(Path.home() / ".cache/augjax/tests-launch")
    program = ["-c", code] if code else ["-m", module]
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=300, env={**os.environ, "AUGJAX_CACHE": cache, "JAX_PLATFORMS": "cpu"})


def flags(path, workdir, **more):
    given = {"source": "repdistiller", "model": "resnet8", "weights": path, "workdir": workdir,
             "data": "digits"} | more
    return [f"--{name}={value}" for name, value in given.items()]


def test_wrong_flags_and_files_end_with_a_sentence_and_their_code(tmp_path):
    path = written(tmp_path / "w.safetensors")
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04" + b"x" * 60)
    wanted = [
        (2, "Did you mean 'resnet8", flags(path, tmp_path / "run", model="resnet9")),
        (2, "--mean: expected numbers", flags(path, tmp_path / "run", mean="a,b,c")),
        (2, "--workdir", flags(path, tmp_path)),
        (3, "weights_only=True", flags(tmp_path / "w.pth", tmp_path / "run")),
        (3, "launch.prepare", flags(path, tmp_path / "run", data="cifar10", data_dir="none")),
    ]
    for code, sentence, arguments in wanted:
        done = command("launch.convert", *arguments)
        assert done.returncode == code and sentence in done.stderr, done
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_leaves_nothing(tmp_path):
    """The kernel itself refuses to let a file grow beyond 100 kB."""
    path = written(tmp_path / "w.safetensors")
    code = f"""if True:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        from augjax import check, exchange
        converted = exchange.convert("repdistiller", "resnet8", {str(path)!r}, "digits")
        try:
            exchange.write_run({str(tmp_path / "a/run")!r}, converted, {{}})
        except check.CheckpointError as error:
            print("told:", error)"""
    done = command("", code=code)
    assert "told: " in done.stdout, done
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
