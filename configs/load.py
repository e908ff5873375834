"""Read one TOML file into one frozen table, or say in a sentence why not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from configs.errors import ConfigError
from configs.run import FORMAT, Plan, Table

T = TypeVar("T", bound=Table)


def load(path: Path, table: type[T]) -> T:
    """Read `path` as `table`.

    Raises:
        ConfigError: the file is missing, is not TOML, was written by a newer version, or has an
            unknown key, a wrong type or a value out of range. Names the key, never the value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read as UTF-8 text; check the file") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"{path} is not valid TOML: {_where(fault)}; correct that line") from None
    return check(values, table, str(path))


def check(values: dict[str, Any], table: type[T], where: str) -> T:
    """Validate `values` as `table`; `where` is named in the error.

    Raises:
        ConfigError: see `load`.
    """
    written = values.get("format")
    if isinstance(written, bool):  # which Python counts among the whole numbers
        raise ConfigError(f"{where}: key 'format': expected a whole number; correct the value")
    if isinstance(written, int) and written > FORMAT:
        raise ConfigError(
            f"{where} has format {written} and was written by a newer version; this version reads "
            f"format {FORMAT}: install the newer privity"
        )
    try:
        return table.model_validate(values)
    except ValidationError as fault:
        raise ConfigError(f"{where}: {_explain(fault)}") from None


def read_plan(document: bytes) -> Plan:
    """Read a plan from JSON bytes, as sent or stored.

    Raises:
        ConfigError: the bytes are not a plan of this version.
    """
    try:
        values = json.loads(document)
    except ValueError:
        raise ConfigError("the plan is not JSON; ask the coordinator to send it again") from None
    if not isinstance(values, dict):
        raise ConfigError("the plan is not a JSON object; ask the coordinator to send it again")
    return check(values, Plan, "the plan")


def _where(fault: tomllib.TOMLDecodeError) -> str:
    found = str(fault)
    start = found.rfind("(at ")
    return found[start + 1 : -1] if start >= 0 else "the text ends too early"


def _explain(fault: ValidationError) -> str:
    first = fault.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    more = fault.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{tail}; remove it or correct its spelling"
    if first["type"] == "missing":
        return f"key '{key}' is missing{tail}; add it"
    if not key:  # a rule over several keys, whose own sentence says what to do
        return first["msg"].removeprefix("Value error, ")
    said = first["msg"].removeprefix("Value error, ")
    return f"key '{key}': {said[0].lower()}{said[1:]}{tail}; correct the value"
