"""What a style does to the whole picture."""

from PIL import Image

from sdlearn.scenes.pen import CREAM, WHITE, pick, shade, vary


def brush_strokes(pen, rng):
    """Paint over the background with broad strokes of the colour that is there."""
    for _ in range(8):
        x, y = rng.uniform(2, 62), rng.uniform(2, 62)
        colour = pen.canvas.getpixel(pen.at(x, y))
        length, slope = rng.uniform(12, 20), rng.uniform(-3, 3)
        ends = [(x - length / 2, y - slope), (x + length / 2, y + slope)]
        pen.line(ends, rng.uniform(5, 7), vary(colour, rng, 0.2))


def border(pen, width, colour):
    last = pen.canvas.width - 1
    pen.ink.rectangle((0, 0, last, last), outline=colour, width=round(width * pen.zoom))


def photograph(pen, rng):
    """Nothing added."""


def painting(pen, rng):
    gold = vary((196, 148, 54), rng)
    border(pen, 4, gold)
    border(pen, 1.4, shade(gold, 0.62))


def postcard(pen, rng):
    """Faded, with a white border and a stamp."""
    paper = Image.new("RGB", pen.canvas.size, (255, 236, 205))
    pen.canvas.paste(Image.blend(pen.canvas, paper, rng.uniform(0.24, 0.32)))
    border(pen, 4, (252, 250, 244))
    x = pick(rng, (3.0, 51.0))
    pen.box(x, 50, 10, 11, WHITE)
    pen.box(x + 1.2, 51.2, 7.6, 8.6, (200, 60, 80))
    pen.oval(x + 5, 55.5, 2.4, 2.8, CREAM)


STYLES = {"photograph": photograph, "painting": painting, "postcard": postcard}
