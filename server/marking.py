"""One run's watermark: keys committed to before anything is sent, and a marked copy for each site.

Every adapter that leaves the coordinator during the rounds is marked for its recipient, under the
keys of the release: fresh keys each round could be averaged out. Sites return the change of what
they received, and the average goes onto the unmarked adapter, so no mark enters the next round.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audit import chips, mark_keys, watermark
from audit.digests import arrays_digest
from audit.log import Log
from audit.mark_keys import Key, Keys
from configs.run import decimal
from model import catalog, frozen
from server import plans
from server.errors import ServerError
from server.state import State
from server.store import Folder

# The coordinator's own copy, marked like any recipient's.
OWN_COPY = "coordinator"
OWNER_ROW = "owner"
# Whose broadcasts can be marked: B, beside a frozen A. See docs/watermark.md for the others.
MARKED = "ffa-lora"
KEYS_KIND = "watermark-keys"


@dataclass(frozen=True, slots=True)
class Copy:
    """One recipient's marked adapter."""

    arrays: Mapping[str, Any] = field(repr=False)
    digest: str


@dataclass(slots=True)
class Marking:
    """Marks the copies of one run. Opening it makes nothing; `commit` makes the keys."""

    folder: Folder
    state: State
    _keys: Keys | None = field(default=None, repr=False)
    _prepared: tuple[int, watermark.Reference] | None = field(default=None, repr=False)

    def commit(self, log: Log) -> Keys:
        """The run's keys; made and committed to in the log the first time.

        Guarantees: the log's newest tree head is in every subkey, and the commitment is the entry
            right after that head.

        Raises:
            ServerError: an institution has a reserved name, or the log knows of keys that are not
                in the run's folder (exit code 4).
        """
        if self._keys is not None:
            return self._keys
        place, run = self.state.path / "watermark", self.state.plan.run
        logged = [entry.event.fields for entry in log.entries(KEYS_KIND, run)]
        if logged:
            self._keys = _known(place, logged[0])
            return self._keys
        # Keys without an entry were left by a crash; nothing was marked with them.
        shutil.rmtree(place, ignore_errors=True)
        names = sorted({*self.state.plan.institutions, OWN_COPY})
        if len(names) != len(self.state.plan.institutions) + 1 or OWNER_ROW in names:
            raise ServerError(
                f"no institution may be called {OWNER_ROW} or {OWN_COPY}; rename it",
                code="reserved-name",
            )
        spec = plans.adapter_spec(self.state.plan)
        fixed = frozen.factors(catalog.find(self.state.plan.model), spec)
        basis = {module: array for module, array in fixed.items() if module.endswith(".A")}
        log.checkpoint()  # signs the head that the keys are bound to
        size = log.size
        root = "sha256:" + log.root(size).hex()
        master = self.folder.watermark_master()

        def key(name: str) -> Key:
            subkey = chips.derive(
                master, origin=log.origin, size=size, root=root, release=run, recipient=name
            )
            return Key(name, subkey, secrets.token_bytes(chips.KEY_BYTES))

        keys = mark_keys.create(
            place,
            release=run,
            scale=spec.scale,
            strength=watermark.STRENGTH,
            tree_size=size,
            tree_root=root,
            owner=key(chips.OWNER),
            recipients=tuple(key(name) for name in names),
            basis=basis,
        )
        log.append(
            KEYS_KIND,
            {
                "tree_size": size,
                "tree_root": root,
                "basis_digest": watermark.basis_digest(basis),
                "table_digest": chips.table_digest(),
                "detector_digest": watermark.detector_digest(),
                "strength": decimal(watermark.STRENGTH),
                "commitments": commitments(keys, [key.name for key in keys.recipients]),
                **({} if self.state.plan.adapter.method == MARKED else {"broadcasts": "unmarked"}),
            },
            run=run,
        )
        self._keys = keys
        return keys

    def copies(self, log: Log, number: int, names: Sequence[str]) -> dict[str, Copy]:
        """The adapter that round `number` starts from, marked for each site, and logged.

        The adapter of the first round is zero: it says nothing and can carry nothing. Nor is there
        a mark for what the other adapters than FFA-LoRA send, which the commitment says.

        Raises:
            ServerError: a copy is not the one that was logged for its recipient (exit code 4).
            AuditError: the run's keys or references are damaged.
        """
        start = self.state.adapter(number)
        zero = not any(array.any() for array in start.values())
        if zero or self.state.plan.adapter.method != MARKED:
            plain = Copy(start, arrays_digest(start))
            return dict.fromkeys(names, plain)
        made = {name: self._copy(log, number, name) for name in sorted(set(names))}
        logged = {
            item["recipient"]: item["adapter_digest"]
            for entry in log.entries("broadcast-marked", self.state.plan.run)
            if entry.event.round == number
            for item in entry.event.fields["copies"]
        }
        for name in sorted(made.keys() & logged.keys()):
            if made[name].digest != logged[name]:
                raise ServerError(
                    f"the copy for {name} is not the one that was logged; resume the run on the "
                    "machine that it began on",
                    code="copy-differs",
                    exit_code=4,
                )
        fresh = sorted(made.keys() - logged.keys())
        if fresh:
            log.append(
                "broadcast-marked",
                {
                    "input_adapter": arrays_digest(start),
                    "reference_halves": self.half_digests(number),
                    "copies": [
                        {"recipient": name, "adapter_digest": made[name].digest} for name in fresh
                    ],
                },
                run=self.state.plan.run,
                round=number,
            )
        return made

    def mark(
        self, log: Log, number: int, name: str, sensitivity: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The adapter after `number` rounds, marked for one recipient; see `watermark.mark`.

        Raises:
            AuditError: nobody of that name was committed to, or the adapter is all zero.
        """
        keys = self.commit(log)
        reference = self.reference(log, number)
        return dict(
            watermark.mark(
                reference,
                owner=keys.owner.subkey,
                recipient=keys.of(name).subkey,
                strength=keys.strength,
                sensitivity=sensitivity,
            )
        )

    def half_digests(self, number: int) -> list[str]:
        """Digests of both halves of the unmarked adapter, so that one can be opened alone."""
        return watermark.half_digests(*self._product(number))

    def product_digest(self, number: int) -> dict[str, str]:
        """The field with the digest of the kept reference, where it is not what was trained."""
        if self.state.plan.adapter.method == MARKED:
            return {}
        return {"product_digest": arrays_digest(self._kept(*self._product(number)))}

    def reference(self, log: Log, number: int) -> watermark.Reference:
        """The unmarked adapter after `number` rounds, prepared and kept for detection."""
        if self._prepared is None or self._prepared[0] != number:
            keys = self.commit(log)
            b, a = self._product(number)
            keys.keep_reference(number, self._kept(b, a))
            self._prepared = number, watermark.Reference.of(b, a, keys.scale)
        return self._prepared[1]

    def _product(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        plan = self.state.plan
        return frozen.product(
            catalog.find(plan.model), plans.adapter_spec(plan), self.state.adapter(number)
        )

    def _kept(self, b: Mapping[str, Any], a: Mapping[str, Any]) -> dict[str, Any]:
        """What of a product no public seed gives: A as well, where it was trained."""
        return {**b, **(a if self.state.plan.adapter.method == "lora" else {})}

    def _copy(self, log: Log, number: int, name: str) -> Copy:
        arrays = self.mark(log, number, name)
        return Copy(arrays, arrays_digest(arrays))


def commitments(keys: Keys, names: Sequence[str]) -> list[dict[str, str]]:
    """Rows for the log: the owner's commitment, then one a name."""
    rows = [{"recipient": OWNER_ROW, "commitment": keys.owner.commitment}]
    return rows + [{"recipient": name, "commitment": keys.of(name).commitment} for name in names]


def _known(place: Any, logged: Mapping[str, Any]) -> Keys:
    keys = mark_keys.read(place / mark_keys.KEY_FILE)
    stated = {row["recipient"]: row["commitment"] for row in logged["commitments"]}
    held = {key.name: key.commitment for key in keys.recipients}
    if {OWNER_ROW: keys.owner.commitment, **held} != stated:
        raise ServerError(
            f"the watermark keys in {place} are not those that the log committed to; restore the "
            "newest copy of the whole folder",
            code="keys-differ",
            exit_code=4,
        )
    return keys
