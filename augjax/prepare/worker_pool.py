"""A few processes that work through a list of jobs, and end when their parent does.

A pool of `concurrent.futures` outlives a killed parent; these processes read their jobs from a
pipe that breaks with it, and look for it at every tick.
"""

from collections.abc import Callable, Iterator, Sequence
import multiprocessing
from multiprocessing import connection
import os
import signal
from typing import Any, NamedTuple

from augjax import check

_POLL_SECONDS = 0.2
Work = Callable[[Any, Callable[[], None]], Any]


class _Refused(NamedTuple):
    """What the operating system said to a worker."""

    message: str


def each(
    work: Work, jobs: Sequence[Any], workers: int, progress: Callable[[int], None]
) -> Iterator[Any]:
    """Yields work(job, tick) of every job as it is done, `workers` at a time, in any order.

    `work` is a function of a module and calls tick() at every step; progress(n) is told of n new
    ones. One worker is this process. Raises OSError where the system refused a worker something
    (array_record's RuntimeErrors among it), DataError where a worker died.
    """
    if workers == 1:
        for job in jobs:
            yield work(job, lambda: progress(1))
    else:
        yield from _in_processes(work, jobs, min(workers, len(jobs)), progress)


def _in_processes(work, jobs, workers, progress):
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads' locks
    ticks = context.RawArray("q", max(workers, 1))  # one each: a lock could be left taken
    processes, waiting, seen = {}, iter(jobs), 0
    try:
        for rank in range(workers):
            ours, theirs = context.Pipe()
            arguments = (theirs, ticks, rank, work, os.getpid())
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that ours breaks when the process ends
            processes[ours] = process
            ours.send(next(waiting))
        busy = set(processes)
        while busy:
            ready = connection.wait(busy, _POLL_SECONDS)
            now = sum(ticks)
            progress(now - seen)
            seen = now
            for pipe in ready:
                yield _reply(pipe, processes[pipe])
                job = next(waiting, None)
                if job is None:
                    busy.remove(pipe)
                else:
                    pipe.send(job)
        progress(sum(ticks) - seen)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _reply(pipe: connection.Connection, process) -> Any:
    try:
        reply = pipe.recv()
    except (EOFError, ConnectionError) as error:
        process.join()
        raise check.DataError(check.sentence(
            "--workers", "processes that live to the end",
            f"one that ended with {process.exitcode} (its last words are above, if it had any)",
            "run the same command again to go on, with fewer workers if memory ran out",
        )) from error
    if isinstance(reply, _Refused):
        raise OSError(reply.message)
    return reply


def _serve(pipe: connection.Connection, ticks, rank: int, work: Work, parent: int) -> None:
    """What a worker does: jobs in, replies out, until the pipe breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def tick() -> None:
        ticks[rank] += 1
        if os.getppid() != parent:
            os._exit(1)

    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            reply = work(job, tick)
        except (OSError, RuntimeError) as error:
            reply = _Refused(str(error))
        pipe.send(reply)
