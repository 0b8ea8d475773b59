"""Batches made by worker processes, every batch by all of them, in memory that they share.

grain's own processes are not used: after one of them was killed, closing the others took up to
25 s each. Here the pool notices a death at once, by what the operating system says of it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
import contextlib
import math
import multiprocessing
from multiprocessing.shared_memory import SharedMemory
import os
from pathlib import Path
import shutil
import signal
import threading
import time
from typing import Any

import numpy as np

from augjax import check

AHEAD = 3  # batches in shared memory: one to be taken, the others under way
GRACE_S = 10.0  # for which a worker goes on after SIGTERM
_SHARED = Path("/dev/shm")  # where Linux has it

Fetch = Callable[[int, slice], dict[str, Any]]  # (step, rows of its batch) -> arrays and "bad"


def batches(fetch: Fetch, steps: range, shape: tuple[int, ...], workers: int
            ) -> Iterator[dict[str, Any]]:
    """Yields fetch(step, all rows) for every step, each worker making a piece of every batch.

    `shape` is that of a batch's images, which are uint8. Raises DataError where memory to share is
    too small or a worker dies, and whatever `fetch` raises, with its traceback as the cause.
    """
    pieces = [slice(part[0], part[-1] + 1) for part in
              np.array_split(np.arange(shape[0]), min(workers, shape[0]))]
    others, mine = set(multiprocessing.active_children()), set()
    upcoming, pending = iter(steps), deque()
    with contextlib.ExitStack() as stack:
        blocks = _shared(shape, stack)
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (
            fetch, [memory.name for memory, _ in blocks], shape))
        stack.callback(pool.shutdown, cancel_futures=True)  # before the memory is given back

        def begin(block):
            for step in upcoming:
                pending.append((block, [pool.submit(_make, block, step, rows) for rows in pieces]))
                return

        try:
            for block in range(AHEAD):
                begin(block)
            mine |= set(multiprocessing.active_children()) - others
            while pending:
                block, making = pending.popleft()
                made = [piece.result() for piece in making]
                image = blocks[block][1].copy()
                begin(block)
                bad = [said for piece in made for said in piece.pop("bad")]
                yield {"image": image, "bad": bad} | {
                    field: np.concatenate([piece[field] for piece in made]) for field in made[0]}
        except BrokenProcessPool as error:
            raise _died(mine) from error


def _shared(shape: tuple[int, ...], stack: contextlib.ExitStack
            ) -> list[tuple[SharedMemory, np.ndarray]]:
    """Memory for AHEAD batches, given back when the stack is closed."""
    size = math.prod(shape)
    if _SHARED.is_dir():
        free = shutil.disk_usage(_SHARED).free  # writing beyond it would kill the worker
        check.require(
            free > AHEAD * size, str(_SHARED), f"{AHEAD * size >> 20} MiB of free shared memory",
            f"{free >> 20} MiB", "enlarge it (docker run --shm-size=8g) or make batches smaller",
            check.DataError,
        )
    blocks = []
    for _ in range(AHEAD):
        memory = SharedMemory(create=True, size=size)
        stack.callback(memory.unlink)
        blocks.append((memory, np.ndarray(shape, np.uint8, memory.buf)))
    return blocks


def _died(workers: set) -> check.DataError:
    """What ended the first of them; the others are ended, too."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and all(worker.exitcode is None for worker in workers):
        time.sleep(0.01)
    told = ", ".join(f"process {worker.pid} with exit code {worker.exitcode}"
                     for worker in workers if worker.exitcode is not None)
    for worker in workers:
        worker.kill()
    return check.DataError(check.sentence(
        "workers that feed images", "life until the last batch", f"the end of {told or 'one'}",
        "an exit code of -9 is a process killed, often for want of memory: use fewer workers; "
        "others leave a traceback above"))


# --- in a worker ---------------------------------------------------------------------------------


_worker: dict[str, Any] = {}


def _begin(fetch: Fetch, names: list[str], shape: tuple[int, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer, who may want to save
    signal.signal(signal.SIGTERM, _end_later)
    parent = multiprocessing.parent_process()  # killed, it cannot tell anybody to end
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    memory = [SharedMemory(name) for name in names]
    _worker.update(fetch=fetch, memory=memory, blocks=[
        np.ndarray(shape, np.uint8, block.buf) for block in memory])


def _end_later(number: int, frame: Any) -> None:
    """SLURM tells every process of a job to end; those that the last step needs come after it."""
    timer = threading.Timer(GRACE_S, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def _make(block: int, step: int, rows: slice) -> dict[str, Any]:
    made = _worker["fetch"](step, rows)
    _worker["blocks"][block][rows] = made.pop("image")
    return made
