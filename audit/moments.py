"""Times as people type them into a filter: a day or a minute, in UTC unless they say otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from audit.errors import AuditError


def moment(text: str, what: str, *, end: bool) -> datetime | None:
    """Read a day or a time; where a range ends, the last microsecond of that day or minute.

    Args:
        text: such as 2026-01-31 or 2026-01-31T09:30; empty for none.
        what: the filter's name, for the error.
        end: whether the range ends there.

    Raises:
        AuditError: exit code 2; it is neither.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        if end:
            whole = timedelta(days=1) if len(text) == len("2026-01-31") else timedelta(minutes=1)
            found += whole - timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise AuditError(
            f"{what} is not a date like 2026-01-31 or 2026-01-31T09:30",
            code="bad-filter",
            exit_code=2,
        ) from None
    return found
