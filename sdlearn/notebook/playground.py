"""The playground of lesson 5: type a prompt, turn the knobs, and watch the picture take shape.

The previous picture stays beside the new one. Settings that were drawn before come from memory.
"""

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch

from sdlearn import parts, scenes
from sdlearn.clip import embed_pictures, embed_text, tokenize
from sdlearn.notebook import show, widgets
from sdlearn.notebook.widgets import SIDE
from sdlearn.sampling import decode_latents, text_to_image
from sdlearn.tools.draw import advise

ONE_AT_A_TIME = Lock()  # two playgrounds on one model would only get in each other's way
REMEMBERED = 64  # films


class Settings(NamedTuple):
    """Everything that decides what is drawn."""

    prompt: str = "a photograph of an astronaut riding a horse on the moon"
    negative: str = ""
    seed: int = 0
    guidance: float = 4.0
    steps: int = 20
    scheduler: str = "ddim"


class Film(NamedTuple):
    """What was drawn: the picture after each step, and how well the last one matches the prompt."""

    frames: np.ndarray  # steps h w c uint8
    match: float | None  # cosine of prompt and picture in CLIP's space


class Stopped(Exception):
    """The learner has clicked Stop, or Draw again."""


class Playground:
    """The widget: write `Playground(parts.load(), parts.load_clip())` as the last line of a cell."""

    def __init__(
        self,
        model: parts.Parts,
        clip=None,  # to say how well a picture matches its prompt
        settings: Settings | None = None,  # to start from; None: a held-out prompt
    ):
        self.model, self.clip, self.films, self.stop = model, clip, {}, Event()
        prompt, negative, seed, guidance, steps, scheduler = settings or Settings()
        wide = {"layout": {"width": "560px"}, "style": {"description_width": "80px"}}
        self.knobs = {
            "prompt": ipywidgets.Text(prompt, **wide),
            "negative": ipywidgets.Text(negative, **wide),
            "seed": ipywidgets.BoundedIntText(seed, max=2**31 - 1),
            "guidance": ipywidgets.FloatSlider(guidance, min=0, max=15, step=0.5),
            "steps": ipywidgets.IntSlider(steps, min=1, max=100),
            "scheduler": ipywidgets.Dropdown(options=list(parts.SCHEDULERS), value=scheduler),
        }
        for name, knob in self.knobs.items():
            knob.description = name
        self.button = ipywidgets.Button(description="Draw", button_style="primary")
        self.halt = ipywidgets.Button(description="Stop")
        self.bar = ipywidgets.FloatProgress(min=0, max=1)
        self.before, self.now = (ipywidgets.Image(width=SIDE, height=SIDE, format="png") for _ in range(2))
        self.scrub = ipywidgets.IntSlider(min=0, max=0, description="step")
        self.note = ipywidgets.Label()  # plain text: nothing in a prompt is taken for markup
        self.button.on_click(lambda _: self.draw())
        self.halt.on_click(lambda _: self.stop.set())
        self.scrub.observe(lambda change: self.look_at(change["new"]), "value")

    def _ipython_display_(self) -> None:
        """Show the playground; on a static page, a strip of its first film."""
        film = self.make(self.settings())
        self.put(film)
        line = ipywidgets.HBox([self.button, self.halt, self.bar])
        knobs = ipywidgets.VBox([*self.knobs.values(), line, self.note])
        box = ipywidgets.VBox([knobs, ipywidgets.HBox([self.before, self.now]), self.scrub])
        strip = show.strip(film.frames, [f"step {i + 1}" for i in range(len(film.frames))])
        widgets.live(box, ", ".join(self.knobs), strip)

    def settings(self) -> Settings:
        """What the knobs say."""
        return Settings(**{name: knob.value for name, knob in self.knobs.items()})

    def make(
        self,
        settings: Settings,
        stop: Event | None = None,  # once it is set, the next step raises Stopped
        tell: Callable[[float], None] = lambda done: None,  # called with how much is done, 0 .. 1
    ) -> Film:
        """Draw a film, or take it from memory."""
        if settings in self.films:
            return self.films[settings]
        frames = []

        def watch(t, latents):
            if stop and stop.is_set():
                raise Stopped
            frames.append(scenes.to_pictures(decode_latents(self.model.vae, latents))[0])
            tell(min(1, len(frames) / settings.steps))

        model = self.model._replace(scheduler=parts.make_scheduler(settings.scheduler, self.model.scheduler.config))
        prompt, negative, seed, guidance, steps, _ = settings
        picture = text_to_image(model, prompt, negative, steps, guidance, seed, watch=watch)
        if len(self.films) >= REMEMBERED:
            self.films.pop(next(iter(self.films)))  # the oldest
        self.films[settings] = Film(np.stack(frames), self.match(prompt, picture))
        return self.films[settings]

    @torch.no_grad()
    def match(self, prompt: str, picture: torch.Tensor) -> float | None:
        """How close the picture is to the prompt, by CLIP."""
        if self.clip is None:
            return None
        text = embed_text(self.clip, tokenize(self.model.tokenizer, [prompt]))
        return float(embed_pictures(self.clip, picture.cpu()) @ text.T)

    def draw(self) -> Thread:
        """Draw what the knobs say, in the background, so that Stop still works; the last click wins."""
        self.stop.set()
        self.stop = Event()
        thread = Thread(target=self.work, args=(self.settings(), self.stop), daemon=True)
        thread.start()
        return thread

    def work(self, settings: Settings, stop: Event) -> None:
        """In the background: draw, and put the film on the screen."""
        self.bar.value = 0.02  # a sign that the click was heard
        with ONE_AT_A_TIME:
            try:
                if stop.is_set():
                    return
                film = self.make(settings, stop, lambda done: setattr(self.bar, "value", done))
                # while the lock is held, since another playground may use the same tokenizer
                advice = "; ".join(advise(self.model.tokenizer, settings.prompt))[:300]
            except Stopped:
                return
            except Exception as error:  # a thread's errors are shown nowhere else
                self.note.value = widgets.complaint(error)
                return
        if not stop.is_set():
            self.put(film, advice)

    def put(self, film: Film, advice: str = "") -> None:
        """Put a film on the screen; the picture that was there moves to the left."""
        self.film, self.bar.value = film, 1
        self.before.value = self.now.value or show.png(film.frames[-1], SIDE)
        self.scrub.max = self.scrub.value = len(film.frames) - 1
        self.look_at(self.scrub.max)
        match = "" if film.match is None else f"match with the prompt, by CLIP: {film.match:.2f}"
        self.note.value = "  ".join(filter(None, [match, advice]))

    def look_at(self, step: int) -> None:
        """Show one moment of the film."""
        self.now.value = show.png(self.film.frames[min(step, len(self.film.frames) - 1)], SIDE)
