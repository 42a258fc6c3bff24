"""Controls over the figures of `show`, and films: each a single call in a cell."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from sdlearn.notebook import show


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
            known = isinstance(error, ValueError)
            note.value = (str(error) if known else f"{type(error).__name__}: {error}")[:200]

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


def live(
    box: widgets.Widget,
    what: str,  # what there is to move
    *stills: Figure,  # what a static page shows
) -> None:
    """Show a widget; where no kernel runs (a page on the web, a notebook just opened), a picture takes its place."""
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


def film(
    frames: Tensor | np.ndarray,  # b c h w, -1 .. 1, or b h w c uint8: one picture per moment
    titles: Sequence[str] | None = None,  # one for each frame
    columns: int = 8,
    zoom: int = 2,
) -> None:
    """A strip of at most `columns` frames for a static page; live, a slider over all of them."""
    frames = show.as_array(frames)
    titles = list(titles) if titles is not None else [str(i) for i in range(len(frames))]
    from_the_start = widgets.IntSlider(0, 0, len(frames) - 1)
    strip = show.strip(frames, titles, columns, zoom)
    move(lambda frame: show.sheet(frames[[frame]], [titles[frame]], zoom=2 * zoom), strip, frame=from_the_start)
