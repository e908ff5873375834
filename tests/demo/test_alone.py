"""What an institution alone is asked for, and what it is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from demo import alone
from demo.errors import DemoError
from demo.processes import Processes


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "clinic-a"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "clinic-a"\ncoordinator = "127.0.0.1:8443"\n')
    return folder


def _wish(site: Path, text: str) -> alone.Wish:
    run = site.parent / "plans" / "wished.toml"
    run.parent.mkdir(exist_ok=True)
    run.write_text(text)
    return alone.Wish(site, run, resume=False)


def test_a_run_file_without_a_federation_is_completed_with_the_institution(site: Path) -> None:
    wish = _wish(site, 'name = "triage"\n[evaluation]\npath = "held.jsonl"\n')
    place = alone.prepare(wish)
    written = tomllib.loads(place.run_file.read_text())
    assert written["federation"] == {"institutions": ["clinic-a"], "quorum": 1}
    assert written["evaluation"]["path"] == str(site.parent / "plans" / "held.jsonl")
    assert place.run_file == site / "alone" / "runs" / "triage.toml"
    assert [path.name for path in place.run_file.parent.iterdir()] == ["triage.toml"]
    assert place.asks
    assert wish.run_file.read_text().startswith('name = "triage"')


def test_who_decides_is_read_from_the_institutions_settings(site: Path) -> None:
    with (site / "site.toml").open("a") as settings:
        settings.write('[policy]\napprove = "policy"\n')
    assert not alone.prepare(_wish(site, 'name = "triage"\n')).asks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "t"\n[federation]\ninstitutions = ["clinic-a", "bank-b"]\n', "invites others"),
        ('name = "t"\n[federation]\ninstitutions = ["bank-b"]\n', "invites others"),
        ("name = ", "TOML"),
    ],
)
def test_a_run_with_others_or_no_run_at_all_is_refused(site: Path, text: str, said: str) -> None:
    with pytest.raises(DemoError, match=said):
        alone.prepare(_wish(site, text))


def test_a_folder_that_is_no_institutions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="client init"):
        alone.prepare(_wish(tmp_path / "nowhere", 'name = "t"\n'))


def test_a_finished_run_is_never_run_again(site: Path) -> None:
    wish = _wish(site, 'name = "triage"\n')
    alone.prepare(wish).bundle.mkdir(parents=True)
    with pytest.raises(DemoError, match="finished"):
        alone.prepare(wish)


def test_an_institution_with_another_coordinator_is_not_enrolled_a_second_time(site: Path) -> None:
    (site / "invitation.json").write_text("{}")
    place = alone.prepare(_wish(site, 'name = "triage"\n'))
    with Processes(place.logs) as processes, pytest.raises(DemoError, match="another") as caught:
        alone.enrol(place, site, processes)
    assert caught.value.exit_code == 3
    assert (site / "invitation.json").read_text() == "{}"
    assert not place.coordinator.exists()
