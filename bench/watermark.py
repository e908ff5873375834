"""The watermark on adapters that were trained by privity: what it costs, survives and never does.

    python bench/watermark.py [--quick] [--json] [--data DIR] [--state DIR] [--parts ...]

Two adapters on every matrix of the model (rank 8), by the private training of 4 sites with 75
people each at ε = 2 (δ = 1e-5, per person, zero-out) and by plain training on the same records. 50
recipients. z is the best of the detector's variants; the bars ask for z >= 8 of the true recipient
and for nobody else above 5. A mark grows with the square root of the coordinates that are left, so
time is saved where it only makes the test harder: attacks on merged weights are done in 4 of the 30
layers, those on factors in every third, and only the ones that hurt the mark most in all. Training
is kept in --state.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit import chips, mark_detect, mark_files, mark_register, watermark
from audit.trace import ATTRIBUTION, SUSPICION
from bench import measure, watermark_adapters, watermark_attacks
from bench.measure import Bar, at_least, at_most
from bench.watermark_adapters import Trained
from model import adapter, catalog, prompts, scoring

PARTS = (
    "utility", "single", "merged", "registered", "tuned", "collusion", "false", "speed", "distil",
)  # fmt: skip
RECIPIENTS = 50


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
        marked = watermark.mark(self.reference, owner=self.keys[0], recipient=self.keys[1 + number])
        return (
            {name.removesuffix(".B"): x for name, x in marked.items()},
            {m: c.a for m, c in self.reference.carriers.items()},
        )

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

    strange_copy = other.copy(0)
    attacks = watermark_attacks.factors(strange_copy, overwrite)
    for number in range(copies):
        pair = bank.copy(number)
        some = [m for m in pair[0] if _layer(m) % 3 == 0]
        few = {m: pair[0][m] for m in some}, {m: pair[1][m] for m in some}
        for name, attack in attacks.items():
            whole = name in watermark_attacks.HARDEST
            tally.add(name, bank.test(attack(pair if whole else few, draw)), [number])
        for name, modules in watermark_attacks.thefts(sorted(pair[0])).items():
            part = tuple({m: side[m] for m in modules} for side in pair)
            tally.add(name, bank.test(part), [number])
        say(f"{bank.trained.name}: single copy {number + 1} of {copies}")
        if number % 10 == 9:
            say(json.dumps(tally.figures()))
    return tally


def merged(bank: Bank, other: Bank, base: mark_files.Tensors, copies: int, say: Any) -> Tally:
    """Every attack on merged weights, in every fourth layer."""
    draw, tally = np.random.default_rng(2), Tally.empty()
    layers = sorted({_layer(m) for m in bank.reference.carriers})
    few = set(layers[:: max(1, len(layers) // 4)][:4])
    modules = [m for m in bank.reference.carriers if _layer(m) in few]
    weights = {m: base[f"{m}.weight"]() for m in modules}
    strange = other.copy(0)
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

            suspect = {m: (lambda m=m: part(m)) for m in modules}
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
    layers = sorted({_layer(m) for m in bank.reference.carriers})[:8]
    config = {**config, "num_hidden_layers": len(layers)}
    kept = {
        name: read for name, read in base.items()
        if name == "model.embed_tokens.weight" or _layer(name) in layers
    }  # fmt: skip
    for number in range(copies):
        b, a = bank.copy(number)
        weights = {name: read() for name, read in kept.items()}
        for m in bank.reference.carriers:
            if _layer(m) in layers:
                weights[f"{m}.weight"] = weights[f"{m}.weight"] + bank.trained.scale * b[m] @ a[m]
        changed = watermark_attacks.reparameterise(weights, config, draw)
        for title, step in (("as it is", lambda x: x), ("and bfloat16", watermark_attacks.bf16)):
            stolen = {name: _held(step(x)) for name, x in changed.items()}
            plainly = {
                m: functools.partial(_difference, stolen, kept, m)
                for m in bank.reference.carriers
                if _layer(m) in layers
            }
            z = bank.z(mark_detect.residuals(plainly, bank.reference))
            tally.add(f"{title}, without registration", z, [number])
            found = mark_register.register(stolen, kept, config)
            again = {
                m: functools.partial(_difference, found.weights, kept, m)
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
    attacks = watermark_attacks.factors(other.copy(0), lambda b: b)
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


def speed(parameters: int) -> tuple[dict[str, float], dict[str, Bar]]:
    """An adapter of so many parameters: marked once, traced over 50 recipients."""
    draw = np.random.default_rng(6)
    hidden, wide, narrow = 1536, 8960, 256
    sides = {"q": (hidden, hidden), "k": (narrow, hidden), "v": (narrow, hidden),
             "o": (hidden, hidden), "gate": (wide, hidden), "up": (wide, hidden),
             "down": (hidden, wide)}  # fmt: skip
    a_layer = 8 * sum(rows + columns for rows, columns in sides.values())
    layers = max(1, round(parameters / a_layer))
    b, a = {}, {}
    for n in range(layers):
        for name, (rows, columns) in sides.items():
            b[f"layers.{n}.{name}"] = draw.standard_normal((rows, 8), dtype=np.float32)
            a[f"layers.{n}.{name}"] = draw.standard_normal((8, columns), dtype=np.float32)
    keys = keys_of("speed", RECIPIENTS)
    began = time.perf_counter()
    reference = watermark.Reference.of(b, a, 2.0)
    copy = watermark.mark(reference, owner=keys[0], recipient=keys[7])
    marking = time.perf_counter() - began
    began = time.perf_counter()
    reference = watermark.Reference.of(b, a, 2.0)
    found = mark_detect.residuals(mark_detect.factored(copy, a), reference)
    answers = mark_detect.detect(found, [chips.halves(key) for key in keys])
    tracing = time.perf_counter() - began
    best = int(np.argmax([d.z for d in answers[1:]]))
    total = sum(x.size for x in (*b.values(), *a.values()))
    figures = {"parameters": total, "mark s": marking, "trace s": tracing, "named": best}
    return figures, {
        f"seconds to mark {total:.2g} parameters": at_most(marking, 2.0),
        "seconds to trace it over 50 recipients": at_most(tracing, 5.0),
    }


def utility(bank: Bank, task: Any, model: Any, keys: int, say: Any) -> tuple[Any, dict[str, Bar]]:
    """Relative change of the evaluation loss in float32 under so many keys."""
    plain = watermark_adapters.loss(task, model, bank.trained.b)
    zero = {name: np.zeros_like(x) for name, x in bank.trained.b.items()}
    base = watermark_adapters.loss(task, model, zero)
    changes = []
    for number in range(keys):
        b = {f"{m}.B": x for m, x in bank.copy(number)[0].items()}
        changes.append(watermark_adapters.loss(task, model, b) / plain - 1.0)
        say(f"{bank.trained.name}: utility, key {number + 1} of {keys}, {changes[-1]:+.5%}")
    mean, worst = float(np.mean(changes)), float(np.max(changes))
    name = bank.trained.name
    figures = {"loss": plain, "loss of the base": base, "changes": changes}
    return figures, {
        f"{name}: mean change of evaluation loss, %": at_most(100 * mean, 0.1),
        f"{name}: worst of {keys} keys, %": at_most(100 * worst, 0.5),
    }


def tuned(bank: Bank, task: Any, model: Any, steps: Sequence[int], say: Any) -> Tally:
    """Further training of A and B by a thief, on two copies."""
    import torch

    tally = Tally.empty()
    for number in range(2):
        pair = bank.copy(number)
        _write(model, pair)
        done = 0
        for stop in steps:
            watermark_adapters.tune(task, model, steps=stop - done, rate=1e-3, both=True)
            done = stop
            tally.add(f"fine-tuned {stop} steps", bank.test(_read(model)), [number])
            say(f"{bank.trained.name}: fine-tuned copy {number + 1}, {stop} steps")
    _write(model, bank.copy(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.requires_grad_(False)
    return tally


def distil(bank: Bank, task: Any, model: Any, data: Path, steps: int, say: Any) -> dict[str, Any]:
    """The limit: a fresh adapter with an A of its own learns what the copy answers."""
    pair = bank.copy(0)
    teacher = {f"{m}.B": x for m, x in pair[0].items()}
    before = watermark_adapters.loss(task, model, teacher)
    lines = (data / "multidogo.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line)["instruction"] for line in lines[-8 * steps :]]
    chosen = scoring.classify(model, task.base, asked, task.labels, rule="choice")
    answers = [task.labels[at] for at in chosen]
    notes = [
        prompts.encode(task.base, ask, answer, max_tokens=task.chosen.max_tokens)
        for ask, answer in zip(asked, answers, strict=True)
    ]
    draw = np.random.default_rng(8)
    fresh = {
        m: np.linalg.qr(draw.normal(size=x.T.shape))[0].T.astype(np.float32)
        for m, x in pair[1].items()
    }
    _write(model, ({m: np.zeros_like(x) for m, x in pair[0].items()}, fresh))
    watermark_adapters.tune(task, model, steps=steps, rate=2e-3, both=True, notes=notes)
    student = _read(model)
    z = bank.test(student)
    after = watermark_adapters.loss(task, model, {f"{m}.B": x for m, x in student[0].items()})
    _write(model, pair)
    say(f"{bank.trained.name}: distilled")
    return {
        "steps": steps, "loss of the copy": before, "loss of the student": after,
        "z of the recipient": round(float(z[1]), 2), "z of the owner": round(float(z[0]), 2),
    }  # fmt: skip


def _write(model: Any, pair: watermark_attacks.Pair) -> None:
    import torch

    with torch.no_grad():
        for path, layer in adapter._layers(model):
            layer.lora_B["default"].weight.copy_(torch.from_numpy(np.array(pair[0][path])))
            layer.lora_A["default"].weight.copy_(torch.from_numpy(np.array(pair[1][path])))


def _read(model: Any) -> watermark_attacks.Pair:
    found = list(adapter._layers(model))
    return (
        {p: np.array(x.lora_B["default"].weight.detach().numpy()) for p, x in found},
        {p: np.array(x.lora_A["default"].weight.detach().numpy()) for p, x in found},
    )


def _difference(stolen: Any, base: Any, module: str) -> mark_detect.Part:
    name = f"{module}.weight"
    read = stolen[module] if module in stolen else stolen[name]
    return mark_detect.Part(delta=read() - base[name]())


def _held(x: np.ndarray) -> Any:
    return lambda: x


def _layer(name: str) -> int:
    parts = [part for part in name.split(".") if part.isdigit()]
    return int(parts[0]) if parts else -1


def _measure(bank: Bank, other: Bank, task: Any, given: Any, say: Any) -> tuple[Any, Any]:
    """Every chosen part on one adapter."""
    name, quick = bank.trained.name, given.quick
    model = task.base.model
    folder = task.base.folder.path
    base, config = mark_files.tensors(folder), mark_files.config(folder)
    all_copies = len(bank.keys) - 1
    copies = all_copies if name == "private" else min(10, all_copies)
    figures: dict[str, Any] = {"dimensions": bank.reference.dimensions}
    bars: dict[str, Bar] = {}
    parts = {
        "single": lambda: single(bank, other, copies, say),
        "merged": lambda: merged(bank, other, base, copies, say),
        "registered": lambda: registered(bank, base, config, 1 if quick else 3, say),
        "tuned": lambda: tuned(bank, task, model, (2,) if quick else (10, 50), say),
    }
    for part, run in parts.items():
        if part in given.parts:
            tally = run()
            figures[part] = tally.figures()
            for title in [t for t in tally.true if t.endswith("without registration")]:
                for table in (tally.true, tally.owner, tally.others, tally.copies):
                    del table[title]
            bars |= tally.bars(f"{name}, {part}")
    if "utility" in given.parts:
        figures["utility"], more = utility(bank, task, model, 1 if quick else 10, say)
        bars |= more
    if "collusion" in given.parts:
        figures["collusion"], more = collusion(bank, 20 if quick else 220, say)
        bars |= {f"{name}, {title}": bar for title, bar in more.items()}
    if "distil" in given.parts:
        figures["distil"] = distil(bank, task, model, given.data, 2 if quick else 40, say)
    if "false" in given.parts and name == "private":
        figures["false"], more = false_positives(bank, other, 200 if quick else 10_000, say)
        bars |= more
    return figures, bars


def main() -> None:
    options = measure.options(__doc__)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--adapters", nargs="+", default=["private", "open"])
    options.add_argument("--recipients", type=int, default=RECIPIENTS)
    options.add_argument("--state", type=Path, help="folder of trained adapters, to go on later")
    given = options.parse_args()
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}

    def say(word: str) -> None:
        print(word, file=sys.stderr, flush=True)

    if "speed" in given.parts:
        figures["speed"], more = speed(1_000_000 if given.quick else 10_000_000)
        bars |= more
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as folder:
        if set(given.parts) - {"speed"}:
            if not (given.data / "multidogo.jsonl").exists():
                print(f"skipped: {given.data} has no multidogo.jsonl; give --data DIR")
                given.parts = []
            else:
                _on_adapters(given, Path(folder), figures, bars, say)
    for part, values in figures.items():
        print(json.dumps({part: values}, indent=1))
    measure.finish("watermark", figures, bars, as_json=given.json)


def _on_adapters(given: Any, folder: Path, figures: Any, bars: Any, say: Any) -> None:
    quick = given.quick
    model = str(measure.make_tiny_model(folder / "tiny")) if quick else catalog.DEFAULT
    state = given.state or folder
    state.mkdir(parents=True, exist_ok=True)
    people, records = (6, 8) if quick else (75, 96)
    trained = {}
    for name in ("private", "open"):
        keep = state / f"{name}.safetensors"
        task = watermark_adapters.read(given.data, model, people=people, test_records=records)
        trained[name] = watermark_adapters.train(task, name, keep, say, steps=5 if quick else 60)
    count = 6 if quick else given.recipients
    for name, other in (("private", "open"), ("open", "private")):
        if name not in given.adapters:
            continue
        task = watermark_adapters.read(
            given.data, model, people=people, test_records=records, exact=True
        )
        keep = state / f"{name}.safetensors"
        watermark_adapters.train(task, name, keep, say, steps=0)
        bank, strange = Bank.of(trained[name], count), Bank.of(trained[other], 2)
        figures[name], more = _measure(bank, strange, task, given, say)
        bars |= more


if __name__ == "__main__":
    main()
