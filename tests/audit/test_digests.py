from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import digests
from audit.errors import AuditError, Malformed

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_the_digest_ignores_order_and_memory_layout() -> None:
    one = digests.arrays_digest({"a": A, "b": A.T})
    two = digests.arrays_digest({"b": np.ascontiguousarray(A.T), "a": np.asfortranarray(A)})
    assert one == two


@pytest.mark.parametrize(
    "other",
    [
        {"a": A + 1e-6},
        {"a": A.reshape(3, 2)},
        {"a": A.reshape(1, 2, 3)},
        {"b": A},
        {"a": A, "b": A},
        {"a": -0.0 * A},
        {},
    ],
)
def test_any_other_arrays_have_another_digest(other: dict[str, np.ndarray]) -> None:
    assert digests.arrays_digest(other) != digests.arrays_digest({"a": A})


def test_moving_a_boundary_between_names_and_values_changes_the_digest() -> None:
    one = digests.arrays_digest({"ab": A, "c": A})
    assert digests.arrays_digest({"a": A, "bc": A}) != one


def test_only_float32_is_hashed() -> None:
    with pytest.raises(Malformed, match="float64"):
        digests.arrays_digest({"a": A.astype(np.float64)})


def test_a_safetensors_file_has_the_digest_of_its_arrays(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "x.safetensors")
    assert digests.safetensors_digest(tmp_path / "x.safetensors") == digests.arrays_digest({"a": A})


@pytest.mark.parametrize("data", [b"", b"x" * 8, b"\xff" * 64, (8).to_bytes(8, "little") + b"{}"])
def test_bytes_that_are_not_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(Malformed):
        digests.safetensors_digest(tmp_path / "x")


def test_a_folder_digest_changes_with_every_edit_and_refuses_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    seen = [digests.folder_digest(tmp_path)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("1")
    seen.append(digests.folder_digest(tmp_path))
    (tmp_path / "a").rename(tmp_path / "c")
    seen.append(digests.folder_digest(tmp_path))
    assert len(set(seen)) == 3
    (tmp_path / "link").symlink_to(tmp_path / "c")
    with pytest.raises(AuditError, match="symbolic link"):
        digests.folder_digest(tmp_path)
