// The worker, spoken to with promises: one question after another.

export class Painter {
  /** @param tell - called with the number of bytes that are here, and of all, while the model is fetched */
  constructor(tell) {
    this.id = 0
    this.before = Promise.resolve() // the answer to the question before
    this.tell = tell
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" })
    this.worker.onmessage = ({ data }) => this.hear(data)
    this.worker.onerror = () => this.fail(new Error("the part that computes could not start: reload the page"))
  }

  /** Fetch the course's model. Fails, in one line, if the network does. */
  open() {
    return this.ask({ do: "open" })
  }

  /**
   * Draw a picture with the course's model.
   * @param settings - as `settings.js` checks them
   * @param watch - called after each step with { i, t, frame }
   * @returns the clean latents
   */
  async draw(settings, watch) {
    return (await this.ask({ do: "draw", settings: { ...settings, model: "course" } }, watch)).latents
  }

  /** Latents become a frame: bytes for a canvas. */
  async decode(latents) {
    return (await this.ask({ do: "decode", latents })).frame
  }

  /** Give it up: no question after this is answered. */
  close() {
    this.worker.terminate()
  }

  ask(question, watch) {
    const answer = this.before.then(() => new Promise((keep, fail) => {
      Object.assign(this, { keep, fail, watch })
      this.worker.postMessage({ ...question, id: ++this.id })
    }))
    this.before = answer.catch(() => {}) // the next question is asked all the same
    return answer
  }

  hear({ is: what, ...rest }) {
    if (what === "loading") this.tell(rest.done, rest.all)
    else if (what === "step") this.watch(rest)
    else if (what === "wrong") this.fail(new Error(rest.message))
    else this.keep(rest)
  }
}
