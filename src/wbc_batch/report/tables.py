"""Stream the shards of a run into CSV and Parquet files, whatever their number of rows.

CSV conventions: UTF-8, comma, line feed, text quoted, a missing value is an empty unquoted cell,
numbers have at most six decimals. Text that a spreadsheet would take for a formula gets a leading
apostrophe (`guard_text`); numbers stay numbers. The shards hold everything exactly.

pyarrow takes no path that is not UTF-8, so it is given open files.
"""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from wbc_batch.classifier.conformal import prediction_sets
from wbc_batch.errors import RunError
from wbc_batch.files import replacing
from wbc_batch.ledger import CELL_SCHEMA
from wbc_batch.paths import unread
from wbc_batch.schema import (
    CLASSES,
    OPTIONAL_TYPES,
    PLACE_TYPES,
    PROBABILITY_COLUMNS,
    SET_COLUMN,
    STATUS_ERROR,
)

__all__ = [
    "ERROR_SCHEMA",
    "csv_file",
    "guard_text",
    "iter_cells",
    "parquet_file",
    "select_errors",
    "shard_schema",
    "unguard_text",
    "with_prediction_sets",
]

_DECIMALS = 6
_ROWS_AT_ONCE = 65_536
# Also = + - @ of full width, which spreadsheets of East Asian locales take for the plain ones.
_FORMULA = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"

#: The columns of ``errors.csv``.
ERROR_SCHEMA = pa.schema(
    [CELL_SCHEMA.field(name) for name in ("cell_id", "source", "member", "index", "group", "error")]
)


def shard_schema(shard_files: Sequence[Path]) -> pa.Schema:
    """Find the columns of a run: `wbc_batch.ledger.CELL_SCHEMA` and what else its shards know of cells.

    Parameters
    ----------
    shard_files : sequence of Path

    Returns
    -------
    pyarrow.Schema

    Raises
    ------
    RunError
        If a file cannot be read.
    """
    schema = CELL_SCHEMA
    for path in shard_files[:1]:
        with _named(path), path.open("rb") as file:
            found = pq.read_schema(file)
        for name, kind in (OPTIONAL_TYPES | PLACE_TYPES).items():
            if name in found.names:
                schema = schema.append(pa.field(name, pa.type_for_alias(kind)))
    return schema


def iter_cells(shard_files: Sequence[Path], schema: pa.Schema = CELL_SCHEMA) -> Iterator[pa.Table]:
    """Read the rows of a run, some ten thousand at a time.

    Parameters
    ----------
    shard_files : sequence of Path
        Parquet files with at least these columns, in row order.
    schema : pyarrow.Schema
        Columns to read, see `shard_schema`.

    Yields
    ------
    pyarrow.Table
        Columns and types of `schema`, whatever widths and encodings the shards chose.

    Raises
    ------
    RunError
        If a file cannot be read or lacks a column.
    """
    for path in shard_files:
        with _named(path), path.open("rb") as file, pq.ParquetFile(file) as shard:
            for batch in shard.iter_batches(_ROWS_AT_ONCE, columns=schema.names):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which shard cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        # pyarrow's own errors of this kind, which are of damage, have no number.
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise unread(path, error) from error
        raise RunError(
            f"{path}: this shard cannot be read ({error}); delete it and repeat the "
            "wbc-batch classify command recorded in run.json, to classify its cells again"
        ) from error


def select_errors(cells: pa.Table) -> pa.Table:
    """Keep the cells that could not be classified, with the columns of ``errors.csv``."""
    return cells.filter(pc.equal(cells["status"], STATUS_ERROR)).select(ERROR_SCHEMA.names)


def with_prediction_sets(cells: pa.Table, thresholds: Sequence[float]) -> pa.Table:
    """Add a column with the classes that cannot be excluded, joined by ``|``.

    Parameters
    ----------
    cells : pyarrow.Table
        Columns of `wbc_batch.ledger.CELL_SCHEMA`.
    thresholds : sequence of float
        One per class, see `wbc_batch.classifier.conformal.conformal_thresholds`.

    Returns
    -------
    pyarrow.Table
        With the column `wbc_batch.schema.SET_COLUMN` behind the others: empty where no class is
        possible, missing where the cell was not classified.
    """
    columns = [cells[name].to_numpy(zero_copy_only=False) for name in PROBABILITY_COLUMNS]
    member = prediction_sets(np.column_stack(columns), np.asarray(thresholds, np.float32))
    names = np.asarray(CLASSES)
    wrong = pc.equal(cells["status"], STATUS_ERROR).to_pylist()
    sets = [None if bad else "|".join(names[row]) for row, bad in zip(member, wrong, strict=True)]
    return cells.append_column(SET_COLUMN, pa.array(sets, pa.string()))


@contextmanager
def csv_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Open a CSV file for appending tables; it appears under its name when the block ends.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
        Columns of every table that will be appended.

    Yields
    ------
    callable
        Appends one table.
    """
    plain = pa.schema([(f.name, pa.float64() if _is_float(f) else f.type) for f in schema])
    with (
        replacing(path) as file,
        pa_csv.CSVWriter(file, plain) as writer,
    ):
        yield lambda table: writer.write_table(_presentable(table, plain))


@contextmanager
def parquet_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Open a Parquet file for appending tables, as `csv_file` does; text is not guarded.

    Rows are gathered into groups of some ten thousand: each costs its reader time and memory.
    """
    waiting: list[pa.Table] = []
    with (
        replacing(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):

        def append(table: pa.Table) -> None:
            waiting.append(table.select(schema.names).cast(schema))
            if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
                write()

        def write() -> None:
            writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

        yield append
        if waiting:
            write()


def guard_text(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    That is text beginning with ``=``, ``+``, ``-``, ``@``, one of these in full width, a tab or a line break
    (OWASP, "CSV Injection").
    """
    risky = pc.match_substring_regex(text, "^" + _FORMULA)
    return pc.if_else(risky, pc.binary_join_element_wise("'", text, ""), text)


def unguard_text(text: str) -> str:
    """Undo `guard_text` for one text."""
    return text[1:] if re.match("'" + _FORMULA, text) else text


def _is_float(field: pa.Field) -> bool:
    return pa.types.is_floating(field.type)


def _presentable(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        column = table[field.name]
        if pa.types.is_string(field.type):
            column = guard_text(column)
        elif _is_float(field):
            column = pc.round(column.cast(pa.float64()), ndigits=_DECIMALS)
            column = pc.if_else(pc.is_nan(column), None, column)
        columns.append(column)
    return pa.table(columns, schema=schema)
