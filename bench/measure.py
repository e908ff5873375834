"""What the benchmarks share: their options, the machine's name, memory, and a tiny model.

Every benchmark prints a table; with --json its last line is one object that holds the figures and
the bars they are held against. It ends with 0 whatever holds: a machine that is busy proves little.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# A script's own folder comes first among the places of modules, and bench/audit.py is not `audit`.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != ROOT / "bench"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and what it is held against."""

    value: float
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def at_least(value: float, limit: float) -> Bar:
    return Bar(value, limit, at_least=True)


def at_most(value: float, limit: float) -> Bar:
    return Bar(value, limit, at_least=False)


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds only, to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        metavar="DIR",
        help="folder of public data sets (default: %(default)s)",
    )
    return parser


def finish(
    bench: str, figures: Mapping[str, Any], bars: Mapping[str, Bar], *, as_json: bool
) -> None:
    """Print the bars as a table, and the object if it was asked for."""
    for name, bar in bars.items():
        sign, word = (">=" if bar.at_least else "<="), ("holds" if bar.holds else "FAILS")
        print(f"{word}  {bar.value:8.3f} {sign} {bar.limit:g}  {name}")
    if as_json:
        held = {
            name: {"value": bar.value, "limit": bar.limit, "holds": bar.holds}
            for name, bar in bars.items()
        }
        line = {"bench": bench, "machine": machine(), "figures": figures, "bars": held}
        print(json.dumps(line), flush=True)


def machine() -> str:
    """Processor, cores, memory and what it has for bfloat16, on one line."""
    names = [x.partition(":")[2].strip() for x in _cpuinfo() if x.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    units = "bf16 matrix units" if has_matrix_units() else "no bf16 matrix units"
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {units}"


def has_matrix_units() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware made for it."""
    return any(x.startswith("flags") and "amx_bf16" in x.split() for x in _cpuinfo())


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def resident() -> int:
    """Bytes of memory that this process holds now, after giving back what it can."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak` count from now: loading a model needs more for a moment than training it."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Most bytes of memory that this process held since `forget_peak`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; memory is measured on Linux only")


def make_tiny_model(folder: Path) -> Path:
    """Write a two-layer model with random weights and a tokenizer of single bytes."""
    import torch
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(bytes_)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>")])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=256, eos_token_id=257, pad_token_id=None, tie_word_embeddings=True,
        )
    )  # fmt: skip
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
