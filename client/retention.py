"""What an institution keeps beside its log, and what of it is over: site.toml, [retention]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from audit.digests import file_digest
from audit.retention import Due, Terms
from client import folder as folders
from client.folder import Folder
from configs.site import RetentionTable


@dataclass(frozen=True, slots=True)
class Own:
    """What of an institution's own files or rows is due, and how it is removed."""

    due: tuple[Due, ...]
    before: datetime
    remove: Callable[[], object]


def policy(path: Path) -> tuple[Terms, tuple[Own, ...]]:
    """The terms of what lies behind log entries, and what else is due, of an institution."""
    opened = folders.open_folder(path)
    return terms(opened.settings.retention), own(opened)


def terms(table: RetentionTable) -> Terms:
    """The terms of what lies behind the log's entries."""
    return Terms(access=table.access_days or None, evidence=table.evidence_days or None)


def own(folder: Folder, *, now: datetime | None = None) -> tuple[Own, ...]:
    """The record text of a review and the feedback that are older than their terms."""
    now = now or datetime.now(UTC)
    parts = (_review(folder, now), _feedback(folder, now))
    return tuple(part for part in parts if part is not None)


def _review(folder: Folder, now: datetime) -> Own | None:
    days = folder.settings.retention.review_days
    if not days or not (folder.path / "review").is_dir():
        return None
    from client import review

    before = now - timedelta(days=days)
    texts = review.texts(folder)
    # They belong together, so the newest of them says how old the review is.
    if not texts or not max(path.stat().st_mtime for path in texts) < before.timestamp():
        return None
    due = tuple(Due(f"review/{path.name}", 1, file_digest(path)) for path in texts)
    return Own(due, before, partial(review.delete, folder))


def _feedback(folder: Folder, now: datetime) -> Own | None:
    days = folder.settings.retention.feedback_days
    path = folder.path / "serving" / "feedback.sqlite"
    if not days or not path.exists():
        return None
    from client.gateway.feedback import FeedbackStore

    before, store = now - timedelta(days=days), FeedbackStore(path)
    count = store.older(before)
    due = (Due("serving/feedback.sqlite", count),)
    return Own(due, before, partial(store.forget_older, before)) if count else None
