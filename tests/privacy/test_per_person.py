"""One backward pass gives what a pass for each person alone would give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.linear import compute_linear_grad_sample as sampler
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from privacy import per_person


class Net(nn.Module):
    """A frozen layer, then a trained one with a frozen bias, then a trained one that is reused."""

    def __init__(self, *, reused: bool = False) -> None:
        super().__init__()
        self.frozen = nn.Linear(5, 4).requires_grad_(False)
        self.first = nn.Linear(4, 3)
        self.first.bias.requires_grad_(False)
        self.second = nn.Linear(3, 3, bias=False)
        self.reused = reused

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(self.frozen(x)))))
        return self.second(hidden) if self.reused else hidden

    @property
    def trained(self) -> list[nn.Linear]:
        return [self.first, self.second]


def make(*, reused: bool = False) -> Net:
    torch.manual_seed(3)
    return Net(reused=reused)


def alone(net: Net, x: Tensor) -> list[list[Tensor]]:
    """By plain autograd, person after person: gradient of each trained weight."""
    weights = [layer.weight for layer in net.trained]
    return [list(torch.autograd.grad(net(row[None]).square().sum(), weights)) for row in x]


def together(net: Net, x: Tensor) -> list[Tensor]:
    with per_person.gradients(net.trained, sampler=sampler):
        net(x).square().sum().backward()
        return [layer.weight.grad_sample for layer in net.trained]


@given(people=st.integers(1, 6), tokens=st.integers(1, 5), reused=st.booleans())
@settings(deadline=None, max_examples=25)
def test_each_gradient_is_that_of_the_person_alone(people: int, tokens: int, reused: bool) -> None:
    net = make(reused=reused)
    x = torch.randn(people, tokens, 5)
    found = together(net, x)
    for person, expected in enumerate(alone(net, x)):
        for grads, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(grads[person], wanted, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_opacus_hooks_to_the_last_bit() -> None:
    net = make()
    x = torch.randn(4, 6, 5, requires_grad=True)  # else the hooks warn
    found = together(net, x)
    hooks = GradSampleHooks(net, loss_reduction="sum")
    net(x).square().sum().backward()
    for layer, grads in zip(net.trained, found, strict=True):
        assert torch.equal(layer.weight.grad_sample, grads)
    hooks.cleanup()


def test_outputs_and_input_gradients_are_those_of_the_plain_layers() -> None:
    net = make()
    x = torch.randn(4, 6, 5, requires_grad=True)
    plain = net(x)
    (wanted,) = torch.autograd.grad(plain.square().sum(), x)
    with per_person.gradients(net.trained, sampler=sampler):
        output = net(x)
        (found,) = torch.autograd.grad(output.square().sum(), x)
    assert torch.equal(output, plain)
    assert torch.equal(found, wanted)


def test_the_sum_over_people_is_not_computed() -> None:
    net = make()
    with per_person.gradients(net.trained, sampler=sampler):
        net(torch.randn(4, 6, 5)).square().sum().backward()
        assert all(layer.weight.grad is None for layer in net.trained)


def test_a_weight_used_outside_its_layer_is_told_by_its_plain_gradient() -> None:
    net = make()
    with per_person.gradients(net.trained, sampler=sampler):
        (net(torch.randn(4, 6, 5)).square().sum() + net.second.weight.sum()).backward()
        assert net.first.weight.grad is None
        assert net.second.weight.grad is not None


def test_a_layer_that_is_computed_again_in_the_backward_pass_counts_once() -> None:
    net = make()
    x = torch.randn(4, 6, 5, requires_grad=True)
    wanted = together(net, x)
    with per_person.gradients(net.trained, sampler=sampler):
        checkpoint(net, x, use_reentrant=True).square().sum().backward()
        for layer, grads in zip(net.trained, wanted, strict=True):
            assert torch.equal(layer.weight.grad_sample, grads)


def test_the_first_trained_layer_needs_no_gradient_of_its_input() -> None:
    net = make()
    with per_person.gradients([net.second], sampler=sampler):
        net.first.weight.requires_grad_(False)
        net(torch.randn(4, 6, 5)).square().sum().backward()
        assert net.second.weight.grad_sample.shape == (4, 3, 3)


def test_nothing_is_left_behind_also_on_an_exception() -> None:
    net = make()
    before = [set(vars(thing)) for layer in net.trained for thing in (layer, layer.weight)]
    with pytest.raises(RuntimeError), per_person.gradients(net.trained, sampler=sampler):
        net(torch.randn(2, 3, 6))  # a feature too many
    together(net, torch.randn(2, 3, 5))
    after = [set(vars(thing)) for layer in net.trained for thing in (layer, layer.weight)]
    assert after == before
