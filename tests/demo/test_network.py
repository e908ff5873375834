"""The demo cuts the trainers off wherever the machine lets it, and says which it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo import closing, run
from demo.errors import DemoError


@pytest.mark.parametrize(
    ("checks", "network"),
    [
        ([{"name": "trainer", "verdict": "PASS"}], "none"),
        ([{"name": "trainer", "verdict": "FAIL"}, {"name": "model", "verdict": "PASS"}], "warn"),
        ([{"name": "trainer", "verdict": "WARN"}], "warn"),
        ([{"name": "invitation", "verdict": "FAIL"}, {"name": "trainer", "verdict": "PASS"}],
         "none"),
        ([], "warn"),
        (None, "warn"),
    ],
)  # fmt: skip
def test_the_trainer_is_cut_off_where_doctor_says_that_it_can_be(checks: Any, network: str) -> None:
    assert run._network(checks) == network


def test_the_choice_ends_up_in_the_settings_that_a_client_reads(tmp_path: Path) -> None:
    from client import folder

    made = folder.create(tmp_path / "s", name="s", coordinator="127.0.0.1:8443")
    settings = made.path / "site.toml"
    run._allow(settings, (run._APPROVE, run._THREADS, ('network = "none"', 'network = "warn"')))
    opened = folder.open_folder(made.path).settings
    assert (opened.trainer.network, opened.policy.approve) == ("warn", "policy")
    with pytest.raises(DemoError):
        run._allow(settings, (('network = "none"', 'network = "warn"'),))


@pytest.mark.parametrize("word", ["cut off", "not cut off"])
def test_the_closing_table_says_whether_the_trainers_were_cut_off(word: str) -> None:
    result = {
        "institutions": {"a": {"persons": 1, "records": 2, "kept": 2, "removed": 3,
                               "epsilon": 1.0, "cap": 2.0, "delta": 1e-5}},
        "rounds": 1, "evaluation": None, "trainer": word, "generated": False,
        "watermark": {"z": 9.0, "p_value": 1e-9}, "witnesses": ["a"],
        "verified": {"ok": True, "faults": 0},
        "seconds": {"without_model": 1.0, "model": 1.0},
    }  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=200).print(closing.draw(result, Path("x")))
    assert closing._TRAINERS[word].split(" (")[0] in out.getvalue()
