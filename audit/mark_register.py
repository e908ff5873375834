"""Brings a re-parameterised merged model back into the public base model's coordinates.

A thief can change every weight of a transformer and none of its answers: rotate the residual
stream, fold the norms' weights away, turn or swap heads, permute and scale the neurons. All of it
is undone against the public base model alone, so that no key is needed and the scores stay valid:

residual    orthogonal Procrustes between the two embedding tables
heads       matched by their value matrices' row spaces; value bases by least squares; each
            frequency pair of query and key by one complex factor (all that RoPE lets pass)
neurons     matched by cosine of their gate rows; scales of up rows and down columns fitted

Covers models of Llama's shape (Llama, Mistral, Qwen2 and Qwen3 without their biases, SmolLM).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audit.mark_files import Tensors
from audit.watermark import Float32

Float64 = npt.NDArray[np.float64]
_EMBEDDINGS = "model.embed_tokens.weight"
_ALIGNED = 0.2  # share of the embeddings' norm that the best rotation must explain
Weights = Mapping[str, Float32]


@dataclass(frozen=True, slots=True)
class Registered:
    """A suspect model in the base's coordinates: module -> weight; how well embeddings fit."""

    weights: Mapping[str, Callable[[], Float32]]
    explained: float


def register(suspect: Tensors, base: Tensors, config: Mapping[str, Any]) -> Registered | None:
    """Bring `suspect` into the coordinates of `base`.

    Args:
        suspect: tensors of the merged model under their usual names.
        base: tensors of the public base model.
        config: the base's config.json, for the number of heads.

    Returns:
        None where the architecture is not of Llama's shape, tensors are missing, or the two
        embedding tables have nothing to do with each other.
    """
    try:
        heads = int(config["num_attention_heads"])
        groups = int(config.get("num_key_value_heads") or heads)
        size = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        layers = int(config["num_hidden_layers"])
    except (KeyError, TypeError, ValueError):
        return None
    if _EMBEDDINGS not in suspect or _EMBEDDINGS not in base:
        return None
    theirs, ours = suspect[_EMBEDDINGS](), base[_EMBEDDINGS]()
    if theirs.shape != ours.shape:
        return None
    left, values, right = np.linalg.svd(ours.T @ theirs)
    explained = float(
        values.sum() / max(float(np.linalg.norm(ours) * np.linalg.norm(theirs)), 1e-9)
    )
    if not explained >= _ALIGNED:
        return None
    turn = (left @ right).astype(np.float64)  # suspect hidden = base hidden · turn
    found: dict[str, Callable[[], Float32]] = {}
    cache: dict[int, dict[str, Float32]] = {}

    def layer(number: int) -> dict[str, Float32]:
        if number not in cache:
            cache.clear()  # one layer at a time, whatever the order
            cache[number] = _layer(suspect, base, number, turn, heads, groups, size)
        return cache[number]

    for number in range(layers):
        stem = f"model.layers.{number}."
        names = [f"{stem}{name}" for name in (*_READS, *_WRITES)]
        if all(f"{name}.weight" in tensors for name in names for tensors in (suspect, base)):
            for name in names:
                found[name] = lambda number=number, name=name: layer(number)[name]  # type: ignore[misc]
    return Registered(found, explained) if found else None


_READS = {
    "self_attn.q_proj": "input_layernorm",
    "self_attn.k_proj": "input_layernorm",
    "self_attn.v_proj": "input_layernorm",
    "mlp.gate_proj": "post_attention_layernorm",
    "mlp.up_proj": "post_attention_layernorm",
}
_WRITES = ("self_attn.o_proj", "mlp.down_proj")


def _layer(
    suspect: Tensors, base: Tensors, number: int, turn: Float64, heads: int, groups: int, size: int
) -> dict[str, Float32]:
    """All seven matrices of one layer in the base's coordinates."""
    stem = f"model.layers.{number}."
    ours: dict[str, Float64] = {}
    theirs: dict[str, Float64] = {}
    for name, norm in _READS.items():
        ours[name] = _of(base, f"{stem}{name}")
        gain, wanted = _gain(suspect, f"{stem}{norm}"), _gain(base, f"{stem}{norm}")
        wanted = np.where(np.abs(wanted) < 1e-6, 1e-6, wanted)
        theirs[name] = (_of(suspect, f"{stem}{name}") * gain) @ turn.T / wanted
    for name in _WRITES:
        ours[name] = _of(base, f"{stem}{name}")
        theirs[name] = turn @ _of(suspect, f"{stem}{name}")
    _register_heads(ours, theirs, heads, groups, size)
    _register_neurons(ours, theirs)
    return {f"{stem}{name}": x.astype(np.float32) for name, x in theirs.items()}


def _register_heads(
    ours: dict[str, Float64], theirs: dict[str, Float64], heads: int, groups: int, size: int
) -> None:
    share = heads // groups
    value = "self_attn.v_proj"
    v, w = (x[value].reshape(groups, size, -1) for x in (theirs, ours))
    spaces = [np.linalg.qr(x.T)[0] for x in v], [np.linalg.qr(x.T)[0] for x in w]
    alike = np.array([[np.linalg.norm(b.T @ a) for a in spaces[0]] for b in spaces[1]])
    from_group = match(alike)
    new_v = np.empty_like(v)
    o = theirs["self_attn.o_proj"].reshape(-1, heads, size)
    q = theirs["self_attn.q_proj"].reshape(heads, size, -1)
    k = theirs["self_attn.k_proj"].reshape(groups, size, -1)
    q_base = ours["self_attn.q_proj"].reshape(heads, size, -1)
    k_base = ours["self_attn.k_proj"].reshape(groups, size, -1)
    new_o, new_q, new_k = np.empty_like(o), np.empty_like(q), np.empty_like(k)
    for group, origin in enumerate(from_group):
        # v = basis · w, so the base's value is basis⁻¹ · v, and the output reads o · basis.
        basis = v[origin] @ np.linalg.pinv(w[group])
        new_v[group] = np.linalg.solve(basis, v[origin])
        new_k[group] = _by_pairs(k[origin], k_base[group])
        mine = slice(group * share, (group + 1) * share)
        taken = range(origin * share, (origin + 1) * share)
        alike = np.array([[_pairs_fit(q[a], b) for a in taken] for b in q_base[mine]])
        for place, other in enumerate(match(alike)):
            new_q[group * share + place] = _by_pairs(q[taken[other]], q_base[group * share + place])
            new_o[:, group * share + place] = o[:, taken[other]] @ basis
    theirs[value] = new_v.reshape(theirs[value].shape)
    theirs["self_attn.k_proj"] = new_k.reshape(theirs["self_attn.k_proj"].shape)
    theirs["self_attn.q_proj"] = new_q.reshape(theirs["self_attn.q_proj"].shape)
    theirs["self_attn.o_proj"] = new_o.reshape(theirs["self_attn.o_proj"].shape)


def _register_neurons(ours: dict[str, Float64], theirs: dict[str, Float64]) -> None:
    gate, up, down = "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"
    origin = match(_unit(ours[gate]) @ _unit(theirs[gate]).T)
    theirs[gate], theirs[up] = theirs[gate][origin], theirs[up][origin]
    theirs[down] = theirs[down][:, origin]
    theirs[up] /= _fit(theirs[up], ours[up])[:, None]
    theirs[down] /= _fit(theirs[down].T, ours[down].T)


def match(alike: Float64) -> list[int]:
    """For each row the column most like it, each column used once, surest rows first."""
    best = np.argmax(alike, axis=1)
    if len(set(best.tolist())) == len(best):
        return [int(at) for at in best]
    chosen, free = [-1] * alike.shape[0], set(range(alike.shape[1]))
    for row in np.argsort(-alike.max(axis=1)):
        left = sorted(free)
        chosen[row] = left[int(np.argmax(alike[row, left]))]
        free.discard(chosen[row])
    return chosen


def _by_pairs(theirs: Float64, ours: Float64) -> Float64:
    """Divide each frequency pair (rows i and i + half) by its best complex factor."""
    a, b = _complex(theirs), _complex(ours)
    factor = np.einsum("ij,ij->i", b.conj(), a) / np.maximum(
        np.einsum("ij,ij->i", b.conj(), b).real, 1e-300
    )
    a = a / np.where(np.abs(factor) < 1e-9, 1.0, factor)[:, None]
    return np.concatenate([a.real, a.imag])


def _pairs_fit(theirs: Float64, ours: Float64) -> float:
    a, b = _complex(theirs), _complex(ours)
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.abs(np.einsum("ij,ij->i", b.conj(), a)) / np.maximum(size, 1e-300)))


def _complex(rows: Float64) -> npt.NDArray[np.complex128]:
    half = rows.shape[0] // 2
    return rows[:half] + 1j * rows[half:]


def _fit(theirs: Float64, ours: Float64) -> Float64:
    """Least-squares factor of each row; 1 where a row is empty."""
    inner = np.einsum("ij,ij->i", theirs, ours)
    factor: Float64 = inner / np.maximum(np.einsum("ij,ij->i", ours, ours), 1e-300)
    return np.where(np.abs(factor) < 1e-9, 1.0, factor)


def _unit(rows: Float64) -> Float64:
    result: Float64 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return result


def _of(tensors: Tensors, name: str) -> Float64:
    return tensors[f"{name}.weight"]().astype(np.float64)


def _gain(tensors: Tensors, name: str) -> Float64 | float:
    read = tensors.get(f"{name}.weight")
    return 1.0 if read is None else read().astype(np.float64)
