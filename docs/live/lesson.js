// What the lessons' sliders do, in the book: `<div data-live="noise">` becomes a control that draws with the course's
// model. The model is fetched when the first of them is asked for, once for all on the page.

import { Generator, randn } from "./noise.js"
import { Painter } from "./painter.js"
import { paint } from "./picture.js"
import { alphaBar } from "./scheduler.js"
import { DEFAULTS } from "./settings.js"

const ASTRONAUT = DEFAULTS.prompt, OTHER = "a painting of a penguin riding a blue turtle in the snow"
const LIVE = { // what a lesson asks for, and what its button says
  noise: [noise, "Move the noise here"],
  guidance: [guidance, "Move the guidance here"],
  walk: [walk, "Walk from one picture to another here"],
}
let painter // shared by all controls of the page

/** Lesson 3: a drawn picture, noised to any step. */
async function noise(control) {
  const eps = randn(new Generator(0), 256)
  let x0
  const prompt = control.text("Prompt", ASTRONAUT, draw)
  const t = control.slider("t", [0, 999, 1], 300, "oninput", show)
  const [canvas] = control.canvases(1)
  const { scheduler } = await control.ready(), alphas = alphaBar(scheduler)
  await draw()

  async function draw() {
    x0 = await control.draw(canvas, { prompt: prompt.value })
    await show()
  }

  async function show() {
    if (!x0) return
    const a = alphas[t.valueAsNumber], [signal, noise] = [Math.sqrt(a), Math.sqrt(1 - a)]
    const ratio = (a / (1 - a)).toPrecision(2)
    const said = `t = ${t.value}: ${signal.toFixed(2)} x0 + ${noise.toFixed(2)} eps, signal to noise ${ratio}`
    paint(canvas, await painter.decode(x0.map((value, i) => signal * value + noise * eps[i])))
    control.say(said)
  }
}

/** Lesson 5: one sentence and one seed under any guidance, and the film of how the picture came about. */
async function guidance(control) {
  let frames = []
  const prompt = control.text("Prompt", ASTRONAUT, draw)
  const scale = control.slider("Guidance", [0, 15, 0.5], 4, "onchange", draw)
  const film = control.slider("Film", [1, DEFAULTS.steps, 1], DEFAULTS.steps, "oninput", look)
  const [canvas] = control.canvases(1)
  await control.ready()
  await draw()

  async function draw() {
    frames = []
    const settings = { prompt: prompt.value, guidance: scale.valueAsNumber }
    await control.draw(canvas, settings, ({ i, frame }) => {
      frames[i] = frame
      film.value = i + 1
    })
    control.say(`guidance ${scale.value}: the film shows the estimate of the clean picture at each step`)
  }

  function look() {
    if (frames[film.value - 1]) paint(canvas, frames[film.value - 1])
  }
}

/** Lesson 2: from the latents of one picture to those of another, in a straight line. */
async function walk(control) {
  const ends = []
  const from = control.text("From", ASTRONAUT, () => draw(0)), to = control.text("To", OTHER, () => draw(1))
  const w = control.slider("w", [0, 1, 0.02], 0.5, "oninput", show)
  const [left, middle, right] = control.canvases(3)
  await control.ready()
  await draw(0)
  await draw(1)

  async function draw(i) {
    ends[i] = await control.draw([left, right][i], { prompt: [from, to][i].value })
    await show()
  }

  async function show() {
    if (!ends[0] || !ends[1]) return
    const part = w.valueAsNumber
    paint(middle, await painter.decode(ends[0].map((value, i) => value + part * (ends[1][i] - value))))
    control.say(`w = ${part}: ${(1 - part).toFixed(2)} of the left latents and ${part.toFixed(2)} of the right`)
  }
}

/** What these are made of: lines of text, sliders, canvases, and one line that says what happens. */
class Control {
  constructor(place) {
    this.place = place
    this.status = make("p", { role: "status" })
    place.replaceChildren(this.status)
  }

  /** Fetch the model, unless another control of the page has done so; gives what the worker says of it. */
  async ready() {
    const mb = bytes => Math.round(bytes / 1e6)
    painter ??= new Painter((done, all) => this.say(`Loading the model: ${mb(done)} of ${mb(all)} MB`))
    try {
      return await (painter.opened ??= painter.open())
    } catch (error) {
      painter?.close()
      painter = undefined // to try the network again
      throw error
    }
  }

  /** Draw onto a canvas; gives the latents. */
  draw(canvas, settings, watch = () => {}) {
    return painter.draw({ ...DEFAULTS, ...settings }, step => {
      this.say(`step ${step.i + 1} of ${DEFAULTS.steps}`)
      paint(canvas, step.frame)
      watch(step)
    })
  }

  /** A line of text: `act` once it is finished. */
  text(name, value, act) {
    return this.input(name, { type: "text", value, spellcheck: false, onchange: this.trying(act) })
  }

  /** A slider: `act` whenever it moves, or, for what takes seconds, once it is let go. */
  slider(name, [min, max, step], value, when, act) {
    const slider = this.input(name, { type: "range", min, max, step, [when]: this.trying(act) })
    slider.value = value // not before it knows its ends
    return slider
  }

  input(name, properties) {
    const input = make("input", properties), label = make("label", { textContent: name })
    label.append(input)
    this.status.before(label)
    return input
  }

  canvases(n) {
    const canvases = Array.from({ length: n }, () => make("canvas", { width: 64, height: 64 }))
    this.status.before(...canvases)
    return canvases
  }

  say(text) {
    this.status.textContent = text
  }

  /** An act, of whose errors one line tells; of the calls that come while it goes on, only the last one counts. */
  trying(act) {
    let busy = false, again = false
    return async () => {
      again = true
      if (busy) return
      busy = true
      while (again) {
        again = false
        try {
          await act()
        } catch (error) {
          this.say(error.message)
        }
      }
      busy = false
    }
  }
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties)
}

/** A button in the place of a control, which it becomes. */
function offer(place, why = "") {
  const [control, name] = LIVE[place.dataset.live]
  const begin = () => control(new Control(place)).catch(error => offer(place, error.message))
  const button = make("button", { textContent: `${name} (24 MB, once)`, onclick: begin })
  place.replaceChildren(make("p", { textContent: why, role: "alert" }), button)
}

document.querySelectorAll("[data-live]").forEach(place => offer(place))
