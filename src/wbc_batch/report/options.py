"""What a user may choose of a report, read and checked before any work."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wbc_batch.errors import InputError, refuse_missing
from wbc_batch.names import composed
from wbc_batch.report.groups import AS_LISTED, Regrouping, read_grouping
from wbc_batch.report.lists import first_few
from wbc_batch.report.ranges import Profile, profile_from_record, read_profile
from wbc_batch.report.review import NO_REVIEW, Review, read_review
from wbc_batch.report.wbc_counts import read_wbc_counts
from wbc_batch.schema import DEFAULT_PROFILE

__all__ = ["ReportOptions", "read_options", "recorded_options"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportOptions:
    """What a user may choose of a report.

    Attributes
    ----------
    profile : Profile or None
        Reference ranges.
    wbc_counts : mapping of str to float or None
        White blood cells by group, 10^9 per litre.
    grouping : Regrouping
        How cells are grouped.
    review : Review or None
        A reviewer's labels.
    anndata : bool
        Write ``cells.h5ad``.
    counts_of_run : bool
        The white blood cell counts were given when the run was made, for the groups that it has.
    """

    profile: Profile | None = None
    wbc_counts: Mapping[str, float] | None = None
    grouping: Regrouping = AS_LISTED
    review: Review | None = None
    anndata: bool = False
    counts_of_run: bool = False

    def counts_of(self, groups: Sequence[str]) -> Mapping[str, float] | None:
        """Return the white blood cell counts, for groups that a report has come to.

        Those of the run are left out where its cells are grouped otherwise, and that is logged.

        Raises
        ------
        InputError
            As `refuse_strange_groups` does, if they were given for this report.
        """
        counts = self._counts_as_named(groups)
        if self.counts_of_run and not set(counts or ()) <= set(groups):
            _log.warning(
                "the white blood cell counts of the run are left out, because this report has other groups; "
                "give counts for its groups with --wbc-counts"
            )
            return None
        self.refuse_strange_groups(groups)
        return counts

    def refuse_strange_groups(self, groups: Sequence[str]) -> None:
        """Make sure that all white blood cell counts are of groups that there are.

        Raises
        ------
        InputError
            If not.
        """
        counts = self._counts_as_named(groups) or ()
        quoted = [repr(group) for group in counts if group not in groups]
        if quoted:
            raise InputError(
                f"white blood cell counts are given for groups that are not in this run: "
                f"{first_few(quoted)}; its groups are {first_few([*map(repr, groups)])}"
            )

    def _counts_as_named(self, groups: Sequence[str]) -> Mapping[str, float] | None:
        """Give the counts the names that the groups have, where these are the same but for `composed`."""
        if self.wbc_counts is None:
            return None
        names = {composed(group): group for group in groups} | {group: group for group in groups}
        return {
            names.get(group, names.get(composed(group), group)): count
            for group, count in self.wbc_counts.items()
        }

    def to_record(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps of the choices, for `recorded_options`."""
        return {
            "profile": self.profile and asdict(self.profile),
            "wbc_counts": self.wbc_counts and dict(self.wbc_counts),
        }


def read_options(
    profile: str | Path = DEFAULT_PROFILE,
    wbc_counts: str | Path | None = None,
    groups: str | None = None,
    review: str | Path | None = None,
    anndata: bool = False,
) -> ReportOptions:
    """Read the files that a user named for a report.

    Parameters
    ----------
    profile : str or Path
        See `wbc_batch.report.read_profile`.
    wbc_counts : str or Path, optional
        See `wbc_batch.report.wbc_counts.read_wbc_counts`.
    groups : str, optional
        See `wbc_batch.report.groups.read_grouping`.
    review : str or Path, optional
        See `wbc_batch.report.read_review`; ``none`` is none.
    anndata : bool
        Write ``cells.h5ad``, which needs the extra ``anndata``.

    Returns
    -------
    ReportOptions

    Raises
    ------
    InputError
        If one of them cannot be used.
    """
    if anndata:
        refuse_missing("anndata", "anndata")
    return ReportOptions(
        profile=read_profile(profile),
        wbc_counts=None if wbc_counts is None else read_wbc_counts(Path(wbc_counts)),
        grouping=read_grouping(groups),
        review=None if review in (None, NO_REVIEW) else read_review(Path(review)),
        anndata=anndata,
    )


def recorded_options(record: Any) -> ReportOptions:
    """Read what `ReportOptions.to_record` returned; without such a record, the default choices."""
    if not isinstance(record, Mapping):
        return read_options()
    try:
        profile = profile_from_record(record.get("profile"))
    except (TypeError, KeyError, AttributeError):
        profile = None
    counts = record.get("wbc_counts")
    return ReportOptions(profile, dict(counts) if isinstance(counts, Mapping) else None)
