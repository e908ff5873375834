"""The named attacks on a bundle: each is found, and named by its own code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import bundle, canonical, keys, merkle, note, tiles

Attack = Callable[[Any, Path], Any]


def codes(findings: Any) -> set[str]:
    return {fault.code for fault in findings.faults}


def edited(at: str, of: str, turn: int | None = None, **values: Any) -> Any:
    def edit(party: str, kind: str, in_turn: int | None, fields: dict[str, Any]) -> Any:
        hit = (party, kind) == (at, of) and (turn is None or turn == in_turn)
        return {**fields, **values} if hit else fields

    return edit


def rewrite(site: Any, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Let a log's owner publish other entries: signed by its log key, as if nothing had been."""
    log = site.log
    log.checkpoint()
    kept = change([log.entry(index) for index in range(log.size)])
    tree = merkle.Tree([merkle.leaf_hash(entry) for entry in kept])
    shutil.rmtree(log.folder / "tile")
    for tile in tiles.needed(len(kept)):
        data = (
            tiles.pack(kept[tile.start : tile.start + tile.width])
            if tile.level == tiles.ENTRIES
            else tiles.hashes(tile, tree)
        )
        tiles.write(log.folder / tile.path, data)
    stated = note.Checkpoint(log.origin, len(kept), tree.root())
    line = note.sign(stated.text, name=log.origin, key=site.keys.log)
    (log.folder / "checkpoint").write_text(str(note.Note(stated.text, (line,))))


def swapped_bundles(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    mine, other = federate(place / "a").play(), federate(place / "b").play()
    trust = {"hub": mine.coordinator.public.log}
    return other.bundle(), {"trust": trust}


def swapped_logs(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    mine, other = federate(place / "a").play(), federate(place / "b").play()
    mine.sites["alpha"] = other.sites["alpha"]
    return mine.bundle(), {}


def replayed_entries(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    played = federate(place).play()
    rewrite(played.sites["alpha"], lambda entries: [*entries, entries[4]])
    return played.bundle(), {}


def replayed_from_another_log(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    played = federate(place).play()
    foreign = played.sites["beta"].log.entry(4)
    rewrite(played.sites["alpha"], lambda entries: [*entries, foreign])
    return played.bundle(), {}


def edited_epsilon(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    edit = edited("alpha", "budget-reserved", epsilon_after="0.1")
    return federate(place, edit=edit).play().bundle(), {}


def edited_claim(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    def edit(party: str, kind: str, turn: int | None, fields: dict[str, Any]) -> Any:
        if kind == "release":
            fields["claims"][0]["epsilon"] = "0.01"
        return fields

    return federate(place, edit=edit).play().bundle(), {}


def deleted_tail(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    played = federate(place).play()
    rewrite(played.sites["alpha"], lambda entries: entries[:-2])
    return played.bundle(), {}


def reordered_rounds(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    class Reordered(federate):  # type: ignore[misc]
        def play_round(self, turn: int, adapter: str) -> str:
            return str(super().play_round(1 - turn, adapter))

    return Reordered(place).play().bundle(), {}


def swapped_adapter(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    played, other = federate(place / "a").play(), federate(place / "b").play()
    from safetensors.numpy import load_file, save_file

    path = other.release / "adapter_model.safetensors"
    arrays = {name: array + 1 for name, array in load_file(path).items()}
    save_file(arrays, played.release / "adapter_model.safetensors")
    return played.bundle(), {}


def wrong_participants(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    edit = edited("hub", "round-closed", turn=0, accepted=["alpha", "beta"], absent=["gamma"])
    return federate(place, edit=edit).play().bundle(), {}


def expired_key(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    from datetime import UTC, datetime, timedelta

    played = federate(place).play()
    site, past = played.sites["alpha"], datetime.now(UTC) - timedelta(days=30)
    new = keys.create(place / "new", "alpha")
    site.log.rotate(new, reason="scheduled", expires=past)
    site.keys = new
    site.log._tenure.history[-1] = type(site.log._tenure.history[-1])(0, new.public(), None)
    ran = {"bundle_digest": canonical.digest(b""), "verdict": "ok"}
    site.log.append("verifier-run", ran)
    site.log.checkpoint()
    return played.bundle(), {}


def forked_view(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    played = federate(place).play()
    rewrite(played.coordinator, lambda entries: entries[:-1])
    fork = merkle.Tree([merkle.leaf_hash(b"another history")] * 4)
    stated = note.Checkpoint("hub/log", 4, fork.root())
    line = note.sign(stated.text, name="hub/log", key=played.coordinator.keys.log)
    return played.bundle(), {"against": str(note.Note(stated.text, (line,)))}


def rollback(federate: Any, place: Path) -> tuple[Path, dict[str, Any]]:
    played = federate(place).play()
    kept = played.coordinator.log.checkpoint()
    rewrite(played.coordinator, lambda entries: entries[:-1])
    return played.bundle(), {"against": kept}


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (swapped_bundles, "untrusted-key"),
        (swapped_logs, "wrong-keys"),
        (replayed_entries, "seq-gap"),
        (replayed_from_another_log, "bad-signature"),
        (edited_epsilon, "epsilon-differs"),
        (edited_claim, "claim-differs"),
        (deleted_tail, "log-rolled-back"),
        (reordered_rounds, "round-gap"),
        (swapped_adapter, "adapter-differs"),
        (wrong_participants, "participants-differ"),
        (expired_key, "expired-key"),
        (forked_view, "log-forked"),
        (rollback, "log-rolled-back"),
    ],
)
def test_an_attack_is_found_and_named(
    attack: Attack, code: str, federate: Any, judge: Any, tmp_path: Path
) -> None:
    folder, more = attack(federate, tmp_path)
    found = judge(folder, **more)
    assert code in codes(found)
    assert not found.ok
    assert bundle.read(folder).files  # the manifest fits: it is not the list of files that told
    assert "changed-file" not in codes(found)
