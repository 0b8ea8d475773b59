"""EfficientNet-B0 to B8 on ImageNet with RandAugment, alone or taught by another of them.

Claim     circumventing_outliers, Table 3: top-1 of B0 77.4 with RandAugment and 78.0 taught by
          itself; B4 83.0 and 83.6; B7 84.9 and 85.5; B8, taught by B7, 85.7 (85.4 without)
Command   python -m launch.train --config=configs/imagenet/efficientnet.py:b0 \\
              --config.data.dir=DIR --workdir=runs/b0
          python -m launch.train --config=configs/imagenet/efficientnet.py:b8,teacher=b7 \\
              --dry_run --topology=v4:4x4x4
Cost      not measured; --dry_run counts memory and operations
Measured  not measured
Rows      ":b0" ... ":b8" | ":b8,teacher=b7" (the teacher trains first, by labels alone: the
          paper's B7 was taught itself, 85.5, for which see outliers.py; then the student)
          | ":b0,scale=tiny" (toy widths and depths at 32 pixels, for tests)

Magnitudes 9 (B0), 15 (B4), 28 (B7, B8) are the paper's, 17 (B5) is RandAugment's own; between
them the next smaller one is taken. The learning rate is 0.016 per 256 images (spec M3).
"""

from ml_collections import ConfigDict

from augjax import check, defaults, models, papers

MAGNITUDES = {"b0": 9, "b1": 9, "b2": 9, "b3": 9, "b4": 15, "b5": 17, "b6": 17, "b7": 28, "b8": 28}
TAUGHT = {"b0": (0.5, 5)}  # weight of the teacher's term and its K
TAUGHT_LARGER = (2.0, 50)
TINY = {"width": 0.25, "depth": 0.25}


def get_config(arg: str = "b0") -> ConfigDict:
    row, teacher, tiny = _parsed(arg)
    size = 32 if tiny else models.MODELS[f"efficientnet_{row}"].resolution
    phases = {"student": _phase(row, tiny)}
    if teacher:
        weight, k = TAUGHT.get(row, TAUGHT_LARGER)
        taught = phases["student"]
        taught.teacher, taught.teacher_weights = "phase:teacher", "ema"
        taught.terms.kl = defaults.term("topk_kl", weight, k=k)
        phases = {"teacher": _phase(teacher, tiny), "student": taught}
    return defaults.config(
        phases=phases,
        data={"name": "imagenet2012", "image_size": size, "crop": "efficientnet", "resident": False,
              "limit": 32 if tiny else 0},
        mesh={"fsdp": row in ("b7", "b8")},
        log={"every_steps": 100},
    )


def _phase(row: str, tiny: bool) -> ConfigDict:
    name = f"efficientnet_{row}"
    size = 32 if tiny else models.MODELS[name].resolution
    recipe = papers.efficientnet(1.0, 16) if tiny else papers.efficientnet(
        500.0 if row == "b0" else 350.0)
    return defaults.phase(
        model=defaults.model(
            name, dtype="float32" if tiny else "bfloat16", image_size=size,
            remat=row in ("b5", "b6", "b7", "b8"), **(TINY if tiny else {})),
        views={"train": defaults.view("flip", defaults.randaugment(MAGNITUDES[row], map="tf"))},
        **recipe,
    )


def _parsed(arg: str) -> tuple[str, str | None, bool]:
    row, *more = arg.split(",")
    fields = dict(part.partition("=")[::2] for part in more)
    for field in fields:
        check.one_of("configs/imagenet/efficientnet.py", field, ("teacher", "scale"))
    scale = check.one_of("scale", fields.get("scale", "full"), ("full", "tiny"))
    for name in (row, *filter(None, [fields.get("teacher")])):
        check.one_of("configs/imagenet/efficientnet.py", name, MAGNITUDES)
    return row, fields.get("teacher"), scale == "tiny"
