"""A whole institution put back to last week: it refuses at the next word of its coordinator."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.errors import ServerError

Make = Callable[..., Any]


def _copy(site: Path) -> Path:
    kept = site.with_name("backup")
    shutil.copytree(site, kept)
    return kept


def _restore(site: Path, kept: Path) -> None:
    shutil.rmtree(site)
    shutil.copytree(kept, site)


@pytest.mark.parametrize("when", ["before the first run", "after the first run"])
def test_a_whole_folder_from_before_trains_no_more_and_says_how_to_recover(
    world: Make, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = world("clinic-a")
    site = made.sites["clinic-a"].path
    kept = _copy(site) if when == "before the first run" else None
    made.train(made.federation.run_file(epsilon=0.5))
    if kept is None:
        kept = _copy(site)
        made.connect()
        made.train(made.federation.run_file(name="second", epsilon=0.5))
    newest = site.with_name("newest")
    shutil.copytree(site, newest)
    _restore(site, kept)  # its log, ledger and witness agree with each other
    spent = made.spent("clinic-a").spent
    made.connect()
    size = made.sites["clinic-a"].log().size
    third = made.federation.run_file(name="third", epsilon=0.5, join_timeout_s=0.3)
    with pytest.raises(ServerError):
        made.train(third)
    assert set(made.wire.failures("clinic-a")) == {"evidence-inconsistent"}
    assert "restore the newest copy of the whole folder" in caplog.text
    assert made.spent("clinic-a").spent == spent
    assert made.sites["clinic-a"].log().size == size  # nor does it write beside the newer log
    _restore(site, newest)  # as it said
    made.connect()
    third = made.federation.run_file(name="third", epsilon=0.5)
    made.train(third, resume=True)
    assert made.wire.sent("clinic-a", "update")


def test_a_ledger_of_its_own_past_under_the_newest_log_is_refused(
    world: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = world("clinic-a")
    site = made.sites["clinic-a"].path
    kept = _copy(site)
    made.train(made.federation.run_file(epsilon=0.5))
    for path in site.glob("ledger.sqlite*"):
        path.unlink()
    for path in kept.glob("ledger.sqlite*"):
        shutil.copy2(path, site / path.name)
    assert not made.spent("clinic-a").rows  # by itself it looks like one that never spent
    made.connect()
    with pytest.raises(ServerError):
        made.train(made.federation.run_file(name="next", epsilon=0.5, join_timeout_s=0.3))
    assert set(made.wire.failures("clinic-a")) == {"ledger-fault"}
    assert "restore the newest" in caplog.text
    refused = {(e.fields["request"], e.fields["word"])
               for e in made.events("clinic-a", "request-refused")}  # fmt: skip
    assert refused == {("propose", "ledger-fault")}
