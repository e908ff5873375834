"""Rows of Parquet files, Excel sheets and database queries, as plain JSON values."""

from __future__ import annotations

import datetime
import decimal
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from client.errors import ClientError
from client.records import Row

URL_VARIABLE: Final = "PRIVITY_DATABASE_URL"
_BATCH: Final = 1000


def parquet(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file, from 1.

    Raises:
        ClientError: pyarrow is missing, or the file is none.
    """
    try:
        import pyarrow.parquet as reader
        from pyarrow import ArrowException
    except ImportError:
        raise _missing("pyarrow") from None
    try:
        with reader.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, plain(values))
    except (ArrowException, OSError):
        raise _unreadable(path, "a Parquet file") from None


def excel(path: Path) -> Iterator[Row]:
    """Yield the rows of the first sheet of an .xlsx file by its first row, numbered as in Excel.

    Formulas are not computed here: the value that Excel stored counts.

    Raises:
        ClientError: openpyxl is missing, the file is none, or its first row names no columns.
    """
    try:
        import openpyxl
    except ImportError:
        raise _missing("openpyxl") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception:
        raise _unreadable(path, "an .xlsx file") from None
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = [str(cell or "").strip() for cell in next(rows, ())]
        if not any(header):
            raise ClientError(
                f"the first sheet of {path} has no names of columns in its first row; add them",
                code="unknown-columns",
            )
        for number, cells in enumerate(rows, start=2):
            if any(cell not in (None, "") for cell in cells):
                named = {name: cell for name, cell in zip(header, cells, strict=False) if name}
                yield Row(number, plain(named))
    finally:
        book.close()


def database_url(given: str | None, file: Path | None) -> str:
    """The address of a database: given on the command line, in a private file, or the environment.

    Raises:
        ClientError: there is none; one with a password stands on the command line, where every
            user of the machine can read it; or others may read the file.
    """
    if given is not None:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            secret = make_url(given).password is not None
        except ArgumentError:
            raise _no_address() from None
        if secret:
            raise ClientError(
                "a password on the command line can be read by every user of this machine; put "
                f"the address into a file of mode 0600 (--url-file) or into {URL_VARIABLE}",
                code="password-exposed",
            )
        return given
    if file is not None:
        try:
            if file.stat().st_mode & 0o077:
                raise ClientError(
                    f"{file} is readable by others; run chmod 600 on it", code="password-exposed"
                )
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ClientError(f"{file} cannot be read; check the path", code="no-file") from None
    found = os.environ.get(URL_VARIABLE, "").strip()
    if not found:
        raise _no_address()
    return found


def query(url: str, statement: str) -> Iterator[Row]:
    """Yield the rows of a query, from 1; what the statement changed, if anything, is rolled back.

    PostgreSQL and MySQL are told to change nothing, and SQLite files are opened for reading only.

    Raises:
        ClientError: SQLAlchemy or a driver is missing, the database does not answer (exit code 5),
            or the statement fails. The address and the statement are never repeated.
    """
    try:
        import sqlalchemy
        from sqlalchemy import exc
    except ImportError:
        raise _missing("sqlalchemy") from None
    try:
        address = sqlalchemy.make_url(url)
        engine = _engine(address)
    except (exc.ArgumentError, exc.NoSuchModuleError):
        raise _no_address() from None
    except ImportError:
        raise ClientError(
            "the driver of this database is not installed; for PostgreSQL use "
            "postgresql+psycopg://… and install privity[prepare]",
            code="no-driver",
        ) from None
    try:
        with engine.connect() as connection:
            kind = address.get_backend_name()
            if kind in ("postgresql", "mysql", "mariadb"):
                connection.execute(sqlalchemy.text("SET TRANSACTION READ ONLY"))
            options = {"stream_results": kind == "postgresql", "yield_per": _BATCH}
            found = connection.execution_options(**options).execute(sqlalchemy.text(statement))
            if not found.returns_rows:
                raise ClientError("the query returns no rows; use a select", code="bad-query")
            for number, values in enumerate(found.mappings(), start=1):
                yield Row(number, plain(values))
            connection.rollback()
    except exc.OperationalError as fault:
        # Both a database that is away and a table that is not there arrive as this.
        if fault.statement is not None:
            raise _failed(fault) from None
        raise ClientError(
            "the database does not answer; check its address, its network and the password",
            code="no-database",
            exit_code=5,
        ) from None
    except exc.SQLAlchemyError as fault:
        raise _failed(fault) from None
    finally:
        engine.dispose()


def _engine(address: Any) -> Any:
    import sqlalchemy

    if address.get_backend_name() == "sqlite" and address.database not in (None, "", ":memory:"):
        import sqlite3

        place = Path(address.database).absolute().as_uri()
        return sqlalchemy.create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(f"{place}?mode=ro", uri=True)
        )
    return sqlalchemy.create_engine(address)


def plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    """A row as JSON values: empty cells go, times become ISO 8601, numbers stay exact."""
    return {str(name): _plain(value) for name, value in values.items() if not _empty(value)}


def _empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        # Tables often hold whole numbers, such as keys, as floats.
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if not _empty(item)]
    return None if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _missing(library: str) -> ClientError:
    return ClientError(
        f"{library} is not installed; install privity[prepare]", code="missing-library"
    )


def _unreadable(path: Path, kind: str) -> ClientError:
    return ClientError(f"{path} cannot be read as {kind}; check the file", code="unreadable")


def _failed(fault: Exception) -> ClientError:
    return ClientError(
        f"the query failed ({type(fault).__name__}); try it in your database's own client",
        code="bad-query",
    )


def _no_address() -> ClientError:
    return ClientError(
        "there is no usable address of a database; give --url sqlite:///FILE, --url-file FILE, or "
        f"set {URL_VARIABLE}",
        code="no-database-url",
    )
