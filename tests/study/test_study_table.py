"""The table, from run folders that were never trained: what is in it, and what is said."""

import json

import pytest
from small_study import planned, pretend, taught, training

from augjax import defaults, study

KT = "kd_thrives_on_da Table 3"


@pytest.fixture
def made():
    """Three rows at three seeds; plain and kd done, kd/2 failed, lost never begun."""
    return planned(
        rows={"plain": training(), "kd": taught(), "lost": taught("row:kd")}, seeds=(0, 1, 2),
        scale="full", published={
            "kd": defaults.published(70.66, KT, top1_std=0.24, runs=3, top5=90.0),
            "plain": defaults.published(69.06, KT)},
        comparisons=(defaults.comparison("kd > plain", KT), defaults.comparison("lost > kd", "x")))


@pytest.fixture
def workdir(made, tmp_path):
    for seed, plain, kd in ((0, 0.60, 0.70), (1, 0.61, 0.72), (2, 0.62, None)):
        pretend(tmp_path, made, f"plain/{seed}", plain, best=0.9)
        if kd:
            pretend(tmp_path, made, f"kd/{seed}", kd, hardware="1 x H100, 16 cores")
    study.folders.note_failure(tmp_path, made.run("kd/2"), 5, "NaN | first at step 2")
    return tmp_path


def rows_of(table):
    return {row["row"]: row for row in table["rows"]}


def test_numbers_are_percent_over_seeds(made, workdir):
    rows = rows_of(study.gather(made, workdir))
    assert rows["plain"]["top1"] == {"n": 3, "mean": 61.0, "std": 1.0}
    assert rows["plain"]["top1_of_seed"] == {"0": 60.0, "1": 61.0, "2": 62.0}
    assert rows["plain"]["top5"] == {"n": 3, "mean": 81.0, "std": 1.0}
    assert rows["plain"]["best_top1"]["mean"] == 90.0
    assert (rows["kd"]["n"], rows["kd"]["of"], rows["kd"]["seeds"]) == (2, 3, [0, 1])
    assert rows["kd"]["device_hours"] == 1.0


def test_failed_and_missing_rows_stay_with_their_reasons(made, workdir):
    rows = rows_of(study.gather(made, workdir))
    assert rows["kd"]["not_counted"] == {
        "2": {"status": "failed", "exit_code": 5, "reason": "NaN | first at step 2"}}
    assert rows["lost"]["top1"] is None
    assert rows["lost"]["not_counted"]["0"] == {"status": "missing", "reason": "not begun"}
    assert rows["lost"]["not_counted"]["2"]["reason"] == "not begun, needs kd/2 (failed)"


def test_a_run_half_way_does_not_count(made, workdir):
    """Only a summary with every phase of the row does; a failure of old is forgotten by it."""
    summary = study.folder_of(workdir, made.run("plain/0")) / "summary.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps(content | {"phases": {}}))
    assert rows_of(study.gather(made, workdir))["plain"]["not_counted"]["0"]["status"] == "started"
    pretend(workdir, made, "kd/2", 0.7)
    assert rows_of(study.gather(made, workdir))["kd"]["n"] == 3


def test_comparisons_pair_the_seeds_that_both_have(made, workdir):
    kd, lost = study.gather(made, workdir)["comparisons"]
    assert kd["seeds"] == [0, 1]
    assert kd["difference"] == {"n": 2, "mean": 10.5, "std": 0.707107}
    assert kd["interval"] == pytest.approx((10.5 - 6.3531, 10.5 + 6.3531), abs=1e-3)  # 12.706 / 2
    assert (kd["verdict"], kd["direction"], kd["published_difference"]) == (
        "met", "as claimed", 1.6)
    assert (lost["verdict"], lost["difference"]) == ("not measured", None)


def test_hardware_versions_and_data_are_stated(made, workdir):
    table = study.gather(made, workdir, "python -m launch.study --config=x.py")
    assert table["hardware"] == {"1 x H100, 16 cores": 2, "1 x cpu, 2 cores": 3}
    assert table["versions"] == {"jax": ["0.10.2"]} and table["commits"] == ["abc"]
    assert table["data"] == [{"name": "digits", "note": "", "classes": 10,
                              "image_shape": [8, 8, 3], "images": {"train": 96, "test": 360}}]


def test_top5_is_left_out_where_there_are_five_classes(made, tmp_path):
    pretend(tmp_path, made, "plain/0", 0.5, classes=5)
    table = study.gather(made, tmp_path)
    assert rows_of(table)["plain"]["top5"] is None
    text = study.markdown(table)
    assert "| row | n | top-1 % | best epoch % | published % |" in text


def test_a_row_counts_by_its_phase_and_the_others_stand_below(tmp_path):
    ladder = training(transform={"mask": defaults.mask(0.0)}, repeat={"sparsity": (0.2, 0.4)})
    made = planned(rows={"a": ladder}, report="student-2", seeds=(0,))
    pretend(tmp_path, made, "a/0", 0.5)
    table = study.gather(made, tmp_path)
    assert table["rows"][0]["device_hours"] == 1.0  # half an hour for each rung
    assert table["rows"][0]["other_phases"] == {"student-1": {"n": 1, "mean": 50.0, "std": None}}
    assert "| a | student-1 | 50.00 (one run) |" in study.markdown(table)


def test_the_text_says_all_of_it(made, workdir):
    text = study.markdown(study.gather(made, workdir, "python -m launch.study"))
    for line in (
        "# A study",
        "**5 of 9 runs are in these numbers**; the rest below.",
        "| row | n | top-1 % | top-5 % | best epoch % | published % | parameters left "
        "| device-hours |",
        "| plain | 3 | 61.00 ± 1.00 | 81.00 ± 1.00 | 90.00 ± 0.00 | 69.06 [1] | 40 of 100 | 1.5 |",
        "| kd | 2 of 3, 1 failed | 71.00 ± 1.41 | 91.00 ± 1.41 | 71.00 ± 1.41 "
        "| 70.66 ± 0.24, top-5 90.00, n 3 [1] | 40 of 100 | 1 |",
        "| lost | 0 of 3 | not measured | not measured | not measured |  |  |  |",
        f"[1] {KT}",
        f"| kd > plain | {KT} | +1.60 | +10.50 [+4.15, +16.85] | 2 | as claimed | met |",
        "| lost > kd | x |  | not measured | 0 | not measured | not measured |",
        "- kd/2: failed (5): NaN | first at step 2",
        "- Data: digits, 10 classes, images: 96 train, 360 test",
        "- Hardware: 1 x H100, 16 cores (2 runs), 1 x cpu, 2 cores (3 runs)",
        "- Command: `python -m launch.study`",
    ):
        assert line in text.splitlines(), f"{line}\n\n{text}"
    assert "scale" not in text.splitlines()[2]


@pytest.mark.parametrize("scale, words", [("small", "directions reported, not promised"),
                                          ("tiny", "nothing else")])
def test_another_scale_heads_the_table(tmp_path, scale, words):
    made = planned(scale=scale, data_note="JPEG copy", seeds=(0,))
    pretend(tmp_path, made, "plain/0", 0.5)
    text = study.markdown(study.gather(made, tmp_path))
    assert words in text.split("|")[0]
    assert "- Data: digits (JPEG copy), 10 classes" in text


def test_a_bar_in_a_name_does_not_break_the_table(made, tmp_path):
    table = study.gather(made, tmp_path)
    table["comparisons"][0]["source"] = "a|b"
    assert "a\\|b" in study.markdown(table)


def test_nothing_done_is_a_table_too(made, tmp_path):
    study.report(made, tmp_path)
    assert "**0 of 9 runs" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "plots").exists()


def test_the_report_is_the_same_whenever_it_is_written(made, workdir):
    study.report(made, workdir)
    first = [(workdir / name).read_text() for name in ("table.md", "table.json")]
    study.report(made, workdir)
    assert first == [(workdir / name).read_text() for name in ("table.md", "table.json")]
    assert json.loads(first[1])["rows"][0]["top1"]["mean"] == 61.0
    assert not list(workdir.glob("*.tmp"))


def test_plots_show_every_row_and_the_published_at_full_scale_alone(made, workdir):
    made = planned(
        rows={"plain": training(), "kd": taught()}, seeds=(0, 1), scale="full",
        published={"kd": defaults.published(70.66, KT)},
        figures={"sweep": defaults.figure("magnitude", (1.0, 2.0), {"line": ("plain", "kd")})},
        curves={"grown": defaults.curve("accuracy", ("kd",)),
                "absent": defaults.curve("pick_ratio", ("plain", "kd"))})
    table = study.gather(made, workdir)
    assert [path.name for path in study.draw(made, table, workdir)] == [
        "rows.png", "epochs.png", "grown.png", "absent.png", "sweep.png"]
    assert study.followed(made, workdir, "accuracy", ("kd",)) == {
        "kd": [[(1.0, 0.7)], [(1.0, 0.72)]]}
    by_name = rows_of(table)
    axes = study.plots.plot_rows(table["rows"]).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["plain (n 2)", "kd (n 2)"]
    assert [70.66] in [list(line.get_xdata()) for line in axes.lines]
    sweep = study.plots.plot_lines(made.figures["sweep"], by_name).axes[0]
    assert [list(line.get_ydata()) for line in sweep.lines if line.get_linestyle() == "-"] == [
        [60.5, 71.0]]
    assert study.curves(made, workdir)["kd"] == [[(1.0, 70.0)], [(1.0, 72.0)]]
    assert study.plots.comparable(table) == table["rows"]
    table["scale"] = "small"
    assert [row["published"] for row in study.plots.comparable(table)] == [None, None]


def test_the_map_of_every_magnitude_is_told(tmp_path):
    """DESIGN section 7: 9 on one map is not 9 on another."""
    config = training()
    view = config.student.views.train
    made = []
    for name in ("tf", "timm"):
        view.policy = defaults.randaugment(9.0, map=name)
        made.append(config.copy_and_resolve_references())
    table = study.gather(planned(rows=dict(zip(("one", "other"), made))), tmp_path)
    assert table["maps"] == ["tf", "timm"]
    assert "- Magnitudes: tf and timm's" in study.markdown(table)
    bare = study.gather(planned(), tmp_path)
    assert bare["maps"] == [] and "Magnitudes" not in study.markdown(bare)
