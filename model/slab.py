"""Keys and values of many conversations at once: one block of memory with a row for each.

A row is filled from its left; what lies beyond a row's length is finite and masked. The object
stands where transformers expects a cache: its layers call `update` and nothing else.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

_STEP: Final = 64  # widths are multiples of it, so that a longer row seldom means a new block


class Slab:
    """Rows of keys and values, bounded in tokens.

    Attributes:
        tokens: rows × width never exceeds this.
    """

    def __init__(self, config: Any, *, tokens: int, dtype: torch.dtype, device: Any) -> None:
        heads = config.num_attention_heads
        self.tokens = tokens
        self._layers: int = config.num_hidden_layers
        self._heads: int = getattr(config, "num_key_value_heads", None) or heads
        self._size: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        self._like = {"dtype": dtype, "device": device}
        self._block = self._new(0, 0)
        self._rows: slice | Tensor = slice(0, 0)
        self._starts = torch.zeros(0, dtype=torch.int64)
        self._columns = torch.zeros(0, dtype=torch.int64)
        self._width = 0

    @property
    def held(self) -> int:
        """Bytes of memory that the block has."""
        return self._block.numel() * self._block.element_size()

    def fits(self, rows: int, width: int) -> bool:
        """Whether so many rows of this width stay within the bound."""
        return rows * _rounded(width) <= self.tokens

    def reserve(self, rows: int, width: int, *, used: int) -> None:
        """Make room for `rows` rows of `width` tokens; the first `used` rows keep what they hold.

        Raises:
            ValueError: that is more than the bound.
        """
        if not self.fits(rows, width):
            raise ValueError("more tokens than the cache may hold")
        had_rows, had_width = self._block.shape[2], self._block.shape[4]
        if had_rows >= rows and had_width >= width:
            return
        width = max(_rounded(width), had_width)
        if rows < had_rows and had_rows * width <= self.tokens:
            rows = had_rows
        if not rows * width <= self.tokens:  # the old block was wide, and no row needs it any more
            width = self.tokens // rows // _STEP * _STEP
        block = self._new(rows, width)
        kept = min(width, had_width)
        block[:, :, :used, :, :kept] = self._block[:, :, :used, :, :kept]
        self._block = block

    def swap(self, one: int, other: int, first: int, second: int) -> None:
        """Exchange two rows, of which the first `first` and `second` tokens matter."""
        length = max(first, second)
        both = self._block[:, :, [one, other], :, :length]  # a copy, since it is indexed by a list
        self._block[:, :, one, :, :length] = both[:, :, 1]
        self._block[:, :, other, :, :length] = both[:, :, 0]

    def aim(self, rows: slice | Tensor, starts: Tensor, length: int) -> Tensor:
        """Say where the next pass writes, and what each of its tokens sees.

        Args:
            rows: the rows of the pass, n of them.
            starts: how many tokens each of them holds, shape (n,).
            length: tokens of the pass in every row, padding included.

        Returns:
            Additive mask of shape (n, 1, length, width): a token sees what its row holds, the
            tokens of the pass before it, and itself.
        """
        self._rows, self._starts = rows, starts
        self._columns = starts[:, None] + torch.arange(length, device=starts.device)
        self._width = int(starts.max()) + length
        seen = torch.arange(self._width, device=starts.device) <= self._columns[:, :, None]
        mask = torch.zeros(seen.shape, **self._like)
        return mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)[:, None]

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's keys and values, shape (n, heads, length, size), and return the rows'."""
        rows, width = self._rows, self._width
        both = []
        for half, new in enumerate((keys, values)):
            place = self._block[layer_idx, half]
            if isinstance(rows, slice):
                index = torch.arange(rows.start, rows.stop, device=new.device)
            else:
                index = rows
            place[index[:, None], :, self._columns] = new.transpose(1, 2)
            both.append(place[rows, :, :width])
        return both[0], both[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Longest row before this pass; positions are given explicitly, so nobody relies on it."""
        del layer_idx
        return int(self._starts.max()) if len(self._starts) else 0

    def _new(self, rows: int, width: int) -> Tensor:
        # Zeros, since a masked position is multiplied by zero and must not hold NaN.
        return torch.zeros((self._layers, 2, rows, self._heads, width, self._size), **self._like)


def _rounded(width: int) -> int:
    return -(-width // _STEP) * _STEP
