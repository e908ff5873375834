"""The bundle that a compliance officer gets: one folder with every log, the plan and the release.

bundle.json             who the parties are, and the digest of every other file
plan.json               the plan, canonical JSON
coordinator/            checkpoint and tile/..., the coordinator's log (c2sp.org/tlog-tiles)
sites/<name>/           the same of each institution
release/                the released adapter, if there is one
disclosures/<name>      values that a party's log commits to, one a line, if any are shown
stamps/<name>/          SIZE.checkpoint of a party's log and SIZE.tsr, an RFC 3161 token over it
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from audit import canonical, digests, note, tiles
from audit.errors import AuditError, Malformed
from audit.keys import PublicKeys, check_name

FORMAT = 1
MANIFEST = "bundle.json"
PLAN = "plan.json"
COORDINATOR = "coordinator"
SITES = "sites"
RELEASE = "release"
DISCLOSURES = "disclosures"
STAMPS = "stamps"
CHECKPOINT = "checkpoint"
MAX_FILES = 100_000
_MOST_STAMPS = 32
MAX_JSON_BYTES = 32 << 20
MAX_TILE_BYTES = tiles.WIDTH * (tiles.MAX_ENTRY_BYTES + 2)
MAX_RELEASE_BYTES = 64 << 30


@dataclass(frozen=True, slots=True)
class Source:
    """Where a party's published log lies (`checkpoint` and `tile/`), and its public keys."""

    folder: Path
    keys: PublicKeys


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose form was read; `verify` says whether any of it is true."""

    path: Path
    run: str
    coordinator: Source
    sites: Mapping[str, Source]
    files: Mapping[str, str]
    digest: str

    @property
    def release(self) -> Path | None:
        """The folder of the release, if the bundle has one."""
        folder = self.path / RELEASE
        return folder if any(name.startswith(RELEASE + "/") for name in self.files) else None


def write(
    out: Path,
    *,
    run: str,
    coordinator: Source,
    sites: Mapping[str, Source],
    plan: bytes,
    release: Path | None = None,
    disclosures: Mapping[str, Sequence[str]] | None = None,
) -> Bundle:
    """Compose a bundle from logs that were exported by `Log.checkpoint`.

    Args:
        out: the new folder; must not exist.
        run: the run that the bundle is about.
        coordinator: the coordinator's log.
        sites: each institution's log by its name.
        plan: the plan's canonical JSON bytes.
        release: the release folder, if the run has one.
        disclosures: by party, the texts of `audit.disclosures` that the reader may see.

    Guarantees: the folder appears whole or not at all.

    Raises:
        AuditError: `out` exists, a log lacks a file, or a file is a symbolic link.
    """
    if out.exists():
        raise AuditError(
            f"{out} exists already; move it away or choose another folder",
            code="exists",
            exit_code=2,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _copy_log(coordinator, work / COORDINATOR)
        for name, source in sites.items():
            if source.keys.name != name:
                raise AuditError(f"the keys of site {name!r} name another party", code="wrong-keys")
            _copy_log(source, work / SITES / name)
        for source in (coordinator, *sites.values()):
            _copy_stamps(source, work / STAMPS / source.keys.name)
        (work / PLAN).write_bytes(plan)
        if release is not None:
            for path in _walk(release):
                target = work / RELEASE / path.relative_to(release)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        for name, shown in (disclosures or {}).items():
            check_name(name)
            (work / DISCLOSURES).mkdir(exist_ok=True)
            text = "".join(f"{line}\n" for line in shown)
            (work / DISCLOSURES / name).write_text(text, encoding="ascii")
        files: dict[str, canonical.JSON] = {
            path.relative_to(work).as_posix(): digests.file_digest(path) for path in _walk(work)
        }
        manifest: canonical.JSON = {
            "format": FORMAT,
            "run": run,
            "coordinator": coordinator.keys.to_json(),
            "sites": {name: source.keys.to_json() for name, source in sites.items()},
            "files": files,
        }
        (work / MANIFEST).write_bytes(canonical.encode(manifest))
        work.chmod(0o755)
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return read(out)


def add(path: Path, files: Mapping[str, bytes]) -> Bundle:
    """Put files into a bundle and into its manifest, which comes last.

    Raises:
        AuditError: there is no bundle, or the files cannot be written.
    """
    opened = read(path)
    try:
        for name, data in files.items():
            check_path(name)
            tiles.write(path / name, data)
        value = canonical.decode(load(path, MANIFEST, most=MAX_JSON_BYTES), where=MANIFEST)
        assert isinstance(value, dict)  # noqa: S101 - `read` saw it
        listed = {**opened.files, **{name: canonical.digest(data) for name, data in files.items()}}
        tiles.write(path / MANIFEST, canonical.encode({**value, "files": dict(listed)}))
    except OSError as error:
        raise AuditError(
            f"{path} cannot be written ({error.strerror}); copy it where it can",
            code="unwritable",
            exit_code=2,
        ) from None
    return read(path)


def read(path: Path) -> Bundle:
    """Read a bundle's manifest.

    Guarantees: every path in it stays inside the bundle; no symbolic link is followed.

    Raises:
        Malformed: the manifest has another form, or a newer format.
        AuditError: there is no bundle.
    """
    manifest = path / MANIFEST
    if path.is_symlink() or not manifest.exists():
        raise AuditError(
            f"{path} is not a bundle (no {MANIFEST}); give the bundle's folder",
            code="no-bundle",
            exit_code=2,
        )
    data = load(path, MANIFEST, most=MAX_JSON_BYTES)
    value = canonical.decode(data, where=MANIFEST)
    failed = Malformed(f"{MANIFEST} is not a bundle's manifest; fetch it again", code="bad-bundle")
    if not isinstance(value, dict):
        raise failed
    form = value.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise Malformed(
            f"{MANIFEST} is of the newer format {form}; update privity", code="newer-format"
        )
    if form != FORMAT or set(value) != {"format", "run", "coordinator", "sites", "files"}:
        raise failed
    run, sites, files = value["run"], value["sites"], value["files"]
    if not isinstance(run, str) or not isinstance(sites, dict) or not isinstance(files, dict):
        raise failed
    if len(files) > MAX_FILES:
        raise Malformed(f"{MANIFEST} lists over {MAX_FILES} files", code="too-many-files")
    for name, digest in files.items():
        check_path(name)
        if not isinstance(digest, str) or not canonical.is_digest(digest):
            raise failed
    found: dict[str, Source] = {}
    for name, keys in sites.items():
        source = Source(path / SITES / name, PublicKeys.from_json(keys))
        if source.keys.name != name:
            raise failed
        found[name] = source
    return Bundle(
        path=path,
        run=run,
        coordinator=Source(path / COORDINATOR, PublicKeys.from_json(value["coordinator"])),
        sites=found,
        files={str(name): str(digest) for name, digest in files.items()},
        digest=canonical.digest(data),
    )


def load(root: Path, name: str, *, most: int) -> bytes:
    """Read one file of a bundle, of at most `most` bytes.

    Raises:
        AuditError: it is absent, a symbolic link or no file on the way, or larger.
    """
    check_path(name)
    place = root
    for part in PurePosixPath(name).parts:
        place = place / part
        if place.is_symlink():
            raise AuditError(f"{name} is a symbolic link; a bundle holds files", code="symlink")
    if not place.is_file():
        raise AuditError(f"{name} is missing; fetch the bundle again", code="missing-file")
    try:
        with place.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise AuditError(f"{name} cannot be read ({error.strerror})", code="unreadable") from None
    if not len(data) <= most:
        raise AuditError(f"{name} is over {most} bytes", code="too-large")
    return data


def check_path(name: str) -> None:
    """Check that a relative path stays inside its folder.

    Raises:
        Malformed: it is absolute, climbs, or holds characters that no file of ours has.
    """
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and len(name) <= 512
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise Malformed("a bundle names a file outside itself; do not use it", code="path-escape")


def walk(root: Path) -> Iterator[str]:
    """Yield the relative path of everything below a bundle that is not a folder, links included.

    Links to folders are yielded, never entered. Stops after MAX_FILES + 1 names.
    """
    count = 0
    for folder, folders, names in os.walk(root, followlinks=False):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted(names + links):
            yield (here / name).relative_to(root).as_posix()
            count += 1
            if count > MAX_FILES:
                return


def _walk(root: Path) -> Iterator[Path]:
    for name in sorted(walk(root)):
        path = root / name
        if path.is_symlink() or not path.is_file():
            raise AuditError(f"{path} is not a plain file; leave it out", code="symlink")
        yield path


def _copy_log(source: Source, target: Path) -> None:
    """Copy the checkpoint and exactly the tiles that its size needs."""
    try:
        data = (source.folder / CHECKPOINT).read_bytes()
        signed = note.open_checkpoint(data, key=note.parse_key(source.keys.log), origin=None)
        for tile in tiles.needed(signed.size):
            place = target / tile.path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.folder / tile.path, place)
        (target / CHECKPOINT).write_bytes(data)
    except OSError as error:
        raise AuditError(
            f"the log of {source.keys.name!r} in {source.folder} lacks a file ({error.strerror}); "
            "write a checkpoint first",
            code="log-unavailable",
        ) from None


def _copy_stamps(source: Source, target: Path) -> None:
    """Copy the newest time-stamps of a log, each with the checkpoint that it stamps."""
    folder = source.folder / STAMPS
    sizes = sorted(int(path.stem) for path in folder.glob("*.tsr") if path.stem.isdecimal())
    size = note.parse_checkpoint(note.parse((source.folder / CHECKPOINT).read_bytes())).size
    for stamped in [each for each in sizes if each <= size][-_MOST_STAMPS:]:
        target.mkdir(parents=True, exist_ok=True)
        for ending in ("tsr", "checkpoint"):
            shutil.copyfile(folder / f"{stamped}.{ending}", target / f"{stamped}.{ending}")
