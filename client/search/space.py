"""From a run and a point of the search space to the run that is tried, and back to TOML."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from client.border import spec
from client.errors import ClientError
from configs.load import check
from configs.run import Run
from configs.search import AmongTable, BetweenTable, Setting, Settings, Space
from model.manifest import ModelFolder
from model.shapes import targets_for
from privacy.csprng import Csprng

_ROUNDED: Final = frozenset({"learning_rate", "clip_norm"})
_LAYER: Final = re.compile(r"\.(\d+)\.")
# Which table of a run holds a setting; `first_layer` stands for adapter.targets.
_TABLES: Final = {
    "learning_rate": "training", "optimizer": "training", "schedule": "training",
    "clip_norm": "privacy", "clipping": "privacy", "notes_per_person": "privacy",
    "sample_rate": "privacy", "rounds": "privacy", "steps_per_round": "privacy",
    "rank": "adapter",
}  # fmt: skip


def read_run(path: Path, institution: str) -> Run:
    """Read RUN.toml, which may leave out [federation] as for `privity client train`.

    Raises:
        ConfigError, ClientError: it cannot be used.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise ClientError(
            f"{path} cannot be read as TOML; see configs/run.example.toml", code="bad-run"
        ) from None
    values.setdefault("federation", {"institutions": [institution]})
    return check(values, Run, str(path))


def default(run: Run, found: ModelFolder) -> Space:
    """Around what the run says: rate and clip norm by ten either way, sampling, first layer."""
    layers = sorted({_layer(path) for path in targets_for(found, spec(run.adapter))})
    first = tuple(dict.fromkeys(layers[len(layers) * part // 4] for part in range(4)))
    rate, own, norm = run.privacy.sample_rate, run.training.learning_rate, run.privacy.clip_norm
    return Space(
        between=BetweenTable(
            learning_rate=(own / 10, min(own * 10, 1.0)), clip_norm=(norm / 10, norm * 10)
        ),
        among=AmongTable(
            sample_rate=tuple(dict.fromkeys(min(1.0, rate * times) for times in (0.5, 1.0, 2.0))),
            steps_per_round=tuple(
                sorted({max(1, int(run.privacy.steps_per_round * times)) for times in (0.5, 1, 2)})
            ),
            first_layer=first if len(first) > 1 else (),
        ),
    )


def of(run: Run, space: Space, found: ModelFolder) -> Settings:
    """What the run itself says of everything that the space sets."""
    values: Settings = {}
    for name in (*space.bounds, *space.choices):
        if name == "first_layer":
            values[name] = min(_layer(path) for path in targets_for(found, spec(run.adapter)))
        else:
            values[name] = getattr(getattr(run, _TABLES[name]), name)
    return values


def applied(run: Run, settings: Settings, found: ModelFolder) -> Run:
    """The run with these settings.

    Raises:
        ClientError: no matrix of the adapter is in a layer from `first_layer` on.
        ConfigError: the settings make no run.
    """
    values = run.model_dump(mode="python")
    for name, value in settings.items():
        if name == "first_layer":
            values["adapter"]["targets"] = _from(run, int(value), found)
        else:
            # Four digits are what people copy, and more than a trial can tell apart.
            exact = float(f"{value:.4g}") if name in _ROUNDED else value
            values[_TABLES[name]][name] = exact
    return check(values, Run, "a trial")


def draw(space: Space, randomness: Csprng) -> Settings:
    """A point of the space, each setting by itself: even among choices, even in the logarithm."""
    values: Settings = {}
    for name, (low, high) in space.bounds.items():
        share = float(randomness.uniform(1)[0])
        values[name] = min(high, max(low, low * math.exp(share * math.log(high / low))))
    for name, some in space.choices.items():
        values[name] = some[randomness.choice(len(some))]
    return values


def toml(run: Run) -> str:
    """The tables of RUN.toml that a search sets."""
    lines = []
    for title in ("adapter", "privacy", "training"):
        lines.append(f"[{title}]")
        lines += [f"{name} = {_value(value)}" for name, value in getattr(run, title)]
        lines.append("")
    return "\n".join(lines)


def shown(value: Setting) -> str:
    """A setting as people read it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(json.dumps(one) for one in value) + "]"
    return json.dumps(value)


def _from(run: Run, first: int, found: ModelFolder) -> tuple[str, ...]:
    paths = tuple(p for p in targets_for(found, spec(run.adapter)) if _layer(p) >= first)
    if not paths:
        raise ClientError(
            f"no matrix of the adapter is in layer {first} or above; lower first_layer",
            code="bad-space",
        )
    return paths


def _layer(path: str) -> int:
    number = _LAYER.search(path)
    return int(number.group(1)) if number else 0
