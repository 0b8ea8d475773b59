"""What every command shares: exit codes, config files, the compile cache, many processes,
deterministic GPUs, places to write to."""

from collections.abc import Callable
import importlib.machinery
import importlib.util
import os
from pathlib import Path
import re
import sys
import tempfile
import traceback
from types import ModuleType
from typing import Any

from absl import app, flags, logging
import jax
from jax.sharding import AbstractMesh
from ml_collections import config_flags, ConfigDict

from augjax import check

CACHE = Path(os.environ.get("AUGJAX_CACHE", Path.home() / ".cache/augjax"))
ONE_DEVICE = AbstractMesh((1, 1), ("population", "data"))  # to check recipes by; touches none
DUMP = re.compile(r' Other fields present: ".*"(?=\n|$)', re.DOTALL)  # ConfigDict's, of all values


def run(main: Callable[..., None], positionals: tuple[str, ...] = ()) -> None:
    """Parses flags, runs `main` on the positionals, leaves with the codes of DESIGN section 5."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells a lot of every save
    try:
        app.run(lambda arguments: main(*arguments[1:]),
                flags_parser=lambda arguments: _parse(arguments, positionals))
    except check.AugjaxError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        leave(error.exit_code)


def leave(code: int) -> None:
    """Ends the process at once: a compilation under way in a thread would otherwise hold it."""
    sys.stdout.flush()
    sys.stderr.flush()
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
    return found or check.ConfigError(f"{_message(error)} (see --help)")


def _message(error: BaseException) -> str:
    """The innermost complaint on one line; ConfigDict wraps a KeyError in an AttributeError."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error) if len(error.args) != 1 else str(error.args[0])
    return " ".join(DUMP.sub("", text).split())


# --- config files --------------------------------------------------------------------------------


def config_flag(name: str, default: str | None, help: str, **options: Any) -> flags.FlagHolder:
    """A flag that names a config file, whose fields --NAME.a.b=c overrides."""
    holder = config_flags.DEFINE_config_file(name, default, help, **options)
    flags.FLAGS[name].parser = ConfigFile(name)
    return holder


class ConfigFile(flags.ArgumentParser):
    """Reads PATH[:WORDS]; ml_collections' own would tell of a wrong one where it is first used."""

    def __init__(self, name: str):
        self.name = name

    def parse(self, argument: str) -> ConfigDict:
        """What get_config makes, locked. Raises ConfigError where it, or an override, is wrong."""
        file, given, words = argument.partition(":")
        check.require(Path(file).is_file(), f"--{self.name}", "a config file", repr(file),
                      "name one, such as configs/quickstart.py")
        try:
            config = _module(file).get_config(*[words] * bool(given))
        except check.AugjaxError:
            raise
        except (Exception, SystemExit) as error:
            lines = [f" in its line {frame.lineno}" for frame in traceback.extract_tb(
                error.__traceback__) if frame.filename == file]
            raise check.ConfigError(check.sentence(
                f"--{self.name}={argument}", "a file whose get_config works",
                f"{type(error).__name__}: {_message(error)}{''.join(lines[-1:])}", "correct it",
            )) from error
        check.require(isinstance(config, ConfigDict), f"get_config of {file}", "a ConfigDict",
                      type(config).__name__, "return what defaults.config or defaults.study makes")
        for flag in flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False):
            if override := re.match(rf"--?(?:no)?{self.name}\.([^=]+)", flag):
                _require_field(f"--{self.name}", config, override[1])
        return config.lock()


def require_kind(config: ConfigDict, command: str) -> None:
    """Raises ConfigError where a config is another command's: train, search or study."""
    whole = "phases" in config  # "rows" may be the name of a phase
    kind = "search" if "search" in config else "train" if whole or "rows" not in config else "study"
    check.require(kind == command, "--config", f"one for launch.{command}",
                  f"one for launch.{kind}", f"give it to launch.{kind}")


def _module(file: str) -> ModuleType:
    """A config file, run."""
    loader = importlib.machinery.SourceFileLoader("config_file", file)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def _require_field(where: str, config: ConfigDict, path: str) -> None:
    """Raises ConfigError, with the nearest names, for an override of what the config has not."""
    block, told = config, ""
    for name in path.split("."):
        name = name.partition("[")[0]
        if not isinstance(block, ConfigDict):
            return  # what is inside of a list or a number is ml_collections' to refuse
        if name not in block:
            check.require(len(block) > 0, where, "a block that has fields", f"none, so no {name!r}",
                          told)
            try:
                check.one_of(f"field of {where}", name, block)
            except check.ConfigError as error:
                raise check.ConfigError(f"{error} {told}".strip()) from None
        block, where = block[name], f"{where}.{name}"
        told = ("What the config does not write is set in its file, or with the whole block: "
                f"{where}='{{...}}'.")


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
