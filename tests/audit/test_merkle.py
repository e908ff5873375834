from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import merkle
from audit.errors import AuditError

# Leaves and roots that Certificate Transparency implementations have shared since RFC 6962.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree(size: int) -> merkle.Tree:
    return merkle.Tree(merkle.leaf_hash(str(i).encode()) for i in range(size))


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_reference_roots(size: int) -> None:
    built = merkle.Tree(merkle.leaf_hash(leaf) for leaf in LEAVES)
    assert built.root(size).hex() == ROOTS[size]


def test_roots_are_what_the_rfc_defines() -> None:
    built = tree(70)
    leaves = [built.leaf(i) for i in range(70)]
    assert all(built.root(n) == by_definition(leaves[:n]) for n in range(71))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_an_inclusion_proof_holds_for_its_entry_and_no_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    built = tree(size)
    proof, root = built.inclusion(index, size), built.root(size)
    merkle.check_inclusion(built.leaf(index), index, size, proof, root)
    other = (index + 1) % size if size > 1 else 1
    with pytest.raises(merkle.ProofFailed):
        merkle.check_inclusion(built.leaf(index), other, size, proof, root)
    with pytest.raises(merkle.ProofFailed):
        merkle.check_inclusion(bytes(32), index, size, proof, root)
    with pytest.raises(merkle.ProofFailed):
        merkle.check_inclusion(built.leaf(index), index, size, (*proof, bytes(32)), root)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_consistency_proof_holds_for_its_sizes_and_no_fork(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(0, new))
    built = tree(new)
    proof = built.consistency(old, new)
    merkle.check_consistency(old, new, proof, built.root(old), built.root(new))
    for fork in (bytes(32), merkle.leaf_hash(b"fork")):
        with pytest.raises(merkle.ProofFailed):
            merkle.check_consistency(old, new, proof, fork, built.root(new))
        if old:  # everything extends the empty log
            with pytest.raises(merkle.ProofFailed):
                merkle.check_consistency(old, new, proof, built.root(old), fork)
    for place in range(len(proof)):
        shorter = (*proof[:place], *proof[place + 1 :])
        with pytest.raises(merkle.ProofFailed):
            merkle.check_consistency(old, new, shorter, built.root(old), built.root(new))


@pytest.mark.parametrize("value", [b"", bytes(31), bytes(33)])
def test_hashes_of_another_length_are_refused(value: bytes) -> None:
    with pytest.raises(AuditError):
        merkle.check_inclusion(value, 0, 1, (), value)
    with pytest.raises(AuditError):
        merkle.check_consistency(1, 1, (), value, value)
    with pytest.raises(AuditError):
        merkle.Tree([value])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (0, 4)])
def test_entries_outside_the_log_have_no_proof(index: int, size: int) -> None:
    with pytest.raises(AuditError):
        tree(3).inclusion(index, size)


def test_sizes_out_of_order_are_refused() -> None:
    root = tree(3).root()
    with pytest.raises(merkle.ProofFailed):
        merkle.check_consistency(4, 3, (), root, root)
    with pytest.raises(merkle.ProofFailed):
        merkle.check_consistency(0, 3, (bytes(32),), merkle.EMPTY_ROOT, root)
    with pytest.raises(AuditError):
        tree(3).consistency(3, 2)
