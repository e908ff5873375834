"""One site for every attack of a file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.hostile.attacks import besiege


@pytest.fixture(scope="module")
def siege(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One site for every attack of a file: none of them may change it."""
    from client import people
    from privacy.scrub import Scrubbed
    from tests.conftest import _federation
    from tests.flow.world import World

    home = request.getfixturevalue("tiny_home")
    plain = SimpleNamespace(
        digest="sha256:" + "0" * 64,
        scrub_many=lambda texts, _: (Scrubbed(text=t, spans=()) for t in texts),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVITY_HOME", str(home))
        patch.setattr(people, "scrubber", lambda folder: plain)
        world = World(_federation(tmp_path_factory.mktemp("siege"), ("clinic-a",)), patch)
        world.connect()
        yield besiege(lambda name: world)
