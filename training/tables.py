"""TOML tables as frozen dataclasses: a key that nobody knows, or a value of the wrong type, is one clear line.

layout = from_table(Layout, {"rows": 4}, "tiny.toml: layout")
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mmcore.errors import MMCoreError

Record = TypeVar("Record")


def from_table(kind: type[Record], table: dict[str, Any], where: str) -> Record:
    """A dataclass from a TOML table, checked.

    Args:
        kind: the dataclass; its fields say what the table may hold.
        table: as `tomllib` reads it.
        where: what an error begins with: the file, and the table in it.
    Raises:
        MMCoreError: an unknown key, or a value of the wrong type.
    """
    types = get_type_hints(kind)
    for key in table:
        if key not in types:
            raise MMCoreError(f"{where}: unknown key {key!r}; known are: {', '.join(types)}")
    return kind(**{key: _value(types[key], value, f"{where}: {key}") for key, value in table.items()})


def _value(wanted: Any, value: Any, where: str) -> Any:
    """A value of a table as the type that is wanted."""
    inner = get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            path, _, key = where.rpartition(": ")
            raise MMCoreError(f"{path}: {key!r} is a table, got {value!r}")
        return from_table(wanted, value, where)  # type: ignore[arg-type]
    if wanted is float and type(value) in (int, float):
        return float(value)
    if get_origin(wanted) is tuple and isinstance(value, list):
        kinds = (inner[0],) * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if get_origin(wanted) is dict and isinstance(value, dict):
        return {key: _value(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    raise MMCoreError(f"{where} must be {wanted.__name__ if isinstance(wanted, type) else wanted}, got {value!r}")
