// Drawing as one types: after each key, one step of the U-Net that lesson 9 makes.

import { paint } from "./picture.js"
import { check } from "./settings.js"
import { at, complain } from "./status.js"

export class Sketch {
  /** @param post - sends the worker a message */
  constructor(post) {
    Object.assign(this, { post, id: 0, asked: false, ready: false })
    at("typing").onchange = () => this.turn()
  }

  /** Show or hide the switch: is there such a U-Net? */
  offer(there) {
    at("typing-knob").hidden = !there
  }

  get on() {
    return this.ready && at("typing").checked
  }

  /** Switched on or off; the U-Net is fetched when it is first wanted. */
  turn() {
    const on = at("typing").checked
    if (on && !this.asked) this.post({ do: "hurry" })
    this.asked ||= on
    at("sketch").hidden = !on
    this.draw()
  }

  hurried() {
    this.ready = true
    this.draw()
  }

  failed() {
    at("typing").checked = this.asked = false
    at("sketch").hidden = true
  }

  /** Where it is wanted, ask for the picture of what stands in the form. */
  draw() {
    if (!this.on) return
    try {
      const settings = check({ prompt: at("prompt").value, seed: at("seed").value })
      complain("")
      this.begun = performance.now()
      this.seed = at("leaf").value = settings.seed
      this.whose = at("model").value === "course" ? "" : " of the course's model"
      this.post({ do: "sketch", id: ++this.id, settings })
    } catch (error) {
      complain(error.message)
    }
  }

  drawn({ id, frame }) {
    if (id !== this.id) return
    const [canvas, caption] = at("sketch").children, took = Math.round(performance.now() - this.begun)
    paint(canvas, frame)
    caption.textContent = `one step${this.whose}, without guidance, seed ${this.seed}: ${took} ms`
  }
}
