"""Differentially private training of adapter weights, a person at a time; the one door to opacus.

Unit: one person, who is one item of `people`. Adjacency: zeroing out that person. A call to `train`
costs `plan.Mechanism(noise_multiplier, sample_rate, steps)`, which the caller has reserved in the
ledger. Opacus computes the gradient of each person; clipping, noise and sampling are ours, because
its own draw from torch's global generator and skip empty batches.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import numpy as np
import torch
from opacus.accountants import PRVAccountant
from opacus.grad_sample.linear import compute_linear_grad_sample
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from privacy import optimizers, per_person, trainable
from privacy.csprng import Csprng
from privacy.errors import PlanInvalid, UnsupportedModel
from privacy.plan import Mechanism, check_delta
from privacy.schedule import CONSTANT, Schedule

if TYPE_CHECKING:
    from privacy.crew import Crew

P = TypeVar("P")
E = TypeVar("E")
Loss = Callable[[nn.Module, Sequence[E], int], Tensor]

# The share of `clip_norm` that is set aside for rounding: when one person is taken away, the passes
# of the others change shape or order, and with them the last bits of the others' gradients.
ALLOWANCE: Final = 1e-3
FLOOR: Final = 0.01  # γ of AUTO-S: what keeps small gradients smaller than large ones


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of one training call; all public, all fixed before the data is opened.

    Attributes:
        noise_multiplier: standard deviation of the noise over `clip_norm`, over 0.
        clip_norm: most that one person can move one step's sum, in the 2-norm over all weights,
            rounding included.
        sample_rate: chance of a person to be in a step, within (0, 1].
        steps: noisy steps of this call.
        learning_rate: of the optimizer, over 0.
        optimizer: "adamw" or "sgd" (without momentum).
        chunk_tokens: most padded tokens in one forward pass; memory only, no effect on the result
            beyond rounding.
        clipping: with c = (1 - ALLOWANCE) * clip_norm, "flat" takes a gradient g of norm n to
            g * min(1, c / n), "auto" to g * c / (n + 0.01) (AUTO-S; Bu and others, 2023).
        schedule: the learning rate's course over the run.
        weight_decay: share of the weights that a step takes off at rate 1, at least 0.

    Raises:
        PlanInvalid: a number is out of its range, or is not a number.
    """

    noise_multiplier: float
    clip_norm: float
    sample_rate: float
    steps: int
    learning_rate: float
    optimizer: optimizers.Name = "adamw"
    chunk_tokens: int = 2048
    clipping: Literal["flat", "auto"] = "flat"
    schedule: Schedule = CONSTANT
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        Mechanism(self.noise_multiplier, self.sample_rate, self.steps)
        for name in ("clip_norm", "learning_rate"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise PlanInvalid(f"{name} is {getattr(self, name)}; give a finite number over 0")
        for name, known in (("optimizer", optimizers.NAMES), ("clipping", ("flat", "auto"))):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise PlanInvalid(f"{name} is {given!r}; give one of {', '.join(known)}")
        if not 0.0 <= self.weight_decay * self.learning_rate < 1.0:
            raise PlanInvalid(
                f"weight_decay is {self.weight_decay}; give at least 0, and less than 1 over the "
                "learning rate"
            )
        self.schedule.share(self.steps - 1)
        if not self.chunk_tokens >= 1:
            raise PlanInvalid(f"chunk_tokens is {self.chunk_tokens}; give at least 1")


@dataclass(frozen=True, slots=True)
class Trained:
    """What a call leaves besides the changed weights.

    Attributes:
        steps: noisy steps taken, equal to the steps accounted for.
        state: optimizer state by "<parameter name>.<entry>", made of noised gradients only; for the
            institution's next round, never sent.
    """

    steps: int
    state: dict[str, Tensor]


def train(
    model: nn.Module,
    people: Sequence[P | None],
    *,
    draw: Callable[[P, Csprng], E],
    loss: Loss[E],
    size: Callable[[E], int],
    settings: Settings,
    randomness: Csprng,
    state: Mapping[str, Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    crew: Crew | None = None,
) -> Trained:
    """Train the model's trainable weights in place with `settings.steps` noisy steps.

    Args:
        model: every trainable parameter is the weight of an `nn.Linear`, as in an adapter.
        people: one item is everything of one person, None where that is nothing. Their number is
            public.
        draw: what one person contributes to one step; must look at that person only.
        loss: called with the model, the drawn examples and the width to pad them to; one loss
            each, shape (len(examples),). An example's loss must not depend on the others (a mean
            over its own tokens, never over the batch), and two passes of as many examples and one
            width must do the same operations on the same shapes.
        size: length in tokens, to batch like with like.
        settings: the numbers, as reserved.
        randomness: source of sampling, draws and noise.
        state: `Trained.state` of the institution's previous round; None to start anew.
        on_step: called after every step with steps done and steps in all.
        crew: the processes that call this together, each with the same arguments; process 0's
            `randomness` is every one's. Examples must be hashable then, and equal ones have equal
            hashes in all processes, as numbers have. None is this process alone.

    Guarantees: zeroing out one person moves each step's sum by at most `clip_norm`, of which
    ALLOWANCE is for rounding in the others' gradients (`arithmetic.check` measures whether the
    machine stays within it); every step adds fresh noise of `noise_multiplier * clip_norm` to
    every weight, also if nobody was sampled; sums are divided by the constant
    `sample_rate * len(people)`; a person whose gradient is not finite contributes nothing;
    gradients, activations and what was put on the layers are gone afterwards, also on an exception.

    Raises:
        UnsupportedModel: the model or the loss does not give one gradient for each person.
        PlanInvalid: nobody to train on, or `state` belongs to another model or optimizer.
    """
    if not people:
        raise PlanInvalid("there is nobody to train on; check the records")
    weights = trainable.find(model)
    rate = settings.learning_rate
    inner = optimizers.make(settings.optimizer, list(weights.values()), rate, settings.weight_decay)
    optimizers.restore(inner, weights, state or {}, settings.optimizer)
    if crew is not None:
        randomness = crew.shared(randomness)
        crew.agree(settings, len(people), trainable.digest(weights))
    optimizer = _PersonOptimizer(
        inner, settings, people=len(people), randomness=randomness, crew=crew
    )
    with _gradient_per_person(model, weights), torch.enable_grad():
        for done in range(settings.steps):
            optimizers.set_rate(inner, rate * settings.schedule.share(done))
            sampled = randomness.poisson_sample(len(people), settings.sample_rate)
            present = [person for index in sampled if (person := people[index]) is not None]
            drawn = [draw(person, randomness) for person in present]
            split = trainable.chunks(drawn, size=size, limit=settings.chunk_tokens)
            if crew is not None:
                # Were the sample another elsewhere, one person could be in two shares of it.
                crew.agree(sampled.tolist(), [hash(example) for example in drawn])
                split = list(crew.part(split))
            for place, chunk in enumerate(split):
                _backward(model, chunk.examples, chunk.width, loss, weights)
                optimizer.signal_skip_step(do_skip=place < len(split) - 1)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if on_step is not None:
                on_step(done + 1, settings.steps)
    return Trained(settings.steps, optimizers.saved(inner, weights))


def gradients(model: nn.Module, examples: Sequence[E], width: int, loss: Loss[E]) -> Tensor:
    """The gradients of one pass of `train`, before any clipping: as private as the examples.

    Args:
        model: as for `train`.
        examples: at least one; made-up ones, in a check of the arithmetic.
        width: what the loss pads them to.
        loss: as for `train`.

    Returns:
        Shape (len(examples), number of trainable weights), float32.

    Raises:
        UnsupportedModel: the model or the loss does not give one whole gradient for each person.
    """
    weights = trainable.find(model)
    with _gradient_per_person(model, weights), torch.enable_grad():
        try:
            _backward(model, examples, width, loss, weights)
            return torch.cat([weight.grad_sample.flatten(1) for weight in weights.values()], dim=1)
        finally:
            for weight in weights.values():
                weight.grad_sample = None


class _PersonOptimizer(DPOptimizer):
    """Clips each person's gradient, sums in float64, adds the step's noise, divides by a constant.

    Replaces the parts of Opacus' optimizer that would draw noise from torch's global generator,
    let a non-finite gradient through, or round the clipped sum to float32 before the noise.
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        settings: Settings,
        *,
        people: int,
        randomness: Csprng,
        crew: Crew | None = None,
    ) -> None:
        super().__init__(
            inner,
            noise_multiplier=settings.noise_multiplier,
            max_grad_norm=settings.clip_norm,
            expected_batch_size=settings.sample_rate * people,  # public; the true size is not
        )
        self.randomness = randomness
        self.clipping = settings.clipping
        self.crew = crew

    def clip_and_accumulate(self) -> None:
        grads = self.grad_samples
        norms = torch.stack(
            [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64) for g in grads]
        ).norm(dim=0)
        finite = torch.isfinite(norms)
        bound = (1.0 - ALLOWANCE) * self.max_grad_norm
        over = norms + FLOOR if self.clipping == "auto" else norms.clamp(min=bound)
        factors = torch.where(finite, bound / over, 0.0)
        spoilt = None if bool(finite.all()) else ~finite.view(-1, 1)
        for weight, grad in zip(self.params, grads, strict=True):
            clean = grad.flatten(1).double()
            if spoilt is not None:  # zero times NaN is NaN: the gradient itself has to go as well
                clean.masked_fill_(spoilt, 0.0)
            total = (factors @ clean).view_as(weight)
            weight.summed_grad = total if weight.summed_grad is None else weight.summed_grad + total
            weight.grad_sample = weight.grad_sample[:0]  # used once

    def add_noise(self) -> None:
        std = self.noise_multiplier * self.max_grad_norm
        for weight in self.params:
            noise = torch.from_numpy(self.randomness.normal(tuple(weight.shape), std))
            if self.crew is not None:
                weight.summed_grad = self.crew.total(weight.summed_grad)
            noised = weight.summed_grad + noise.to(weight.device)
            weight.grad = noised.to(weight.dtype)
            weight.summed_grad = None

    def scale_grad(self) -> None:
        for weight in self.params:
            weight.grad /= self.expected_batch_size


def _backward(
    model: nn.Module,
    examples: Sequence[E],
    width: int,
    loss: Loss[E],
    weights: Mapping[str, nn.Parameter],
) -> None:
    """Leave one gradient for each example in every weight's `grad_sample`."""
    if not examples:
        for weight in weights.values():
            weight.grad_sample = weight.new_zeros((0, *weight.shape))
        return
    losses = loss(model, examples, width)
    if losses.shape != (len(examples),):
        raise UnsupportedModel(
            f"the loss has shape {tuple(losses.shape)} for {len(examples)} people; "
            "return one loss each"
        )
    losses.sum().backward()
    for name, weight in weights.items():
        grad = weight.grad_sample
        if not (
            isinstance(grad, Tensor)
            and grad.shape == (len(examples), *weight.shape)
            and grad.dtype == torch.float32
        ):
            raise UnsupportedModel(
                f"{name} has no float32 gradient for each person; keep people in the first "
                "dimension, use the layer in every pass, and switch autocast off"
            )
        if weight.grad is not None:  # the layer itself leaves none
            raise UnsupportedModel(
                f"{name} is used outside its layer, so a person's gradient is incomplete; "
                "take a plain LoRA adapter"
            )


@contextmanager
def _gradient_per_person(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Make a backward pass leave a gradient for each person; leave no trace of them afterwards."""
    # `trainable.find` made sure that nothing else is trainable.
    trained = [m for m in model.modules() if type(m) is nn.Linear and m.weight.requires_grad]
    for weight in weights.values():
        weight.grad = None
    with (
        trainable.in_evaluation_mode(model),
        per_person.gradients(trained, sampler=compute_linear_grad_sample),
    ):
        try:
            yield
        finally:
            for weight in weights.values():
                weight.grad = None
                weight.__dict__.pop("summed_grad", None)


def prv_epsilon(rows: Sequence[Mechanism], *, delta: float) -> float:
    """Compose `rows` with Opacus' PRV accountant, a second opinion on `plan.epsilon`.

    Returns:
        An upper bound that includes the accountant's own error of 0.01; 0.0 for no rows.
    """
    check_delta(delta)
    if not rows:
        return 0.0
    accountant = PRVAccountant()
    accountant.history = [(row.noise_multiplier, row.sample_rate, row.steps) for row in rows]
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # at rate 1 it takes log(0)
        # A Renyi bound only sets the width of its grid; there a loose order costs time, not truth.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return max(0.0, float(accountant.get_epsilon(delta)))
