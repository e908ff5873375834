"""A coordinator's folder with committed watermark keys, and copies, leaks and models made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import chips, digests, keys, log, mark_keys, trace, watermark
from audit.errors import AuditError

RANK, OUT, IN, SCALE = 8, 96, 64, 2.0
NAMES = ("anna", "bert", "coordinator")
RUN = "r1"


def adapter(seed: int) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(12)]
    a = {n: np.linalg.qr(rng.normal(size=(IN, RANK)))[0].T.astype(np.float32) for n in names}
    b = {n: rng.normal(size=(OUT, RANK)).astype(np.float32) for n in names}
    return {f"{n}.B": x for n, x in b.items()}, {f"{n}.A": x for n, x in a.items()}


B, A = adapter(1)


def write_peft(folder: Path, b: dict, a: dict, dtype: Any = np.float32) -> Path:
    folder.mkdir()
    tensors = {
        f"base_model.model.{name[:-2]}.lora_{side}.weight": np.ascontiguousarray(x, dtype)
        for side, arrays in (("A", a), ("B", b))
        for name, x in arrays.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@dataclass
class Hub:
    """A coordinator's folder with one run: master key, log, committed keys, two references."""

    path: Path
    log: log.Log
    keys: mark_keys.Keys

    def copy(self, name: str, out: Path, number: int = 2, **more: Any) -> Path:
        reference = self.keys.references()[number]
        subkey = self.keys.of(name).subkey
        marked = watermark.mark(reference, owner=self.keys.owner.subkey, recipient=subkey)
        return write_peft(out, marked, A, **more)


def make(path: Path, **forged: Any) -> Hub:
    """An honest coordinator, or one that forges a part of the commitment."""
    ring = keys.create(path / "keys", "hub")
    made = log.Log.create(path / "log", keys=ring)
    master = path / "secrets" / "watermark.master"
    master.parent.mkdir()
    master.write_text((b"m" * 32).hex())
    made.append(
        "run-started",
        {"plan_digest": "sha256:" + "0" * 64, "plan": {}, "institutions": ["anna"], "quorum": 1},
        run=RUN,
    )
    size = forged.get("size", made.size)
    root = "sha256:" + made.root(made.size).hex()

    def key(name: str) -> mark_keys.Key:
        subkey = chips.derive(
            b"m" * 32, origin=made.origin, size=size, root=root, release=RUN, recipient=name
        )
        return mark_keys.Key(name, forged.get("subkeys", {}).get(name, subkey), b"n" * 32)

    held = mark_keys.create(
        path / "runs" / RUN / "watermark",
        release=RUN, scale=SCALE, strength=0.05, tree_size=size, tree_root=root,
        owner=key(""), recipients=tuple(key(name) for name in NAMES), basis=A,
    )  # fmt: skip
    material = {
        "basis_digest": watermark.basis_digest(A),
        "table_digest": chips.table_digest(),
        "detector_digest": watermark.detector_digest(),
    }
    rows = [{"recipient": k.name or "owner", "commitment": k.commitment} for k in held.all]
    made.append(
        "watermark-keys",
        {
            "tree_size": size,
            "tree_root": root,
            **material,
            "strength": "0.05",
            "commitments": forged.get("rows", rows),
        },
        run=RUN,
    )
    first = {n: (0.5 * x + 0.3).astype(np.float32) for n, x in B.items()}
    made.append(
        "broadcast-marked",
        {
            "input_adapter": digests.arrays_digest(first),
            "reference_halves": watermark.half_digests(first, A),
            "copies": [],
        },
        run=RUN,
        round=1,
    )
    made.append(
        "watermark-committed",
        {
            "reference_digest": digests.arrays_digest(B),
            "reference_halves": watermark.half_digests(B, A),
            **material,
            "strength": "0.05",
            "commitments": rows,
        },
        run=RUN,
    )
    held.keep_reference(1, first)
    held.keep_reference(2, B)
    made.checkpoint()
    return Hub(path, made, held)


def merged_files(hub: Hub, folder: Path, *, half: bool = False) -> tuple[Path, Path]:
    rng = np.random.default_rng(4)
    base = {f"{n.removesuffix('.B')}.weight": rng.normal(size=(OUT, IN)) for n in B}
    reference = hub.keys.references()[2]
    marked = watermark.mark(
        reference, owner=hub.keys.owner.subkey, recipient=hub.keys.of("bert").subkey
    )
    whole = {
        f"{m}.weight": base[f"{m}.weight"] + SCALE * marked[f"{m}.B"] @ A[f"{m}.A"]
        for m in reference.carriers
    }
    for name, tensors in (("base", base), ("model", whole)):
        (folder / name).mkdir(parents=True)
        kind = np.float16 if half else np.float32
        save_file(
            {n: np.asarray(x, kind) for n, x in tensors.items()},
            folder / name / "model.safetensors",
        )
    return folder / "model", folder / "base"


def refused(hub: Hub, suspect: Path, **more: Any) -> str:
    with pytest.raises(AuditError) as caught:
        trace.coordinator(suspect, hub.path, **more)
    assert caught.value.exit_code == 4
    return caught.value.code
