"""A flag that names a config file and whose fields are flags, too; every mistake is a sentence."""

import importlib.machinery
import importlib.util
from pathlib import Path
import re
import sys
import traceback
from types import ModuleType

from absl import flags
from ml_collections import config_flags, ConfigDict

from augjax import check

flags.disclaim_key_flags()  # they are the commands', so that --help has them
DUMP = re.compile(r' Other fields present: ".*"(?=\n|$)', re.DOTALL)  # ConfigDict's, of all values


def flag(name: str, help: str) -> flags.FlagHolder:
    """A flag that names a config file, whose fields --NAME.a.b=c overrides."""
    holder = config_flags.DEFINE_config_file(name, None, help, flags.FLAGS)
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
                f"{type(error).__name__}: {message(error)}{''.join(lines[-1:])}", "correct it",
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


def message(error: BaseException) -> str:
    """The innermost complaint on one line; ConfigDict wraps a KeyError in an AttributeError."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error) if len(error.args) != 1 else str(error.args[0])
    return " ".join(DUMP.sub("", text).split())
