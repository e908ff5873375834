"""What private training costs: seconds and memory of ours beside what people use today.

    python bench/training.py [--quick] [--json] [--data DIR] [--arms abcdef] [--sets ...]

Arms, each with an adapter of rank 8 on the same model, in float32 if nothing else is said (c and d
with the frozen weights in bfloat16 where the processor has matrix units for it):
  a  Opacus as its tutorial on text shows it: PrivacyEngine and BatchMemoryManager, batches of 8,
     every record padded to a fixed length (here the longest allowed); around a LoRA of PEFT, with
     logits of every token and noise from torch's generator
  b  not private: a LoRA of PEFT with transformers' Trainer as its documentation shows it
  c  ours, private: the function that an institution's round calls; its frozen factor A is part of
     the method, its noise comes from the CSPRNG, and its passes are as long as a new site's are
  d  ours without privacy: the same adapter, loss and passes, no clipping and no noise
  e  b with bf16=True
  f  a with batches padded to their longest record only: what a careful user makes of it

Every arm has its own process, which keeps its model loaded. In a turn, each in another order, all
arms train once on the same records while the others wait; a figure is the median over turns, a
ratio the median of the ratios inside a turn. The first turn is not counted. Peak memory is that of
the whole process while it trains, and what of it was not there between turns. Processor seconds are
of all threads; on a machine that is busy with other things they say more than the clock.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Bar, at_least, at_most
from configs.site import RuntimeTable

MATRICES = {
    "q,v": ("q_proj", "v_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


@dataclass(frozen=True)
class Set:
    """Records: a file of the data folder, or made-up ones without a file.

    Attributes:
        max_tokens: longer records are cut.
        records: in a turn, which is one step of the private arms.
    """

    file: str | None
    max_tokens: int
    records: int


SETS = {
    "multidogo": Set("multidogo.jsonl", max_tokens=128, records=64),
    "medquad": Set("medquad.jsonl", max_tokens=256, records=32),
}
QUICK = {"made-up": Set(None, max_tokens=64, records=12)}


def main() -> None:
    options = measure.options(__doc__)
    options.add_argument("--arms", default="abcdef", help="some of them (default: all)")
    options.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options.add_argument("--matrices", nargs="+", choices=MATRICES, default=list(MATRICES))
    options.add_argument("--examples", type=int, help="records in a turn")
    options.add_argument(
        "--chunk-tokens",
        type=int,
        default=RuntimeTable().chunk_tokens,
        help="padded tokens in one of our passes (default: a new site's %(default)s)",
    )
    options.add_argument("--turns", type=int, default=5, help="counted turns (default: 5)")
    given = options.parse_args()
    if not set(given.arms) <= set("abcdef") or not given.arms:
        options.error("--arms takes some of abcdef")
    if not given.turns >= 1 or (given.examples is not None and not given.examples >= 1):
        options.error("--turns and --examples take at least 1")
    sets = QUICK if given.quick else {name: SETS[name] for name in given.sets}
    turns = 1 if given.quick else given.turns
    figures: dict[str, Any] = {}
    bars: dict[str, Bar] = {}
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as folder:
        model = str(measure.make_tiny_model(Path(folder) / "tiny")) if given.quick else _default()
        for name, chosen in sets.items():
            texts = _texts(chosen, given.data)
            if texts is None:
                print(f"skipped {name}: {given.data} has no {chosen.file}; give --data DIR")
                continue
            for label in given.matrices:
                title = f"{name}, {label}"
                count = given.examples or chosen.records
                settings = {
                    "model": model,
                    "matrices": MATRICES[label],
                    "records": count,
                    "texts": _pick(texts, count * (turns + 1)),
                    "max_tokens": chosen.max_tokens,
                    "chunk_tokens": given.chunk_tokens,
                }
                found = compare(title, sorted(set(given.arms)), settings, turns)
                figures[title] = found
                if not given.quick:  # a tiny model is all overhead
                    bars |= judge(title, found, units=measure.has_matrix_units())
                print(_table(title, found), flush=True)
    measure.finish("training", figures, bars, as_json=given.json)


def compare(
    title: str, arms: Sequence[str], settings: Mapping[str, Any], turns: int
) -> dict[str, Any]:
    """Let the arms train in turn; seconds per 1,000 records, bytes, and ratios."""
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's memory
    workers = {}
    for arm in arms:
        near, far = context.Pipe()
        process = context.Process(target=_work, args=(far, arm, dict(settings)), daemon=True)
        process.start()
        far.close()
        workers[arm] = (process, near)
    taken: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    try:
        for arm, (_, pipe) in workers.items():
            _receive(arm, pipe)
        for number in range(turns + 1):
            shift = number % len(arms)
            for arm in [*arms[shift:], *arms[:shift]]:
                _, pipe = workers[arm]
                pipe.send(number)
                result = _receive(arm, pipe)
                if number:
                    taken[arm].append(result)
                state = f"turn {number} of {turns}" if number else "warming up"
                print(f"{title}: {state}, {arm} {result['seconds']:.1f} s", file=sys.stderr)
    finally:
        for process, pipe in workers.values():
            pipe.close()
            process.join(timeout=10)
            if process.is_alive():
                process.terminate()
    return _summary(taken, settings["records"])


def _summary(taken: Mapping[str, list[dict[str, float]]], records: int) -> dict[str, Any]:
    found: dict[str, Any] = {"records_per_turn": records, "arms": {}, "ratios": {}}
    for arm, results in taken.items():
        seconds = [result["seconds"] for result in results]
        highest = max(result["peak"] for result in results)
        above = max(result["peak"] - result["loaded"] for result in results)
        found["arms"][arm] = {
            "seconds_per_1000": statistics.median(seconds) / records * 1000,
            "processor_seconds_per_1000": statistics.median(
                result["processor"] / records * 1000 for result in results
            ),
            "turns": [round(value, 3) for value in seconds],
            "peak_mib": highest / 2**20,
            "peak_above_model_mib": above / 2**20,
        }
    if "c" in taken:
        ours = taken["c"]
        for arm in set(taken) - {"c"}:
            pairs = zip(taken[arm], ours, strict=True)
            found["ratios"][f"{arm}/c"] = statistics.median(
                other["seconds"] / mine["seconds"] for other, mine in pairs
            )
        found["noise_share"] = statistics.median(one["noise"] / one["seconds"] for one in ours)
        found["tokens_per_record"] = ours[0]["tokens"]
    return found


def judge(title: str, found: Mapping[str, Any], *, units: bool) -> dict[str, Bar]:
    """What the product promises of arm c, for the arms that were run."""
    arms, ratios = found["arms"], found["ratios"]
    bars = {}
    if "c" not in arms:
        return bars
    for arm, limit in (("a", 4.0 if units else 1.5), ("b", 2.5 if units else 1.0)):
        if arm in arms:
            bars[f"{title}: times as fast as {arm}"] = at_least(ratios[f"{arm}/c"], limit)
    if "e" in arms and units:
        bars[f"{title}: times as fast as e"] = at_least(ratios["e/c"], 1.0)
    if "d" in arms:
        bars[f"{title}: time over d"] = at_most(1 / ratios["d/c"], 1.05)
    for arm, limit in (("a", 0.5), ("b", 1.0)):
        if arm in arms:
            for key, word in (("peak_mib", "peak"), ("peak_above_model_mib", "peak above model")):
                value = arms["c"][key] / max(arms[arm][key], 1e-9)
                bars[f"{title}: {word} over {arm}'s"] = at_most(value, limit)
    bars[f"{title}: noise, share of a step"] = at_most(found["noise_share"], 0.03)
    return bars


def _table(title: str, found: Mapping[str, Any]) -> str:
    from bench.training_arms import ARMS

    lines = [
        f"\n{title}, {found['records_per_turn']} records a turn",
        f"{'arm':28}{'s / 1,000':>12}{'times c':>10}{'peak MiB':>10}{'above model':>13}",
    ]
    for arm, row in found["arms"].items():
        times = found["ratios"].get(f"{arm}/c", 1.0)
        lines.append(
            f"{arm}  {ARMS[arm][0]:25}{row['seconds_per_1000']:12.1f}{times:10.2f}"
            f"{row['peak_mib']:10.0f}{row['peak_above_model_mib']:13.0f}"
        )
    return "\n".join(lines)


def _work(pipe: Any, arm: str, settings: dict[str, Any]) -> None:
    """One arm in its own process: load, then train whenever told to."""
    warnings.simplefilter("ignore")  # of what is benchmarked; it is used as its authors show it
    try:
        turn, parts = _ready(arm, settings)
        pipe.send({})
        while True:
            number = pipe.recv()
            examples = parts[number]
            # From the second turn on: weights are read from their file when first used.
            loaded = measure.resident()
            measure.forget_peak()
            began = time.process_time()
            taken = turn(examples)
            pipe.send(
                {
                    "seconds": taken.seconds,
                    "processor": time.process_time() - began,
                    "noise": taken.noise,
                    "peak": measure.peak(),
                    "loaded": loaded,
                    "tokens": sum(e.tokens for e in examples) / len(examples),
                }
            )
    except (EOFError, ConnectionError):
        return  # the comparison is over
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


def _ready(arm: str, settings: dict[str, Any]) -> tuple[Any, list[list[Any]]]:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from bench.training_arms import ARMS, Task
    from model import catalog, prompts

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    count = settings["records"]
    task = Task(
        settings["model"],
        settings["matrices"],
        count,
        settings["max_tokens"],
        settings["chunk_tokens"],
    )
    turn = ARMS[arm][1](task)
    tokenizer = AutoTokenizer.from_pretrained(str(catalog.find(settings["model"]).path))
    encoded = [
        prompts.encode(tokenizer, asked, answer, max_tokens=settings["max_tokens"])
        for asked, answer in settings["texts"]
    ]
    parts = [encoded[at : at + count] for at in range(0, len(encoded), count)]
    return turn, parts


def _receive(arm: str, pipe: Any) -> dict[str, float]:
    try:
        result: dict[str, Any] = pipe.recv()
    except EOFError:
        raise SystemExit(f"arm {arm} ended without an answer; is there enough memory?") from None
    if "error" in result:
        raise SystemExit(f"arm {arm} failed: {result['error']}")
    return result


def _default() -> str:
    from model import catalog

    return catalog.DEFAULT


def _texts(chosen: Set, data: Path) -> list[tuple[str, str]] | None:
    if chosen.file is None:
        from demo import generate

        people = generate.persons("bank", count=60, seed=1)
        return [(note.instruction, note.response) for person in people for note in person.notes]
    path = data / chosen.file
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["instruction"], row["response"]) for row in rows]


def _pick(texts: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """The same records in every run; again from the start where there are too few."""
    order = random.Random(1).sample(range(len(texts)), len(texts))
    return [texts[order[at % len(order)]] for at in range(count)]


if __name__ == "__main__":
    main()
