"""Open a source of any known form as records, and digest it under the site's key."""

from __future__ import annotations

import codecs
import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal, get_args

from client import form_hl7, records
from client.errors import ClientError
from client.prepare import chats, clinical, tables
from client.records import Reading, Row
from configs.prepare import Recipe

Form = Literal["auto", "records", "chat", "parquet", "excel", "hl7", "fhir", "database"]
FORMS: Final = get_args(Form)
_ENDINGS: Final = {
    ".parquet": "parquet", ".pq": "parquet", ".xlsx": "excel", ".xlsm": "excel", ".hl7": "hl7",
    ".fhir": "fhir",
}  # fmt: skip
_LOOKED_AT: Final = 20
_MOST: Final = 1 << 30
_MARKS: Final = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True, slots=True)
class Source:
    """What was read.

    Attributes:
        reading: records and faults.
        form: as which.
        digest: of the content, keyed.
    """

    reading: Reading = field(repr=False)
    form: str
    digest: str


def read(
    path: Path | None,
    recipe: Recipe,
    *,
    key: bytes,
    person_column: str,
    form: str = "auto",
    encoding: str = "utf-8",
    draft: Path,
    url: str | None = None,
    query: str | None = None,
) -> Source:
    """Read a file or a query.

    Args:
        path: the file; None for a query.
        recipe: how chats and clinical messages become records.
        key: of the digest.
        person_column: column that holds the person key.
        form: one of `FORMS`; auto goes by the file's ending and content.
        encoding: of a text file; UTF-16 is known by its mark.
        draft: where a text in another encoding is kept while it is read, mode 0600.
        url: the database, `tables.database_url` says where from.
        query: the statement.

    Raises:
        ClientError: the source cannot be read, or holds no usable record.
    """
    if path is None:
        if url is None or query is None:
            raise ClientError(
                "give --from FILE, or a database with --url and --query", code="no-source"
            )
        rows = list(tables.query(url, query))
        seen = json.dumps([[r.value, r.code] for r in rows], sort_keys=True, default=str).encode()
        label = Path("the query's result")
        reading = _gather(_either(rows, recipe, person_column, form), label, person_column)
        return Source(reading, "database", _digest(key, (seen,)))
    kind = form
    if kind == "auto":
        kind = _ENDINGS.get(path.suffix.lower(), "auto")
    digest = _digest(key, _pieces(path))
    if kind in ("parquet", "excel"):
        rows_of = tables.parquet if kind == "parquet" else tables.excel
        found = _either(rows_of(path), recipe, person_column, form)
        return Source(_gather(found, path, person_column), kind, digest)
    encoding = next((name for mark, name in _MARKS if _head(path).startswith(mark)), encoding)
    if codecs.lookup(encoding).name == "utf-8":
        reading, kind = _text(path, path, recipe, person_column, kind)
        return Source(reading, kind, digest)
    from configs import files

    text = _decoded(path, encoding)
    place = draft.with_suffix(path.suffix)
    try:
        files.replace(place, text.encode(), mode=files.PRIVATE)
        reading, kind = _text(place, path, recipe, person_column, kind)
    finally:
        place.unlink(missing_ok=True)
    return Source(reading, kind, digest)


def _text(path: Path, label: Path, recipe: Recipe, column: str, kind: str) -> tuple[Reading, str]:
    """A text file in UTF-8, by its content where the ending does not tell."""
    head = _head(path).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    if kind == "hl7" or (kind == "auto" and form_hl7.looks_like(head)):
        rows = clinical.hl7(_decoded(path, "utf-8-sig"), recipe.clinical, column)
        return _gather(rows, label, column), "hl7"
    if kind == "fhir" or (kind == "auto" and '"resourceType"' in head[:2000]):
        rows = clinical.fhir(_resources(path), recipe.clinical, column)
        return _gather(rows, label, column), "fhir"
    if kind == "chat" and path.suffix.lower() == ".csv":
        return _gather(chats.pairs(_cells(path), recipe.chat, column), label, column), "chat"
    if kind == "auto" and path.suffix.lower() == ".csv":
        first = next(iter(_cells(path, strict=False)), None)  # of any delimiter
        if first is not None and chats.is_chat(first.value):
            return _gather(chats.pairs(_cells(path), recipe.chat, column), label, column), "chat"
    rows = records.parse(path)
    begin = list(islice(rows, _LOOKED_AT))
    chat = kind == "chat" or (kind == "auto" and any(chats.is_chat(row.value) for row in begin))
    whole: Iterable[Row] = chain(begin, rows)
    if chat:
        whole = chats.pairs(whole, recipe.chat, column)
    return _gather(whole, label, column), "chat" if chat else "records"


def _either(rows: Iterable[Row], recipe: Recipe, person_column: str, form: str) -> Iterable[Row]:
    every = iter(rows)
    begin = list(islice(every, _LOOKED_AT))
    whole = chain(begin, every)
    if form == "chat" or any(chats.is_chat(row.value) for row in begin):
        return chats.pairs(whole, recipe.chat, person_column)
    return whole


def _gather(rows: Iterable[Row], path: Path, person_column: str) -> Reading:
    return records.gather(rows, path, person_column=person_column)


def _resources(path: Path) -> Iterator[Any]:
    text = _decoded(path, "utf-8-sig")
    try:
        tree = json.loads(text)
        yield from tree if isinstance(tree, list) else [tree]
        return
    except (ValueError, RecursionError):
        pass
    # One resource a line, as FHIR's bulk export has it; a text may hold other ends of lines.
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _cells(path: Path, *, strict: bool = True) -> Iterator[Row]:
    import csv

    delimiter = max(",;\t", key=_head(path).decode("utf-8", "replace").partition("\n")[0].count)
    with path.open("r", encoding="utf-8-sig", errors="strict", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=strict)
        try:
            for row in reader:
                broken = None in row or None in row.values()
                yield Row(reader.line_num, None if broken else row, "bad-row" if broken else None)
        except UnicodeDecodeError:
            raise ClientError(
                f"{path} cannot be read as CSV in UTF-8; name its --encoding", code="not-utf-8"
            ) from None
        except csv.Error:
            # Past a quotation mark that is not closed, one person's row would hold another's.
            raise ClientError(
                f"{path} cannot be read as CSV: the row that ends in line "
                f"{reader.reader.line_num} has a quotation mark that is not closed or not doubled; "
                "mend it there",
                code="bad-quotes",
            ) from None


def _decoded(path: Path, encoding: str) -> str:
    try:
        if not path.stat().st_size <= _MOST:
            raise ClientError(f"{path} is larger than 1 GB; divide it", code="too-large")
        return path.read_bytes().decode(encoding)
    except (UnicodeDecodeError, UnicodeError):
        raise ClientError(
            f"{path} is not in {encoding}; name its --encoding, such as cp1252 or gb18030",
            code="not-utf-8",
        ) from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        raise ClientError(f"{path} cannot be read; check the path", code="no-file") from None


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece
    except OSError:
        raise ClientError(f"{path} cannot be read; check the path", code="no-file") from None


def _digest(key: bytes, pieces: Iterable[bytes]) -> str:
    made = hmac.new(key, b"source\0", "sha256")
    for piece in pieces:
        made.update(piece)
    return f"hmac-sha256:{made.hexdigest()}"
