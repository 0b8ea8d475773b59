"""From the device's reports to rows: read one row late, so that the device never waits for us."""

from collections.abc import Mapping
import contextlib
import math
from pathlib import Path
import time
from typing import Any

import jax

from augjax import check
from augjax.method import noted
from augjax.train import failures, files, folder
from augjax.train.metrics import Log, Progress
from augjax.train.phases import Phase, Recipe


class Reporter:
    """Collects the reports of one phase, writes its rows, and watches for numbers gone bad."""

    def __init__(self, recipe: Recipe, phase: Phase, workdir: Path, step: int,
                 share: float = 1.0, title: str | None = None):
        """`share` of the time is this run's, as of a population; `title` "" is not shown at all."""
        self.recipe, self.phase, self.total = recipe, phase, recipe.steps(phase)
        before = recipe.phases[: recipe.number(phase)]
        self.steps_before = sum(recipe.steps(other) for other in before)
        self._workdir, quiet = workdir, jax.process_index() > 0
        self._log, self._share = Log(workdir, phase.name, step, quiet), share
        title = phase.name if title is None else title
        self._progress = Progress(title, self.total, quiet or not title)
        self._pending: tuple[int, Any, int] | None = None  # a row of the log that is not read yet
        self._bad_images = 0  # of the host's feed, since the last row
        self._unasked = tuple(phase.frozen)  # teachers that nobody has looked at yet
        self._latest: tuple[int, Any] = (step, None)
        self._row_step, self._row_time = step, time.perf_counter()

    def pend(self, step: int, report: Mapping[str, Any]) -> None:
        """Takes the report of a step; where a row is due, writes the row before it."""
        self._latest = step, report
        if step % self.recipe.log_every == 0 or step == self.total:
            self._write_pending()
            self._pending, self._bad_images = (step, report, self._bad_images), 0

    def bad_image(self, sentence: str) -> None:
        """Says and counts an image that could not be read."""
        self._bad_images += 1
        self.say(sentence)

    def drain(self) -> None:
        """Writes what is pending and makes sure that the latest step is sound.

        Raises NumericsError that names the first step whose loss or gradient was not finite.
        """
        self._write_pending()
        step, report = self._latest
        if report is not None:
            self._require_finite(int(report["bad_step"]))

    def flush(self) -> None:
        """Returns when every row is on the disk; OSError where it is full."""
        self._log.flush()

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the evaluation row of a step, and keeps its time out of the training speed.

        Raises NumericsError, and writes nothing, where a number is not finite: what was trained
        may still be, as BatchNorm's running statistics and the average are seen here alone.
        """
        bad = sorted(name for name, value in values.items() if not math.isfinite(value))
        check.require(
            not bad, f"phase {self.phase.name!r}",
            f"finite numbers in the evaluation of step {step}",
            f"NaN or infinity in {', '.join(bad)}",
            "look at BatchNorm's running statistics and at the moving average, which may have gone "
            "bad before the loss; saves of that time hold them too", check.NumericsError)
        now = time.perf_counter()
        seconds = self._share * (now - self._row_time)
        self._log.row("eval", step, {**values, "seconds": round(seconds, 4)})
        self._row_time = now
        self.say(f"{step}/{self.total}  test accuracy {values['accuracy']:.2%}")

    def say(self, text: str) -> None:
        self._progress.say(text)

    def close(self) -> None:
        self._log.close()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        (step, report, bad_images), self._pending = self._pending, None
        report = jax.device_get(report)
        self._require_finite(int(report["bad_step"]))
        now = time.perf_counter()
        seconds = self._share * (now - self._row_time)
        images = (step - self._row_step) * self.phase.batch_size
        speed = images / seconds if seconds > 0 else 0.0
        values = {name: float(value) for name, value in report["metrics"].items()}
        if bad_images:
            values["data_bad"] = bad_images
        epoch = step / self.recipe.steps_per_epoch(self.phase)
        self._log.row("train", step, {
            "epoch": round(epoch, 6), **values,
            "seconds": round(seconds, 4), "images_per_s": round(speed, 1),
        })
        self._tell_of_teachers(values)
        left = (self.total - step) * seconds / self._share / max(step - self._row_step, 1)
        self._progress.show(step, values["loss"], speed, left)
        self._row_step, self._row_time = step, now

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
            f"phase {self.phase.name!r}", "finite losses and gradients",
            f"NaN or infinity first at step {bad_step + 1}, whose images, key and knobs are in "
            f"{path}", "lower the learning rate or look at that batch; the last good checkpoint is "
            "untouched"))
