"""Several processes take the step of one: gloo on processors stands for several GPUs."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.privacy import crewed

ROOT = Path(__file__).parent.parent.parent


SIZE = 3


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """What each process of one crew answers to every task: starting them is what takes time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(SIZE):
        told = {
            "RANK": number,
            "LOCAL_RANK": number,
            "WORLD_SIZE": SIZE,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1,
            "PYTHONPATH": ROOT,
            "ACCELERATE_USE_CPU": "true",
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.privacy.crewed"],
                cwd=ROOT,
                text=True,
                env={**os.environ, **{name: str(value) for name, value in told.items()}},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    found = []
    try:
        for process in started:
            out, fault = process.communicate(timeout=900)
            assert process.returncode == 0, fault[-2000:]
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [one["number"] for one in found] == list(range(SIZE))
    assert {one["size"] for one in found} == {SIZE}
    return found


def test_the_result_is_that_of_one_process_with_the_same_batch_and_noise(
    answers: list[dict[str, Any]],
) -> None:
    alone, _ = crewed.train(None)
    for answer in answers:
        np.testing.assert_allclose(answer["weights"], alone, rtol=0, atol=1e-6)
    other, _ = crewed.train(None, randomness=crewed.Repeatable(2))
    assert np.abs(np.array(alone) - other).max() > 0.01


def test_noise_is_drawn_by_one_process_once_a_step_and_weight(
    answers: list[dict[str, Any]],
) -> None:
    assert [answer["normals"] for answer in answers] == [3, 0, 0]


def test_processes_end_with_equal_weights_to_the_last_bit_and_fresh_noise(
    answers: list[dict[str, Any]],
) -> None:
    assert len({tuple(answer["fresh"]) for answer in answers}) == 1
    assert answers[0]["fresh"] != crewed.train(None, randomness=crewed.Csprng())[0]


def test_noise_is_added_once_whatever_the_number_of_processes(
    answers: list[dict[str, Any]],
) -> None:
    """Of 1,000 draws; noise that each process added would be 73 % too large."""
    room = 4.0 / math.sqrt(2 * 1000)
    for spread in (crewed.spread(None), *(answer["spread"] for answer in answers)):
        assert abs(spread - 1.0) < room
    assert math.sqrt(SIZE) - 1.0 > 2 * room


def test_processes_that_would_train_otherwise_are_refused(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        for what in ("settings", "people"):
            assert answer[what].startswith("the processes have different plans"), what
