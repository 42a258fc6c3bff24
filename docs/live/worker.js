// All computing happens here, beside the page, so that the page always answers.
// The page says what to `do`: open, drop, draw, decode, hurry, sketch or stop. The worker says what `is`: loading,
// opened, step, drawn, decoded, hurried, sketched or wrong.

import { download, inTime, list, unpacked } from "./download.js"
import { FAST, FILES, GRAPHS, Model } from "./model.js"
import { Generator, randn } from "./noise.js"
import { denoise } from "./sampling.js"
import { SCHEDULERS } from "./scheduler.js"

const models = {} // by name: "course", and "yours" once it was dropped
let ort // the library, onnxruntime-web
let graphs, sizes // of all files that there are to fetch
let wanted, sketched // the picture, and the sketch, that is wanted now: an older one is given up

onmessage = async ({ data: { do: what, ...rest } }) => {
  try {
    await { open: openCourse, drop: openDropped, draw, decode, hurry, sketch, stop }[what](rest)
  } catch (error) {
    postMessage({ is: "wrong", during: what, message: error.message || String(error) })
  }
}

/** Fetch the library, the graphs and the course's model, and open them. */
async function openCourse() {
  sizes = await list("files.json")
  ort ??= await inTime(() => import("./ort/ort.js"))
  const library = "ort/wasm.packed"
  const paths = [library, ...GRAPHS.map(name => `graphs/${name}`), ...FILES.map(name => `model/${name}`)]
  const tell = (done, all) => postMessage({ is: "loading", done, all })
  const files = await download(Object.fromEntries(paths.map(path => [path, sizes[path]])), tell)
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1
  ort.env.wasm.wasmBinary = await unpacked(files[library])
  graphs = within(files, "graphs/")
  await open("course", within(files, "model/"))
}

/** Open a model that was dropped on the page: Files by path within its directory. */
async function openDropped({ files }) {
  const read = Object.entries(files).map(async ([path, file]) => [path, await file.arrayBuffer()])
  await open("yours", Object.fromEntries(await Promise.all(read)))
}

async function open(name, files) {
  const model = await Model.open(ort, graphs, files)
  models[name] = model
  const { tokenizerFile, groups, config } = model, length = config.text_encoder.max_position_embeddings
  const fast = `model/${FAST}` in sizes, { scheduler } = config
  postMessage({ is: "opened", model: name, tokenizerFile, groups, length, fast, scheduler })
}

/** Draw one picture; a step is told as soon as it is done, with its estimate of the clean picture. */
async function draw({ id, settings }) {
  wanted = id
  const model = models[settings.model]
  const scheduler = new SCHEDULERS[settings.scheduler](model.config.scheduler, settings.steps)
  const context = await model.encode([settings.negative, settings.prompt])
  const noise = randn(new Generator(settings.seed), model.size)
  let looked = 0, latents
  for await (const step of denoise(model, scheduler, noise, context, settings.guidance)) {
    latents = step.i === settings.steps - 1 ? step.x : step.x0 // the last one is the picture itself
    const frame = pixels(await model.decode(latents))
    looked = step.looked.map((value, j) => value / settings.steps + (looked && looked[j]))
    postMessage({ is: "step", id, i: step.i, t: step.t, frame })
    await messages()
    if (wanted !== id) return
  }
  postMessage({ is: "drawn", id, looked, latents })
}

/** The picture of any latents, by the course's decoder. */
async function decode({ id, latents }) {
  postMessage({ is: "decoded", id, frame: pixels(await models.course.decode(latents)) })
}

/** Fetch the U-Net that needs one step only. */
async function hurry() {
  const tell = (done, all) => postMessage({ is: "loading", done, all })
  const file = `model/${FAST}`, files = await download({ [file]: sizes[file] }, tell)
  await models.course.openFast(graphs, files[file])
  postMessage({ is: "hurried" })
}

/** Draw in one step; of several that wait, only the last. */
async function sketch({ id, settings }) {
  sketched = id
  await messages()
  if (sketched !== id) return
  const model = models.course
  const context = await model.encode([settings.prompt])
  const latents = await model.leap(randn(new Generator(settings.seed), model.size), context)
  postMessage({ is: "sketched", id, frame: pixels(await model.decode(latents)) })
}

function stop() {
  wanted = null
}

/** Numbers from -1 to 1, 3 x height x width, as bytes for a canvas: red, green, blue, opaque. */
function pixels(picture) {
  const n = picture.length / 3, bytes = new Uint8ClampedArray(4 * n).fill(255)
  for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) bytes[4 * i + c] = (picture[c * n + i] / 2 + 0.5) * 255
  if (picture.some(Number.isNaN)) throw new Error("the picture is not a number (NaN): the model's weights are damaged")
  return bytes
}

/** Let messages in that have come meanwhile, such as "stop". */
const messages = () => new Promise(go => {
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = go
  port2.postMessage("next")
})

/** The files of one folder, without the folder's name. */
function within(files, folder) {
  const inside = Object.entries(files).filter(([path]) => path.startsWith(folder))
  return Object.fromEntries(inside.map(([path, buffer]) => [path.slice(folder.length), buffer]))
}
