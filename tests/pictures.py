"""Pictures that tests score and measure: noise, which no two seeds share."""

import io
import struct

import numpy as np
from PIL import Image


def noise(seed: int, height: int = 32, width: int = 32) -> Image.Image:
    """Random pixels, the same for one seed and size."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""Red, green and blue of sRGB: X, Y and Z under the white of ICC profiles, D50."""


def icc_profile(gamma: float, primaries: tuple[tuple[float, float, float], ...] = ()) -> bytes:
    """An ICC profile (version 2) of a power curve: of grey, or of three primaries."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    white = (0.9642, 1.0, 0.8249)
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 5) + b"mine\0" + b"\0" * 78,
        b"cprt": b"text" + struct.pack(">I", 0) + b"none\0",
        b"wtpt": b"XYZ " + struct.pack(">I", 0) + fixed(*white),
    }
    if not primaries:
        tags[b"kTRC"] = curve
    for letter, primary in zip(b"rgb", primaries, strict=False):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ " + struct.pack(">I", 0) + fixed(*primary)
        tags[bytes([letter]) + b"TRC"] = curve
    table, data, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", start + len(data), len(padded))
        data += padded
    head = struct.pack(
        ">I4sI4s4s4s12x4s",
        128 + len(table) + len(data),
        b"none",
        0x02400000,
        b"mntr",
        b"RGB " if primaries else b"GRAY",
        b"XYZ ",
        b"acsp",
    )
    head += b"\0" * 28 + fixed(*white)
    return head + b"\0" * (128 - len(head)) + table + data


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Bytes of a picture in a format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
