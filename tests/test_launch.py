"""The commands as a user types them: exit codes, sentences, and numbers that repeat."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = [  # the quick start in seconds: a twentieth of its steps
    "--config=configs/quickstart.py", "--config.data.limit=128", "--config.teacher.epochs=2",
    "--config.student.epochs=2", "--config.pruned.epochs=1",
    "--config.teacher.model.name=resnet8_tiny",
]


def command(module, *arguments):
    cache = str(Path.home() / ".cache/augjax/tests-launch")
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=300, env={**os.environ, "AUGJAX_CACHE": cache, "JAX_PLATFORMS": "cpu"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "quick"
    done = command("launch.train", *TINY, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_training_ends_with_a_table_and_the_folder(trained):
    workdir, done = trained
    for word in ("teacher", "student", "pruned", "test accuracy", "images/s", str(workdir)):
        assert word in done.stdout
    assert "images/s" in done.stderr and "left" in done.stderr  # the progress line


def test_the_run_folder_is_that_of_the_design(trained):
    workdir, _ = trained
    for name in ("config.json", "provenance.json", "metrics.jsonl", "summary.json", "tensorboard"):
        assert (workdir / name).exists(), name
    phases = json.loads((workdir / "summary.json").read_text())["phases"]
    assert phases["pruned"]["sparsity"] == pytest.approx(0.6, abs=1e-3)
    assert len(phases["student"]["frozen"]["teacher"]["sha256"]) == 64
    start = json.loads((workdir / "provenance.json").read_text())["starts"][0]
    assert start["versions"]["jax"] and "launch/train.py" in start["command"][0]


@pytest.mark.parametrize("phase", ["student", "pruned"])
def test_evaluate_repeats_the_stored_accuracy_exactly(trained, phase):
    workdir, _ = trained
    done = command("launch.evaluate", f"--workdir={workdir}", f"--phase={phase}")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[0])
    stored = json.loads((workdir / "summary.json").read_text())["phases"][phase]
    assert result["accuracy"] == stored["final_accuracy"]
    assert result["top5_accuracy"] == stored["top5_accuracy"]


def test_a_teacher_from_another_run(trained, tmp_path):
    workdir, _ = trained
    done = command("launch.train", *TINY, f"--workdir={tmp_path}/b", "--config.phases=('student',)",
                   f"--config.student.teacher=run:{workdir}#pruned")
    assert done.returncode == 0, done.stderr
    frozen = json.loads((tmp_path / "b/summary.json").read_text())["phases"]["student"]["frozen"]
    assert frozen["teacher"]["source"].endswith("#pruned")


@pytest.mark.parametrize("flag, code, part", [
    ("--config.student.epoch=1", 2, "epochs"),
    ("--config.studnet.epochs=1", 2, "student"),
    ("--config.student.batch_size=many", 2, "batch_size"),
    ("--confg=x.py", 2, "config"),
    ("--config.student.model.name=resnet9", 2, "resnet8"),
    ("--config.data.name=cifar10", 3, "launch.prepare"),
])
def test_wrong_flags_end_with_a_sentence(tmp_path, flag, code, part):
    if "cifar10" in flag:
        flag = (flag, f"--config.data.dir={tmp_path}/nowhere")
    done = command("launch.train", *TINY, f"--workdir={tmp_path}/run",
                   *(flag if isinstance(flag, tuple) else (flag,)))
    assert done.returncode == code, done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_config_is_refused(trained):
    workdir, _ = trained
    done = command("launch.train", *TINY, f"--workdir={workdir}", "--config.seed=7")
    assert done.returncode == 2
    assert "seed: 0 there, 7 now" in done.stderr


@pytest.mark.parametrize("script", sorted(ROOT.glob("launch/*.s*")), ids=lambda p: p.name)
def test_scripts_parse(script):
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_deterministic_reaches_xla_before_the_first_device(tmp_path):
    script = """if True:
        import os
        from jax._src import xla_bridge
        import augjax
        from launch import common, train

        def begin(*_, **options):
            print(os.environ["XLA_FLAGS"], xla_bridge.backends_are_initialized())
            raise SystemExit(0)

        augjax.train.run = begin
        common.run(train.main)
    """
    done = subprocess.run(
        [sys.executable, "-c", script, *TINY, "--config.deterministic", f"--workdir={tmp_path}/x"],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--mine"})
    assert done.stdout.split() == ["--mine", "--xla_gpu_deterministic_ops=true",
                                   "--xla_gpu_autotune_level=0", "False"], done.stderr
