"""Embeddings of pictures that scorers of one encoder share while pools are scored."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar

from PIL import Image

from tastemaker.core.lazy_torch import torch

MOST_BYTES = 256 * 2**20
"""Memory of the embeddings that are kept; the first ones stay."""

_kept: ContextVar[dict[Hashable, torch.Tensor] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def shared_embeddings() -> Iterator[None]:
    """Keep what `embedded` returns until the block ends."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def embedded(
    encoder: Hashable, images: Sequence[Image.Image], embed: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Return the embeddings of a batch, kept ones where this encoder had the same batch before.

    Batches are kept whole: what an image's embedding is in its last digits depends on its batch.

    Args:
        encoder: What the embeddings depend on beside the images.
        images: Of any mode and size.
        embed: Computes the embeddings.

    Returns:
        Shape [images, width].
    """
    kept = _kept.get()
    if kept is None:
        return embed()
    digest = hashlib.blake2b(digest_size=16)
    for image in images:
        digest.update(f"{image.mode} {image.size} ".encode())
        digest.update(image.tobytes())
    key = (encoder, digest.digest())
    if key in kept:
        return kept[key]
    embeddings = embed()
    if sum(each.nbytes for each in kept.values()) + embeddings.nbytes <= MOST_BYTES:
        kept[key] = embeddings
    return embeddings
