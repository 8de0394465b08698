"""Configuration: one TOML file plus overrides, checked key by key against pydantic models.

Every value carries its unit and its source, so that `hil config show` can print where a number comes from.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from hil.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the same module under its old name
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


class Settings(BaseModel):
    """Base of all settings: frozen; unknown keys, infinity and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SettingsT = TypeVar("SettingsT", bound=Settings)


def setting(default: Any, text: str, *, unit: str = "", source: str, **constraints: Any) -> Any:
    """Declare one setting.

    Args:
        default: value used when nothing else is said.
        text: what it is.
        unit: SI unit; "" for a number without one.
        source: where the default comes from; a guess says that it is one.
        constraints: `ge`, `gt`, `le`, `lt` as in `pydantic.Field`.
    """
    return Field(default, description=text, json_schema_extra={"unit": unit, "source": source}, **constraints)


class Row(NamedTuple):
    """One setting as shown to a person."""

    key: str
    value: Any
    unit: str
    text: str
    source: str


def rows(settings: Settings, prefix: str = "") -> Iterator[Row]:
    """All settings of a tree, in declaration order."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        key = f"{prefix}{name}"
        if isinstance(value, Settings):
            yield from rows(value, f"{key}.")
            continue
        extra = field.json_schema_extra
        note: dict[str, Any] = extra if isinstance(extra, dict) else {}
        yield Row(key, value, str(note.get("unit", "")), field.description or "", str(note.get("source", "")))


def load(model: type[SettingsT], file: Path | None = None, overrides: Sequence[str] = ()) -> SettingsT:
    """Build settings from defaults, then a TOML file, then `key.sub=value` overrides.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, a value is of the wrong type or out of range.
    """
    tree: dict[str, Any] = _read_toml(file) if file is not None else {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {text!r} is not of the form key=value", fix="write --set section.key=value")
        _put(tree, key.strip().split("."), _parse(value.strip()), text)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _explain(model, error.errors()[0], file) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"configuration file {file} cannot be read: {error.strerror}", fix="give the path of a TOML file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {file} is not TOML: {error}", fix="correct it at that place") from None


def _parse(value: str) -> Any:
    """Read a value as TOML would; what is not TOML is taken as a bare string, so that quotes may be left out."""
    try:
        return tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return value


def _put(tree: dict[str, Any], path: list[str], value: Any, text: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"override {text!r} goes below {part!r}, which is a value", fix="name an existing key")
    tree[path[-1]] = value


def _explain(model: type[Settings], error: ErrorDetails, file: Path | None) -> ConfigError:
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    where = f" (from {file} or --set)" if file is not None else ""
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, place[:-1])
        close = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {'.'.join([*place[:-1], close[0]])!r}?" if close else f"known keys: {', '.join(known)}"
        return ConfigError(f"unknown configuration key {key!r}{where}", fix=hint)
    message = error["msg"][0].lower() + error["msg"][1:]
    return ConfigError(
        f"configuration key {key!r} = {error['input']!r}{where}: {message}",
        fix="see `hil config show` for the value, unit and source of each key",
    )


def _keys_at(model: type[Settings], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings)):
            return []
        model = field.annotation
    return list(model.model_fields)
