"""What the watermark is measured with: keys and their chips, attacks on copies, and the tallies."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit import chips, mark_detect, mark_files, mark_register, watermark
from audit.trace import ATTRIBUTION, SUSPICION
from bench import watermark_attacks
from bench.measure import Bar, at_least, at_most
from bench.watermark_adapters import Trained


def keys_of(release: str, count: int) -> list[bytes]:
    """The owner's subkey and one for each recipient."""
    names = [chips.OWNER, *(f"r{n}" for n in range(count))]
    return [
        chips.derive(b"m" * 32, origin="o", size=3, root="h", release=release, recipient=name)
        for name in names
    ]


@dataclass
class Bank:
    """A reference, its keys, and the chips of all of them: what scoring many suspects needs."""

    trained: Trained
    reference: watermark.Reference
    keys: list[bytes]
    chips: Mapping[str, np.ndarray]
    spare: bool = True

    @classmethod
    def of(cls, trained: Trained, count: int) -> Bank:
        reference = watermark.Reference.of(trained.b, trained.a, trained.scale)
        keys = keys_of(trained.name, count)
        halves = [chips.halves(key) for key in keys]
        drawn = {
            module: np.stack([chips.draw(h, module, c.g.shape).ravel() for h in halves])
            for module, c in reference.carriers.items()
        }
        return cls(trained, reference, keys, drawn)

    def copy(self, number: int) -> watermark_attacks.Pair:
        """One recipient's copy, by module."""
        marked = watermark.mark(
            self.reference, owner=self.keys[0], recipient=self.keys[1 + number],
            sensitivity=self.trained.sensitivity if self.spare else None,
        )  # fmt: skip
        return (
            {name.removesuffix(".B"): x for name, x in marked.items()},
            {m: c.a for m, c in self.reference.carriers.items()},
        )

    def as_large(self, other: Bank) -> watermark_attacks.Pair:
        """A copy of another adapter, each module scaled to the size that it has here.

        To merge with one that is several times as large is to throw this one away.
        """
        b, a = other.copy(0)
        sizes = {m: np.linalg.norm(c.b) for m, c in self.reference.carriers.items()}
        return {m: x * np.float32(sizes[m] / np.linalg.norm(x)) for m, x in b.items()}, a

    def z(self, found: Mapping[str, mark_detect.Residual]) -> np.ndarray:
        """Best z of every key; the same sums as `mark_detect.scores`, of chips at hand."""
        best = np.full(len(self.keys), -np.inf)
        for values in found.values():
            inner = sum(self.chips[m] @ x.ravel() for m, x in values.items())
            norm = sum(float(np.vdot(x, x)) for x in values.values())
            best = np.maximum(best, inner / np.sqrt(max(norm, 1e-300)))
        return best

    def test(self, pair: watermark_attacks.Pair) -> np.ndarray:
        suspect = mark_detect.factored(*pair)
        return self.z(mark_detect.residuals(suspect, self.reference))


@dataclass
class Tally:
    """The lowest score of a true recipient and the highest of anybody else, by attack."""

    true: dict[str, float]
    owner: dict[str, float]
    others: dict[str, float]
    copies: dict[str, int]

    @classmethod
    def empty(cls) -> Tally:
        return cls({}, {}, {}, {})

    def add(self, name: str, z: np.ndarray, truly: Sequence[int]) -> None:
        wrong = [n for n in range(len(z) - 1) if n not in truly]
        low = float(min(z[1 + n] for n in truly))
        high = float(max((z[1 + n] for n in wrong), default=0.0))
        self.true[name] = min(self.true.get(name, np.inf), low)
        self.owner[name] = min(self.owner.get(name, np.inf), float(z[0]))
        self.others[name] = max(self.others.get(name, -np.inf), high)
        self.copies[name] = self.copies.get(name, 0) + 1

    def figures(self) -> dict[str, Any]:
        return {
            name: {
                "lowest z of the recipient": round(self.true[name], 2),
                "lowest z of the owner": round(self.owner[name], 2),
                "highest z of another": round(self.others[name], 2),
                "copies": self.copies[name],
            }
            for name in self.true
        }

    def bars(self, title: str) -> dict[str, Bar]:
        if not self.true:
            return {}
        worst = min(self.true, key=lambda name: self.true[name])
        return {
            f"{title}: lowest z of the true recipient ({worst})": at_least(
                self.true[worst], ATTRIBUTION
            ),
            f"{title}: highest z of anybody else": at_most(max(self.others.values()), SUSPICION),
        }


def single(bank: Bank, other: Bank, copies: int, say: Any) -> Tally:
    """Every attack on the factors of one copy, on each of so many copies."""
    draw, tally = np.random.default_rng(1), Tally.empty()
    strange = keys_of("a thief's own", 1)

    def overwrite(b: watermark_attacks.Arrays) -> watermark_attacks.Arrays:
        theirs = watermark.Reference.of(b, bank.trained.a, bank.trained.scale)
        return watermark.mark(theirs, owner=strange[0], recipient=strange[1], strength=0.5)

    strange_copy = bank.as_large(other)
    attacks = watermark_attacks.factors(strange_copy, overwrite, bank.trained.sensitivity)
    for number in range(copies):
        pair = bank.copy(number)
        for name, attack in attacks.items():
            each = watermark_attacks.LAYERS.get(name, watermark_attacks.OTHERS)
            some = [m for m in pair[0] if layer_of(m) % each == 0]
            few = {m: pair[0][m] for m in some}, {m: pair[1][m] for m in some}
            tally.add(name, bank.test(attack(few, draw)), [number])
        for name, modules in watermark_attacks.thefts(sorted(pair[0])).items():
            part = tuple({m: side[m] for m in modules} for side in pair)
            tally.add(name, bank.test(part), [number])
        say(f"{bank.trained.name}: single copy {number + 1} of {copies}")
        if number % 10 == 9:
            say(json.dumps(tally.figures()))
    return tally


def merged(bank: Bank, other: Bank, base: mark_files.Tensors, copies: int, say: Any) -> Tally:
    """Every attack on merged weights, in the attention matrices of four layers.

    Merges with another adapter are done in all matrices of these layers.
    """
    draw, tally = np.random.default_rng(2), Tally.empty()
    layers = sorted({layer_of(m) for m in bank.reference.carriers})
    few = set(layers[:: max(1, len(layers) // 4)][:4])
    modules = [m for m in bank.reference.carriers if layer_of(m) in few]
    weights = {m: base[f"{m}.weight"]() for m in modules}
    strange = bank.as_large(other)
    theirs = {m: other.trained.scale * strange[0][m] @ strange[1][m] for m in modules}
    attacks = watermark_attacks.merged(theirs)
    for number in range(copies):
        b, a = bank.copy(number)
        whole = {m: weights[m] + bank.trained.scale * b[m] @ a[m] for m in modules}
        for name, attack in attacks.items():

            def part(m: str, attack: Any = attack, whole: Any = whole) -> mark_detect.Part:
                w = np.asarray(attack(whole[m], weights[m], m, draw), dtype=np.float32)
                delta = w - weights[m]
                return mark_detect.Part(delta=delta, known=(w != 0) & (delta != 0))

            some = [m for m in modules if "another" in name or "self_attn" in m]
            suspect = {m: (lambda m=m: part(m)) for m in some}
            tally.add(name, bank.z(mark_detect.residuals(suspect, bank.reference)), [number])
        say(f"{bank.trained.name}: merged copy {number + 1} of {copies}")
        if number % 10 == 9:
            say(json.dumps(tally.figures()))
    return tally


def registered(
    bank: Bank, base: mark_files.Tensors, config: Mapping[str, Any], copies: int, say: Any
) -> Tally:
    """A merged model of 8 layers of which every weight was changed and no answer."""
    draw, tally = np.random.default_rng(3), Tally.empty()
    layers = sorted({layer_of(m) for m in bank.reference.carriers})[:8]
    config = {**config, "num_hidden_layers": len(layers)}
    kept = {
        name: read for name, read in base.items()
        if name == "model.embed_tokens.weight" or layer_of(name) in layers
    }  # fmt: skip
    for number in range(copies):
        b, a = bank.copy(number)
        weights = {name: read() for name, read in kept.items()}
        for m in bank.reference.carriers:
            if layer_of(m) in layers:
                weights[f"{m}.weight"] = weights[f"{m}.weight"] + bank.trained.scale * b[m] @ a[m]
        changed = watermark_attacks.reparameterise(weights, config, draw)
        for title, step in (("as it is", lambda x: x), ("and bfloat16", watermark_attacks.bf16)):
            stolen = {name: held(step(x)) for name, x in changed.items()}
            plainly = {
                m: functools.partial(difference, stolen, kept, m)
                for m in bank.reference.carriers
                if layer_of(m) in layers
            }
            z = bank.z(mark_detect.residuals(plainly, bank.reference))
            tally.add(f"{title}, without registration", z, [number])
            found = mark_register.register(stolen, kept, config)
            again = {
                m: functools.partial(difference, found.weights, kept, m)
                for m in sorted(found.weights)
            }
            rest = {"registered": mark_detect.residuals(again, bank.reference)["plain"]}
            tally.add(title, bank.z(rest), [number])
        say(f"{bank.trained.name}: registered copy {number + 1} of {copies}")
    return tally


def collusion(bank: Bank, innocents: int, say: Any) -> tuple[dict[str, Any], dict[str, Bar]]:
    """2 to 20 recipients combine their copies; who is named, and is ever an innocent?"""
    draw = np.random.default_rng(4)
    figures: dict[str, Any] = {}
    suspects: list[Mapping[str, np.ndarray]] = []
    named: dict[str, list[float]] = {"": [], "noise": []}
    count = len(bank.keys) - 1
    for size in (2, 5, 10, 20):
        who = sorted(draw.choice(count, size=min(size, count - 1), replace=False).tolist())
        copies = [bank.copy(n)[0] for n in who]
        a = bank.copy(0)[1]
        for how in ("mean", "median", "min-max", "minimum", "random pick", "mean, noise 50 %"):
            b = {
                m: watermark_attacks.collude(
                    np.stack([c[m] for c in copies]), how.partition(",")[0], draw
                ).astype(np.float32)
                for m in a
            }
            if "noise" in how:
                b = {m: watermark_attacks.noise(x, 0.5, draw) for m, x in b.items()}
            found = mark_detect.residuals(mark_detect.factored(b, a), bank.reference)
            suspects += found.values()
            z = bank.z(found)
            guilty = z[[1 + n for n in who]]
            rest = np.delete(z, [0, *(1 + n for n in who)])
            figures[f"{size} copies, {how}"] = {
                "highest z of a colluder": round(float(guilty.max()), 1),
                "lowest z of a colluder": round(float(guilty.min()), 1),
                "named": int((guilty >= ATTRIBUTION).sum()),
                "owner": round(float(z[0]), 1),
                "highest z of an innocent": round(float(rest.max()), 2),
            }
            if "noise" not in how:
                named[""].append(float(guilty.max()))
            elif size <= 10:
                named["noise"].append(float(guilty.max()))
        say(f"{bank.trained.name}: {size} colluders")
    z = many(suspects, innocents, draw)
    trials = z.size
    return {**figures, "innocent trials": trials, "highest of them": round(float(z.max()), 2)}, {
        "collusion of 2 to 20 copies: lowest z of the best-seen colluder": at_least(
            min(named[""]), ATTRIBUTION
        ),
        "collusion of up to 10 with noise of 50 %: the same": at_least(
            min(named["noise"]), ATTRIBUTION
        ),
        "collusion: innocents named": at_most(float((z >= ATTRIBUTION).sum()), 0),
        "collusion: trials with innocents": at_least(trials, 10_000),
    }


def many(
    suspects: Sequence[Mapping[str, np.ndarray]], count: int, draw: np.random.Generator
) -> np.ndarray:
    """z of so many random keys on each suspect: shape (keys, suspects)."""
    modules = sorted({m for s in suspects for m in s})
    shapes = {m: next(s[m].shape for s in suspects if m in s) for m in modules}
    zero = {m: np.zeros(int(np.prod(shapes[m])), np.float32) for m in modules}
    stacked = {
        m: np.stack([s[m].ravel() if m in s else zero[m] for s in suspects]) for m in modules
    }
    norm = np.sqrt(sum(np.einsum("sd,sd->s", x, x, dtype=np.float64) for x in stacked.values()))
    z = np.zeros((count, len(suspects)))
    for row in range(count):
        halves = chips.halves(draw.bytes(32))
        for m, x in stacked.items():
            z[row] += x @ chips.draw(halves, m, shapes[m]).ravel()
    return z / norm


def false_positives(bank: Bank, other: Bank, keys: int, say: Any) -> tuple[Any, dict[str, Bar]]:
    """Random keys against 12 suspects, on query and value matrices."""
    draw = np.random.default_rng(5)
    some = [m for m in bank.reference.carriers if m.endswith(("q_proj", "v_proj"))]
    small = watermark.Reference(bank.reference.scale, {m: bank.reference.carriers[m] for m in some})
    attacks = watermark_attacks.factors(other.copy(0), lambda b: b, bank.trained.sensitivity)
    pairs = {
        name: attacks[name](bank.copy(n % (len(bank.keys) - 1)), draw)
        for n, name in enumerate(
            ("untouched", "int4", "1 bit of B", "prune 50 % of A and B", "prune 90 % of B",
             "noise 100 %", "noise 300 %", "SVD rank 2", "B R, R^-1 A",
             "factors averaged with another adapter's")
        )
    }  # fmt: skip
    pairs["another adapter"] = other.copy(1)
    pairs["the unmarked adapter, rounded"] = (
        {m: watermark_attacks.bf16(c.b) for m, c in small.carriers.items()},
        {m: c.a for m, c in small.carriers.items()},
    )
    suspects = []
    for b, a in pairs.values():
        suspect = mark_detect.factored({m: b[m] for m in some}, {m: a[m] for m in some})
        suspects.append(mark_detect.residuals(suspect, small)["plain"])
    say("false positives")
    z = many(suspects, keys, draw)
    figures = {
        name: {
            "sd": round(float(z[:, at].std()), 4),
            "highest": round(float(z[:, at].max()), 2),
            "share above 2.326": round(float((z[:, at] > 2.326).mean()), 4),
        }
        for at, name in enumerate(pairs)
    }
    spread = max(abs(values["sd"] - 1.0) for values in figures.values())
    return figures, {
        f"false positives above z = 6, {keys:,} keys on {len(pairs)} suspects": at_most(
            float((z > 6).sum()), 0
        ),
        "false positives: farthest sd from 1": at_most(spread, 0.05),
    }


def difference(stolen: Any, base: Any, module: str) -> mark_detect.Part:
    name = f"{module}.weight"
    read = stolen[module] if module in stolen else stolen[name]
    return mark_detect.Part(delta=read() - base[name]())


def held(x: np.ndarray) -> Any:
    return lambda: x


def layer_of(name: str) -> int:
    parts = [part for part in name.split(".") if part.isdigit()]
    return int(parts[0]) if parts else -1
