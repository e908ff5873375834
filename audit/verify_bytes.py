"""Layer one, bytes: files, signatures, tiles and roots are exactly what the parties signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from audit import bundle as bundles
from audit import digests, note, rotation, tiles, verify_log, verify_stamps
from audit.bundle import Bundle, Source
from audit.errors import AuditError
from audit.evidence import Collector, Evidence, LogView
from audit.keys import PublicKeys


def check(
    bundle: Bundle,
    found: Collector,
    *,
    trust: Mapping[str, str],
    against: str | None,
    every: bool = False,
) -> Evidence | None:
    """Check a bundle's bytes and return what could be read of it.

    Returns:
        The evidence, or None if a log or the plan could not be read at all.
    """
    sources = {bundles.COORDINATOR: bundle.coordinator} | {
        f"{bundles.SITES}/{name}": source for name, source in bundle.sites.items()
    }
    _check_names(bundle, found)
    unseen = {
        where: verify_log.read(bundle, where, source, (), found, every=every)
        for where, source in sources.items()
    }
    _check_trust(sources, unseen, trust, found)
    witnesses = [
        note.parse_key(keys.witness)
        for where, source in sources.items()
        for keys in _everyone(source, unseen[where])
    ]
    logs = {
        where: None
        if log is None
        else replace(log, cosigned_by=verify_log.witnesses_of(bundle, log, witnesses, found))
        for where, log in unseen.items()
    }
    expected = {bundles.MANIFEST, bundles.PLAN}
    for where, log in logs.items():
        if log is not None:
            expected.add(f"{where}/{bundles.CHECKPOINT}")
            expected.update(f"{where}/{t.path}" for t in tiles.needed(log.checkpoint.size))
    shown = _disclosures(bundle, found)
    expected.update(f"{bundles.DISCLOSURES}/{name}" for name in shown)
    expected.update(verify_stamps.expected(bundle))
    unread = tuple(f"{where}/" for where, log in logs.items() if log is None)
    _check_files(bundle, expected, unread, found)
    readable = {where: log for where, log in logs.items() if log is not None}
    if against is not None:
        _check_against(readable, against, found)
    try:
        plan = bundles.load(bundle.path, bundles.PLAN, most=bundles.MAX_JSON_BYTES)
    except AuditError as error:
        found.add("bytes", error.code, bundles.PLAN, str(error))
        return None
    coordinator = readable.pop(bundles.COORDINATOR, None)
    if coordinator is None:
        return None
    return Evidence(
        run=bundle.run,
        coordinator=coordinator,
        sites={log.keys.name: log for log in readable.values()},
        plan=plan,
        release=bundle.release,
        disclosures=shown,
    )


def _disclosures(bundle: Bundle, found: Collector) -> dict[str, list[str]]:
    """Read the disclosures of each party that has a log here."""
    shown = {}
    for name in (bundle.coordinator.keys.name, *bundle.sites):
        path = f"{bundles.DISCLOSURES}/{name}"
        if path not in bundle.files:
            continue
        try:
            data = bundles.load(bundle.path, path, most=bundles.MAX_JSON_BYTES)
            shown[name] = data.decode("ascii").splitlines()
        except (AuditError, UnicodeDecodeError) as error:
            code = error.code if isinstance(error, AuditError) else "bad-disclosure"
            found.add("bytes", code, path, f"the disclosures of {name} cannot be read")
            shown[name] = []
    return shown


def _check_names(bundle: Bundle, found: Collector) -> None:
    """Check that no two parties share a name or a key."""
    everyone = [bundle.coordinator.keys, *(site.keys for site in bundle.sites.values())]
    if len({keys.name for keys in everyone}) != len(everyone):
        found.add("bytes", "same-name", bundles.MANIFEST, "two parties have one name")
    materials = [note.parse_key(k).public for p in everyone for k in (p.log, p.event, p.witness)]
    if len(set(materials)) != len(materials):
        found.add("bytes", "same-key", bundles.MANIFEST, "one key serves twice; each needs its own")


def _everyone(source: Source, log: LogView | None) -> list[PublicKeys]:
    return [source.keys] if log is None else log.everyone()


def _check_trust(
    sources: Mapping[str, Source],
    logs: Mapping[str, LogView | None],
    trust: Mapping[str, str],
    found: Collector,
) -> None:
    """Check that keys which came another way sign the logs, or were rotated away in them."""
    for where, source in sources.items():
        log, pinned = logs[where], trust.get(source.keys.name)
        known = [keys.log for keys in _everyone(source, log)]
        if pinned is not None and pinned not in known:
            found.add(
                "bytes",
                "untrusted-key",
                where,
                f"the bundle states another log key for {source.keys.name} "
                f"(fingerprint {source.keys.fingerprint}) than the one you trust",
            )


def _check_files(
    bundle: Bundle, expected: set[str], unread: tuple[str, ...], found: Collector
) -> None:
    """Compare the folder with the manifest, both ways."""
    present = set(bundles.walk(bundle.path))
    for name in sorted(present - set(bundle.files) - {bundles.MANIFEST}):
        found.add("bytes", "unexpected-file", name, "this file is not in the bundle's manifest")
    for name in sorted(bundle.files):
        known = name in expected or name.startswith((f"{bundles.RELEASE}/", *unread))
        if not known:
            found.add("bytes", "unexpected-file", name, "this file has no place in a bundle")
        if name not in present:
            found.add("bytes", "missing-file", name, "this file is missing")
            continue
        try:
            if (bundle.path / name).is_symlink() or not (bundle.path / name).is_file():
                raise AuditError(f"{name} is not a plain file", code="symlink")
            if not (bundle.path / name).stat().st_size <= bundles.MAX_RELEASE_BYTES:
                raise AuditError(f"{name} is absurdly large", code="too-large")
            if digests.file_digest(bundle.path / name) != bundle.files[name]:
                found.add("bytes", "changed-file", name, "this file differs from the manifest")
        except AuditError as error:
            found.add("bytes", error.code, name, str(error))
    for name in sorted(expected - set(bundle.files) - {bundles.MANIFEST}):
        found.add("bytes", "missing-file", name, "this file is not in the bundle's manifest")


def _check_against(logs: Mapping[str, LogView], against: str, found: Collector) -> None:
    """Check that a log in the bundle extends an earlier checkpoint of it."""
    where = "the earlier checkpoint"
    try:
        earlier = note.parse_checkpoint(note.parse(against))
        log = next((v for v in logs.values() if v.checkpoint.origin == earlier.origin), None)
        if log is None:
            raise AuditError(
                f"it is of log {earlier.origin[:128]!r}, which is not in the bundle",
                code="unknown-log",
            )
        rotation.open_note(against, log.history, earlier.origin)
    except AuditError as error:
        found.add("bytes", error.code, where, str(error))
        return
    size = log.checkpoint.size
    if not earlier.size <= size:
        found.add(
            "bytes",
            "log-rolled-back",
            log.where,
            f"the log has {size} entries now and had {earlier.size} before: it was rolled back",
        )
    elif log.tree.root(earlier.size) != earlier.root:
        found.add(
            "bytes",
            "log-forked",
            log.where,
            f"the log of {size} entries does not extend its earlier {earlier.size} entries; "
            "keep both checkpoints, they show the fork",
        )
