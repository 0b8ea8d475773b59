"""From the device's reports to rows: read one row late, so that the device never waits for us."""

from collections.abc import Mapping
import contextlib
import math
from pathlib import Path
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from augjax import check
from augjax.method import noted
from augjax.train import failures, files, folder, start
from augjax.train.metrics import Log, Progress
from augjax.train.phases import Phase, Recipe


class Reporter:
    """Collects the reports of one phase, writes its rows, and watches for numbers gone bad.

    A training row has means over its steps, and of a knob on a schedule the value at its last
    update. It has, where there were any since the one before it, `data_bad`: images that could not
    be read, of which those of processes other than the first come in the first row that is written
    at or after the next save or evaluation; and `saves_failed`.
    """

    def __init__(self, recipe: Recipe, phase: Phase, workdir: Path, step: int,
                 share: float = 1.0, title: str | None = None):
        """`share` of the time is this run's, as of a population; `title` "" is not shown at all."""
        self.recipe, self.phase, self.total = recipe, phase, recipe.steps(phase)
        before = recipe.phases[: recipe.number(phase)]
        self.steps_before = sum(recipe.steps(other) for other in before)
        self._workdir, self._quiet = workdir, jax.process_index() > 0
        self._log, self._share = Log(workdir, phase.name, step, self._quiet), share
        title = phase.name if title is None else title
        self._progress = Progress(title, self.total, self._quiet or not title)
        self._pending: tuple[int, Any, int] | None = None  # a row of the log that is not read yet
        self._bad_images = 0  # of the host's feed, since the last row
        self._bad_untold = 0  # those that the first process has not been told of by this one
        self._saves_failed = 0  # since the last row
        self._unasked = tuple(phase.frozen)  # teachers that nobody has looked at yet
        self._latest: tuple[int, Any] = (step, None)
        self._done, self._marked = step, time.perf_counter()  # so many steps by that time
        self._seconds, self._speed = 0.0, 0.0  # since the last row; images/s between two marks
        if step:
            self.say(f"goes on from step {step}/{self.total}")

    def pend(self, step: int, report: Mapping[str, Any]) -> None:
        """Takes the report of a step; where a row is due, writes the row before it."""
        self._latest = step, report
        if step % self.recipe.log_every == 0 or step == self.total:
            self._write_pending()
            self._pending, self._bad_images = (step, report, self._bad_images), 0

    def bad_image(self, sentence: str) -> None:
        """Says and counts an image that could not be read; every process has its own."""
        if jax.process_count() > 1:
            sentence = f"process {jax.process_index()}: {sentence}"
        if self._quiet:
            self._bad_untold += 1
            check.tell(f"augjax: {sentence}")
        else:
            self._bad_images += 1
            self.say(sentence)

    def failed_save(self, sentence: str) -> None:
        """Says and counts a save that failed."""
        self._saves_failed += 1
        self.say(sentence)

    def drain(self) -> None:
        """Writes what is pending and makes sure that the latest step is sound. Of several processes
        all do so at the same steps.

        Raises NumericsError that names the first step whose loss, gradient or BatchNorm statistics
        were not finite.
        """
        step, report = jax.block_until_ready(self._latest)
        self._hear_of_bad_images()
        self._write_pending()
        self._mark(step)
        if report is not None:
            self._require_finite(int(report["bad_step"]))

    def _hear_of_bad_images(self) -> None:
        """Adds those of the other processes to the row that waits, or to the next one."""
        if jax.process_count() == 1:
            return
        own, self._bad_untold = self._bad_untold, 0
        told = int(multihost_utils.process_allgather(np.array(own)).sum())
        if self._pending:
            step, report, bad_images = self._pending
            self._pending = step, report, bad_images + told
        else:
            self._bad_images += told

    def _failed_saves(self) -> dict[str, int]:
        """For a row, which they are told in once."""
        count, self._saves_failed = self._saves_failed, 0
        return {"saves_failed": count} if count else {}

    def flush(self) -> None:
        """Returns when every row is on the disk; OSError where it is full."""
        self._log.flush()

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the evaluation row of a step, and keeps its time, since `drain`, out of the
        training speed.

        Raises NumericsError, and writes nothing, where a number is not finite: what was trained
        may still be, as the average is seen here alone.
        """
        bad = sorted(name for name, value in values.items() if not math.isfinite(value))
        check.require(
            not bad, f"phase {self.phase.name!r}",
            f"finite numbers in the evaluation of step {step}",
            f"NaN or infinity in {', '.join(bad)}",
            "look at BatchNorm's running statistics and at the moving average, which may have gone "
            "bad before the loss; saves of that time hold them too", check.NumericsError)
        self._log.row("eval", step, {
            **values, **self._failed_saves(), "seconds": round(self._lap(), 4)})
        self.say(f"{step}/{self.total}  test accuracy {values['accuracy']:.2%}")

    def say(self, text: str) -> None:
        self._progress.say(text)

    def close(self) -> None:
        self._log.close()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        (step, report, bad_images), self._pending = self._pending, None
        ahead = _is_ready(report)  # then the device has nearly kept pace with us
        report = jax.device_get(report)
        self._require_finite(int(report["bad_step"]))
        self._mark(self._latest[0] if ahead else step)
        values = {name: float(value) for name, value in report["metrics"].items()}
        values |= start.moving(self.phase, self.recipe, step - 1)
        if bad_images:
            values["data_bad"] = bad_images
        values |= self._failed_saves()
        epoch = step / self.recipe.steps_per_epoch(self.phase)
        self._log.row("train", step, {
            "epoch": round(epoch, 6), **values,
            "seconds": round(self._seconds, 4), "images_per_s": round(self._speed, 1),
        })
        self._seconds = 0.0
        self._tell_of_teachers(values)
        left = (self.total - step) * self.phase.batch_size / max(self._speed * self._share, 1e-9)
        self._progress.show(step, values["loss"], self._speed, left)

    def _mark(self, done: int) -> None:
        """Books the time since the last mark to the steps that were done in it."""
        seconds = self._lap()
        self._seconds += seconds
        if done > self._done and seconds > 0:
            self._speed = (done - self._done) * self.phase.batch_size / seconds
        self._done = done

    def _lap(self) -> float:
        """This run's share of the seconds since the last lap."""
        before, self._marked = self._marked, time.perf_counter()
        return self._share * (self._marked - before)

    def _tell_of_teachers(self, values: Mapping[str, float]) -> None:
        """Warns once of a frozen network that is right no more often than chance."""
        chance = 1 / self.recipe.data.classes
        for name in self._unasked:
            right = values[noted(name)]
            if right <= chance:
                self.say(f"{name} is right about {right:.2%} of what it is shown, and chance would "
                         f"be {chance:.2%}: is it trained, and on these classes?")
        self._unasked = ()

    def _require_finite(self, bad_step: int) -> None:
        if bad_step < 0:
            return
        path = files.place(self._workdir) / failures.BAD_STEP
        if jax.process_index() == 0:
            with contextlib.suppress(OSError):  # a full disk must not hide what follows
                facts = failures.facts_of_step(self.recipe, self.phase, bad_step)
                folder.write_json(path, facts)
        raise check.NumericsError(check.sentence(
            f"phase {self.phase.name!r}", "finite losses, gradients and BatchNorm statistics",
            f"NaN or infinity first at step {bad_step + 1}, whose images, key and knobs are in "
            f"{path}", "lower the learning rate or look at that batch; the last good checkpoint is "
            "untouched"))


def _is_ready(report: Any) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(report) if isinstance(leaf, jax.Array))
