"""Images for the page: small, and inside the HTML itself as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

THUMBNAIL = 256
"""Longest side of a thumbnail in pixels."""

LARGE = 768
"""Longest side in pixels of an image that is opened by a click."""

PIXEL_ART = 128
"""Images up to this size are enlarged by the page; without smoothing, so as to hide nothing."""


@dataclass(frozen=True)
class Thumbnail:
    """An image ready for an `<img>`.

    Args:
        uri: `data:` URI with the encoded image.
        width: Pixels of the encoded image.
        height: Pixels of the encoded image.
    """

    uri: str
    width: int
    height: int

    @property
    def is_small(self) -> bool:
        """True where the page shows the image enlarged."""
        return max(self.width, self.height) <= PIXEL_ART


def thumbnail(encoded: bytes, limit: int = THUMBNAIL) -> Thumbnail:
    """Shrink an encoded image where it is large, and make a data URI of it.

    Small images stay lossless (PNG), since their every pixel is seen; large ones become WebP.

    Args:
        encoded: The bytes of an image file.
        limit: Longest side in pixels.

    Returns:
        The thumbnail; never larger than the image.

    Raises:
        TastemakerError: The bytes are not an image.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise TastemakerError(f"an image of the run cannot be read: {error}") from None
    kind = "png"
    if max(image.size) > limit:
        image.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    if max(image.size) > PIXEL_ART:
        kind = "webp"
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "webp" else {"optimize": True}))
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind};base64,{text}", *image.size)


def thumbnails(
    pools: Iterable[Pool], wanted: Collection[str], limit: int = THUMBNAIL
) -> dict[str, Thumbnail]:
    """Read the images of some candidates.

    Args:
        pools: Pools to search; missing ones are ignored.
        wanted: Candidate ids.
        limit: Longest side in pixels.

    Returns:
        A thumbnail for each candidate that was found.

    Raises:
        TastemakerError: A shard is torn, or an image in it cannot be read.
    """
    missing = set(wanted)
    found: dict[str, Thumbnail] = {}
    for pool in pools:
        for shard in sorted(pool.folder.glob("candidates-*.parquet")):
            # Ids first: most shards hold none of the few images wanted, and images are heavy.
            ids = read_table(shard, ("candidate_id",))["candidate_id"].to_pylist()
            rows = {name: i for i, name in enumerate(ids) if name in missing}
            if rows:
                images = read_table(shard, ("image",))["image"]
                found |= {name: thumbnail(_bytes(images[i]), limit) for name, i in rows.items()}
                missing -= rows.keys()
    return found


def _bytes(scalar: Any) -> bytes:
    return bytes(scalar.as_py()["bytes"] or b"")
