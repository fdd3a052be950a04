"""Pictures for the page: encoded anew without metadata, by opaque names."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.images import read_image
from tastemaker.storage.photographs import ORIENTATION, read_photograph
from tastemaker.studio.items import Items
from tastemaker.studio.permutation import Permutation

COMPRESSION = 1
"""Level of PNG: a third of the time of the default, and a tenth more bytes, which go nowhere."""

TURNED = range(5, 9)
"""EXIF orientations that exchange width and height."""

KEPT_SIZES = 10_000

KEPT_BYTES = 1 << 25
"""Of encoded pictures, which two voters may ask for."""


class Pictures:
    """A study's pictures under names that tell nothing, and from which the index comes back.

    Args:
        items: The images.
        secret: Key of the names.
    """

    def __init__(self, items: Items, secret: bytes) -> None:
        self._items = items
        self._names = Permutation(1 << 64, b"names" + secret)
        self._sizes: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._encoded: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def name(self, image: int) -> str:
        """Return an image's name: 16 hex digits."""
        return f"{self._names(image):016x}"

    def image(self, name: str) -> int | None:
        """Return the index of the image of a name; None for a name of none."""
        if len(name) != 16 or not set(name) <= set("0123456789abcdef"):
            return None
        image = self._names.inverse(int(name, 16))
        return image if image < len(self._items.ids) else None

    def size(self, image: int) -> tuple[int, int]:
        """Return width and height of an image as it is shown, from its header.

        Raises:
            TastemakerError: It is gone or not a picture.
        """
        with self._lock:
            if image in self._sizes:
                return self._sizes[image]
        try:
            size = read_image(self._items.read(image), _shown_size)
        except TastemakerError as error:
            raise self._unreadable(image, error) from None
        with self._lock:
            self._sizes[image] = size
            if len(self._sizes) > KEPT_SIZES:
                self._sizes.popitem(last=False)
        return size

    def png(self, image: int) -> bytes:
        """Return an image as PNG: upright, in sRGB, without metadata.

        Raises:
            TastemakerError: It is gone or not a picture.
        """
        with self._lock:
            if image in self._encoded:
                self._encoded.move_to_end(image)
                return self._encoded[image]
        try:
            picture = read_photograph(self._items.read(image)).image
        except TastemakerError as error:
            raise self._unreadable(image, error) from None
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=COMPRESSION)
        data = buffer.getvalue()
        with self._lock:
            if image not in self._encoded:
                self._encoded[image] = data
                self._bytes += len(data)
            while self._bytes > KEPT_BYTES and len(self._encoded) > 1:
                self._bytes -= len(self._encoded.popitem(last=False)[1])
        return data

    def _unreadable(self, image: int, error: TastemakerError) -> TastemakerError:
        return TastemakerError(f"image {self._items.ids[image]} cannot be shown: {error}")


def _shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after turning; a PNG's EXIF is looked for before its pixels alone."""
    known = image.format != "PNG" or "exif" in image.info
    turned = known and image.getexif().get(ORIENTATION, 1) in TURNED
    return (image.height, image.width) if turned else (image.width, image.height)
