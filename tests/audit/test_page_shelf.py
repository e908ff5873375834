"""Which bundles the officer's page finds, and what it reads of them from their tiles."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import bundle as bundles
from audit import merkle, page_shelf, stored
from audit.errors import AuditError


@pytest.fixture(scope="module")
def missed(federate: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run in which gamma misses the second of two rounds."""
    played = federate(tmp_path_factory.mktemp("page"), absent={1: ("gamma",)}).play()
    played.bundle()
    return played


def test_bundles_are_found_alone_in_a_folder_and_at_a_coordinator(
    missed: Any, tmp_path: Path
) -> None:
    bundle = missed.root / "bundle"
    (tmp_path / "hub" / "bundles").mkdir(parents=True)
    shutil.copytree(bundle, tmp_path / "hub" / "bundles" / "run-1")
    shutil.copytree(bundle, tmp_path / "many" / "a")
    shutil.copytree(bundle, tmp_path / "many" / "b")

    assert page_shelf.find(bundle) == (bundle,)
    assert [path.name for path in page_shelf.find(tmp_path / "hub")] == ["run-1"]
    assert [path.name for path in page_shelf.find(tmp_path / "many")] == ["a", "b"]
    with pytest.raises(AuditError):
        page_shelf.find(tmp_path)


def test_a_proof_from_tiles_is_that_of_the_tree(missed: Any) -> None:
    bundle = bundles.read(missed.root / "bundle")
    leaves = [record.leaf for record in stored.records(bundle, "hub")]
    tree = merkle.Tree(leaves)

    for index in range(tree.size):
        exact = stored.prove(bundle, "hub", index)
        assert exact.proven.proof == tree.inclusion(index, tree.size)
    for size in range(1, tree.size + 1):
        assert stored.root(bundle, "hub", size) == tree.root(size)


def test_a_proof_from_tiles_of_several_levels_is_that_of_the_tree(
    federate: Any, tmp_path: Path, make_bundle_of: Callable[..., Any]
) -> None:
    bundle, tree = make_bundle_of(tmp_path, 700)

    for index in (0, 255, 256, 511, 512, 600, tree.size - 1):
        exact = stored.prove(bundle, "solo", index)
        assert exact.proven.proof == tree.inclusion(index, tree.size)
    for size in (1, 255, 256, 257, 512, 650, tree.size):
        assert stored.root(bundle, "solo", size) == tree.root(size)


@pytest.fixture
def make_bundle_of() -> Callable[..., Any]:
    """A bundle whose coordinator's log has so many entries more than its first."""

    def make(root: Path, count: int) -> tuple[bundles.Bundle, merkle.Tree]:
        from audit import canonical, keys, log

        ring = keys.create(root / "keys", "solo")
        own = log.Log.create(root / "log", keys=ring)
        for number in range(count):
            own.append("institution-revoked", {"name": f"site-{number}"})
        own.checkpoint()
        source = bundles.Source(root / "log", ring.public())
        made = bundles.write(
            root / "b", run="r", coordinator=source, sites={}, plan=canonical.encode({})
        )
        return made, merkle.Tree([record.leaf for record in stored.records(made, "solo")])

    return make
