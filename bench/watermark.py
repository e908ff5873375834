"""The watermark on adapters that were trained by privity: what it costs, survives and never does.

    python bench/watermark.py [--quick] [--json] [--data DIR] [--state DIR] [--parts ...]

Two adapters on every matrix of the model (rank 8), by the private training of 4 sites with 75
people each at ε = 2 (δ = 1e-5, per person, zero-out) and by plain training on the same records. 50
recipients. z is the best of the detector's variants; the bars ask for z >= 8 of the true recipient
and for nobody else above 5. A mark grows with the square root of the coordinates that are left, so
time is saved where it only makes the test harder: attacks on merged weights are done in the
attention matrices of 4 of the 30 layers, those on factors in every fifth layer, and only the ones
that hurt the mark most in more. Marks are shaped on 16 public records as a release's are, on which
no copy is judged. Training is kept in --state.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import measure  # first: it makes `audit` the package

# isort: split
from audit import chips, mark_detect, mark_files, watermark
from bench import watermark_adapters, watermark_attacks
from bench.measure import Bar, at_most
from bench.watermark_suspects import (
    Bank,
    Tally,
    collusion,
    false_positives,
    keys_of,
    merged,
    registered,
    single,
)
from model import adapter, catalog, prompts, scoring

PARTS = (
    "utility", "single", "merged", "registered", "tuned", "collusion", "false", "speed", "distil",
)  # fmt: skip
RECIPIENTS = 50


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
    """Relative change of the evaluation loss in float32 under so many keys, record by record."""
    name = bank.trained.name
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    for title, spare, chosen in (
        ("choice among the labels", True, True),
        ("tokens of the response", True, False),
        ("choice among the labels, mark not shaped", False, True),
    ):
        bank.spare = spare
        plain = watermark_adapters.losses(task, model, bank.trained.b, chosen=chosen)
        changes, errors = [], []
        for number in range(keys):
            b = {f"{m}.B": x for m, x in bank.copy(number)[0].items()}
            moved = watermark_adapters.losses(task, model, b, chosen=chosen) - plain
            changes.append(float(moved.mean() / plain.mean()))
            errors.append(float(moved.std(ddof=1) / len(moved) ** 0.5 / plain.mean()))
            say(f"{name}: {title}, key {number + 1}, {changes[-1]:+.4%} +- {errors[-1]:.4%}")
        figures[title] = {
            "records": len(plain), "loss": float(plain.mean()), "changes": changes,
            "standard errors": errors, "mean": float(np.mean(changes)),
            "root mean square": float(np.sqrt(np.mean(np.square(changes)))),
            "farthest": float(np.max(np.abs(changes))),
        }  # fmt: skip
        if spare:
            bars |= {
                f"{name}, {title}: mean change of loss, %": at_most(
                    100 * float(np.mean(changes)), 0.1
                ),
                f"{name}, {title}: worst of {keys} keys, %": at_most(
                    100 * float(np.max(changes)), 0.5
                ),
            }
    bank.spare = True
    return figures, bars


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
            z = bank.test(_read(model))
            tally.add(f"fine-tuned {stop} steps", z, [number])
            others = float(np.delete(z, [0, 1 + number]).max())
            say(
                f"{bank.trained.name}: fine-tuned copy {number + 1}, {stop} steps: "
                f"z {z[1 + number]:.1f}, owner {z[0]:.1f}, others {others:.1f}"
            )
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


def _measure(bank: Bank, other: Bank, task: Any, given: Any, say: Any) -> tuple[Any, Any]:
    """Every chosen part on one adapter."""
    name, quick = bank.trained.name, given.quick
    model = task.base.model
    folder = task.base.folder.path
    base, config = mark_files.tensors(folder), mark_files.config(folder)
    copies = min(given.copies or RECIPIENTS, len(bank.keys) - 1)
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
    options.add_argument("--copies", type=int, help="attack only so many copies; else all")
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
    people, records = (6, 8) if quick else (75, 288)
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
