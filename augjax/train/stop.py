"""SIGTERM and Ctrl-C as a wish to stop at the next safe point, wherever the run is.

One process stops between two steps, between two batches of an evaluation, and in a compilation.
Several stop together and therefore between two steps alone: a wish that comes while they load,
compile, save or evaluate waits for the end of that, and for the step after it.
"""

from collections.abc import Callable, Iterator
import contextlib
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from augjax import check


class Stop:
    """Whether somebody asked this run to stop: of several processes, only `due` knows."""

    def __init__(self):
        self.asked = False

    def due(self, step: int) -> bool:
        """True when all processes agree to stop after this step."""
        if jax.process_count() > 1:  # JAX's own notifier has taken SIGTERM over
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def check(self) -> None:
        """Raises Preempted in the middle of work that can be done again."""
        if self.asked:
            raise check.Preempted("asked to stop")

    def while_waiting(self, work: Callable[[], Any]) -> Any:
        """Runs `work` (a compilation, which cannot be interrupted) so that a stop need not wait."""
        result: dict[str, Any] = {}

        def run():
            try:
                result["value"] = work()
            except BaseException as error:  # noqa: BLE001 raised again below
                result["error"] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(timeout=0.05)
            self.check()
        if "error" in result:
            raise result["error"]
        return result["value"]


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """A Stop that SIGTERM and SIGINT set; a second SIGINT interrupts at once.

    Of several processes JAX listens to SIGTERM and tells all of them when one is asked; here a
    SIGINT becomes a SIGTERM, and a second one ends this process alone, whatever it waits for.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    def pass_on(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    handlers = ({signal.SIGINT: pass_on} if jax.process_count() > 1 else
                {signal.SIGTERM: ask, signal.SIGINT: ask})
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
