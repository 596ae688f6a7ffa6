"""From predictions to tables, the differential and a page to look at."""

from wbc_batch.report.differential import (
    clopper_pearson,
    differential,
    read_differential,
)
from wbc_batch.report.terminal import print_differential
from wbc_batch.report.write import write_reports

__all__ = [
    "clopper_pearson",
    "differential",
    "print_differential",
    "read_differential",
    "write_reports",
]
