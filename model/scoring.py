"""How well the model answers: which label it finds most likely, and how surprised it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from model import forward, prompts
from model.errors import ModelError
from model.labels import Labels

MAX_TOKENS: Final = 512
# Prompts that say nothing: what a label scores after them is its mere frequency in the language.
_CONTENT_FREE: Final = ("N/A", "")
# Tokens, padding included, that go through the model at once.
_BATCH_TOKENS: Final = 2048

Progress = Callable[[int, int], None]
Row = tuple[str, str]
# How a label is chosen. "calibrated": by its mean log-probability per token, less what it has after
# prompts without content, so that common words gain nothing from being common (arXiv:2102.09690).
# "likelihood": the same without that correction. "choice": by its probability among the labels,
# which is what a model trained on them has learnt.
Rule = Literal["calibrated", "likelihood", "choice"]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """How a model does on labelled records.

    Attributes:
        records: how many were scored.
        accuracy: share whose label was found, 0 to 1.
        macro_f1: F1 averaged over the labels that occur, 0 to 1.
        loss: mean over records of the mean cross-entropy per response token, in nats.
    """

    records: int
    accuracy: float
    macro_f1: float
    loss: float


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """How likely each label is after each instruction; both of shape (instructions, labels).

    Attributes:
        per_token: mean log-probability of the label's tokens and the end token, in nats.
        among: log-probability of the label given that the answer is one of the labels: at each
            token the model chooses only among those that continue a label. Sums to 1 over labels.
    """

    per_token: npt.NDArray[np.float64]
    among: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which label was found for each instruction, and how sure the model is among the labels.

    Attributes:
        best: index of the label, in the order of the instructions.
        confidence: its probability among all labels by the rule's own scores, shape
            (instructions,).
    """

    best: tuple[int, ...]
    confidence: npt.NDArray[np.float64]


def classify(
    model: Any,
    base: Any,
    instructions: Sequence[str],
    labels: Sequence[str],
    *,
    rule: Rule = "calibrated",
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> list[int]:
    """Choose a label for each instruction by likelihood.

    Args:
        model: the model, with or without an adapter.
        base: the `Base` whose tokenizer and chat format are used.
        instructions: what is asked.
        labels: distinct possible responses, at least one.
        rule: see `Rule`.
        max_tokens: longest prompt with its longest label.
        progress: called with instructions done and in all.

    Returns:
        Index into `labels` of the best one, for each instruction in order.

    Raises:
        ModelError: no labels, or two that read the same.
    """
    chosen = choose(
        model, base, instructions, labels, rule=rule, max_tokens=max_tokens, progress=progress
    )
    return list(chosen.best)


def choose(
    model: Any,
    base: Any,
    instructions: Sequence[str],
    labels: Sequence[str],
    *,
    rule: Rule = "calibrated",
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
    apart: bool = False,
) -> Chosen:
    """Choose as `classify` does, and say how sure each choice is; `apart` as in `likelihoods`.

    Raises:
        ModelError: no labels, or two that read the same.
    """
    found = likelihoods(
        model, base, instructions, labels, max_tokens=max_tokens, progress=progress, apart=apart
    )
    scores = _scores(model, base, found, labels, rule=rule, max_tokens=max_tokens)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return Chosen(tuple(int(best) for best in scores.argmax(axis=1)), shares.max(axis=1))


def _scores(
    model: Any,
    base: Any,
    found: Likelihoods,
    labels: Sequence[str],
    *,
    rule: Rule,
    max_tokens: int,
) -> npt.NDArray[np.float64]:
    if rule == "choice":
        return found.among
    if rule == "likelihood":
        return found.per_token
    free = likelihoods(model, base, _CONTENT_FREE, labels, max_tokens=max_tokens)
    return found.per_token - free.per_token.mean(axis=0)


@torch.inference_mode()
def likelihoods(
    model: Any,
    base: Any,
    instructions: Sequence[str],
    labels: Sequence[str],
    *,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
    apart: bool = False,
) -> Likelihoods:
    """How likely every label is after every instruction.

    All labels follow one copy of the prompt in one pass: each sees the prompt and itself only.
    With `apart` every instruction has a pass of its own, so that not even the rounding of its
    scores, and with it which of two close labels wins, depends on the others.

    Raises:
        ModelError: no labels, or two that read the same.
    """
    tree = Labels.of(base, labels)
    room = max_tokens - max(map(len, tree.answers))
    asked = [prompts.prompt(base, text, max_tokens=room) for text in instructions]
    found = Likelihoods(*(np.zeros((len(asked), len(labels))) for _ in range(2)))
    done = 0
    was_training = model.training
    model.eval()
    try:
        lengths = [len(ids) + len(tree.nodes) for ids in asked]
        for batch in _batches(lengths, 1 if apart else _BATCH_TOKENS):
            part = _score(model, [asked[i] for i in batch], tree)
            found.per_token[batch], found.among[batch] = part.per_token, part.among
            done += len(batch)
            if progress is not None:
                progress(done, len(asked))
    finally:
        model.train(was_training)
    return found


@torch.inference_mode()
def choice(model: Any, asked: Sequence[tuple[int, ...]], tree: Labels) -> list[int]:
    """The label that each conversation is answered with, by the rule "choice".

    Args:
        model: the model in eval mode; what answers is what it is now, adapters included.
        asked: tokens of conversations, see `prompts.conversation`; computed in one pass.
        tree: the labels.

    Returns:
        Index into `tree.texts` of the likeliest, for each conversation.
    """
    return [int(best) for best in _score(model, asked, tree).among.argmax(axis=1)]


@torch.inference_mode()
def losses(
    model: Any,
    base: Any,
    rows: Sequence[Row],
    *,
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Mean cross-entropy per response token of every (instruction, response), in nats."""
    examples = [prompts.encode(base, ask, reply, max_tokens=max_tokens) for ask, reply in rows]
    values = np.zeros(len(examples))
    done = 0
    was_training = model.training
    model.eval()
    try:
        for batch in _batches([example.tokens for example in examples], _BATCH_TOKENS):
            values[batch] = prompts.loss(model, [examples[i] for i in batch]).double().cpu().numpy()
            done += len(batch)
            if progress is not None:
                progress(done, len(examples))
    finally:
        model.train(was_training)
    return values


def perplexity(
    model: Any, base: Any, rows: Sequence[Row], *, max_tokens: int = MAX_TOKENS
) -> float:
    """Perplexity of the responses: exp of the mean of `losses`; each record weighs the same.

    Raises:
        ModelError: there are no rows.
    """
    _some(rows)
    return math.exp(losses(model, base, rows, max_tokens=max_tokens).mean())


def score(
    model: Any,
    base: Any,
    rows: Sequence[Row],
    labels: Sequence[str],
    *,
    rule: Rule = "calibrated",
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Scorecard:
    """Score a model on labelled records, by one rule; see `scorecards`."""
    cards = scorecards(
        model, base, rows, labels, rules=(rule,), max_tokens=max_tokens, progress=progress
    )
    return cards[rule]


def scorecards(
    model: Any,
    base: Any,
    rows: Sequence[Row],
    labels: Sequence[str],
    *,
    rules: Sequence[Rule],
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> dict[Rule, Scorecard]:
    """Score a model on labelled records by several rules in one pass.

    Args:
        model: the model, with or without an adapter.
        base: the `Base` whose tokenizer and chat format are used.
        rows: (instruction, response) pairs whose response is one of `labels`.
        labels: all possible labels.
        rules: how a label is chosen; one scorecard each, which differ in accuracy and F1.
        max_tokens: longest sequence.
        progress: called with records done and in all.

    Raises:
        ModelError: no rows, or a response that is no label.
    """
    _some(rows)
    index = {label.strip(): place for place, label in enumerate(labels)}
    strange = sum(response.strip() not in index for _, response in rows)
    if strange:
        raise ModelError(
            f"{strange} of {len(rows)} records have a response that is none of the labels; "
            "correct the labels, or measure perplexity instead",
            code="bad-labels",
        )
    asked = [ask for ask, _ in rows]
    likely = likelihoods(model, base, asked, labels, max_tokens=max_tokens, progress=progress)
    true = [index[response.strip()] for _, response in rows]
    # A label's mean log-probability per token is the negative loss of its record.
    loss = float(-likely.per_token[range(len(rows)), true].mean())
    cards: dict[Rule, Scorecard] = {}
    for rule in rules:
        scores = _scores(model, base, likely, labels, rule=rule, max_tokens=max_tokens)
        found = [int(best) for best in scores.argmax(axis=1)]
        hits = sum(t == f for t, f in zip(true, found, strict=True))
        cards[rule] = Scorecard(len(rows), hits / len(rows), macro_f1(true, found), loss)
    return cards


def macro_f1(true: Sequence[int], found: Sequence[int]) -> float:
    """F1 of each label that occurs among the true ones, averaged; indices, in the same order."""
    values = []
    for label in sorted(set(true)):
        hits = sum(t == f == label for t, f in zip(true, found, strict=True))
        values.append(2 * hits / (true.count(label) + found.count(label)))
    return sum(values) / len(values)


def _score(model: Any, asked: Sequence[tuple[int, ...]], tree: Labels) -> Likelihoods:
    device = forward.device_of(model)
    size, count = len(asked), len(tree.nodes)
    width = max(map(len, asked))
    lengths = torch.tensor([len(ids) for ids in asked], device=device)
    tails = torch.tensor([[node[-1] for node in tree.nodes]] * size, dtype=torch.int64)
    ids = torch.cat([forward.pad(list(asked), device=device), tails.to(device)], dim=1)

    steps = torch.arange(width, device=device)
    depths = torch.tensor([len(node) - 1 for node in tree.nodes], dtype=torch.int64, device=device)
    positions = torch.cat([steps.expand(size, width), lengths[:, None] + depths], dim=1)

    # A label's token sees the prompt (never its padding) and the label's own beginning.
    seen = torch.zeros((size, width + count, width + count), dtype=torch.bool, device=device)
    seen[:, :width, :width] = steps[:, None] >= steps[None, :]
    seen[:, width:, :width] = (steps[None, :] < lengths[:, None])[:, None, :]
    own = [[node[: len(other)] == other for other in tree.nodes] for node in tree.nodes]
    seen[:, width:, width:] = torch.tensor(own, dtype=torch.bool, device=device).view(count, count)
    mask = torch.zeros(seen.shape, device=device).masked_fill(~seen, torch.finfo().min)[:, None]

    # Asked for: the prompt's last token, then every node of the tree.
    rows = torch.arange(size, device=device).repeat_interleave(1 + count)
    columns = torch.cat(
        [lengths[:, None] - 1, width + torch.arange(count, device=device).expand(size, count)], 1
    ).flatten()
    logits = forward.logits_at(model, ids, rows, columns, mask=mask, positions=positions)
    logits = logits.view(size, 1 + count, -1)
    norms = logits.logsumexp(dim=-1)
    chosen = torch.stack(
        [
            logits[:, place, list(next_)].logsumexp(dim=-1)
            for place, next_ in enumerate(tree.followers)
        ],
        dim=1,
    )
    per_token, among = (np.zeros((size, len(tree.edges))) for _ in range(2))
    for label, edges in enumerate(tree.edges):
        places, wanted = (list(side) for side in zip(*edges, strict=True))
        values = logits[:, places, wanted].double()
        per_token[:, label] = (values - norms[:, places]).mean(dim=1).cpu().numpy()
        among[:, label] = (values - chosen[:, places]).sum(dim=1).cpu().numpy()
    return Likelihoods(per_token, among)


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of similar length together, each batch at most `most` tokens with padding, or one."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[place] > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _some(rows: Sequence[Row]) -> None:
    if not rows:
        raise ModelError("there are no records to score; give at least one", code="no-records")
