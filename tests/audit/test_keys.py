from __future__ import annotations

import stat
from pathlib import Path

import pytest

from audit import keys
from audit.errors import AuditError, Malformed


def test_keys_come_back_from_their_folder(tmp_path: Path) -> None:
    made = keys.create(tmp_path / "k", "alpha")
    assert keys.load(tmp_path / "k").public() == made.public()


def test_secret_files_are_for_their_owner_only(tmp_path: Path) -> None:
    keys.create(tmp_path / "k", "alpha")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "k").glob("*.pem")}
    assert modes == {f"{role}.pem": 0o600 for role in keys.ROLES}
    (tmp_path / "k" / "log.pem").chmod(0o640)
    with pytest.raises(AuditError, match="chmod 600"):
        keys.load(tmp_path / "k")


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    keys.create(tmp_path / "k", "alpha")
    before = (tmp_path / "k" / "log.pem").read_bytes()
    with pytest.raises(AuditError) as caught:
        keys.create(tmp_path / "k", "beta")
    assert caught.value.exit_code == 2
    assert (tmp_path / "k" / "log.pem").read_bytes() == before


def test_a_swapped_key_file_is_noticed(tmp_path: Path) -> None:
    keys.create(tmp_path / "a", "alpha")
    keys.create(tmp_path / "b", "alpha")
    (tmp_path / "a" / "event.pem").write_bytes((tmp_path / "b" / "event.pem").read_bytes())
    with pytest.raises(AuditError, match=r"not those of public\.json"):
        keys.load(tmp_path / "a")


@pytest.mark.parametrize("damage", ["", "not a key", None])
def test_a_damaged_or_missing_key_file_is_an_audit_error(
    tmp_path: Path, damage: str | None
) -> None:
    keys.create(tmp_path / "k", "alpha")
    path = tmp_path / "k" / "witness.pem"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(AuditError):
        keys.load(tmp_path / "k")


def test_private_keys_do_not_show_in_a_representation(tmp_path: Path) -> None:
    assert repr(keys.create(tmp_path / "k", "alpha")) == "KeyRing(name='alpha')"


def test_each_role_has_its_own_key_and_type(tmp_path: Path) -> None:
    public = keys.create(tmp_path / "k", "alpha").public()
    assert keys.PublicKeys.from_json(public.to_json()) == public
    swapped = {**public.to_json(), "log": public.witness}
    for wrong in (swapped, {**public.to_json(), "name": "beta"}, {"name": "alpha"}, [], None):
        with pytest.raises(Malformed):
            keys.PublicKeys.from_json(wrong)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "a..b", "a+b", "x" * 64, "é"])
def test_names_that_could_be_paths_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Malformed):
        keys.create(tmp_path / "k", name)
