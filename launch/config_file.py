"""A flag that names a config file and whose fields are flags, too; every mistake is a sentence."""

from collections.abc import Iterator
import importlib.machinery
import importlib.util
from pathlib import Path
import re
import sys
import traceback
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_flags, ConfigDict

from augjax import check

flags.disclaim_key_flags()  # they are the commands', so that --help has them
DUMP = re.compile(r' Other fields present: ".*"(?=\n|$)', re.DOTALL)  # ConfigDict's, of all values
MOST = 3  # blocks that are named, of those that have a field


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
    block, told, names = config, "", path.split(".")
    for place, name in enumerate(names):
        name = name.partition("[")[0]
        if not isinstance(block, ConfigDict):
            return  # what is inside of a list or a number is ml_collections' to refuse
        if name not in block:
            _refuse_field(where, block, names[place:], told)
        block, where = block[name], f"{where}.{name}"
        told = "" if _stays(block) else (
            "What the config does not write is set in its file, or with the whole block: "
            f"{where}='{{...}}'.")


def _refuse_field(where: str, block: ConfigDict, names: list[str], told: str) -> None:
    """Raises ConfigError: the block has no such field, though perhaps a block inside of it has."""
    name = names[0].partition("[")[0]
    check.require(len(block) > 0, where, "a block that has fields", f"none, so no {name!r}", told)
    inside = sorted(_blocks_with(name, block), key=lambda inner: (len(inner), inner))[:MOST]
    written = " or ".join(".".join([where, *inner, *names]) for inner in inside)
    check.require(not inside, f"field of {where}", f"one of {', '.join(map(repr, sorted(block)))}",
                  repr(name), f"write {written}")
    try:
        check.one_of(f"field of {where}", name, block)
    except check.ConfigError as error:
        raise check.ConfigError(f"{error} {told}".strip()) from None


def _blocks_with(name: str, block: ConfigDict) -> Iterator[tuple[str, ...]]:
    """Where inside of a block one has such a field."""
    for inner, value in block.items():
        if isinstance(value, ConfigDict):
            if name in value:
                yield (inner,)
            yield from ((inner, *deeper) for deeper in _blocks_with(name, value))


def _stays(block: Any) -> bool:
    """Whether it is a phase, a row or all rows: to write one anew as a whole helps nobody."""
    return isinstance(block, ConfigDict) and any(
        "terms" in part or "phases" in part
        for part in (block, *block.values()) if isinstance(part, ConfigDict))


def refused(error: BaseException) -> str:
    """What absl or ml_collections does not take, in a sentence."""
    text, known = message(error), flags.FLAGS
    flag = re.match(r"flag --(.+?)=", text)
    if isinstance(error, flags.IllegalFlagValueError) and flag and flag[1] in known:
        complaint = message(error.__context__ or error)
        got = text[flag.end():].removesuffix(f": {complaint}")
        if (wanted := _wanted(flag[1], complaint))[0]:
            return check.sentence(f"--{flag[1]}", wanted[0], repr(got), wanted[1])
    config = next((name for name in known if isinstance(known[name].parser, ConfigFile)), None)
    if isinstance(error, flags.UnrecognizedFlagError) and config:
        text += "" if text.endswith("?") else "."
        text += (f" Its config file, --{config}=FILE, comes before it"
                 if error.flagname.startswith(f"{config}.") else
                 f" Fields of a config are --{config}.PHASE.FIELD, --{config}.data.dir and so on, "
                 "see augjax/defaults.py")
    return f"{text} (see --help)"


def _wanted(name: str, complaint: str) -> tuple[str, str]:
    """What a flag takes and how it is set; nothing where the complaint has to say it."""
    if "as a ConfigDict" in complaint:
        return ("""a block as Python writes it, such as '{"kind": "linear"}'""",
                f"quote the block, or set its fields one by one: --{name}.FIELD=VALUE")
    parser = flags.FLAGS[name].parser
    if isinstance(parser, flags.BooleanParser):
        return check.WORDS[bool], "write one of them"
    number = parser.syntactic_help.replace("an integer", "a whole number")
    return number.replace("integer", "whole number"), "correct it or leave it out"


def message(error: BaseException) -> str:
    """The innermost complaint on one line; ConfigDict wraps a KeyError in an AttributeError."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error) if len(error.args) != 1 else str(error.args[0])
    return " ".join(DUMP.sub("", text).split())
