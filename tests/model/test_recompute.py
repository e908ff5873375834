from __future__ import annotations

from typing import Any

import torch

from model import adapter, prompts, recompute, shapes
from model.base import Base


def _gradients(model: Any, items: Any, *, again: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    losses = prompts.loss(model, items, 120, recompute=again)
    losses.sum().backward()
    return losses.detach(), [p.grad.clone() for p in trained]


def test_recomputing_layers_gives_the_same_bits(tiny: Base, stir: Any) -> None:
    layers = len(list(tiny.model.base_model.children()))
    assert layers  # the architecture is known
    for spec in (shapes.Spec(rank=2, seed="s"), _last_layer_only(tiny)):
        model = adapter.attach(tiny, spec)
        stir(model)
        notes = [prompts.made_up(model, tokens=20 + number, number=number) for number in range(3)]
        for items in (notes, [prompts.Pack(tuple(notes)), prompts.Pack((notes[0],))]):
            kept, recomputed = (_gradients(model, items, again=again) for again in (False, True))
            assert torch.equal(kept[0], recomputed[0])
            assert all(torch.equal(a, b) for a, b in zip(kept[1], recomputed[1], strict=True))
            assert all(gradient.abs().sum() > 0 for gradient in recomputed[1])
        adapter.detach(model)


def _last_layer_only(tiny: Base) -> shapes.Spec:
    targets = shapes.targets_for(tiny.folder, shapes.Spec(rank=2, seed="s"))
    return shapes.Spec(rank=2, seed="s", targets=tuple(t for t in targets if ".1." in t))


def test_each_layer_keeps_only_what_went_in(llama: Base, stir: Any) -> None:
    model = adapter.attach(llama, shapes.Spec(rank=2, seed="s"))
    stir(model)
    items = [prompts.made_up(model, tokens=100, number=1)]

    def held(again: bool) -> int:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel() if tensor.dim() > 2 else 0)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            prompts.loss(model, items, recompute=again)
        return sum(sizes)

    assert held(True) < held(False) / 3


def test_the_layers_are_as_before_afterwards(llama: Base) -> None:
    layers = list(llama.model.model.layers)
    try:
        with recompute.recomputed(llama.model):
            assert all("forward" in vars(layer) for layer in layers)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert not any("forward" in vars(layer) for layer in layers)
