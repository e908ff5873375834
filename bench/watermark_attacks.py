"""What a thief may do to one copy, to a merged model, or with several copies: plain arithmetic.

An attack on factors takes and gives ({module: B}, {module: A}); one on a merged model takes the
merged weight, the base weight and a generator, and gives the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
Pair = tuple[Arrays, Arrays]
Draw = np.random.Generator


def _each(pair: Pair, b: Callable[..., np.ndarray], a: Callable[..., np.ndarray] | None) -> Pair:
    left, right = pair
    return (
        {name: np.asarray(b(x), dtype=np.float32) for name, x in left.items()},
        {name: np.asarray(a(x), dtype=np.float32) if a else x for name, x in right.items()},
    )


def bf16(x: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def fp16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def grid(x: np.ndarray, bits: int, group: int = 32) -> np.ndarray:
    """Round to integers of so many bits, one scale a group, as 4- and 8-bit files do."""
    flat = x.reshape(-1)
    padded = np.pad(flat, (0, -flat.size % group)).reshape(-1, group)
    step = np.abs(padded).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    step[step == 0.0] = 1.0
    return (np.round(padded / step) * step).reshape(-1)[: flat.size].reshape(x.shape)


def prune(x: np.ndarray, share: float) -> np.ndarray:
    size = np.abs(x)
    edge = np.partition(size.reshape(-1), int(share * size.size))[int(share * size.size)]
    return np.where(size < edge, 0.0, x)


def noise(x: np.ndarray, factor: float, draw: Draw) -> np.ndarray:
    sigma = np.float32(factor * np.sqrt(np.mean(x**2)))
    return x + sigma * draw.standard_normal(x.shape, dtype=np.float32)


def truncate(pair: Pair, rank: int) -> Pair:
    b, a = {}, {}
    for name, x in pair[0].items():
        left, upper = np.linalg.qr(x.astype(np.float64))
        right, lower = np.linalg.qr(pair[1][name].T.astype(np.float64))
        u, s, vt = np.linalg.svd(upper @ lower.T)
        b[name] = ((left @ u[:, :rank]) * s[:rank]).astype(np.float32)
        a[name] = (vt[:rank] @ right.T).astype(np.float32)
    return b, a


def rotate(pair: Pair, draw: Draw) -> Pair:
    b, a = {}, {}
    for name, x in pair[0].items():
        turn = draw.normal(size=(x.shape[1],) * 2)
        b[name] = (x @ turn).astype(np.float32)
        a[name] = (np.linalg.inv(turn) @ pair[1][name]).astype(np.float32)
    return b, a


def average(pair: Pair, other: Pair) -> Pair:
    return (
        {name: (x + other[0][name]) / 2 for name, x in pair[0].items()},
        {name: (x + other[1][name]) / 2 for name, x in pair[1].items()},
    )


def factors(
    other: Pair, overwrite: Callable[[Arrays], Arrays], moments: Mapping[str, np.ndarray]
) -> dict[str, Callable]:
    """Every attack on the two factors of one copy: (pair, generator) -> pair.

    `moments` is what a release's mark is shaped on; a thief with public records finds it as well.
    """

    def loud(p: Pair) -> Pair:
        """Keep only the quarter of the directions that the mark spares."""
        b = {}
        for name, x in p[0].items():
            _, directions = np.linalg.eigh(moments[name].astype(np.float64))
            kept = directions[:, -max(1, x.shape[1] // 4) :]
            b[name] = (x @ (kept @ kept.T)).astype(np.float32)
        return b, p[1]

    def noisy(factor: float) -> Callable[[Pair, Draw], Pair]:
        return lambda p, d: _each(p, lambda x: noise(x, factor, d), lambda x: noise(x, factor, d))

    def int4(p: Pair) -> Pair:
        return _each(p, lambda x: grid(x, 4), lambda x: grid(x, 4))

    def half(p: Pair) -> Pair:
        return _each(p, lambda x: prune(x, 0.5), lambda x: prune(x, 0.5))

    return {
        "untouched": lambda p, d: p,
        "float16": lambda p, d: _each(p, fp16, fp16),
        "bfloat16": lambda p, d: _each(p, bf16, bf16),
        "int8": lambda p, d: _each(p, lambda x: grid(x, 8), lambda x: grid(x, 8)),
        "int4": lambda p, d: int4(p),
        "1 bit of B": lambda p, d: _each(p, lambda x: np.sign(x) * np.mean(np.abs(x)), None),
        "prune 50 % of A and B": lambda p, d: half(p),
        "prune 90 % of B": lambda p, d: _each(p, lambda x: prune(x, 0.9), None),
        **{f"noise {int(100 * f)} %": noisy(f) for f in (0.1, 0.5, 1.0, 2.0, 3.0)},
        **{f"SVD rank {k}": lambda p, d, k=k: truncate(p, k) for k in (4, 2, 1)},
        "B R, R^-1 A": rotate,
        "scaled by -0.3": lambda p, d: _each(p, lambda x: -0.3 * x, None),
        "only the directions that are spared": lambda p, d: loud(p),
        "only those, int4": lambda p, d: int4(loud(p)),
        "factors averaged with another adapter's": lambda p, d: average(p, other),
        "overwritten at 10x": lambda p, d: (overwrite(p[0]), p[1]),
        "int4, prune 50 %, noise 50 %, rotation": lambda p, d: rotate(
            noisy(0.5)(half(int4(p)), d), d
        ),
        "SVD rank 2, noise 100 %, int4": lambda p, d: int4(noisy(1.0)(truncate(p, 2), d)),
        "noise 50 %, int4, prune 50 %": lambda p, d: half(int4(noisy(0.5)(p, d))),
    }


# In one of so many layers, since more only help the mark; the ones that hurt it most in more.
LAYERS = {
    "noise 300 %": 1,
    "noise 200 %": 2,
    "SVD rank 2, noise 100 %, int4": 1,
}
OTHERS = 5


def thefts(modules: Sequence[str]) -> dict[str, list[str]]:
    """Which modules a thief took."""
    return {
        "only query and value matrices": [m for m in modules if m.endswith(("q_proj", "v_proj"))],
        "only one layer": [m for m in modules if ".layers.0." in m or ".layers.1." in m][:7],
        "only one query matrix": [m for m in modules if m.endswith("q_proj")][:1],
    }


def merged(other: Mapping[str, np.ndarray]) -> dict[str, Callable]:
    """Every attack on a merged weight: (weight, base, module, generator) -> weight."""

    def drop(w: np.ndarray, base: np.ndarray, share: float, draw: Draw) -> np.ndarray:
        delta = (w - base) * (draw.random(w.shape, dtype=np.float32) >= share)
        return base + delta / np.float32(1.0 - share)

    def ties(w: np.ndarray, base: np.ndarray, module: str) -> np.ndarray:
        parts = np.stack([prune(w - base, 0.8), prune(other[module], 0.8)])
        sign = np.sign(parts.sum(axis=0))
        agree = (np.sign(parts) == sign) & (parts != 0)
        return base + (parts * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)

    return {
        "untouched": lambda w, b, m, d: w,
        "bfloat16": lambda w, b, m, d: bf16(w),
        "float16": lambda w, b, m, d: fp16(w),
        "int8": lambda w, b, m, d: grid(w, 8),
        "int4": lambda w, b, m, d: grid(w, 4),
        "prune 50 %": lambda w, b, m, d: prune(w, 0.5),
        "prune 50 %, int4": lambda w, b, m, d: grid(prune(w, 0.5), 4),
        "noise 1 % of W": lambda w, b, m, d: noise(w, 0.01, d),
        "noise 5 % of W": lambda w, b, m, d: noise(w, 0.05, d),
        "merged 50/50 with another adapter": lambda w, b, m, d: b + (w - b + other[m]) / 2,
        "TIES, top 20 %, with another": lambda w, b, m, d: ties(w, b, m),
        "DARE 50 %": lambda w, b, m, d: drop(w, b, 0.5, d),
        "DARE 90 %": lambda w, b, m, d: drop(w, b, 0.9, d),
    }


def collude(copies: np.ndarray, how: str, draw: Draw) -> np.ndarray:
    """Combine copies, shape (number, ...), elementwise."""
    if how == "mean":
        return copies.mean(axis=0)
    if how == "median":
        return np.median(copies, axis=0)
    if how == "min-max":
        return (copies.min(axis=0) + copies.max(axis=0)) / 2
    if how == "minimum":
        return copies.min(axis=0)
    chosen = draw.integers(0, copies.shape[0], size=copies.shape[1:])
    return np.take_along_axis(copies, chosen[None], axis=0)[0]


def reparameterise(
    weights: Mapping[str, np.ndarray], config: Mapping[str, int], draw: Draw
) -> dict[str, np.ndarray]:
    """A model that computes the same with every weight changed.

    Rotates the residual stream with the norms' weights folded in, turns each head's value basis
    by a random matrix, turns and scales query and key by frequency pair, swaps the heads, permutes
    the neurons and scales their up rows against their down columns.
    """
    w = {name: x.astype(np.float64) for name, x in weights.items()}
    hidden = w["model.embed_tokens.weight"].shape[1]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size, share = hidden // heads, heads // groups
    turn = np.linalg.qr(draw.normal(size=(hidden, hidden)))[0]
    w["model.embed_tokens.weight"] = w["model.embed_tokens.weight"] @ turn
    for number in range(config["num_hidden_layers"]):
        at = f"model.layers.{number}."
        for name, norm in (("self_attn.q_proj", "input"), ("self_attn.k_proj", "input"),
                           ("self_attn.v_proj", "input"), ("mlp.gate_proj", "post_attention"),
                           ("mlp.up_proj", "post_attention")):  # fmt: skip
            gain = w[f"{at}{norm}_layernorm.weight"]
            w[f"{at}{name}.weight"] = (w[f"{at}{name}.weight"] * gain) @ turn
        for norm in ("input", "post_attention"):
            w[f"{at}{norm}_layernorm.weight"] = np.ones(hidden)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            w[f"{at}{name}.weight"] = turn.T @ w[f"{at}{name}.weight"]
        q = w[f"{at}self_attn.q_proj.weight"].reshape(heads, size, hidden)
        k = w[f"{at}self_attn.k_proj.weight"].reshape(groups, size, hidden)
        v = w[f"{at}self_attn.v_proj.weight"].reshape(groups, size, hidden)
        o = w[f"{at}self_attn.o_proj.weight"].reshape(hidden, heads, size)
        for g in range(groups):
            basis = np.linalg.qr(draw.normal(size=(size, size)))[0] * draw.uniform(0.5, 2.0)
            v[g] = basis @ v[g]
            phase = draw.uniform(0.5, 2.0, size // 2) * np.exp(
                1j * draw.uniform(0, 6.28, size // 2)
            )
            k[g] = _by_phase(k[g], phase)
            for h in range(g * share, (g + 1) * share):
                o[:, h] = o[:, h] @ np.linalg.inv(basis)
                q[h] = _by_phase(q[h], 1.0 / phase.conj())
        order = draw.permutation(groups)
        inner = np.concatenate([g * share + draw.permutation(share) for g in order])
        w[f"{at}self_attn.q_proj.weight"] = q[inner].reshape(-1, hidden)
        w[f"{at}self_attn.k_proj.weight"] = k[order].reshape(-1, hidden)
        w[f"{at}self_attn.v_proj.weight"] = v[order].reshape(-1, hidden)
        w[f"{at}self_attn.o_proj.weight"] = o[:, inner].reshape(hidden, -1)
        neurons = draw.permutation(w[f"{at}mlp.gate_proj.weight"].shape[0])
        factor = draw.uniform(0.5, 2.0, neurons.size)
        for name in ("gate_proj", "up_proj"):
            w[f"{at}mlp.{name}.weight"] = w[f"{at}mlp.{name}.weight"][neurons]
        w[f"{at}mlp.up_proj.weight"] *= factor[:, None]
        w[f"{at}mlp.down_proj.weight"] = w[f"{at}mlp.down_proj.weight"][:, neurons] / factor
    return {name: x.astype(np.float32) for name, x in w.items()}


def _by_phase(rows: np.ndarray, phase: np.ndarray) -> np.ndarray:
    half = rows.shape[0] // 2
    turned = (rows[:half] + 1j * rows[half:]) * phase[:, None]
    return np.concatenate([turned.real, turned.imag])
