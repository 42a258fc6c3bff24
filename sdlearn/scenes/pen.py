"""The pen that draws everything, its colours, and how to vary them."""

import math
import random

from PIL import Image, ImageDraw

SIDE = 64  # units along each side of a picture, however many pixels it has
CIRCLE = [(math.cos(2 * math.pi * i / 20), math.sin(2 * math.pi * i / 20)) for i in range(20)]
WHITE, BLACK, GREY, TYRE, CREAM = (245, 245, 248), (28, 28, 38), (150, 150, 158), (48, 48, 58), (250, 240, 215)


class Pen:
    """Draws in a figure's own coordinates: x forward, y up, in units of which a picture is 64 wide."""

    def __init__(
        self,
        canvas: Image.Image,  # square; its size says how many pixels a unit has
        x: float = 0.0,  # where the figure's (0, 0) lies: units from the left edge
        y: float = 0.0,  # units from the lower edge
        scale: float = 1.0,
        tilt: float = 0.0,  # radians, anticlockwise
    ):
        self.canvas, self.ink, self.zoom = canvas, ImageDraw.Draw(canvas), canvas.width / SIDE
        self.x, self.y, self.scale, self.tilt = x, y, scale, tilt
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)

    def at(self, x, y):
        """Where a point of the figure lies on the canvas: column, row."""
        x, y = (x * self.cos - y * self.sin) * self.scale, (x * self.sin + y * self.cos) * self.scale
        return round((self.x + x) * self.zoom), round((SIDE - self.y - y) * self.zoom)

    def moved(self, x, y):
        """The same pen with (0, 0) at this point of the figure, to the nearest pixel."""
        column, row = self.at(x, y)
        return Pen(self.canvas, column / self.zoom, SIDE - row / self.zoom, self.scale, self.tilt)

    def poly(self, points, fill):
        self.ink.polygon([self.at(*p) for p in points], fill=fill)

    def oval(self, x, y, rx, ry, fill):
        self.poly([(x + rx * c, y + ry * s) for c, s in CIRCLE], fill)

    def box(self, x, y, width, height, fill):
        self.poly([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], fill)

    def line(self, points, width, fill):
        """A thick line with round ends."""
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            length = math.hypot(x1 - x0, y1 - y0) or 1
            dx, dy = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
            self.poly([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], fill)
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, fill)


def shade(colour: tuple, factor: float) -> tuple:
    """Lighter (factor > 1) or darker (factor < 1)."""
    return tuple(min(255, int(c * factor)) for c in colour)


def blend(one: tuple, other: tuple, amount: float) -> tuple:
    """`amount` of the way from one colour to the other."""
    return tuple(int(a + (b - a) * amount) for a, b in zip(one, other, strict=True))


def vary(colour: tuple, rng: random.Random, by: float = 0.06) -> tuple:
    """The same colour in a slightly different light."""
    return shade(colour, 1 + rng.uniform(-by, by))


def pick(rng: random.Random, values: tuple):
    """One of `values`, by `random()`, which gives the same in every version of Python; `choice` does not."""
    return values[int(rng.random() * len(values))]
