"""From a study's config to its rows, whose data may lie in another place than it says."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from augjax import check, recipe, study


def located(config: dict[str, Any], data_dir: str) -> dict[str, Any]:
    """The study's config, plain data, each row with its data in `data_dir` unless that is empty.

    Raises ConfigError for what is no study's.
    """
    if not data_dir:
        return config
    check.typed("rows", config["rows"], Mapping)
    for name, row in config["rows"].items():
        check.typed(f"rows.{name}", row, Mapping)
        check.typed(f"rows.{name}.data", row.get("data"), Mapping)
    return config | {"rows": {name: row | {"data": row["data"] | {"dir": data_dir}}
                              for name, row in config["rows"].items()}}


def parsed(config: dict[str, Any]) -> study.Study:
    """The study of a config. Raises ConfigError."""
    return study.parse(config, lambda row: tuple(recipe.expanded(ConfigDict(row))))
