"""Reference ranges as named, editable profiles."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from wbc_batch.errors import InputError, in_a_line
from wbc_batch.records import parse_yaml
from wbc_batch.schema import CLASSES

__all__ = [
    "NO_PROFILE",
    "Profile",
    "Range",
    "profile_from_record",
    "profile_names",
    "read_profile",
]

#: The name that stands for no reference ranges at all.
NO_PROFILE = "none"

_KEYS = ("title", "source", "percent", "absolute")


@dataclass(frozen=True, slots=True)
class Range:
    """Lower and upper end of a reference range; None stands for no limit."""

    lower: float | None
    upper: float | None

    def __str__(self) -> str:
        if self.lower is None:
            return f"up to {self.upper:g}"
        return (
            f"{self.lower:g}–{self.upper:g}" if self.upper is not None else f"from {self.lower:g}"
        )

    def side(self, lower: float, upper: float) -> str:
        """Say where an interval lies: ``below``, ``above``, or empty if any of it lies within."""
        if self.lower is not None and upper < self.lower:
            return "below"
        return "above" if self.upper is not None and lower > self.upper else ""


@dataclass(frozen=True)
class Profile:
    """Reference ranges of a population.

    Attributes
    ----------
    name : str
        Of the bundled profile, or of the file.
    title : str
        Whom it describes.
    source : str
        Where it was published.
    percent : dict of str to Range
        By class, 0..100; a class may be missing.
    absolute : dict of str to Range
        By class, 10^9 cells per litre.
    """

    name: str
    title: str
    source: str
    percent: dict[str, Range]
    absolute: dict[str, Range]


def profile_names() -> list[str]:
    """Names of the bundled profiles."""
    return sorted(path.name.removesuffix(".yaml") for path in _bundled() if _is_profile(path.name))


def read_profile(profile: str | Path) -> Profile | None:
    """Read a profile.

    Parameters
    ----------
    profile : str or Path
        The name of a bundled profile, the path of a YAML file of the same form, or ``none``.

    Returns
    -------
    Profile or None
        None for ``none``.

    Raises
    ------
    InputError
        If there is no such profile, or the file is not of that form.
    """
    import yaml

    if str(profile) == NO_PROFILE:
        return None
    try:
        text = _text(profile)
        content = parse_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"the profile {profile} cannot be read: {in_a_line(error, 500)}"
        ) from error
    try:
        return _profile(Path(profile).stem, content)
    except ValueError as error:
        raise InputError(f"the profile {profile} cannot be used: {error}") from error


def profile_from_record(record: Any) -> Profile | None:
    """Read a profile back that `dataclasses.asdict` made plain; None if there is none."""
    if not record:
        return None
    ranges = {
        kind: {label: Range(**ends) for label, ends in record[kind].items()}
        for kind in ("percent", "absolute")
    }
    return Profile(**{**record, **ranges})


def _text(profile: str | Path) -> str:
    for path in _bundled():
        if path.name == f"{profile}.yaml":
            return path.read_text(encoding="utf-8")
    if not Path(profile).is_file():
        raise InputError(
            f"there is no profile {str(profile)!r}; give a YAML file, or one of: "
            f"{', '.join((*profile_names(), NO_PROFILE))}"
        )
    return Path(profile).read_text(encoding="utf-8")


def _bundled() -> list[Any]:
    return list(files("wbc_batch.report.profiles").iterdir())


def _is_profile(name: str) -> bool:
    return name.endswith(".yaml")


def _profile(name: str, content: Any) -> Profile:
    if not isinstance(content, Mapping):
        raise ValueError(f"it must hold {', '.join(_KEYS)}")
    strange = [str(key) for key in content if key not in _KEYS]
    if strange:
        raise ValueError(f"it has the key {strange[0]!r}, which is not one of {', '.join(_KEYS)}")
    if not content.get("percent"):
        raise ValueError("it has no ranges under 'percent'")
    return Profile(
        name=name,
        title=str(content.get("title") or name),
        source=" ".join(str(content.get("source") or "").split()),
        percent=_ranges(content["percent"], "percent", 100.0),
        absolute=_ranges(content.get("absolute") or {}, "absolute", math.inf),
    )


def _ranges(content: Any, kind: str, most: float) -> dict[str, Range]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{kind!r} must give a lower and an upper limit for each class")
    ranges = {}
    for label, ends in content.items():
        if label not in CLASSES:
            raise ValueError(f"{kind!r} lists {label!r}, which is not one of {', '.join(CLASSES)}")
        ranges[label] = _range(ends, f"{kind!r} of {label}", most)
    return ranges


def _range(ends: Any, what: str, most: float) -> Range:
    numbers = isinstance(ends, list) and all(
        end is None or (isinstance(end, int | float) and not isinstance(end, bool)) for end in ends
    )
    if not numbers or len(ends) != 2 or ends == [None, None]:
        raise ValueError(f"{what} must be two numbers, as [lower, upper], with ~ for no limit")
    lower, upper = (None if end is None else float(end) for end in ends)
    low, high = (0.0 if lower is None else lower), (most if upper is None else upper)
    if not 0.0 <= low < high <= most:
        raise ValueError(f"{what} is not a valid range: {ends}")
    return Range(lower, upper)
