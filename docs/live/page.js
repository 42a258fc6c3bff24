// The page itself: what is typed goes to the worker, what it draws comes onto the page.

import { advise, known, parse, toggle } from "./caption.js"
import { listen } from "./drop.js"
import { Figure } from "./figure.js"
import { check, DEFAULTS, fromHash, toHash } from "./settings.js"
import { Sketch } from "./sketch.js"
import { at, complain, loading, offer, say } from "./status.js"
import { Tokenizer } from "./tokenizer.js"
import { markChips, showChips, showTokens } from "./words.js"

const form = at("ask")
const models = {} // name -> { tokenizer, groups }, as soon as the worker has opened it
let worker, dropped // the name of the folder that was dropped
let drawing, shown, kept // figures: being drawn, on the page, and kept beside it
let id = 0, begun, queue = [] // of settings to be drawn after the present ones
const sketch = new Sketch(message => worker.postMessage(message)) // what is drawn as one types

// ---------------------------------------------------------------- the worker

function start() {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function")
    return complain("This browser is too old: the page needs WebAssembly and DecompressionStream (2023 or later).")
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" })
  const heard = { loading, opened, step, drawn, hurried, sketched: answer => sketch.drawn(answer), wrong }
  worker.onmessage = ({ data: { is: what, ...rest } }) => heard[what](rest)
  worker.onerror = () => complain("The part that computes could not start: reload the page, or use a newer browser.")
  if (navigator.connection?.saveData) return offer("Load the model (24 MB)")
  load()
}

function load() {
  complain("")
  at("again").hidden = true
  say("Loading the model ...")
  worker.postMessage({ do: "open" })
}

function opened({ model, tokenizerFile, length, groups, fast }) {
  const tokenizer = new Tokenizer(tokenizerFile, length)
  models[model] = { tokenizer, groups: known(tokenizer, groups) }
  at("bar").value = 0
  at("draw").disabled = false
  sketch.offer(fast)
  if (model === "yours") return useDropped()
  useModel()
  restore()
}

function hurried() {
  at("bar").value = 0
  say("Ready: type, or choose another seed.")
  sketch.hurried()
}

function useDropped() {
  const yours = new Option(`yours: ${dropped}`, "yours", true, true)
  at("model").replaceChildren(new Option("the course's", "course"), yours)
  at("model-knob").hidden = false
  useModel()
  draw()
}

function wrong({ during, message }) {
  if (during === "hurry") sketch.failed()
  complain(message)
  if (during === "draw" || !drawing) idle("") // else the picture that is being drawn goes on
  if (during === "open") offer("Try again")
}

// ---------------------------------------------------------------- drawing

/** Draw what the form says; `more` comes after it. */
function draw(more = []) {
  complain("")
  queue = more
  let settings
  try {
    settings = { ...check(Object.fromEntries(new FormData(form))), model: at("model").value }
  } catch (error) {
    return complain(error.message)
  }
  drawing = new Figure(settings, models[settings.model].tokenizer)
  begun = performance.now()
  at("stop").disabled = false
  at("bar").value = 0.01 // a sign that the click was heard
  say("Drawing ...")
  worker.postMessage({ do: "draw", id: ++id, settings })
}

function step({ id: whose, ...moment }) {
  if (whose !== id || !drawing) return
  drawing.add(moment)
  if (moment.i === 0) mount(drawing)
  at("bar").value = (moment.i + 1) / drawing.settings.steps
}

function drawn({ id: whose, looked }) {
  if (whose !== id || !drawing) return
  drawing.finish(looked)
  idle(`Drawn in ${((performance.now() - begun) / 1000).toFixed(1)} s.`)
  const next = queue.shift()
  if (!next) return
  keep()
  fill(next)
  draw()
}

function stop() {
  if (!drawing) return
  worker.postMessage({ do: "stop" })
  queue = []
  idle(`Stopped after ${drawing.frames.length} of ${drawing.settings.steps} steps.`)
}

function idle(text) {
  drawing = undefined
  at("stop").disabled = true
  at("bar").value = 0
  say(text)
}

/** Put a figure on the page, in place of the last one. */
function mount(figure) {
  shown = figure
  at("figures").replaceChildren(...[kept, shown].filter(Boolean).map(one => one.element))
  kept?.describe(shown.settings)
  shown.describe(kept?.settings)
  at("keep").disabled = false
}

/** The picture on the page stays, at the left, beside the next one. */
function keep() {
  kept = shown
  at("keep").disabled = true
  at("release").hidden = false
  at("figures").replaceChildren(kept.element, at("nothing").content.cloneNode(true))
}

function release() {
  kept = undefined
  at("release").hidden = true
  if (shown) mount(shown)
}

// ---------------------------------------------------------------- the form and its link

function fill(settings) {
  for (const [name, value] of Object.entries({ ...DEFAULTS, ...settings })) at(name).value = value
  typed()
}

/** The settings in the address, and perhaps those of a picture to be kept beside: drawn one after the other. */
function restore() {
  const { settings, beside } = fromHash(location.hash)
  release()
  fill(beside ?? settings)
  draw(beside ? [settings] : [])
}

function remember() {
  const hash = `#${toHash(current(), kept?.settings)}`
  if (hash !== location.hash) history.pushState(null, "", hash)
}

const current = () => Object.fromEntries(Object.keys(DEFAULTS).map(name => [name, at(name).value]))

/** After each change: the sketch, the numbers beside the sliders, the tokens, the words chosen, what is odd. */
function typed() {
  sketch.draw()
  for (const output of document.querySelectorAll(".knob output")) output.textContent = at(output.htmlFor[0]).value
  const { tokenizer, groups } = models[at("model").value] ?? {}
  if (!tokenizer) return
  showTokens(at("tokens"), tokenizer, at("prompt").value)
  markChips(at("chips"), parse(at("prompt").value, groups).found)
  const odd = ["prompt", "negative"].flatMap(name => advise(tokenizer, at(name).value))
  at("advice").textContent = [...new Set(odd)].join(" ")
}

function useModel() {
  const { groups } = models[at("model").value]
  showChips(at("chips"), groups, (group, phrase) => {
    at("prompt").value = toggle(at("prompt").value, groups, group, phrase)
    typed()
  })
  typed()
}

/** Open a model that somebody dropped or chose. */
async function take(finding) {
  try {
    complain("")
    const { name, files } = await finding()
    dropped = name
    say(`Opening ${name} ...`)
    worker.postMessage({ do: "drop", files })
  } catch (error) {
    complain(error.message)
  }
}

// ---------------------------------------------------------------- what is clicked, typed and dropped

form.onsubmit = event => {
  event.preventDefault()
  if (at("draw").disabled) return
  remember()
  draw()
}
addEventListener("input", event => event.target.form === form && typed())
at("leaf").oninput = () => {
  at("seed").value = at("leaf").value
  typed()
}
at("model").onchange = useModel
at("prompt").onkeydown = event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return
  event.preventDefault()
  form.requestSubmit()
}
addEventListener("keydown", event => event.key === "Escape" && stop())
at("stop").onclick = stop
at("again").onclick = load
at("keep").onclick = keep
at("release").onclick = release
at("dice").onclick = () => {
  at("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 10000
  typed()
  form.requestSubmit()
}
at("copy").onclick = async () => {
  remember()
  const copied = navigator.clipboard.writeText(location.href)
  at("copied").textContent = await copied.then(() => "Copied.", () => "It is in the address bar.")
  setTimeout(() => (at("copied").textContent = ""), 3000)
}
addEventListener("popstate", () => models.course && restore())
listen(at("folder"), finding => {
  if (models.course) take(finding)
  else say("Wait until the page's own model is here, then drop yours again.")
})

fill(fromHash(location.hash).settings)
start()
