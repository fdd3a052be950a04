"""Draw a scene: sprites on a coloured background, 64x64 RGB."""

from random import Random

from PIL import Image

from tastemaker.nano.build.art import Sprites
from tastemaker.nano.captions import Scene

SIDE = 64
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (150, 150, 155),
    "navy": (35, 45, 95),
    "yellow": (255, 226, 105),
    "green": (130, 210, 140),
    "blue": (105, 170, 240),
    "pink": (255, 175, 205),
    "purple": (160, 125, 215),
}

Place = tuple[float, float, float]  # x and y of the centre, side; in pixels
Placed = tuple[str, Place]
"""A concept and where it is."""

_OFFSETS: dict[str, tuple[int, int]] = {
    "left": (-15, 0),
    "right": (15, 0),
    "top": (0, -15),
    "bottom": (0, 15),
    "above": (0, -15),
    "below": (0, 15),
    "centre": (0, 0),
}
# Of three objects, from the middle; half of the scenes have them upside down.
CORNERS = [(-15, 14), (15, 14), (0, -15)]


def render(scene: Scene, rng: Random, sprites: Sprites) -> Image.Image:
    """Draw a scene; see `render_placed`."""
    return render_placed(scene, rng, sprites)[0]


def render_placed(scene: Scene, rng: Random, sprites: Sprites) -> tuple[Image.Image, list[Placed]]:
    """Draw a scene with small random shifts of place, size, angle and background colour.

    Args:
        scene: What to draw.
        rng: Source of the shifts.
        sprites: RGBA pictures by (style, concept), as `art.sprites` returns.

    Returns:
        A 64x64 RGB picture, and the place of each object.
    """
    red, green, blue = (
        max(0, min(255, channel + rng.randint(-5, 5))) for channel in COLOURS[scene.background]
    )
    canvas = Image.new("RGB", (SIDE, SIDE), (red, green, blue))
    placed = list(zip(_concepts(scene), _places(scene, rng), strict=True))
    for concept, place in placed:
        paste(canvas, sprites[scene.style, concept], place, rng.uniform(-7, 7))
    return canvas, placed


def _concepts(scene: Scene) -> tuple[str, ...]:
    return scene.concepts if scene.relation else scene.concepts * scene.count


def _places(scene: Scene, rng: Random) -> list[Place]:
    if scene.relation:
        x, y = _OFFSETS[scene.relation]
        return [shifted(x, y, 29, rng), shifted(-x, -y, 29, rng)]
    if scene.count == 2:
        x, y = rng.choice([(15, 0), (15, 0), (0, 15)])
        return [shifted(-x, -y, 29, rng), shifted(x, y, 29, rng)]
    if scene.count == 3:
        flip = rng.choice([-1, 1])
        return [shifted(x, flip * y, 28, rng) for x, y in CORNERS]
    if scene.size == "large":
        return [shifted(0, 0, 52, rng)]
    x, y = _OFFSETS[scene.position]
    return [shifted(x, y, 31, rng)]


def shifted(x: float, y: float, side: float, rng: Random) -> Place:
    """Move a place, given from the middle of the picture, and change its side, by a little."""
    middle = SIDE / 2
    return (
        middle + x + rng.uniform(-1.5, 1.5),
        middle + y + rng.uniform(-1.5, 1.5),
        side * rng.uniform(0.95, 1.06),
    )


def paste(canvas: Image.Image, sprite: Image.Image, place: Place, angle: float) -> None:
    """Draw a sprite into the picture, turned by an angle in degrees."""
    x, y, size = place
    side = round(size)
    # Premultiplied, or the black of fully transparent pixels would bleed into the edges.
    turned = sprite.convert("RGBa").resize((2 * side, 2 * side), Image.Resampling.LANCZOS)
    turned = turned.rotate(angle, Image.Resampling.BILINEAR)
    picture = turned.resize((side, side), Image.Resampling.BOX).convert("RGBA")
    canvas.paste(picture, (round(x - side / 2), round(y - side / 2)), picture)
