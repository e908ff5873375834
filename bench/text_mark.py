"""The mark in generated text: what a token costs, and how soon a text names its key.

    python bench/text_mark.py [--quick] [--json] [--model NAME]

Answers to made-up questions at temperature 0.8 and top-p 0.95, with and without the mark, token by
token with a cache, as the service does it. The overhead is the time of choosing a token with the
mark less that of the model's own top-p sampling, over the time of a whole token.
"""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import measure  # first: it makes `audit` the package

# isort: split
from audit import text_mark
from bench.measure import at_least, at_most
from model import base as base_model
from model import catalog, prompts

ASKED = (
    "Write a short letter to a patient about an appointment next week.",
    "Explain to a customer why a transfer may take two days.",
    "Tell a story about a lighthouse keeper.",
    "Describe how a clinic could shorten waiting times.",
    "List reasons to keep records for ten years, in full sentences.",
    "What should somebody know before opening a savings account?",
)


def plain(logits: torch.Tensor, temperature: float, top_p: float) -> int:
    """The usual way: sort, cut, draw."""
    p = torch.softmax(logits / temperature, dim=-1)
    ordered, at = p.sort(descending=True)
    ordered[ordered.cumsum(0) - ordered > top_p] = 0.0
    return int(at[torch.multinomial(ordered, 1)])


@torch.inference_mode()
def answer(base: Any, ask: str, length: int, choose: Any) -> tuple[list[int], float, float]:
    """Tokens of one answer, seconds a token in all, and seconds a token for the choice."""
    ids = list(prompts.conversation(base, [{"role": "user", "content": ask}], max_tokens=1000))
    tokens: list[int] = []
    cache, fed = None, torch.tensor([ids])
    whole, choosing = [], []
    for _ in range(length):
        began = time.perf_counter()
        out = base.model(fed, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits = out.logits[0, -1].float()
        before = time.perf_counter()
        tokens.append(choose(logits, tokens))
        ended = time.perf_counter()
        fed = torch.tensor([tokens[-1:]])
        whole.append(ended - began)
        choosing.append(ended - before)
    return tokens, statistics.median(whole), statistics.median(choosing)


def main() -> None:
    options = measure.options(__doc__)
    options.add_argument("--model", default=catalog.DEFAULT)
    given = options.parse_args()
    torch.set_num_threads(1)
    key = secrets.token_bytes(text_mark.KEY_BYTES)
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as folder:
        name = given.model
        if given.quick:
            name = str(measure.make_tiny_model(Path(folder) / "tiny"))
        base = base_model.load(catalog.find(name))
        asked, length = (ASKED[:2], 12) if given.quick else (ASKED, 104)
        setting = {"temperature": 0.8, "top_p": 0.95}
        rows = []
        for ask in asked:
            sampler = text_mark.Sampler(key, **setting)
            marked, token, choice = answer(
                base, ask, length, lambda x, done, own=sampler: own(x.numpy(), done)
            )
            bare, _, usual = answer(base, ask, length, lambda x, done: plain(x, **setting))
            rows.append((token, choice, usual, text_mark.detect(marked, key).log10_p,
                         text_mark.detect(bare, key).log10_p))  # fmt: skip
            print(f"{rows[-1][3]:8.1f} {rows[-1][4]:8.1f}  {ask}", flush=True)
    token, choice, usual = (float(np.median([row[n] for row in rows])) for n in range(3))
    figures = {
        "token ms": 1e3 * token, "choice with the mark ms": 1e3 * choice,
        "choice without ms": 1e3 * usual, "tokens": length,
        "log10 p of marked texts": sorted(round(row[3], 2) for row in rows),
        "log10 p of unmarked texts": sorted(round(row[4], 2) for row in rows),
    }  # fmt: skip
    share = float(np.mean([row[3] < -4 for row in rows]))
    bars = {
        "time of a token that the mark adds, %": at_most(100 * (choice - usual) / token, 3.0),
        "share of texts with p < 1e-4": at_least(share, 0.9),
        "lowest log10 p of an unmarked text": at_least(min(row[4] for row in rows), -4.0),
    }
    if given.quick:
        bars = {}
    measure.finish("text_mark", figures, bars, as_json=given.json)


if __name__ == "__main__":
    main()
