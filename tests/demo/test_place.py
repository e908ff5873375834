"""The demo's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo import place
from demo.errors import DemoError


def test_a_finished_demo_is_refused_without_force_and_replaced_with_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with place.claim(out, force=False):
        (out / "bundle").mkdir()
        place.finish(out, {"rounds": 1})
    with pytest.raises(DemoError, match="--force") as refusal, place.claim(out, force=False):
        pass
    assert refusal.value.exit_code == 2
    assert (out / "bundle").is_dir()
    with place.claim(out, force=True):
        assert not (out / "bundle").exists()


def test_an_interrupted_demo_can_be_started_again_without_force(tmp_path: Path) -> None:
    out = tmp_path / "demo"

    def interrupted() -> None:
        with place.claim(out, force=False):
            (out / "coordinator").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with place.claim(out, force=False):
        assert not (out / "coordinator").exists()


def test_a_folder_that_is_not_a_demos_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DemoError, match="not a demo's folder"), place.claim(tmp_path, force=True):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_two_demos_never_share_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with (
        place.claim(out, force=False),
        pytest.raises(DemoError, match="another demo"),
        place.claim(out, force=True),
    ):
        pass


def test_a_demo_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"format": 2, "finished": true}')
    with pytest.raises(DemoError, match="newer version"), place.claim(tmp_path, force=True):
        pass
