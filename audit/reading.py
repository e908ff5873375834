"""Read the entries of one log in a bundle: once, in order, in memory that does not grow with them.

Every entry is hashed, parsed, checked against the table of events, and must name its place and the
entry before it. Signatures: each entry's own, except that in a log of more than `EACH` entries
those of bulk kinds (one entry a request) are signed through the chain: each names the hash of the
one before, so the next entry whose signature is checked signs them too. The last one's always is.
"""

from __future__ import annotations

import binascii
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from audit import dsse, events, kinds, merkle, note, rotation, shape
from audit.errors import AuditError
from audit.events import Event
from audit.keys import PublicKeys
from audit.rotation import Segment

EACH = 16384
KIND_NAMES = (*sorted(kinds.KINDS), "")  # an entry's kind is kept as its place here
_CODES = {name: code for code, name in enumerate(KIND_NAMES)}
_UNREADABLE = len(KIND_NAMES) - 1
_PREFIX = b"sha256:"


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that is wrong with one entry: its index, a code and a sentence."""

    index: int
    code: str
    sentence: str


@dataclass(slots=True)
class Reader:
    """What is known of a log after the entries read so far.

    Attributes:
        origin: the log's origin.
        keys: the keys in force for the next entry.
        every: whether each entry's own signature is checked.
        kinds: one code for each entry, a place in `KIND_NAMES`.
        kept: the events that are not of a bulk kind, by index.
        bytes_: what makes the bytes faulty.
        chain: what makes the log incomplete: numbers and links that do not fit.
        clock: indices of entries whose time is before the entry before them.
        chained: how many entries were signed through the chain.
        history: the keys over time.
        revoked: (log key, size, index) of each revocation.
    """

    origin: str
    keys: PublicKeys
    every: bool
    kinds: array[int] = field(default_factory=lambda: array("B"))
    kept: dict[int, Event] = field(default_factory=dict)
    bytes_: list[Wrong] = field(default_factory=list)
    chain: list[Wrong] = field(default_factory=list)
    clock: list[int] = field(default_factory=list)
    chained: int = 0
    history: list[Segment] = field(default_factory=list)
    revoked: list[tuple[str, int, int]] = field(default_factory=list)
    _previous: str = "sha256:" + merkle.EMPTY_ROOT.hex()
    _time: str = ""
    _expires: str | None = None
    _pending: tuple[int, bytes] | None = None  # the last entry that was taken through the chain
    _public: bytes = b""
    _envelope: re.Pattern[bytes] = field(init=False)
    _shapes: dict[str, re.Pattern[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._take(Segment(0, self.keys))

    def skip(self, count: int) -> None:
        """Note entries that cannot be read at all; their tile is at fault already."""
        self.finish()
        self.kinds.extend([_UNREADABLE] * count)
        self._previous = ""

    def read(self, entries: Sequence[bytes]) -> list[bytes]:
        """Read the next entries and return their leaf hashes."""
        leaves = []
        for entry in entries:
            leaf = merkle.leaf_hash(entry)
            if not self._bulk(entry):
                self._careful(entry)
            self._previous = "sha256:" + leaf.hex()
            leaves.append(leaf)
        return leaves

    def finish(self) -> None:
        """Check the signature that stands for the last entries taken through the chain."""
        if self._pending is not None:
            index, entry = self._pending
            self._pending = None
            try:
                dsse.check(dsse.parse(entry), self._public)
            except AuditError as error:
                self.bytes_.append(Wrong(index, error.code, str(error)))

    def _bulk(self, entry: bytes) -> bool:
        """Read an entry of a bulk kind the quick way; False if that is not what it is."""
        form = self._envelope.fullmatch(entry)
        if form is None or len(form[1]) % 4:
            return False
        payload = binascii.a2b_base64(form[1])
        kind = shape.kind_of(payload)
        if kind not in kinds.BULK:
            return False
        said = self._shapes[kind].fullmatch(payload)
        if said is None:
            return False
        index = len(self.kinds)
        self.kinds.append(_CODES[kind])
        self._place(index, int(said["seq"]), said["prev"].decode(), said["time"].decode())
        self._pending = (index, entry)
        if self.every:
            self.finish()
        else:
            self.chained += 1
        return True

    def _careful(self, entry: bytes) -> None:
        index = len(self.kinds)
        try:
            envelope = dsse.parse(entry)
            dsse.check(envelope, self._public)
            event = events.read(envelope.statement)
            if event.emitter != self.keys.name or event.origin != self.origin:
                raise AuditError(
                    "the event is of another party or another log", code="foreign-event"
                )
        except AuditError as error:
            self.kinds.append(_UNREADABLE)
            self.bytes_.append(Wrong(index, error.code, str(error)))
            return
        self.kinds.append(_CODES[event.kind])
        if event.prev == self._previous:
            self._pending = None  # this signature stands for those before it
        self.finish()
        if event.kind not in kinds.BULK:
            self.kept[index] = event
        self._place(index, event.seq, event.prev, events.timestamp(event.time))
        self._keys(index, event)

    def _place(self, index: int, seq: int, prev: str, time: str) -> None:
        if seq != index:
            self.chain.append(Wrong(index, "seq-gap", f"the entry is numbered {seq}"))
        if self._previous and prev != self._previous:
            text = "the entry does not name the entry before it"
            self.chain.append(Wrong(index, "prev-broken", text))
        if time < self._time:
            self.clock.append(index)
        self._time = time
        if self._expires is not None and not time <= self._expires:
            text = f"the entry was signed after its key had expired at {self._expires}"
            self.bytes_.append(Wrong(index, "expired-key", text))

    def _keys(self, index: int, event: Event) -> None:
        """Follow what an event says about its party's keys."""
        if event.kind == "log-started" and index == 0:
            self._expires = event.fields.get("keys_expire")
            self.history[0] = Segment(0, self.keys, self._expires)
        elif event.kind == "key-rotated":
            try:
                self._take(rotation.follow(event, self.keys))
            except AuditError as error:
                self.bytes_.append(Wrong(index, error.code, str(error)))
        elif event.kind == "key-revoked":
            key, size = event.fields["log_key"], event.fields["size"]
            retired = {segment.keys.log for segment in self.history} - {self.keys.log}
            if key not in retired or not size <= index:
                text = "the entry revokes a key that was not rotated away before"
                self.bytes_.append(Wrong(index, "bad-revocation", text))
            self.revoked.append((key, size, index))
            ends = [segment.first - 1 for segment in self.history if segment.first > 0]
            keyed = [segment.keys.log for segment in self.history[:-1]]
            for owner, end in zip(keyed, ends, strict=True):
                if owner == key and size < end:
                    text = f"entries {size} to {end - 1} are signed by a key revoked from {size} on"
                    self.bytes_.append(Wrong(size, "revoked-key", text))

    def _take(self, segment: Segment) -> None:
        self.history.append(segment)
        self.keys, self._expires = segment.keys, segment.expires
        self._public = note.parse_key(self.keys.event).public
        self._envelope = shape.envelope(dsse.keyid(self._public))
        self._shapes = {
            kind: form
            for kind, form in shape.payloads(self.keys.name, self.origin).items()
            if kind in kinds.BULK
        }


def indices(codes: array[int], wanted: Sequence[str]) -> Iterator[int]:
    """Yield the indices of the entries of some kinds, in order."""
    chosen = bytes(sorted(_CODES[kind] for kind in wanted if kind in _CODES))
    if chosen:
        for match in re.finditer(b"[" + re.escape(chosen) + b"]", codes.tobytes()):
            yield match.start()


def first_keys(entry: bytes) -> PublicKeys | None:
    """Return the keys that a log's first entry states, if it can be read; nothing is checked."""
    try:
        event = events.read(dsse.parse(entry).statement)
        return PublicKeys.from_json(event.fields["keys"]) if event.kind == "log-started" else None
    except AuditError:
        return None
