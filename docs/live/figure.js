// One picture on the page: its film, its settings, and its attention: where the model used each word.

import { coloured, paint } from "./picture.js"

const NAMES = { // how settings are told
  seed: v => `seed ${v}`,
  guidance: v => `guidance ${v}`,
  steps: v => (v === 1 ? "1 step" : `${v} steps`),
  scheduler: v => v,
  negative: v => (v ? `not: ${v}` : ""),
  model: v => (v === "course" ? "" : "your model"),
}

export class Figure {
  /**
   * @param settings - checked, with the model's name
   * @param tokenizer - the model's
   */
  constructor(settings, tokenizer) {
    this.settings = settings
    this.tokenizer = tokenizer
    this.frames = []
    this.times = []
    this.element = document.querySelector("#figure").content.cloneNode(true).querySelector("figure")
    const find = name => this.element.querySelector(name)
    ;[this.canvas, this.film, this.moment, this.words] = ["canvas", "input", "output", ".words"].map(find)
    this.film.max = settings.steps - 1
    this.film.oninput = () => this.look(Number(this.film.value))
    find(".prompt").textContent = settings.prompt || "(the empty prompt)"
    this.describe()
  }

  /** Say with which settings it was drawn; those in which another picture differs stand out. */
  describe(other) {
    const spans = Object.entries(NAMES).map(([name, say]) => {
      const differs = other && other[name] !== this.settings[name]
      const span = document.createElement(differs ? "strong" : "span")
      span.textContent = say(this.settings[name]) || (differs && name === "model" ? "the course's model" : "")
      return span
    })
    this.element.querySelector(".settings").replaceChildren(...spans.filter(span => span.textContent))
  }

  /** One more moment of the film. */
  add({ i, t, frame }) {
    this.frames[i] = frame
    this.times[i] = t
    this.film.value = i
    this.film.disabled = i === 0
    this.look(i)
  }

  /** The film is complete: show where the model used each word. */
  finish(looked) {
    const tokens = this.tokenizer.encode(this.settings.prompt), size = looked.length / tokens.length
    const said = tokens.slice(0, tokens.indexOf(this.tokenizer.end, 1) + 1)
    this.maps = said.map((_, i) => looked.subarray(i * size, (i + 1) * size))
    this.words.replaceChildren(...said.map((token, i) => this.wordButton(this.tokenizer.show(token), i)))
    this.element.querySelector(".looked").hidden = false
    this.element.classList.add("whole")
    this.look(this.frames.length - 1)
  }

  wordButton(text, i) {
    const [button, small, name] = ["button", "canvas", "span"].map(tag => document.createElement(tag))
    const mark = text.startsWith("<|")
    name.textContent = mark ? (i === 0 ? "start" : "end") : text
    button.type = "button"
    button.className = mark ? "mark" : ""
    button.ariaPressed = "false"
    button.ariaLabel = `Attention: where the model used "${name.textContent}"`
    paint(small, coloured(this.frames.at(-1), this.maps[i]))
    small.ariaHidden = "true"
    button.append(small, name)
    button.onclick = () => this.choose(this.chosen === i ? undefined : i)
    return button
  }

  /** Show in the large picture where the model used one word, or none. */
  choose(i) {
    this.chosen = i
    ;[...this.words.children].forEach((button, j) => (button.ariaPressed = String(j === i)))
    this.look(Number(this.film.value))
  }

  /** Show one moment of the film. */
  look(i) {
    const frame = this.frames[Math.min(i, this.frames.length - 1)], word = this.chosen ?? -1
    paint(this.canvas, word < 0 ? frame : coloured(frame, this.maps[word]))
    this.moment.textContent = `step ${i + 1} of ${this.settings.steps}, t = ${this.times[i]}`
    this.film.setAttribute("aria-valuetext", this.moment.textContent)
    const told = `after ${i + 1} of ${this.settings.steps} steps`
    this.canvas.ariaLabel = `The picture drawn for: ${this.settings.prompt || "the empty prompt"}, ${told}`
  }
}
