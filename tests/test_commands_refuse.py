"""What people type wrongly ends in one sentence, with 2, before anything is computed."""

from pathlib import Path
import sys
from types import SimpleNamespace

from absl import flags
import jax
from ml_collections import ConfigDict
from prepare.image_maker import flower_files, write_tree
import pytest
from test_launch import command, ROOT

from augjax import check, data, defaults, losses, recipe, study
from augjax.prepare import prepare
from configs import quickstart
from launch import benchmark, common, config_file
from launch import study as launch_study

sys.path.insert(0, str(ROOT / "tests/study"))

import small_study  # noqa: E402


def refusal(act, *args):
    with pytest.raises(check.ConfigError) as caught:
        act(*args)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    return str(caught.value)


# --- config files --------------------------------------------------------------------------------


def parse(monkeypatch, config, *overrides):
    """Flags read as a command reads them, in this process."""
    words = ["command", f"--config={config}", *overrides]
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    monkeypatch.setattr(sys, "argv", words)
    holder = config_file.flag("config", "")
    common._parse(words, ())
    return holder.value


@pytest.mark.parametrize("text, parts", [
    ("def get_config(:", ["SyntaxError", "line 1"]),
    ("import nowhere_at_all", ["nowhere_at_all", "its line 1"]),
    ("\ndef get_config():\n    return wrong", ["NameError: name 'wrong'", "its line 3"]),
    ("def get_config():\n    return {}", ["a ConfigDict", "got dict"]),
    ("def get_config():\n    pass", ["a ConfigDict", "got NoneType"]),
    ("", ["get_config"]),
    ("raise SystemExit(0)", ["SystemExit"]),
    ("def get_config():\n    return open('/no/such/file')", ["FileNotFoundError", "its line 2"]),
    ("from augjax import defaults\ndef get_config():\n    return defaults.phase(epoch=2.0)",
     ['Did you mean "epochs"', "its line 3"]),
])
def test_a_config_file_that_does_not_work_is_told_with_its_line(tmp_path, monkeypatch, text, parts):
    path = tmp_path / "made.py"
    path.write_text(text)
    said = refusal(parse, monkeypatch, path)
    assert len(said) < 400 and str(path) in said
    for part in parts:
        assert part in said


@pytest.mark.parametrize("path", ["nowhere.py", "", "configs", "configs/quickstart"])
def test_a_config_that_is_no_file(monkeypatch, path):
    assert "--config: expected a config file, got " in refusal(parse, monkeypatch, path)


def test_what_a_config_itself_refuses_is_told_alone(monkeypatch):
    said = refusal(parse, monkeypatch, ROOT / "configs/cifar/resnet20.py:scale=huge")
    assert said == ("configs/cifar/resnet20.py:scale: expected one of 'full', 'small', 'tiny', "
                    "got 'huge'. Choose one of them.")


@pytest.mark.parametrize("field, parts", [
    ("student.terms.ce.label_smoothing", ["one of 'kind', 'views', 'weight', 'weight_schedule'",
                                          "--config.student.terms.ce='{...}'"]),
    ("student.epoch", ["Did you mean 'epochs'"]),
    ("studnet.epochs", ["field of --config:", "Did you mean 'student'"]),
    ("student.transform.mask.sparsity", ["no 'mask'", "--config.student.transform='{...}'"]),
])
def test_an_override_of_what_a_config_has_not_names_what_it_has(monkeypatch, field, parts):
    said = refusal(parse, monkeypatch, ROOT / "configs/quickstart.py", f"--config.{field}=0.1")
    for part in parts:
        assert part in said


@pytest.mark.parametrize("field, got, place", [
    ("student.learning_rate", "learning_rate", "student.optimizer.learning_rate"),
    ("student.policy.magnitude", "policy", "student.views.train.policy.magnitude"),
    ("dir", "dir", "data.dir"),
    ("optimizer.eps", "optimizer", "pruned.optimizer.eps or --config.student.optimizer.eps or "),
])
def test_an_override_in_the_wrong_block_names_the_right_one(monkeypatch, field, got, place):
    said = refusal(parse, monkeypatch, ROOT / "configs/quickstart.py", f"--config.{field}=0.1")
    assert f"got {got!r}. Write --config.{place}" in said and "whole block" not in said


def test_what_cannot_be_replaced_as_a_whole_is_not_advised_to_be(monkeypatch):
    config, file = "--config.student.lr=0.1", ROOT / "configs/quickstart.py"
    assert "whole block" not in refusal(parse, monkeypatch, file, config)
    file, config = ROOT / "tests/study/small_study.py", "--config.rows.{}.x=0.1"
    for row in ("plain", "kd", "taught"):
        assert "whole block" not in refusal(parse, monkeypatch, file, config.format(row))
    assert "whole block: --config.seeds_of='{...}'" in refusal(
        parse, monkeypatch, file, "--config.seeds_of.plain=(0,)")


@pytest.mark.parametrize("override, parts", [
    ("student.epochs=ten", ["expected a number, got 'ten'"]),
    ("student.batch_size=64.0", ["expected a whole number, got '64.0'"]),
    ("data.resident=maybe", ["expected True or False, got 'maybe'"]),
    ("student.views.train.policy.magnitude_schedule=linear",
     ["expected a block", """such as '{"kind": "linear"}', got 'linear'""",
      "--config.student.views.train.policy.magnitude_schedule.FIELD=VALUE"]),
    ("student.terms={ce:1}", ["expected a block", "got '{ce:1}'"]),
    ("student.terms=3", ["expected a block", "got '3'"]),
    ("student.terms={'a': 1: 2}", ["expected a block"]),
])
def test_a_value_of_another_kind_is_told_what_was_expected(monkeypatch, override, parts):
    said = refusal(parse, monkeypatch, ROOT / "configs/quickstart.py", f"--config.{override}")
    assert said.startswith(f"--config.{override.partition('=')[0]}: ")
    for part in parts:
        assert part in said
    for python in ("ast.", "Error", "literal", "ConfigDict", "convert"):
        assert python not in said


def test_flags_that_are_no_fields_are_told_where_fields_are(monkeypatch):
    for word in ("--data_dir=x", "--batch_size=64", "--lr=0.1"):
        said = refusal(parse, monkeypatch, ROOT / "configs/quickstart.py", word)
        for part in (word[2:].partition("=")[0], "--config.PHASE.FIELD", "augjax/defaults.py"):
            assert part in said
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())  # of a command that takes no config
    flags.DEFINE_integer("batch", 0, "", lower_bound=0, flag_values=flags.FLAGS)
    assert "defaults.py" not in refusal(common._parse, ["command", "--lr=0.1"], ())
    for word in ("two", "-1"):
        said = refusal(common._parse, ["command", f"--batch={word}"], ())
        assert f"--batch: expected a non-negative whole number, got '{word}'" in said


def test_a_config_and_its_overrides_are_read(monkeypatch):
    block = "{'kind': 'cross_entropy', 'label_smoothing': 0.1}"
    config = parse(monkeypatch, ROOT / "configs/quickstart.py", "--config.seed=3",
                   "--config.student.optimizer.nesterov", "--config.phases=('teacher',)",
                   f"--config.student.terms.ce={block}")
    assert config.seed == 3 and config.student.optimizer.nesterov and config.is_locked
    assert config.phases == ("teacher",) and config.student.terms.ce.label_smoothing == 0.1


@pytest.mark.parametrize("config, command_for", [
    (quickstart.get_config(), "train"),
    (defaults.config({}, {}, search=defaults.search()), "search"),
    (small_study.config(), "study"),
    (ConfigDict({"phases": ("rows",), "rows": {}}), "train"),
])
def test_a_config_of_another_command_is_sent_there(config, command_for):
    config_file.require_kind(config, command_for)
    other = "study" if command_for == "train" else "train"
    assert f"Give it to launch.{command_for}." in refusal(config_file.require_kind, config, other)
    if command_for != "train":
        assert f"Give it to launch.{command_for}." in refusal(recipe.build, config)


# --- flags and files -----------------------------------------------------------------------------


def test_help_is_done():
    done = command("launch.train", "--help")
    assert done.returncode == 0, done.stderr
    assert "  --config: " in done.stdout and "--[no]dry_run" in done.stdout


def test_processes_without_a_coordinator():
    assert "--coordinator beside them" in refusal(common.join_processes, "", 2, 0)
    assert "--coordinator beside them" in refusal(common.join_processes, "", 1, 1)


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":29517", "localhost:http",
                                     "localhost:0", "localhost:99999", "http://localhost:29517"])
def test_an_address_without_a_port(monkeypatch, address):
    monkeypatch.setattr(jax.distributed, "initialize", None)
    assert "--coordinator: expected HOST:PORT" in refusal(common.join_processes, address, 2, 0)


def test_a_process_says_whom_it_waits_for(monkeypatch, capfd):
    def initialize(*given):
        said.append((given, capfd.readouterr().err))

    said = []
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    common.join_processes("localhost:29517", 2, 1)
    common.join_processes("[::1]:29517", 3, 0)
    assert said == [
        (("localhost:29517", 2, 1), "augjax: waiting for 2 processes at localhost:29517\n"),
        (("[::1]:29517", 3, 0), "augjax: waiting for 3 processes at [::1]:29517\n")]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file/a.png", Path("/proc/a.png"), tmp_path / ("a" * 300) / "a.png"):
        assert "can be written to" in refusal(common.writable, place, "--out")
    assert "the folder" in refusal(common.writable, tmp_path, "--out")
    assert common.writable(tmp_path / "new/folder/a.png", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def loaded(monkeypatch):
    """(command, the values of its flags) -> its module, here, where others have flags so named."""
    def flag(name, default, *rest, **more):
        return SimpleNamespace(name=name, value=default)

    def load(name, **values):
        module = config_file._module(str(ROOT / f"launch/{name}.py"))
        for name, value in values.items():
            getattr(module, name).value = value
        return module

    for kind in ("string", "bool", "integer", "enum", "list"):
        monkeypatch.setattr(flags, f"DEFINE_{kind}", flag)
    monkeypatch.setattr(config_file, "flag", flag)
    return load


def test_preview_looks_at_the_place_and_the_config_before_it_draws(tmp_path, monkeypatch, loaded):
    config = quickstart.get_config()
    preview = loaded("preview", CONFIG=config, OUT=f"{tmp_path}/s.png")
    monkeypatch.setattr(preview.sheets, "of_batch", None)
    config.pruned.batch_size = 0
    assert "pruned.batch_size: expected 1 to" in refusal(preview.main)
    (tmp_path / "a").write_text("")
    preview.OUT.value = f"{tmp_path}/a/s.png"
    assert "--out: expected a place that can be written to" in refusal(preview.main)
    preview.OUT.value = "gs://bucket/s.png"
    assert "--out: expected a folder on a disk" in refusal(preview.main)
    preview.CONFIG.value = small_study.config()
    assert "launch.study" in refusal(preview.main)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and not Path("gs:").exists()


def test_prepare_writes_to_no_store(loaded):
    prepare_command = loaded("prepare", SOURCE="nowhere.zip", DATA_DIR="gs://bucket/x")
    assert "--data_dir: expected a folder on a disk" in refusal(prepare_command.main)


def test_train_names_the_flag_that_is_missing(tmp_path, loaded):
    train = loaded("train", CONFIG=None, WORKDIR=f"{tmp_path}/run")
    assert "expected --config, got none" in refusal(train.main)
    train.CONFIG.value, train.WORKDIR.value = quickstart.get_config(), None
    assert "expected --workdir, got none" in refusal(train.main)


@pytest.mark.parametrize("dry", [False, True])
def test_train_sends_a_study_where_it_belongs(tmp_path, loaded, dry):
    train = loaded("train", CONFIG=small_study.config(), WORKDIR=f"{tmp_path}/run", DRY_RUN=dry)
    assert "Give it to launch.study." in refusal(train.main)


def test_a_digit_that_is_no_number_of_a_branch(loaded):
    phase = SimpleNamespace(branches=None, objective=SimpleNamespace(learners=("student",)))
    export = loaded("export", BRANCH="²", WORKDIR="run")
    assert "--branch: expected selected or 0 to 0, got ²" in refusal(export.asked, phase)


@pytest.mark.parametrize("text", [b"no json", b"\xff\xfe", b"[]", b'{"rows": [{}]}'])
def test_json_that_no_benchmark_wrote(tmp_path, text):
    (tmp_path / "file.json").write_bytes(text)
    assert "launch.benchmark wrote" in refusal(benchmark.measured, tmp_path / "file.json")


# --- what a config asks for ----------------------------------------------------------------------


def test_a_loss_that_lacks_its_teacher_says_where_to_name_one():
    signals = SimpleNamespace(outputs={"student": None, "peer": None})
    assert refusal(losses.outputs_of, signals, "teacher", "hinton") == (
        "network scored by hinton: expected one of 'peer', 'student', got 'teacher'. "
        "Set the phase's teacher to run:DIR or phase:NAME.")
    assert "Did you mean 'peer'?" in refusal(losses.outputs_of, signals, "per", "hinton")
    signals.outputs["teacher"] = "logits"
    assert losses.outputs_of(signals, "teacher", "hinton") == "logits"


@pytest.mark.parametrize("name, folder, parts", [
    ("cifar10", "", ["got none", "--config.data.dir=DIR", "argument data_dir", "launch.prepare"]),
    ("shapes", "", ["data.dir is not set", "'digits'", "--config.data.dir=DIR"]),
    ("digts", "", ["Did you mean 'digits'"]),
    ("shapes", "nowhere", ["nowhere, which is no folder", "--config.data.dir=DIR"]),
    ("shapes", ".", ["prepared in", "nothing", "--config.data.dir=DIR"]),
])
def test_data_that_are_not_found(tmp_path, name, folder, parts):
    said = refusal(data.load, name, str(tmp_path / folder) if folder else None)
    assert "None" not in said
    for part in parts:
        assert part in said


# --- studies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"config', "\xff", "[1]", '{"config": {}}'])
def test_a_study_json_that_is_broken(tmp_path, text):
    (tmp_path / "study.json").write_text(text, encoding="latin-1")
    assert "study.json: expected" in refusal(study.recall, tmp_path)


def test_data_dir_for_what_is_no_study(monkeypatch):
    monkeypatch.setattr(launch_study, "DATA_DIR", SimpleNamespace(value="/somewhere"))
    for config, part in ((quickstart.get_config(), "Give it to launch.train"),
                         (ConfigDict({"rows": 1}), "rows: expected a block"),
                         (ConfigDict({"rows": {"a": {"data": 1}}}), "rows.a.data: expected")):
        monkeypatch.setattr(launch_study, "CONFIG", SimpleNamespace(value=config))
        assert part in refusal(launch_study.wanted)


@pytest.mark.parametrize("fields, part", [
    ({"batch_size": 0}, "student.batch_size: expected 1 to 96"),
    ({"batch_size": 97}, "student.batch_size: expected 1 to 96"),
    ({"accumulate": 3}, "student.accumulate"),
    ({"ema": 1.5}, "student.ema"),
])
def test_a_row_that_could_not_begin_is_refused_before_any_run(fields, part):
    row = small_study.taught()
    row.student.update(fields)
    planned = small_study.planned(rows={"kd": row, "plain": small_study.training()}, seeds=(0,))
    said = refusal(launch_study.check_rows, planned, launch_study.load_data(planned))
    assert said.startswith("row 'kd': ") and part in said


def test_a_row_may_be_taught_by_one_that_has_more_images():
    teacher, student = small_study.training(batch_size=500), small_study.taught()
    teacher.data.limit = 1000
    planned = small_study.planned(rows={"plain": teacher, "kd": student}, seeds=(0,))
    launch_study.check_rows(planned, launch_study.load_data(planned))


def test_people_s_own_data_sets_are_listed(tmp_path):
    prepare(write_tree(tmp_path / "in", flower_files()), tmp_path / "sets", dataset="flowers")
    row = small_study.training(batch_size=2)
    row.data.update(name="flowers", dir=str(tmp_path / "sets"), limit=0, resident=False)
    planned = small_study.planned(rows={"plain": row}, seeds=(0,))
    datasets = launch_study.load_data(planned, described=data.named.FACTS)
    assert [dataset.name for dataset in datasets.values()] == ["flowers"]
    launch_study.check_rows(planned, datasets)
    digits = small_study.planned(seeds=(0,))
    assert launch_study.load_data(digits, described=data.named.FACTS) == {}
    launch_study.check_rows(digits, {})
