"""From predictions to tables, the differential and a page to look at."""

from wbc_batch.report.agreement import Agreement, agreement, cohen_kappa
from wbc_batch.report.confusion import Confusion, confusion_of
from wbc_batch.report.differential import differential, read_differential
from wbc_batch.report.flags import Flag, group_flags
from wbc_batch.report.limits import clopper_pearson, confusion_limits
from wbc_batch.report.options import ReportOptions, read_options
from wbc_batch.report.ranges import Profile, Range, profile_names, read_profile
from wbc_batch.report.review import Review, after_review, merge_review, read_review
from wbc_batch.report.terminal import print_differential
from wbc_batch.report.write import write_reports

__all__ = [
    "Agreement",
    "Confusion",
    "Flag",
    "Profile",
    "Range",
    "ReportOptions",
    "Review",
    "after_review",
    "agreement",
    "clopper_pearson",
    "cohen_kappa",
    "confusion_limits",
    "confusion_of",
    "differential",
    "group_flags",
    "merge_review",
    "print_differential",
    "profile_names",
    "read_differential",
    "read_options",
    "read_profile",
    "read_review",
    "write_reports",
]
