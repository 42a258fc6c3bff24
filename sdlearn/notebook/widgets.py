"""Controls over the figures of `show`, and films: each a single call in a cell."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from sdlearn.notebook import show

SIDE = 256  # screen pixels for a side of a single picture


def move(
    frame: Callable[..., Figure | Sequence[Figure]],  # one value per control -> figures to show side by side
    still: Figure | None = None,  # what stays on a static page; None: what the first values show
    /,
    ahead: bool = False,  # draw every value of the only slider now, not when it is moved there
    **controls,  # as for `ipywidgets.interact`: (0, 999, 37) a slider, True a checkbox, a list a menu, text a text box
) -> None:
    """Figures that follow their controls; settings that were shown before come from memory.

    An error in `frame` becomes a line under the controls, and the figures stay as they were.
    """

    @lru_cache(maxsize=256)
    def figures(*values) -> Sequence[Figure]:
        seen = frame(**dict(zip(controls, values, strict=True)))
        return [seen] if isinstance(seen, Figure) else seen

    @lru_cache(maxsize=256)
    def file(*values) -> bytes:
        note.value = "drawing ..."
        return show.rendered(*figures(*values))

    def now() -> tuple:
        return tuple(knob.value for knob in knobs)

    def redraw(_) -> None:
        try:
            screen.value, note.value = file(*now()), ""
        except Exception as error:  # whatever it is: else the line would say "drawing ..." for ever
            note.value = complaint(error)

    knobs = [control(name, abbreviation) for name, abbreviation in controls.items()]
    note = widgets.Label()  # plain text: nothing that is typed is taken for markup
    first = figures(*now())
    for value in range(knobs[0].min, knobs[0].max + 1, knobs[0].step) if ahead else ():
        file(value)
    screen, note.value = widgets.Image(value=file(*now())), ""
    for knob in knobs:
        knob.observe(redraw, "value")
    live(
        widgets.VBox([*knobs, note, widgets.HBox([screen])]),
        ", ".join(knob.description for knob in knobs),
        *[still] if still else first,
    )


def while_typing(
    draw: Callable[[str, int], np.ndarray],  # text, seed -> a picture, h w c uint8
    text: str,  # to begin with
    still: Figure,  # what stays on a static page
) -> None:
    """A picture that is redrawn at every keystroke, for a model that draws in a few milliseconds.

    An error in `draw` becomes the line under the picture, which stays as it was.
    """

    def redraw(_=None) -> None:
        begin = time.perf_counter()
        try:
            screen.value = show.png(draw(line.value, seed.value), SIDE)
            note.value = f"{1000 * (time.perf_counter() - begin):.0f} ms"
        except Exception as error:  # whatever it is: else the picture would stand still without a word
            note.value = complaint(error)

    line = widgets.Text(text, description="prompt", layout={"width": "560px"})  # it tells of every key
    seed = widgets.IntSlider(0, 0, 99, description="seed")
    screen, note = widgets.Image(width=SIDE, height=SIDE, format="png"), widgets.Label()
    redraw()
    for knob in (line, seed):
        knob.observe(redraw, "value")
    live(widgets.VBox([line, seed, screen, note]), "prompt, seed", still)


def live(
    box: widgets.Widget,
    what: str,  # what there is to move
    *stills: Figure,  # what a static page shows
) -> None:
    """Show a widget; without a kernel (a page on the web, a notebook just opened), a picture takes its place."""
    print("Live, you can move:", what)
    show.display_small(*stills, widget=box)


def control(name: str, abbreviation) -> widgets.ValueWidget:
    """The widget that `ipywidgets.interact` would make; a line of text counts once it is finished."""
    knob = widgets.interactive.widget_from_abbrev(abbreviation)
    if knob is None:
        raise ValueError(f"{name} must be as for ipywidgets.interact, such as (0, 10) or a list; got {abbreviation!r}")
    knob.description = knob.description or name.replace("_", " ")
    if isinstance(knob, widgets.Text):
        knob.continuous_update, knob.layout.width = False, "560px"
    return knob


def paint(
    frame: Callable[[np.ndarray], Figure],  # what is painted, h w c uint8 -> a figure
    canvas: np.ndarray,  # h w c uint8, what is there at first: one square for each pixel
    colours: dict[str, tuple[int, int, int]],  # name -> red, green and blue, 0 .. 255
) -> None:
    """Squares to paint on: choose a colour, click squares, and press Draw."""
    canvas, (h, w) = canvas.copy(), canvas.shape[:2]
    colour = widgets.ToggleButtons(options=list(colours), style={"button_width": "70px"})
    cell = {"width": "26px", "height": "26px", "margin": "0", "padding": "0"}
    squares = [widgets.Button(layout=cell, style={"button_color": css(x)}) for x in canvas.reshape(-1, 3)]
    button, note = widgets.Button(description="Draw", button_style="primary"), widgets.Label()
    screen = widgets.Image(value=show.rendered(first := frame(canvas.copy())))

    def fill(square: widgets.Button, i: int) -> None:
        canvas[divmod(i, w)] = colours[colour.value]
        square.style.button_color = css(canvas[divmod(i, w)])

    def draw(_) -> None:
        note.value = "drawing ..."
        try:
            screen.value, note.value = show.rendered(frame(canvas.copy())), ""
        except Exception as error:  # as in `move`
            note.value = complaint(error)

    for i, square in enumerate(squares):
        square.on_click(partial(fill, i=i))
    button.on_click(draw)
    rows = widgets.VBox([widgets.HBox(squares[i * w : (i + 1) * w]) for i in range(h)])
    clear = {"padding": "0 0 0 70px"}  # on a slide, JupyterLab takes the clicks at the left edge
    box = widgets.VBox([colour, rows, button, note, widgets.HBox([screen])], layout=clear)
    live(box, "colour, squares, Draw", first)


def css(colour: Sequence[int] | np.ndarray) -> str:
    """Red, green and blue as a CSS colour."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def complaint(error: Exception) -> str:
    """What the line under the controls says about an error."""
    return (str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")[:200]


def film(
    frames: Tensor | np.ndarray,  # b c h w, -1 .. 1, or b h w c uint8: one picture per moment
    titles: Sequence[str] | None = None,  # one for each frame
    columns: int = 8,
) -> None:
    """A strip of at most `columns` frames for a static page; live, a slider over all of them."""
    frames = show.as_array(frames)
    titles = list(titles) if titles is not None else [str(i) for i in range(len(frames))]
    from_the_start = widgets.IntSlider(0, 0, len(frames) - 1)
    strip = show.strip(frames, titles, columns)
    move(lambda frame: show.sheet(frames[[frame]], [titles[frame]], zoom=4), strip, frame=from_the_start)


def by_eye(
    pictures: Tensor | np.ndarray,  # b c h w, -1 .. 1, or b h w c uint8
    captions: Sequence[str],  # one for each picture
    verdicts: list[bool],  # empty; gets True or False for one picture after another, as they are clicked
) -> None:
    """Ask you whether each picture shows what its caption says; a static page shows all of them at once."""
    frames, answers = show.as_array(pictures), {"yes": True, "no": False}
    screen, caption, note = widgets.Image(), widgets.Label(), widgets.Label()
    buttons = {word: widgets.Button(description=word) for word in (*answers, "back")}

    def turn() -> None:
        done, last = len(verdicts), len(frames) - 1
        screen.value, caption.value = show.png(frames[min(done, last)], SIDE), captions[min(done, last)]
        note.value = f"picture {done + 1} of {len(frames)}" if done <= last else "all judged: run the next cell"
        for word, button in buttons.items():
            button.disabled = done == 0 if word == "back" else done > last

    def click(button: widgets.Button) -> None:
        if button.description == "back":
            verdicts.pop()
        else:
            verdicts.append(answers[button.description])
        turn()

    for button in buttons.values():
        button.on_click(click)
    turn()
    box = widgets.VBox([caption, widgets.HBox([screen]), widgets.HBox([*buttons.values()]), note])
    live(box, "from picture to picture, with yes, no and back", show.sheet(frames, captions, columns=5))
