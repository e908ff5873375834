"""What a federation costs: seconds and bytes of a round, and the coordinator's memory.

    python bench/federation.py [--quick] [--json] [--parts round,bytes,memory,many]

round   a coordinator and three institutions as real processes with TLS and node authentication on
        loopback, a model of two layers and one step a round: what a round takes beside the step
bytes   the same with an adapter of 2 MB: bytes of bodies at the public port, both ways, over the
        bytes of the adapters and updates that had to cross
memory  the coordinator's own code with made-up institutions whose updates come one by one: peak
        memory over what the process had before the run, for few and many of them, small and large
many    a hundred made-up institutions: signed logs, receipts, cosignatures and all, no network

A made-up institution has a real log, witness and keys, and an update of random numbers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Bar, at_most

ROUND_SECONDS = 2.0
BYTES_RATIO = 1.1
# Of one more institution's update, what the coordinator may still hold.
MEMORY_SHARE = 0.1


def main() -> None:
    options = measure.options(__doc__)
    options.add_argument("--parts", default="round,bytes,memory,many", help="some of them")
    given = options.parse_args()
    parts = given.parts.split(",")
    if not set(parts) <= {"round", "bytes", "memory", "many"}:
        options.error("--parts takes some of round,bytes,memory,many")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as place:
        if {"round", "bytes"} & set(parts):
            figures |= live(Path(place), parts, quick=given.quick)
        if "memory" in parts:
            sizes = (1, 2) if given.quick else (2, 8)
            counts = (2, 6) if given.quick else (5, 40)
            figures["memory"] = [
                apart(Path(place), f"m-{count}-{size}", count, size)
                for size in sizes
                for count in counts
            ]
        if "many" in parts:
            figures["many"] = apart(Path(place), "many", 8 if given.quick else 100, 1)
    print(_table(figures), flush=True)
    measure.finish("federation", figures, {} if given.quick else judge(figures), as_json=given.json)


def judge(figures: Mapping[str, Any]) -> dict[str, Bar]:
    """The bars; a figure that was not measured has none."""
    bars = {}
    if "round_seconds" in figures:
        bars["seconds of a round beside the step, three institutions"] = at_most(
            figures["round_seconds"], ROUND_SECONDS
        )
    if "bytes" in figures:
        for way in ("received", "sent"):
            name = f"bytes {way} over bytes of adapters"
            bars[name] = at_most(figures["bytes"][f"{way}_ratio"], BYTES_RATIO)
    for size in sorted({row["update_mb"] for row in figures.get("memory", ())}):
        few, many = (row for row in figures["memory"] if row["update_mb"] == size)
        more = many["institutions"] - few["institutions"]
        share = (many["peak_mb"] - few["peak_mb"]) / more / size
        bars[f"memory for one more institution, of its update of {size} MB"] = at_most(
            share, MEMORY_SHARE
        )
    return bars


# -- real processes -------------------------------------------------------------------------------


def live(place: Path, parts: list[str], *, quick: bool) -> dict[str, Any]:
    """Rounds of a real federation on loopback."""
    from client import folder as clients
    from demo import generate
    from model import catalog
    from server import enrolment, store

    model = _model(place / "bench-llama")
    home = place / "home"
    os.environ["PRIVITY_HOME"] = str(home)
    catalog.pull(str(model))
    public, control, metrics = (_free_port() for _ in range(3))
    hub = store.create(
        place / "hub", name="hub", host="127.0.0.1", port=public, control_port=control
    )
    settings = hub.path / "coordinator.toml"
    settings.write_text(settings.read_text().replace("port = 0", f"port = {metrics}"))
    names = [f"site-{n}" for n in range(3)]
    for n, name in enumerate(names):
        path = place / name
        clients.create(path, name=name, coordinator=f"127.0.0.1:{public}")
        _, invitation = enrolment.enroll(hub, path / "enroll.json")
        (path / "invitation.json").write_bytes(invitation.read_bytes())
        people = generate.persons("hospital", count=6, seed=n)
        generate.write_jsonl(path / "records.jsonl", people, name)
        file = path / "site.toml"
        text = file.read_text().replace('approve = "ask"', 'approve = "policy"')
        text = text.replace("threads = 0", "threads = 1").replace(
            "epsilon = 2.0 ", "epsilon = 9.0 "
        )
        file.write_text(text.replace("smollm2-135m-instruct", model.name))
    found: dict[str, Any] = {}
    with _processes() as start:
        start("server", "start", hub.path)
        _wait(lambda: _answers(metrics), "the coordinator")
        for name in names:
            start("client", "run", place / name)
        rounds = 3 if quick else 8
        if "round" in parts:
            told, _ = _run(start, hub.path, place, names, model.name, "round", 8, rounds, metrics)
            took = _seconds(told)
            # The first round reads and scrubs the records.
            found["round_seconds"] = round(statistics.median(took[1:]), 3)
            found["round_seconds_each"] = [round(x, 3) for x in took]
        if "bytes" in parts:
            rank = 64 if quick else 256
            told, crossed = _run(
                start, hub.path, place, names, model.name, "bytes", rank, rounds, metrics
            )
            size = (hub.path / "runs" / "bytes" / f"adapter-{rounds}.safetensors").stat().st_size
            wanted = size * rounds * len(names)
            found["bytes"] = {
                "adapter_mb": round(size / 1e6, 3),
                "rounds": rounds,
                **{f"{way}_mb": round(n / 1e6, 2) for way, n in crossed.items()},
                **{f"{way}_ratio": round(n / wanted, 4) for way, n in crossed.items()},
            }
    return found


def _run(
    start: Any, hub: Path, place: Path, names: list[str], model: str, name: str, rank: int,
    rounds: int, metrics: int,
) -> tuple[list[dict[str, Any]], dict[str, int]]:  # fmt: skip
    file = place / f"{name}.toml"
    file.write_text(
        f'format = 1\nname = "{name}"\n[model]\nname = "{model}"\n[adapter]\nrank = {rank}\n'
        f"[privacy]\nepsilon = 1.0\nrounds = {rounds}\nsteps_per_round = 1\nsample_rate = 0.5\n"
        f"[training]\nmax_tokens = 32\n[federation]\ninstitutions = {json.dumps(names)}\n"
        f"quorum = {len(names)}\nround_timeout_s = 300.0\njoin_timeout_s = 300.0\n"
    )
    before = _bytes(metrics)
    command = start("server", "run", hub, "--run", file, "--json")
    if command.wait(timeout=900) != 0:
        raise SystemExit("the run failed; see above")
    after = _bytes(metrics)
    lines = (hub / "runs" / name / "progress.jsonl").read_text().splitlines()
    return list(map(json.loads, lines)), {way: after[way] - before[way] for way in before}


def _seconds(told: list[dict[str, Any]]) -> list[float]:
    began = {line["round"]: line["time"] for line in told if line["event"] == "round"}
    return [line["time"] - began[line["round"]] for line in told if line["event"] == "closed"]


def _bytes(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {
        way: int(float(line.split()[-1]))
        for line in lines
        for way in ("received", "sent")
        if line.startswith(f'privity_server_bytes_total{{direction="{way}"')
    }


def _answers(port: int) -> bool:
    try:
        return bool(_bytes(port))
    except OSError:
        return False


def _wait(holds: Any, what: str) -> None:
    deadline = time.monotonic() + 180
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not start")
        time.sleep(0.2)


@contextmanager
def _processes() -> Iterator[Any]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "privity", *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=measure.ROOT,
            start_new_session=True,
        )  # fmt: skip
        running.append(child)
        return child

    try:
        yield start
    finally:
        for child in reversed(running):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                try:
                    child.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _model(folder: Path) -> Path:
    """Two layers, wide enough for an adapter of 2 MB at rank 256, and quick to step through."""
    import transformers

    measure.make_tiny_model(folder)
    wide = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=258, hidden_size=512, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=256,
            bos_token_id=256, eos_token_id=257, pad_token_id=None, tie_word_embeddings=True,
        )
    )  # fmt: skip
    wide.save_pretrained(str(folder))
    return folder


# -- made-up institutions -------------------------------------------------------------------------


def apart(place: Path, name: str, count: int, size: int) -> dict[str, Any]:
    """One run with made-up institutions, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe(duplex=False)
    child = context.Process(target=_crowd, args=(far, place / name, count, size))
    child.start()
    far.close()
    try:
        found: dict[str, Any] = near.recv()
    except EOFError:
        raise SystemExit(f"the part {name} failed; see above") from None
    child.join()
    return found


def _crowd(out: Any, place: Path, count: int, size: int) -> None:
    from bench.crowd import play

    out.send(play(place, count=count, megabytes=size, rounds=3))


def _table(figures: Mapping[str, Any]) -> str:
    lines = []
    if "round_seconds" in figures:
        lines.append(f"a round beside the step: {figures['round_seconds']:.2f} s (median)")
    if "bytes" in figures:
        crossed = figures["bytes"]
        lines.append(
            f"adapter of {crossed['adapter_mb']} MB, {crossed['rounds']} rounds, 3 institutions: "
            f"{crossed['sent_mb']} MB down ({crossed['sent_ratio']}x), "
            f"{crossed['received_mb']} MB up ({crossed['received_ratio']}x)"
        )
    for row in [*figures.get("memory", ()), *filter(None, [figures.get("many")])]:
        lines.append(
            f"{row['institutions']:4d} institutions, updates of {row['update_mb']} MB: "
            f"{row['peak_mb']:7.1f} MB over the start, {row['round_seconds']:6.2f} s a round, "
            f"{row['milliseconds_an_update']:6.1f} ms an update"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
