"""From predictions to tables, the differential and a page to look at."""

from wbc_batch.report.agreement import agreement
from wbc_batch.report.confusion import confusion_of
from wbc_batch.report.differential import differential, read_differential
from wbc_batch.report.flags import Flag, group_flags
from wbc_batch.report.options import ReportOptions, read_options
from wbc_batch.report.ranges import Profile, Range, profile_names, read_profile
from wbc_batch.report.review import merge_review, read_review
from wbc_batch.report.terminal import print_differential
from wbc_batch.report.write import write_reports

__all__ = [
    "Flag",
    "Profile",
    "Range",
    "ReportOptions",
    "agreement",
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
