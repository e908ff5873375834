"""A base in 8 or 4 bits against float32: what it weighs, how well it answers, how long it takes.

    python bench/quantised.py [--quick] [--json] [--data DIR]

Loss is of the base model on answers of MedQuAD, no adapter, the same records for all; the gradient
is the mean per-person one of an FFA-LoRA adapter, against float32, over the same records. Every
form runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Bar, at_least, at_most

FORMS = ("float32", "bfloat16", "int8", "nf4")
_OWN = "of the processes that it starts"


def form(name: str, model: str, rows: list[tuple[str, str]], out: Path) -> dict[str, Any]:
    """Measure one form in this process; its mean gradient goes to `out`."""
    import numpy as np
    import torch

    from model import adapter, base, catalog, prompts, scoring
    from privacy import dpsgd

    loaded = base.load(catalog.find(model), threads=1, precision=name)  # type: ignore[arg-type]
    loss = float(scoring.losses(loaded.model, loaded, rows, max_tokens=96).mean())
    tuned = adapter.attach(loaded, adapter.Spec(rank=8, seed="bench"))
    examples = [prompts.encode(loaded, *row, max_tokens=64) for row in rows[:12]]
    parts, took = [], []
    for start in range(0, len(examples), 6):
        few = examples[start : start + 6]
        began = time.monotonic()
        parts.append(dpsgd.gradients(tuned, few, 64, prompts.loss))
        took.append((time.monotonic() - began) / (64 * len(few)))
    gradients = torch.cat(parts)
    np.save(out / f"{name}.npy", gradients.numpy())
    weights = sum(p.nbytes for p in [*loaded.model.parameters(), *loaded.model.buffers()])
    return {
        "weights_mb": weights / 1e6,
        "loss": loss,
        "ms_per_token": 1e3 * sorted(took)[len(took) // 2],
    }


def main() -> None:
    options = measure.options(__doc__)
    options.add_argument("--form", choices=FORMS, help=_OWN)
    options.add_argument("--given", type=Path, help=_OWN)
    given = options.parse_args()
    if given.form:
        task = json.loads(given.given.read_text())
        rows = [tuple(row) for row in task["rows"]]
        print(json.dumps(form(given.form, task["model"], rows, given.given.parent)))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as place:
        out = Path(place)
        task = out / "task.json"
        task.write_text(json.dumps({"model": _model(given.quick, out), "rows": _rows(given)}))
        for name in FORMS:
            done = subprocess.run(
                [sys.executable, __file__, "--form", name, "--given", str(task)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            figures[name] = json.loads(done.stdout.splitlines()[-1])
            figures[name] |= _against(out, name)
            print(f"{name:9}", {key: round(value, 4) for key, value in figures[name].items()})
    measure.finish("quantised", figures, _bars(figures, given.quick), as_json=given.json)


def _against(out: Path, name: str) -> dict[str, float]:
    """How the gradients lie to those over float32: cosine of the means, and of each, the median."""
    import numpy as np

    one, other = (np.load(out / f"{form}.npy").astype(np.float64) for form in (name, "float32"))

    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    each = [cosine(a, b) for a, b in zip(one, other, strict=True)]
    return {"cosine": cosine(one.mean(0), other.mean(0)), "cosine_each": float(np.median(each))}


def _model(quick: bool, out: Path) -> str:
    from model import catalog

    return str(measure.make_tiny_model(out / "tiny")) if quick else catalog.DEFAULT


def _rows(given: Any) -> list[tuple[str, str]]:
    path = given.data / "medquad.jsonl"
    if given.quick or not path.exists():
        return [(f"What is {n}?", f"{n} is a number.") for n in range(8 if given.quick else 20)]
    lines = path.read_text(encoding="utf-8").splitlines()[::160][:20]
    return [(row["instruction"], row["response"][:600]) for row in map(json.loads, lines)]


def _bars(figures: dict[str, Any], quick: bool) -> dict[str, Bar]:
    if quick:
        return {}
    whole = figures["float32"]
    return {
        "int8: weights over float32": at_most(
            figures["int8"]["weights_mb"] / whole["weights_mb"], 0.45
        ),
        "nf4: weights over float32": at_most(
            figures["nf4"]["weights_mb"] / whole["weights_mb"], 0.35
        ),
        "int8: loss added, nats": at_most(figures["int8"]["loss"] - whole["loss"], 0.02),
        "nf4: loss added, nats": at_most(figures["nf4"]["loss"] - whole["loss"], 0.2),
        "int8: cosine of the mean gradient": at_least(figures["int8"]["cosine"], 0.99),
        "nf4: cosine of the mean gradient": at_least(figures["nf4"]["cosine"], 0.9),
    }


if __name__ == "__main__":
    main()
