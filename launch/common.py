"""What every command shares: exit codes, the compile cache, many processes, deterministic GPUs,
places to write to."""

from collections.abc import Callable
import contextlib
import os
from pathlib import Path
import re
import sys
import tempfile

from absl import app, flags, logging
import jax
from jax.sharding import AbstractMesh

from augjax import check
from launch import config_file

CACHE = Path(os.environ.get("AUGJAX_CACHE", Path.home() / ".cache/augjax"))
ONE_DEVICE = AbstractMesh((1, 1), ("population", "data"))  # to check recipes by; touches none


def run(main: Callable[..., None], positionals: tuple[str, ...] = ()) -> None:
    """Parses flags, runs `main` on the positionals, leaves with the codes of DESIGN section 5."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells a lot of every save
    try:
        app.run(lambda arguments: main(*arguments[1:]),
                flags_parser=lambda arguments: _parse(arguments, positionals))
    except check.AugjaxError as error:
        on = ". The same command goes on." if isinstance(error, check.Preempted) else ""
        check.tell(f"\n{type(error).__name__}: {error}{on}")
        leave(error.exit_code)


def leave(code: int) -> None:
    """Ends the process at once: a compilation under way in a thread would otherwise hold it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def _parse(arguments: list[str], positionals: tuple[str, ...]) -> list[str]:
    """Flags, absl's and ConfigDict's complaints included, as usage errors."""
    try:
        rest = flags.FLAGS(arguments)
    except SystemExit:  # --help, after which absl leaves with 1
        raise SystemExit(0) from None
    except (check.AugjaxError, flags.Error, AttributeError, KeyError, TypeError, ValueError,
            OSError) as error:
        raise _refusal(error) from None
    check.require(len(rest) == 1 + len(positionals), "command line",
                  " ".join(("--name=value flags", *positionals)), rest[1:] or "flags alone",
                  "see --help")
    return rest


def _refusal(error: BaseException) -> check.AugjaxError:
    """The sentence that absl wrapped, as it does with every ValueError; else one is made."""
    found: BaseException | None = error
    while found and not isinstance(found, check.AugjaxError):
        found = found.__cause__ or found.__context__
    return found or check.ConfigError(config_file.refused(error))


def cache_compilations() -> None:
    """Keeps every compiled program in the user's cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(CACHE / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def repeat_exactly() -> None:
    """XLA's deterministic kernels on GPUs; must come before the first use of a device."""
    wanted = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {wanted}".strip()


def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Makes this process one of many: by flags, or as found on a TPU pod or under SLURM."""
    if coordinator:
        check.require(processes > 1 and 0 <= process < processes, "--coordinator",
                      "--num_processes above 1 and --process_id below it",
                      f"{processes} and {process}", "give all three flags")
        address = re.fullmatch(r"(?:\[[^\]]+\]|[^:]+):(\d{1,5})", coordinator)
        check.require(bool(address) and 0 < int(address[1]) < 65536, "--coordinator",
                      "HOST:PORT, the port a number from 1 to 65535", repr(coordinator),
                      "name a free port of process 0, such as HOST:29517, to all processes")
        check.tell(f"augjax: waiting for {processes} processes at {coordinator}")
        return jax.distributed.initialize(coordinator, processes, process)
    check.require((processes, process) == (1, 0), "--num_processes and --process_id",
                  "--coordinator beside them", "none",
                  "give all three flags; on a TPU pod and under SLURM none of them")
    if _under_slurm() or _on_pod():
        jax.distributed.initialize()


def writable(path: Path, what: str) -> Path:
    """The path of a file to be written; raises ConfigError, naming `what` wants it, where that
    could not be. Makes nothing."""
    try:
        there = next(folder for folder in path.absolute().parents if folder.exists())
        check.require(not path.is_dir(), what, "a file", f"the folder {path}", "name a file in it")
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise check.ConfigError(check.sentence(
            what, f"a place that can be written to, {path}", error, "choose another")) from error
    return path


def _under_slurm() -> bool:
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ


def _on_pod() -> bool:
    """By tpu_pod.sh, which knows; on GKE by its list of hosts. JAX finds out who the others are."""
    return "AUGJAX_POD" in os.environ or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
