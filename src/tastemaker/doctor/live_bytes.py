"""Bytes of tensors that are alive at once, and of networks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tastemaker.backbones import Backbone


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention by the fused kernel, as elsewhere; on `meta` torch makes the whole matrix."""
    if enable_gqa:
        key, value = (
            each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value)
        )
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output: torch.Tensor = fused(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return output


class LiveBytes(TorchDispatchMode):
    """Adds up the tensors that the operations inside make, as long as they are alive.

    Attention is fused, also where a checkpoint computes it again.

    Attributes:
        peak: Most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._sizes: dict[int, int] = {}
        self._attention: Any = F.scaled_dot_product_attention

    def __enter__(self) -> Self:
        # A TorchFunctionMode would not reach what a checkpoint computes again.
        F.scaled_dot_product_attention = _fused
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        F.scaled_dot_product_attention = self._attention

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_iter(made):
            if isinstance(each, torch.Tensor):
                self._see(each.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata
        if name in self._sizes:
            return
        self._sizes[name] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, name)

    def _forget(self, name: int) -> None:
        self.live -= self._sizes.pop(name, 0)


def pipeline_bytes(backbone: Backbone) -> int:
    """Bytes of all networks of a pipeline that are still there."""
    return sum(map(module_bytes, backbone.networks.values()))


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in tensors.values())
