"""Group commit: threads that write at once share one transaction and one wait for the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from audit.errors import AuditError
from audit.journal import Journal

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
MOST = 256  # pieces of work in one transaction, so that nobody waits for long


@dataclass(slots=True)
class _Piece:
    """Work that waits for its transaction, and what came of it."""

    work: Work[Any]
    done: bool = False
    result: Any = None
    error: BaseException | None = None


class Group:
    """Whoever finds nobody writing writes for all who wait.

    Guarantees: a call returns only after the transaction with its work is on the disk
    (`synchronous=FULL`); work that raises must have written nothing, and does not spoil the work of
    others; if the transaction fails, every call in it raises.
    """

    def __init__(self, journal: Journal, *, begin: Work[None], undo: Callable[[], None]):
        """Group the writes of a journal.

        Args:
            journal: where the work is written.
            begin: called first in every transaction.
            undo: makes the caller's memory forget what a failed transaction had done, before any
                reader of this process looks.
        """
        self._journal = journal
        self._begin = begin
        self._undo = undo
        self._turn = threading.Condition()
        self._waiting: list[_Piece] = []
        self._busy = False

    def write(self, work: Work[T]) -> T:
        """Run `work` inside a transaction, perhaps beside the work of other threads.

        Raises:
            AuditError: the journal cannot be written; and whatever `work` raises.
        """
        mine = _Piece(work)
        with self._turn:
            self._waiting.append(mine)
        while True:
            with self._turn:
                while self._busy and not mine.done:
                    self._turn.wait()
                if mine.done:
                    break
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                self._busy = True
            self._commit(batch)
        if mine.error is not None:
            raise mine.error
        result: T = mine.result
        return result

    def _commit(self, batch: list[_Piece]) -> None:
        """Write a batch; whatever happens, nobody in it is left waiting."""
        failure: BaseException | None = AuditError(
            "a write to the log was interrupted; append the event again", code="log-unavailable"
        )
        try:
            with self._journal.held():
                try:
                    with self._journal.write() as db:
                        self._begin(db)
                        for piece in batch:
                            _run(piece, db)
                except BaseException:
                    self._undo()
                    raise
            failure = None
        except Exception as error:
            failure = error
        finally:
            with self._turn:
                for piece in batch:
                    piece.done = True
                    piece.error = piece.error or failure
                self._busy = False
                self._turn.notify_all()


def _run(piece: _Piece, db: sqlite3.Connection) -> None:
    try:
        piece.result = piece.work(db)
    except sqlite3.Error:
        raise  # the database may have undone the whole transaction
    except Exception as error:  # its caller gets it; the others go on
        piece.error = error
