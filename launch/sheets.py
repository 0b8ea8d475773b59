"""Contact sheets: operations at each level, and what a phase's student sees in an update."""

from dataclasses import replace
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from augjax import augment, check, data
from augjax.augment import maps
from augjax.data.cropped import Cropped
from augjax.data.host import training_images
from augjax.train import Phase, Recipe, start
from augjax.types import Batch, Knobs, Rows, Term, identity

TILE = 96  # pixels: about what pictures are enlarged to, by a whole number
FONT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")  # Pillow's has no umlauts
FONT_SIZE, LINE, GAP = 10, 13, 8
INK, SOFT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
COLUMNS = 7  # levels of an operation


# --- operations by levels ------------------------------------------------------------------------


def flower(size: int) -> np.ndarray:
    """[size, size, 3] uint8: scikit-learn's sample picture (CC-BY, 2.0, dany13)."""
    whole = Image.fromarray(load_sample_image("flower.jpg"))
    square = whole.crop((120, 0, 120 + whole.height, whole.height))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def of_operations(map_name: str, image: np.ndarray) -> Image.Image:
    """Every operation of a map at levels across its range, on one [H, W, C] uint8 picture."""
    chosen = maps.map_named(map_name)
    height, width = image.shape[:2]
    rows, alone = [], []
    for op in chosen.ops:
        steps = calls(chosen, op, height, width)
        done = perform(chosen, op, steps, image)
        tiles = [
            Tile(pixels, (f"level {abs(level):g}", told(op, row)))
            for (level, _), (pixels, row) in zip(steps, done, strict=True)
        ]
        if len(steps) == 1:
            alone.append(tiles[0]._replace(captions=(op, "no level")))
        else:
            rows.append((op, tiles))
    rows += [("", alone[at : at + COLUMNS]) for at in range(0, len(alone), COLUMNS)]
    span = f"levels {chosen.lowest:g} to {chosen.highest:g}"
    return sheet(f"map {map_name!r}, {span}, on {width} x {height}", rows)


def calls(chosen: maps.MagnitudeMap, op: str, height: int, width: int) -> list[tuple[float, bool]]:
    """The (level, negative) pairs worth drawing: one if the level changes nothing."""
    low, high = chosen.lowest, chosen.highest

    def row(level, negative):
        return lookup(chosen, op, level, negative, height, width).tolist()

    if row(low, False) == row(high, False) == row((low + high) / 2, False):
        return [(low, False)]
    if row(high, False) == row(high, True):
        return [(level, False) for level in levels(chosen, low, COLUMNS)]
    side = levels(chosen, low, COLUMNS // 2 + 1)
    return [(level, True) for level in side[:0:-1]] + [(level, False) for level in side]


def levels(chosen: maps.MagnitudeMap, low: float, count: int) -> list[float]:
    """`count` whole levels from the lowest to the highest."""
    return np.round(np.linspace(low, chosen.highest, count)).tolist()


def lookup(
    chosen: maps.MagnitudeMap, op: str, level: float, negative: bool, height: int, width: int
) -> jax.Array:
    """[ROW] int32: the row of an operation, a cutout always by the same draws."""
    draws = maps.Draws(*map(jnp.uint32, (0xFFFFFFFF if negative else 0, width // 2, height // 2)))
    rows = chosen.rows(height, width)
    return rows(jnp.int32(chosen.ops.index(op)), jnp.float32(level), draws)


def perform(chosen: maps.MagnitudeMap, op: str, steps: list, image: np.ndarray) -> list:
    """[(pixels [H, W, C], row [ROW])] of an operation at every (level, negative)."""
    height, width, channels = image.shape
    rows = jnp.stack([lookup(chosen, op, *step, height, width) for step in steps])
    rows = rows.at[:, 6].set(augment.ops.pack_fill(augment.ops.GREY, channels))
    program = augment.Program(jnp.zeros((len(steps), 1), jnp.int32), rows[:, None], (op,))
    images = jnp.broadcast_to(jnp.asarray(image), (len(steps), *image.shape))
    return list(zip(np.asarray(augment.apply(images, program)), np.asarray(rows), strict=True))


# --- what a student sees -------------------------------------------------------------------------


class Seen(NamedTuple):
    """An update's batch and what its views made of it."""

    batch: Batch
    rows: Rows
    programs: dict[str, list[augment.Program]]  # {view: one per row of it}


def seen(recipe: Recipe, phase: Phase, step: int) -> Seen:
    """What update `step` of a phase looks at, before any pick: the run's own keys and order."""
    total = recipe.steps(phase)
    check.require(step < total, "--batch", f"0 to {total - 1}, the updates of {phase.name!r}", step,
                  "choose an earlier one")
    source = recipe.data.train
    epoch, place = divmod(step, recipe.steps_per_epoch(phase))
    indices = data.batch_indices(source, recipe.seed, phase.batch_size, step)
    images, indices, bad = training_images(source, indices, recipe.seed, epoch)
    for sentence in bad:
        check.tell(sentence)
    batch = Batch(images, source.labels[indices], indices)
    table = start.plan(phase, recipe, epoch).knobs
    policies = jax.tree.map(lambda numbers: numbers[place], dict(table.policies))
    key = jax.random.fold_in(start.phase_key(recipe, phase), step)
    batch = jax.tree.map(jnp.asarray, batch)
    rows, programs = jax.jit(functools.partial(look, phase))(key, batch, policies)
    return Seen(batch, rows, programs)


def look(phase: Phase, key: jax.Array, batch: Batch, policies: dict) -> tuple[Rows, dict]:
    """(rows, {view: programs}): the phase's objective without its networks, every draw noted."""
    programs = {view: [] for view, policy in policies.items() if hasattr(policy, "draw")}
    noted = {
        view: Noting(policy, programs[view]) if view in programs else policy
        for view, policy in policies.items()
    }
    caught = []
    term = Term(
        init=None,
        apply=lambda params, state, signals, key: (caught.append(signals.rows) or 0.0, state),
    )
    alone = replace(phase.objective, nets={}, learners=(), terms={"rows": term}, pick=None,
                    transform=identity())
    state = SimpleNamespace(transform={}, stats={}, frozen={}, terms={"rows": {}})
    alone({"nets": {}, "terms": {"rows": {}}}, state, batch, key, Knobs(noted, {}, 0.0))
    return caught[0], programs


class Noting:
    """A policy that keeps every program it draws."""

    def __init__(self, policy, programs: list):
        self.policy, self.programs = policy, programs

    def __getattr__(self, name: str):  # what stands beside the draw: the share that is erased
        return getattr(self.policy, name)

    def draw(self, keys: jax.Array, image_shape: tuple[int, int, int]) -> augment.Program:
        self.programs.append(self.policy.draw(keys, image_shape))
        return self.programs[-1]


def of_batch(recipe: Recipe, phase: Phase, step: int, images: int) -> Image.Image:
    """The first `images` of an update's batch: as they are or were cropped on the host, then every
    view of them, the mixed ones last."""
    found, names = seen(recipe, phase, step), recipe.data.train.class_names
    count = min(images, phase.batch_size)
    original, label = np.asarray(found.batch.image), np.asarray(found.batch.label)
    head = "as cropped" if isinstance(recipe.data.train.reader, Cropped) else "original"
    rows = [(head, [Tile(original[b], (names[label[b]],)) for b in range(count)])]
    mixed = []
    groups = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(len(label), -1, *leaf.shape[1:])[:count],
        {"image": found.rows.image, "lam": found.rows.lam, "other": found.rows.mix_label})
    place = 0
    for view in found.rows.views:
        below = mixed if isinstance(phase.knobs.policies.get(view.name), augment.Mixing) else rows
        for row in range(view.rows):
            program = found.programs[view.name][row] if view.name in found.programs else None
            tiles = []
            for b in range(count):
                captions = operations(program, b) if program else ()
                if groups["lam"][b, place] < 1:
                    other = names[groups["other"][b, place]]
                    captions += (f"{groups['lam'][b, place]:.2f} own", f"+ {other}")
                tiles.append(Tile(pixels_of(groups["image"][b, place]), captions))
            head = view.name if view.rows == 1 else f"{view.name} {row + 1}"
            below.append((head, tiles))
            place += 1
    title = (f"{recipe.data.name}, phase {phase.name!r}, update {step} of {recipe.steps(phase)}, "
             f"seed {recipe.seed}")
    return sheet(title, rows + mixed)


def pixels_of(image: np.ndarray) -> np.ndarray:
    """uint8 of pixels 0..255, float32 after mixing."""
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def operations(program: augment.Program, b: int) -> tuple[str, ...]:
    """What image b of the batch got, layer by layer, in words."""
    named = [program.ops[op] for op in np.asarray(program.op[b])]
    return tuple(
        told(op, row, with_name=True)
        for op, row in zip(named, np.asarray(program.parameters[b]), strict=True)
    )


def told(op: str, row: np.ndarray, with_name: bool = False) -> str:
    """A row of a program in the operation's own unit: "rotate +12.0°"."""
    part, number = [int(n) / 65536 for n in row], int(row[0])
    match op:
        case "rotate":
            value = f"{signed(-np.degrees(np.arctan2(row[1], row[0])), 1)}°"
        case "shear_x" | "shear_y":
            slope = part[1 if op == "shear_x" else 3]
            value = signed(slope, 2) if slope or part[2] == part[5] == 0.5 else "all out"
        case "translate_x" | "translate_y":
            value = f"{signed(part[2 if op == 'translate_x' else 5] - 0.5, 1)} px"
        case "posterize":
            value = f"{number} bits"
        case "solarize":
            value = f"from {number}"
        case "solarize_add" | "add_solarize":
            value = f"+{number}"
        case "color" | "contrast" | "brightness" | "sharpness":
            value = f"x{as_float(number):.2f}"
        case "cutout":
            value = f"{row[2] - row[0]} x {row[3] - row[1]} px"
        case "identity" | "autocontrast" | "equalize" | "invert":
            value = ""  # whatever the row says
        case "pix_affine":
            value = " ".join(f"{as_float(n) + 0:.2g}" for n in row[:6])
        case _:  # dm-pix's take one float, people's own what they like
            last = max(np.flatnonzero(row[:6]), default=-1)
            value = " ".join(number_of(int(n)) for n in row[: last + 1])
    return f"{op} {value}".strip() if with_name else value


def number_of(word: int) -> str:
    """What a row holds: a float32, or an integer where that would be NaN or next to nothing."""
    return f"{word}" if abs(word) < 2**23 else f"{as_float(word) + 0:.3g}"


def as_float(word: int) -> float:
    """The float32 whose bits an int32 has."""
    return float(np.int32(word).view(np.float32))


def signed(number: float, digits: int) -> str:
    """A number with its sign, and no sign for nothing; no digits after a whole one."""
    rounded = round(float(number), digits)
    return f"{rounded:+g}" if rounded else "0"


# --- drawing -------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """A picture [H, W, C] uint8 and the lines under it."""

    pixels: np.ndarray
    captions: tuple[str, ...]


def sheet(title: str, rows: list[tuple[str, list[Tile]]]) -> Image.Image:
    """Rows of tiles, the name of each row on its left, the title above."""
    font = ImageFont.truetype(FONT, FONT_SIZE)
    height, width = rows[0][1][0].pixels.shape[:2]
    scale = max(1, round(TILE / width))
    words = [line for _, tiles in rows for tile in tiles for line in tile.captions]
    across = GAP + max([width * scale, *(int(font.getlength(line)) + 1 for line in words)])
    margin = 2 * GAP + max(int(font.getlength(head)) for head, _ in rows)
    down = height * scale
    heights = [down + LINE * max(len(tile.captions) for tile in tiles) + GAP for _, tiles in rows]
    columns = max(len(tiles) for _, tiles in rows)
    least = 2 * GAP + int(font.getlength(title))
    page = Image.new("RGB", (max(margin + columns * across, least), 2 * LINE + sum(heights)), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), title, INK, font)
    top = 2 * LINE + 2
    for (head, tiles), step in zip(rows, heights, strict=True):
        pen.text((GAP, top), head, INK, font)
        for column, tile in enumerate(tiles):
            corner = margin + column * across, top
            page.paste(enlarged(tile.pixels, scale), corner)
            for line, words in enumerate(tile.captions):
                pen.text((corner[0], top + down + 1 + line * LINE), words, SOFT, font)
        top += step
    return page


def enlarged(pixels: np.ndarray, scale: int) -> Image.Image:
    """[H, W, C] uint8, every pixel as a square."""
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).convert("RGB")
