"""What a map's levels mean, done by the engine and by Pillow, for any map and picture."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw
import pillow_oracle as pillow

from augjax import augment
from augjax.augment import maps, ops

NAMES = tuple(name for name in ops.OPS if not name.startswith("pix"))  # one program for all maps
per_image = jax.jit(augment.per_image)


def calls_of(chosen, levels, count, names=None):
    """(operation position, level, sign bit, picture) of every call, each [N]."""
    operations = [chosen.ops.index(name) for name in names or chosen.ops]
    grid = np.meshgrid(operations, np.arange(len(levels)), (0, 1), range(count), indexing="ij")
    op, level, negative, picture = (part.ravel() for part in grid)
    return op, np.float32(levels)[level], negative.astype(np.uint32) << 31, picture


def by_engine(chosen, op, level, sign, x, y, images, size=1024, names=NAMES):
    """[N, H, W, C]: one layer of the map's own rows, `size` images at a time; and the rows."""
    height, width, channels = images.shape[1:]
    draws = maps.Draws(*map(jnp.asarray, (sign, x, y)))
    rows = chosen.rows(height, width)(jnp.asarray(op), jnp.asarray(level), draws)
    rows = np.array(rows.at[..., 6].set(ops.pack_fill(128, channels)))
    position = np.array([names.index(name) for name in chosen.ops], np.int32)[op]
    done = []
    for start in range(0, len(op), size):
        part = np.arange(start, start + size) % len(op)
        wanted = augment.Program(position[part][:, None], rows[part][:, None], names)
        done.append(np.asarray(per_image(images[part], wanted)))
    return np.concatenate(done)[: len(op)], rows


def by_pillow(name, image, value, row):
    """Pillow on one picture; a cutout is its own filled rectangle, `row` says where."""
    if name == "posterize" and value == 0:  # black until Pillow 13, which refuses it
        return np.zeros_like(image)
    if name == "add_solarize":  # ildoonet: float sum, clipped, truncated; then solarized
        added = np.clip(image.astype(np.float64) + value, 0, 255).astype(np.uint8)
        return pillow.one_operation("solarize", added, 128)
    if name == "cutout":
        picture = pillow.as_pillow(image).copy()
        left, top, right, bottom = (int(edge) for edge in row[:4])
        if right > left and bottom > top:
            grey = 128 if image.shape[-1] == 1 else (128, 128, 128)
            ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), grey)
        return pillow.as_array(picture, image.shape[-1])
    return pillow.one_operation(name, image, value)


def disagreements(chosen, levels, images, names=None):
    """How many of the calls differ from Pillow anywhere, their (operation, level), and how many."""
    op, level, sign, picture = calls_of(chosen, levels, len(images), names)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2**32, (2, len(op)), np.uint32)
    done, rows = by_engine(chosen, op, level, sign, x, y, images[picture])
    wrong, height, width = set(), *images.shape[1:3]
    for call in range(len(op)):
        name, at = chosen.ops[op[call]], float(level[call])
        at = int(at) if chosen.steps == 1 else at
        value = chosen.value(name, at, -1.0 if sign[call] else 1.0, height, width)
        expected = by_pillow(name, images[picture[call]], value, rows[call])
        if not np.array_equal(done[call], expected):
            wrong.add((name, at))
    return wrong, len(op)


def ildoonet_cutout(image, x, y, side):
    """ildoonet's CutoutAbs with its uniform numbers taken from 16.16 draws."""
    picture = Image.fromarray(image)
    width, height = picture.size
    across, down = int(x) % (width << 16) / 65536, int(y) % (height << 16) / 65536
    left, top = int(max(0, across - side / 2.0)), int(max(0, down - side / 2.0))
    corners = (left, top, min(width, left + side), min(height, top + side))
    ImageDraw.Draw(picture).rectangle(corners, (128, 128, 128))
    return np.asarray(picture)
