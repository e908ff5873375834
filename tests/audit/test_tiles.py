from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import merkle, tiles
from audit.errors import AuditError, Malformed


def test_paths_are_those_of_the_specification() -> None:
    assert tiles.Tile("0", 1234067, 256).path == "tile/0/x001/x234/067"
    assert tiles.Tile("entries", 0, 112).path == "tile/entries/000.p/112"


def test_a_tree_of_70000_has_the_tiles_that_the_specification_counts() -> None:
    made = [tile for tile in tiles.needed(70_000) if tile.level != tiles.ENTRIES]
    counted = {(t.level, t.width == 256): 0 for t in made}
    for tile in made:
        counted[tile.level, tile.width == 256] += 1
    assert counted == {("0", True): 273, ("0", False): 1, ("1", True): 1, ("1", False): 1} | {
        ("2", False): 1
    }
    assert [t.width for t in made if t.width < 256] == [112, 17, 1]


def test_a_tree_of_256_has_a_full_tile_and_one_hash_above() -> None:
    made = [(t.level, t.width) for t in tiles.needed(256) if t.level != tiles.ENTRIES]
    assert made == [("0", 256), ("1", 1)]


def test_upper_tiles_hold_the_roots_of_full_tiles() -> None:
    tree = merkle.Tree(merkle.leaf_hash(bytes([i % 256])) for i in range(600))
    upper = tiles.split(tiles.hashes(tiles.Tile("1", 0, 2), tree), 2)
    assert upper[0] == tree.root(256)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_an_entry_bundle_reads_back(entries: list[bytes]) -> None:
    data = tiles.pack(entries)
    assert tiles.unpack(data, len(entries)) == entries
    for wrong in (data + b"\x00", data[:-1]):
        if wrong != data and (entries or len(wrong) > len(data)):
            with pytest.raises(Malformed):
                tiles.unpack(wrong, len(entries))


def test_an_entry_over_65535_bytes_is_refused() -> None:
    tiles.pack([bytes(65535)])
    with pytest.raises(AuditError) as caught:
        tiles.pack([bytes(65536)])
    assert caught.value.code == "entry-too-large"


def test_a_hash_tile_of_another_length_is_refused() -> None:
    with pytest.raises(Malformed):
        tiles.split(bytes(33), 1)
