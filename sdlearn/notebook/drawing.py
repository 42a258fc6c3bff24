"""The shapes and arrows of the diagrams, as SVG: one colour for each part of the course, and a few marks.

Only presentation attributes, system fonts and absolute coordinates, so that every page shows the same drawing.
"""

import math
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

COLOURS = {  # part -> colour; any two differ with any kind of colour vision, and each stands out on paper
    "tokenizer": "#7d8981",
    "text_encoder": "#10697a",
    "text": "#3d9be0",  # text vectors
    "image_encoder": "#39449b",
    "vae": "#008845",
    "unet": "#d14602",
    "scheduler": "#8a3446",  # and what else belongs to the loop
    "latents": "#bc8d00",
    "pictures": "#e862b7",
}
INK, MUTED, LINE, PAPER = "#22223b", "#55586e", "#6b6e85", "#fdfcfa"
SANS, CODE = "Arial, Helvetica, sans-serif", "Menlo, Consolas, monospace"
CLEAN = ("00000000", "00000440", "00110440", "01441000", "01441000", "02442000", "33333333", "44433344")  # a latent
SKY = '<path d="M0 0H64V64H0Z" fill="#dcecf9"/>'
SCENES = {  # name -> marks on 64 x 64
    "astronaut": '<path d="M0 0H64V64H0Z" fill="#1d2b53"/><path d="M0 48Q32 38 64 48V64H0Z" fill="#c9c9d6"/>'
    '<circle cx="49" cy="14" r="8" fill="#6fb1e8"/><circle cx="28" cy="22" r="9" fill="#fff"/>'
    '<path d="M9 9h2v2h-2zM30 7h2v2h-2zM56 33h2v2h-2zM8 31h2v2h-2z" fill="#fff"/>'
    '<path d="M18 34q0-4 4-4h12q4 0 4 4v11h-5v11h-4v-8h-2v8h-4V45h-5Z" fill="#fff"/>'
    '<rect x="23" y="18" width="12" height="8" rx="4" fill="#22223b"/>',
    "boat": SKY + '<path d="M0 46H64V64H0Z" fill="#6fb1e8"/><path d="M12 44H52L44 54H20Z" fill="#d14602"/>'
    '<path d="M31 41V10L50 41Z" fill="#fff"/>',
    "tree": SKY + '<path d="M0 50H64V64H0Z" fill="#7fb069"/><path d="M29 34H35V54H29Z" fill="#8a5a3b"/>'
    '<circle cx="32" cy="25" r="15" fill="#3f9b5f"/>',
    "house": SKY + '<path d="M0 52H64V64H0Z" fill="#c9c9d6"/><path d="M18 32H46V56H18Z" fill="#f2d0a4"/>'
    '<path d="M13 33L32 14L51 33Z" fill="#d14602"/><path d="M28 42H36V56H28Z" fill="#22223b"/>',
}
Point = tuple[float, float]


def mix(
    colour: str,  # "#rrggbb"
    other: str,  # "#rrggbb"
    amount: float,  # of the other, 0 .. 1
) -> str:  # "#rrggbb"
    """A colour on the way to another."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(a + amount * (b - a)) for a, b in pairs).hex()


def tint(
    part: str,  # one of COLOURS
) -> str:  # "#rrggbb", light enough to write on
    """The colour of a part as the background of a box."""
    return mix(COLOURS[part], "#ffffff", 0.82)


def noise(rows: int, columns: int, seed: int) -> np.ndarray:
    """Numbers from N(0, 1), the same with every version of numpy."""
    return np.random.RandomState(seed).standard_normal((rows, columns))


@dataclass(frozen=True, repr=False)
class Diagram:
    """A finished drawing; a cell shows it as an image, with its description for those who cannot see it.

    Not as image/svg+xml: of that type JupyterLab shows nothing until the cell has been run.
    """

    svg: str
    description: str

    def __repr__(self) -> str:
        return self.description

    def _repr_html_(self) -> str:
        data = b64encode(self.svg.encode()).decode()
        return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(self.description)}" width="800">'


class Drawing:
    """A drawing 800 wide. Each method adds a mark, placed by its centre."""

    def __init__(
        self,
        title: str,  # one line, for those who cannot see it
        description: str,  # what it says, in a sentence or two
        height: float,
        here: Sequence[str] = (),  # parts that the page is about, of COLOURS: these stand out
    ):
        self.title, self.description, self.height, self.here = title, description, round(height), here
        self.marks = [f'<rect width="800" height="{self.height}" rx="12" fill="{PAPER}"/>']

    def text(
        self,
        x: float,
        y: float,  # middle of the line, or of all of them
        words: str,  # "\n" begins a line; "x_t" and "x_{t-1}" have subscripts, but not in code
        size: float = 13,
        anchor: str = "middle",  # or "start", "end"
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """Lines of text."""
        style = f'font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"' + ' font-weight="bold"' * bold
        lines = words.split("\n")
        for i, line in enumerate(lines):
            base = y + (i - (len(lines) - 1) / 2) * 1.3 * size + 0.35 * size
            self.marks.append(f'<text x="{x:.5g}" y="{base:.5g}" {style}>{subscripts(line, size)}</text>')

    def code(self, x: float, y: float, words: str, anchor: str = "middle") -> None:
        """A shape, or the name of a module."""
        style = f'font-size="12" text-anchor="{anchor}" fill="{INK}" font-family="{CODE}"'
        self.marks.append(f'<text x="{x:.5g}" y="{y + 4:.5g}" {style}>{escape(words, quote=False)}</text>')

    def caption(self, x: float, y: float, words: str, shape: str) -> None:
        """What something is, and below it its shape."""
        self.text(x, y, words)
        self.code(x, y + 20, shape)

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        part: str,  # one of COLOURS
        name: str,
        note: str = "",  # below the name
        learned: bool = True,  # without weights it stays white
        taper: float = 0,  # how much shorter the right side is, above and below; negative: the left side
    ) -> None:
        """A part: a rounded box with its name, tapering if its output is smaller than its input."""
        x0, x1, here = x - w / 2, x + w / 2, part in self.here
        left, right = h / 2 + min(0, taper), h / 2 - max(0, taper)
        outline = [(x0, y), (x0, y - left), (x1, y - right), (x1, y + right), (x0, y + left), (x0, y)]
        fill = mix(COLOURS[part], "#ffffff", 0.55) if here else tint(part) if learned else "#ffffff"
        line = f'stroke="{COLOURS[part]}" stroke-width="{4 if here else 2}"'
        self.marks.append(f'<path d="{rounded(outline)}Z" fill="{fill}" {line}/>')
        self.text(x, y - 9 * bool(note), name, 15, bold=True)
        if note:
            self.text(x, y + 11 + 10 * name.count("\n"), note, 12, colour=INK if here else MUTED)

    def line(self, *points: Point, colour: str = LINE, width: float = 1.6, dashed: bool = False) -> None:
        """A line with rounded corners."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.marks.append(f'<path d="{rounded(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>')

    def arrow(self, *points: Point, colour: str = LINE, width: float = 1.6, dashed: bool = False) -> None:
        """A line with a tip at its end."""
        (x0, y0), (x, y) = points[-2:]
        length = math.dist((x0, y0), (x, y))
        u, v = (x - x0) / length, (y - y0) / length  # its direction
        self.line(*points[:-1], (x - 6 * u, y - 6 * v), colour=colour, width=width, dashed=dashed)
        a, b = (x - 9 * u + 4.5 * v, y - 9 * v - 4.5 * u), (x - 9 * u - 4.5 * v, y - 9 * v + 4.5 * u)
        self.marks.append(f'<path d="M{x:.5g} {y:.5g}L{place(a)}L{place(b)}Z" fill="{colour}"/>')

    def arrows(self, *paths: Sequence[Point]) -> None:
        """Several arrows."""
        for points in paths:
            self.arrow(*points)

    def plus(self, x: float, y: float) -> None:
        """A plus sign, where two arrows meet."""
        self.marks.append(f'<circle cx="{x:g}" cy="{y:g}" r="10" fill="#ffffff" stroke="{LINE}" stroke-width="1.6"/>')
        self.line((x - 5, y), (x + 5, y))
        self.line((x, y - 5), (x, y + 5))

    def frame(self, x: float, y: float, w: float, h: float, part: str) -> None:
        """A dashed frame around what belongs together."""
        self.bar(x, y, w, h, "none", COLOURS[part], ' rx="14" stroke-dasharray="3 5"')

    def bar(self, x: float, y: float, w: float, h: float, fill: str, stroke: str = "none", more: str = "") -> None:
        """A plain rectangle."""
        spot = f'x="{x - w / 2:.5g}" y="{y - h / 2:.5g}" width="{w:.4g}" height="{h:.4g}"'
        self.marks.append(f'<rect {spot} fill="{fill}" stroke="{stroke}"{more}/>')

    def numbers(self, x: float, y: float, values: np.ndarray, cell: Point, part: str, gap: float = 0) -> None:
        """Rows of numbers, about -2 .. 2, as shades of a colour: one path for each shade keeps the file small."""
        (rows, columns), (w, h), shades = values.shape, cell, (values.clip(-1.9, 1.9) * 1.5 + 3).astype(int)  # 0 .. 5
        x0, y0 = x - columns * w / 2, y - (rows * (h + gap) - gap) / 2
        scale = [mix(COLOURS[part], "#ffffff", a) for a in (0.88, 0.68, 0.45, 0.2)]
        for shade, colour in enumerate([*scale, mix(COLOURS[part], INK, 0.15), mix(COLOURS[part], INK, 0.5)]):
            found = [(x0 + j * w, y0 + i * (h + gap)) for i, j in np.argwhere(shades == shade)]
            cells = "".join(f"M{place(corner)}h{w:g}v{h:g}h-{w:g}z" for corner in found)
            self.marks += [f'<path d="{cells}" fill="{colour}"/>'] * bool(found)

    def latents(self, x: float, y: float, signal: float = 1, eps: float = 0, seed: int = 0, cell: float = 6) -> None:
        """Four channels of 8 x 8 numbers, one behind the other: `signal` times clean latents and `eps` times noise."""
        for i in (3, 2, 1, 0):
            self.bar(x + 4 * i, y - 4 * i, 8 * cell, 8 * cell, tint("latents"), COLOURS["latents"])
        x0 = np.array([[*map(float, row)] for row in CLEAN])
        values = signal * (x0 - x0.mean()) / x0.std() + eps * noise(8, 8, seed)
        self.numbers(x, y, values, (cell, cell), "latents")

    def vectors(self, x: float, y: float, rows: int = 6, seed: int = 1) -> None:
        """Encoded text: a row of numbers for each token."""
        self.numbers(x, y, noise(rows, 10, seed), (6, 6), "text", gap=2)

    def picture(self, x: float, y: float, side: float = 64, scene: str = "astronaut") -> None:
        """A small picture in a frame."""
        frame = f'<rect width="64" height="64" fill="none" stroke="{COLOURS["pictures"]}" stroke-width="3"/>'
        spot = f"translate({x - side / 2:g} {y - side / 2:g}) scale({side / 64:g})"
        self.marks.append(f'<g transform="{spot}">{SCENES[scene]}{frame}</g>')

    def done(self) -> Diagram:
        """The drawing, as the last line of a cell shows it."""
        size = f'viewBox="0 0 800 {self.height}" width="800" height="{self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{SANS}">'
        about = f"<title>{escape(self.title)}</title><desc>{escape(self.description)}</desc>"
        return Diagram("\n".join([head, about, *self.marks, "</svg>\n"]), f"{self.title}. {self.description}")


def subscripts(
    line: str,
    size: float,  # of its letters
) -> str:  # inside of a text element
    """Set what follows "_" lower and smaller."""
    first, *rest = re.split(r"_(\{[^}]*\}|\w)", escape(line, quote=False))
    low, back = f'<tspan dy="{0.25 * size:g}" font-size="{0.75 * size:g}">', f'<tspan dy="-{0.25 * size:g}">'
    pairs = zip(rest[::2], rest[1::2], strict=True)  # what is low, and what follows it
    return first + "".join(f"{low}{sub.strip('{}')}</tspan>{back}{after}</tspan>" for sub, after in pairs)


def place(point: Point) -> str:
    """A point in a path."""
    return f"{point[0]:.5g} {point[1]:.5g}"


def rounded(
    points: Sequence[Point],
    radius: float = 8,
) -> str:
    """A path whose inner corners are round."""
    path = f"M{place(points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        a, b = (along(corner, other, radius) for other in (before, after))
        path += f"L{place(a)}Q{place(corner)} {place(b)}"
    return path + f"L{place(points[-1])}"


def along(start: Point, end: Point, distance: float) -> Point:
    """The point at a distance from the start, at most half way to the end."""
    part = min(distance / math.dist(start, end), 0.5)
    return start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])
