"""What the scrub finds, what it spares, and how fast it is, beside Presidio's defaults.

Public gold-labelled sets where the data folder has them (half of ASQ-PHI, half of the templates of
presidio-research), and made-up ones: Chinese paragraphs of hospitals and banks, Chinese names in
news and microblogs, and identifiers that are hard to see. All of it is synthetic: real notes are
harder, and a sample of the output needs a human reader. Speeds are per second of one core's time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench import deid_cases, deid_chinese, deid_measure, deid_sets, measure  # noqa: E402
from bench.deid_measure import Item, Pairs  # noqa: E402

Finder = Callable[[Sequence[Item]], list[Pairs]]
SECRET = b"a benchmark, not a secret......."
PRESIDIO_ITEMS = 300


def main() -> None:
    parser = measure.options(__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the made-up sets")
    parser.add_argument("--worker", type=float, metavar="SECONDS", help="scrub for so long, print")
    chosen = parser.parse_args()
    if chosen.worker:
        _worker(chosen.worker)
        return
    size = 40 if chosen.quick else 600
    figures: dict[str, Any] = {}
    bars: dict[str, measure.Bar] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clinical, strict, presidio = _ours("clinical"), _ours("strict"), _presidio()
        for name, items, finder in _sets(chosen.data / "pii", size, chosen.seed, clinical, strict):
            figures[name] = _row(name, items, finder)
            some = items[:: max(1, len(items) // PRESIDIO_ITEMS)]
            figures[name]["presidio"] = _row(f"  Presidio's defaults ({len(some)})", some, presidio)
    bars |= _bars(figures)
    speed = _speed(chosen.data, 0.2 if chosen.quick else 1.0)
    figures["speed"] = speed
    bars |= {
        "texts of 112 characters a second": measure.at_least(speed["texts"], 350),
        "English characters a second, long notes": measure.at_least(speed["long"], 45_000),
        "Chinese characters a second": measure.at_least(speed["chinese"], 25_000),
        "MiB of a worker": measure.at_most(speed["worker_mib"], 500),
        "two processes, times as fast": measure.at_least(speed["two_processes"], 1.8),
    }
    measure.finish("deid", figures, bars, as_json=chosen.json)


def _sets(
    data: Path, size: int, seed: int, clinical: Finder, strict: Finder
) -> Iterator[tuple[str, list[Item], Finder]]:
    """Yield the name, the items and the profile of each set that is there."""
    if (data / "asq_phi_dev.txt").exists():
        asq = deid_sets.asq(data / "asq_phi_dev.txt")
        asq = asq[:: 1 if size > 100 else 12]
        yield "asq clinical", asq, clinical
        yield "asq strict", asq, strict
    if (data / "presidio_synth_v2_dev.json").exists():
        synth = deid_sets.synth(data / "presidio_synth_v2_dev.json")
        yield "synth strict", synth[:: 1 if size > 100 else 12], strict
    yield "chinese paragraphs", deid_chinese.paragraphs(size, seed=seed), clinical
    yield "chinese news", deid_chinese.sentences(size, seed=seed, kind="news"), clinical
    yield "chinese weibo", deid_chinese.sentences(size, seed=seed, kind="weibo"), clinical
    cases = deid_cases.cases(max(1, size // 30), seed=seed)
    for group in ("numbers", "names"):
        items = [item for kind, item in cases if kind == group]
        yield f"hard {group} strict", items, strict
        yield f"hard {group} clinical", items, clinical


def _row(name: str, items: Sequence[Item], finder: Finder) -> dict[str, Any]:
    found = finder(items)
    rates: dict[str, Any] = deid_measure.score(items, found).rates
    if name == "synth strict" or (name.startswith("  ") and len(items) < 1000):
        rates |= {f"evaluator_{key}": value for key, value in deid_measure.f2(items, found).items()}
    shown = " ".join(f"{key} {value:.3f}" for key, value in rates.items())
    print(f"{name}: {len(items)} texts, {shown}", flush=True)
    return rates


def _bars(figures: dict[str, Any]) -> dict[str, measure.Bar]:
    """The bars of the sets that were there."""
    least = {
        "asq clinical": {"overlap": 0.990, "full": 0.970},
        "asq strict": {"overlap": 0.998},
        "synth strict": {"full": 0.90, "evaluator_f2": 0.85},
        "chinese paragraphs": {"full": 0.995, "overlap": 1.0},
        "chinese news": {"full": 0.90},
        "chinese weibo": {"full": 0.88},
        "hard numbers strict": {"full": 1.0},
        "hard names strict": {"full": 0.95},
    }
    most = {"asq clinical": {"free_damaged": 0.10}, "chinese paragraphs": {"keep_damaged": 0.002}}
    bars = {}
    for table, made in ((least, measure.at_least), (most, measure.at_most)):
        for name, rows in table.items():
            for rate, limit in rows.items():
                if rate in figures.get(name, {}):
                    bars[f"{name}, {rate}"] = made(figures[name][rate], limit)
    return bars


def _ours(profile: Any) -> Finder:
    from privacy.errors import Quarantined
    from privacy.scrub import Scrubber

    tool = Scrubber.load(profile=profile, secret=SECRET)

    def find(items: Sequence[Item]) -> list[Pairs]:
        outcomes = tool.scrub_many(
            [item.text for item in items], [str(at) for at in range(len(items))]
        )
        # A text that is held back lets nothing out, and spares nothing.
        return [
            [(0, len(item.text))]
            if isinstance(outcome, Quarantined)
            else [(span.start, span.end) for span in outcome.spans]
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    return find


def _presidio() -> Finder:
    """Presidio as it comes, with the same English model; its recognisers, thresholds and order."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    from privacy import scrub_models

    # As it comes it would ask the network for a list of domains.
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.extract
    folder = str(scrub_models.english_folder())
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": folder}]}
    engine = AnalyzerEngine(
        nlp_engine=NlpEngineProvider(nlp_configuration=settings).create_engine()
    )

    def find(items: Sequence[Item]) -> list[Pairs]:
        return [
            [(hit.start, hit.end) for hit in engine.analyze(item.text, language="en")]
            for item in items
        ]

    return find


def _texts(data: Path) -> dict[str, list[str]]:
    """What speed is measured on: public texts where they are there, else made-up ones."""

    def read(name: str) -> list[str]:
        path = data / f"{name}.jsonl"
        if not path.exists():
            return []
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines()[:1200])
        return [f"{row['instruction']} {row['response']}" for row in rows]

    made = [item.text for item in deid_chinese.paragraphs(400, seed=9)]
    plain = ["Seen for cough and fever since Monday, lungs clear, to return if it gets worse. "]
    english = read("mts_dialog") + read("banking77") + read("medquad") or plain * 500
    notes = " \n".join(read("aci_notes") or plain * 2000)
    whole = " ".join(english)
    return {
        "texts": [whole[at : at + 112] for at in range(0, min(len(whole), 112 * 2000), 112)],
        "long": [notes[at : at + 3800] for at in range(0, min(len(notes), 3800 * 30), 3800)],
        "chinese": read("zh_finance")[:500] or made,
    }


def _speed(data: Path, share: float) -> dict[str, float]:
    from privacy.scrub import Scrubber

    tool = Scrubber.load(secret=SECRET)
    list(tool.scrub_many(["Ann Bell came.", "患者王小明"], ["p"] * 2))
    result: dict[str, float] = {}
    for name, texts in _texts(data).items():
        part = texts[: max(4, int(len(texts) * share))]
        best = 0.0
        for _ in range(3):
            began = time.process_time()
            done = sum(1 for _ in tool.scrub_many(part, [str(n) for n in range(len(part))]))
            spent = time.process_time() - began
            best = max(best, (done if name == "texts" else sum(map(len, part))) / spent)
        result[name] = round(best, 1)
        print(f"{name}: {best:,.0f} a second of one core", flush=True)
    seconds = 3.0 if share < 1 else 12.0
    alone = _workers(1, seconds)
    two = _workers(2, seconds)
    result["worker_mib"] = max(mib for _, mib in alone)
    result["two_processes"] = round(sum(n for n, _ in two) / max(1, sum(n for n, _ in alone)), 3)
    load = os.getloadavg()[0]
    result["load"] = round(load, 1)
    print(f"two processes: {result['two_processes']} times one; load of the machine {load:.1f}")
    return result


def _workers(count: int, seconds: float) -> list[tuple[int, float]]:
    """Run workers side by side; for each the texts it did in its seconds, and its memory in MiB."""
    command = [sys.executable, str(Path(__file__)), "--worker", str(seconds)]
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for _ in range(count)
        ]
        for worker, at in zip(running, range(count), strict=True):
            os.sched_setaffinity(worker.pid, {cores[at % len(cores)]})
        lines = [worker.communicate(timeout=600)[0] for worker in running]
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def _worker(seconds: float) -> None:
    from privacy.scrub import Scrubber

    tool = Scrubber.load(secret=SECRET)
    texts = [item.text for item in deid_chinese.paragraphs(64, seed=5)]
    texts += ["Seen for cough and fever; Ann Bell, MRN 4482913, to return on 3 May 2024."] * 128
    persons = [str(at) for at in range(len(texts))]
    list(tool.scrub_many(texts, persons))
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        done += sum(1 for _ in tool.scrub_many(texts, persons))
    print(done, round(measure.peak() / 2**20, 1))


if __name__ == "__main__":
    main()
