"""Turns a published CIFAR archive into a data set that augjax and TFDS read.

python -m launch.prepare --source=cifar-10-python.tar.gz --data_dir=DIR

Takes the binary or the python version of CIFAR-10 and CIFAR-100, as .tar.gz or extracted, and
writes DIR/NAME/3.0.2 with lossless pixels. Exit codes: 0 done, 2 usage, 3 data.
"""

import sys

from absl import app, flags

from augjax import check
from augjax.data.prepare import prepare

_SOURCE = flags.DEFINE_string("source", None, "CIFAR archive (.tar.gz) or its extracted folder.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets to write into.")
_DATASET = flags.DEFINE_enum(
    "dataset", None, ("cifar10", "cifar100"), "Which one, where the source holds both."
)


def main(argv: list[str]) -> None:
    """Prepares, says where; a wrong call or archive ends with one sentence and its exit code."""
    try:
        check.require(
            len(argv) == 1, "arguments", "flags alone", argv[1:], "write --source=PATH"
        )
        for flag in (_SOURCE, _DATA_DIR):
            check.require(
                bool(flag.value), f"--{flag.name}", "a path", flag.value,
                "run `python -m launch.prepare --source=ARCHIVE --data_dir=DIR`",
            )
        print(f"ready: {prepare(_SOURCE.value, _DATA_DIR.value, _DATASET.value)}")
    except check.AugjaxError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"{error}\nTry --help.", file=sys.stderr)
        sys.exit(check.ConfigError.exit_code)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
