"""Whatever bytes arrive, a parser answers with a value or with a typed error."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import archive, bundle
from audit.errors import AuditError, Malformed
from tests.fuzz import parsers

EXAMPLES = int(os.environ.get("PRIVITY_FUZZ_EXAMPLES", "40"))


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with a few bytes flipped, cut, doubled or put in; or bytes of any kind."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(("flip", "cut", "double", "insert", "swap")))
        if how == "flip" and start < len(data):
            flipped = data[start] ^ (1 << draw(st.integers(0, 7)))
            data = data[:start] + bytes([flipped]) + data[start + 1 :]
        elif how == "cut":
            data = data[:start] + data[end:]
        elif how == "double":
            data = data[:end] + data[start:]
        elif how == "insert":
            data = data[:start] + draw(st.binary(max_size=20)) + data[start:]
        else:
            data = data[:start] + draw(st.sampled_from(seeds))[end:]
    return data


@pytest.mark.parametrize("name", sorted(parsers.targets()))
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_parser_raises_typed_errors_only(name: str, data: st.DataObject) -> None:
    target = parsers.targets()[name]
    given_bytes = data.draw(damaged(target.seeds) | st.binary(max_size=300))
    with contextlib.suppress(AuditError):
        target.parse(given_bytes)


@pytest.mark.parametrize("name", sorted(parsers.targets()))
def test_a_parser_accepts_its_seeds(name: str) -> None:
    target = parsers.targets()[name]
    for seed in target.seeds:
        target.parse(seed)


def packed(*items: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for item, data in items:
            made.writestr(item, data)
    return stream.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    item = zipfile.ZipInfo(name)
    item.external_attr = (stat.S_IFLNK | 0o777) << 16
    return item


def lying(data: bytes, size: int) -> bytes:
    """Make a zip's headers claim another size for its only file."""
    real = len(b"\0" * (8 << 20)).to_bytes(4, "little")
    return data.replace(real, size.to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (packed(("../evil", b"x")), "path-escape"),
        (packed(("/etc/evil", b"x")), "path-escape"),
        (packed(("a/../../evil", b"x")), "path-escape"),
        (packed(("a\\..\\evil", b"x")), "path-escape"),
        (packed(("..", b"x")), "path-escape"),
        (packed(("../", b"")), "path-escape"),
        (packed((link("a"), b"/etc/passwd")), "symlink"),
        (packed((link("a"), b"/tmp"), ("a/b", b"x")), "symlink"),
        (packed(("a", b"x"), ("a/b", b"x")), "bad-archive"),
        (packed(("bomb", b"\0" * (8 << 20))), "too-large"),
        (lying(packed(("bomb", b"\0" * (8 << 20))), 10), "bad-archive"),
        (b"PK\x05\x06" + bytes(18), None),
        (b"no zip", "bad-archive"),
    ],
)
def test_an_archive_cannot_leave_its_folder_or_fill_the_disk(
    data: bytes, code: str | None, tmp_path: Path
) -> None:
    (tmp_path / "in.zip").write_bytes(data)
    (tmp_path / "out").mkdir()
    if code is None:
        assert archive.unpack(tmp_path / "in.zip", tmp_path / "out").is_dir()
        return
    with pytest.raises(AuditError) as error:
        archive.unpack(tmp_path / "in.zip", tmp_path / "out")
    assert error.value.code == code
    assert list((tmp_path / "out").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"in.zip", "out"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(packed(("a", b"x"), ("a", b"y")))
    with pytest.raises(Malformed, match="two entries"):
        archive.unpack(tmp_path / "in.zip", tmp_path)


def test_an_archive_of_too_many_or_too_large_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.zip").write_bytes(packed(("a", b"x" * 10), ("b", b"y" * 10)))
    monkeypatch.setattr(bundle, "MAX_FILES", 1)
    with pytest.raises(Malformed, match="over 1 files"):
        archive.unpack(tmp_path / "in.zip", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MOST_BYTES", 15)
    with pytest.raises(Malformed, match="over 15 bytes"):
        archive.unpack(tmp_path / "in.zip", tmp_path)
