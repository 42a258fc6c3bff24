"""What can be ridden: feet or wheels on y = 0, facing +x."""

import random
from colorsys import hsv_to_rgb

from sdlearn.scenes.pen import BLACK, CIRCLE, CREAM, GREY, TYRE, WHITE, blend, shade

COATS = {  # hue, saturation, value, each 0 .. 1: the middle of what counts as that colour
    "red": (0.995, 0.85, 0.86),
    "yellow": (0.14, 0.85, 0.94),
    "green": (0.37, 0.78, 0.68),
    "blue": (0.59, 0.84, 0.88),
    "purple": (0.78, 0.70, 0.78),
}


def coat(name: str, rng: random.Random) -> tuple:
    """A shade of one of the colours that a mount can have."""
    hue, saturation, value = (c + rng.uniform(-d, d) for c, d in zip(COATS[name], (0.015, 0.06, 0.05), strict=True))
    return tuple(int(255 * c) for c in hsv_to_rgb(hue % 1, saturation, value))


def legs(pen, xs, height, width, fill):
    for x in xs:
        pen.line([(x, height), (x, width / 2)], width, fill)


def eye(pen, x, y):
    pen.oval(x, y, 2.1, 2.3, WHITE)
    pen.oval(x + 0.5, y, 1.3, 1.4, BLACK)


def horse(pen, c):
    dark, mane = shade(c, 0.72), shade(c, 0.45)
    legs(pen, (-8, 7), 9, 2.8, dark)
    pen.line([(-12, 14), (-16, 12), (-16, 6)], 3.2, mane)
    legs(pen, (-11, 10), 9, 3.2, c)
    pen.oval(0, 13, 13, 5.6, c)
    pen.line([(9, 14), (14, 23)], 6.5, c)
    pen.line([(6.5, 18), (10, 25)], 3.4, mane)
    pen.line([(14, 24), (20, 20.5)], 5.4, c)
    pen.poly([(11, 26), (13, 31), (15.5, 26)], dark)
    pen.oval(21, 20, 2, 2, shade(c, 1.3))
    eye(pen, 15.5, 24.2)


def elephant(pen, c):
    dark = shade(c, 0.74)
    legs(pen, (-6, 5), 8, 5, dark)
    legs(pen, (-10, 9), 8, 5.4, c)
    pen.line([(-14, 14), (-17, 9)], 1.8, dark)
    pen.oval(-1, 14, 14.5, 8, c)
    pen.oval(13, 17, 7, 7, c)
    pen.line([(18, 16), (21.5, 11), (21, 5), (24, 3)], 3.6, c)
    pen.line([(16, 12), (20, 9.5)], 1.8, CREAM)
    pen.oval(9.5, 17.5, 5, 6.5, dark)
    pen.oval(9.5, 17.5, 3.4, 4.8, blend(c, (255, 190, 200), 0.45))
    eye(pen, 16.5, 19)


def dragon(pen, c):
    dark, light = shade(c, 0.68), blend(c, (255, 255, 190), 0.6)
    pen.poly([(-9, 8), (-24, 14), (-10, 15)], c)
    pen.poly([(-26, 18), (-20, 14), (-22, 10)], dark)
    legs(pen, (-5, 5), 7, 4.2, dark)
    legs(pen, (-9, 8), 7, 4.6, c)
    pen.oval(-1, 12.5, 12.5, 6.4, c)
    pen.oval(1, 9.5, 9, 3.2, light)
    pen.line([(8, 14), (13, 21), (13, 25)], 6, c)
    pen.line([(13, 26), (20, 25)], 5.6, c)
    pen.poly([(10, 27), (7.5, 33), (13, 28.5)], CREAM)
    pen.poly([(14, 28), (13, 34), (17, 28)], CREAM)
    pen.poly([(-4, 14), (-10, 30), (-14, 22), (-19, 27), (-18, 19), (-23, 20), (-12, 13)], light)
    pen.line([(-6, 15), (-10, 29)], 1.8, dark)
    pen.poly([(22, 25), (29, 28), (27, 25), (30, 22)], (255, 150, 40))
    eye(pen, 15.5, 27)


def turtle(pen, c):
    skin = (150, 160, 100)
    legs(pen, (-9, 9), 5, 5, skin)
    pen.poly([(-12, 4), (-19, 3), (-12, 8)], skin)
    pen.line([(12, 6), (18, 10)], 5.4, skin)
    pen.oval(19.5, 11.5, 4.6, 4.2, skin)
    pen.poly([(x * 15.5, 4 + max(0, y) * 13) for x, y in CIRCLE], c)
    pen.line([(-14.5, 4.5), (14.5, 4.5)], 3, shade(c, 0.62))
    for x, y, r in ((-8.5, 9.5, 2.6), (0, 12.5, 3.2), (8.5, 9.5, 2.6)):
        pen.oval(x, y, r, r * 0.8, blend(c, WHITE, 0.5))
    eye(pen, 20.5, 12.8)


def wheels(pen, xs, r, fill, axle):
    for x in xs:
        pen.oval(x, r, r, r, TYRE)
        pen.oval(x, r, r - 2.2, r - 2.2, fill)
        pen.oval(x, r, axle, axle, TYRE)


def bicycle(pen, c):
    wheels(pen, (-11.5, 11.5), 8.5, (205, 208, 214), 1.6)
    pen.line([(-11.5, 8.5), (-1, 8.5), (8.5, 18), (-5, 17.5), (-11.5, 8.5)], 2.7, c)
    pen.line([(-1, 8.5), (-5.5, 19)], 2.7, c)
    pen.line([(11.5, 8.5), (8, 21.5), (12, 23)], 2.4, shade(c, 0.75))
    pen.line([(-8, 20), (-3, 20)], 3, BLACK)


def motorbike(pen, c):
    wheels(pen, (-12, 12), 7.5, GREY, 2.2)
    pen.line([(-14, 6), (2, 6)], 2.6, (215, 218, 224))
    pen.oval(-1, 8, 5, 4.4, GREY)
    pen.line([(12, 7.5), (7.5, 20)], 2.8, (215, 218, 224))
    pen.poly([(-17, 15), (-12, 11), (6, 10), (10, 16), (8, 20), (1, 19.5), (-4, 15.5), (-15, 17.5)], c)
    pen.oval(3, 16.4, 5.6, 3.6, shade(c, 1.25))
    pen.line([(-13, 17.2), (-4, 16.2)], 2.8, BLACK)
    pen.line([(7, 20), (5, 24)], 2.2, TYRE)
    pen.oval(11, 18, 2.6, 2.8, (255, 240, 150))


MOUNTS = {  # name -> how to draw it, where its rider sits (x, y)
    "horse": (horse, (-2, 17)),
    "bicycle": (bicycle, (-5, 20)),
    "dragon": (dragon, (1, 17)),
    "elephant": (elephant, (-3, 20.5)),
    "turtle": (turtle, (-1, 15.5)),
    "motorbike": (motorbike, (-6, 17.5)),
}
