"""Records of what was done, as JSON beside its results: written, read, compared."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from os.path import commonprefix
from pathlib import Path
from typing import Any

from wbc_batch.errors import RunError
from wbc_batch.files import write_file
from wbc_batch.paths import unread

__all__ = ["differences", "now", "parse_json", "parse_yaml", "peek_json", "read_json", "write_json"]

_EXCERPT = 200  # characters of a long text that a sentence quotes


def now() -> str:
    """Return the time of day in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, wholly or not at all."""
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_file(path, content.encode("utf-8", "backslashreplace"))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of unknown origin.

    Raises
    ------
    ValueError
        If it is none, or nested so deeply that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML of unknown origin.

    Raises
    ------
    yaml.YAMLError
        If it is none, nested so deeply that Python gives up, or has such as a date that there is not.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error


def read_json(path: Path, remedy: str) -> dict[str, Any] | None:
    """Read a record; None if there is none.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do where it is damaged.

    Raises
    ------
    RunError
        If it is damaged, or is no record. With the exit code 4, if it cannot be read.
    """
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unread(path, error) from error
    except ValueError as error:
        raise RunError(f"{path} is damaged; {remedy}") from error
    if not isinstance(record, dict):
        raise RunError(f"{path} is not a record of wbc-batch; {remedy}")
    return record


def peek_json(path: Path) -> dict[str, Any]:
    """Read a record for what it may say: nothing, where it is missing or damaged."""
    try:
        return read_json(path, "") or {}
    except RunError:
        return {}


def differences(old: object, new: Mapping[str, str]) -> list[str]:
    """Name each setting that differs from what an older record, if it is one, says.

    Of long texts, such as the names of many inputs, only where they begin to differ.
    """
    known = old if isinstance(old, Mapping) else {}
    pairs = [(name, known.get(name, "not recorded"), value) for name, value in new.items()]
    return [
        f"{name} was {_excerpt(was, value)!r} and is now {_excerpt(value, was)!r}"
        for name, was, value in pairs
        if was != value
    ]


def _excerpt(text: object, other: object) -> object:
    """Cut a long text to where it begins to differ from another one."""
    if not isinstance(text, str) or len(text) <= _EXCERPT:
        return text
    same = len(commonprefix([text, str(other)]))  # noqa: RUF071 - characters it is
    begin = max(same - _EXCERPT // 2, 0)
    end = begin + _EXCERPT
    return f"{'... ' if begin else ''}{text[begin:end]}{' ...' if text[end:] else ''}"
