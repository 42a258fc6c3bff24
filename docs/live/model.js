// A model of the course: tokenizer, text encoder, U-Net and VAE decoder, the three networks run by onnxruntime.

import { count, open, scaled } from "./safetensors.js"
import { Tokenizer } from "./tokenizer.js"

export const GRAPHS = ["graphs.json", "text_encoder.onnx", "unet.onnx", "vae.onnx"] // what `sdlearn-export` writes
export const WEIGHTS = {
  text_encoder: "text_encoder/model.safetensors",
  unet: "unet/diffusion_pytorch_model.safetensors",
  vae: "vae/diffusion_pytorch_model.safetensors",
}
const TOKENIZER = "tokenizer/tokenizer.json", SCHEDULER = "scheduler/scheduler_config.json"
const SETTINGS = Object.keys(WEIGHTS).map(part => `${part}/config.json`)
export const FILES = [...SETTINGS, TOKENIZER, SCHEDULER, ...Object.values(WEIGHTS)] // what is read of a model
export const FAST = "fast/model.safetensors" // the U-Net that needs one step only: fetched when it is wanted
const TABLE = "embeddings.token_embedding.weight" // one row for each token: the only weights outside the graphs

export class Model {
  /**
   * Open a model. Throws an Error, in one line, if a file is damaged, or if the graphs are for another shape.
   * @param ort - the module onnxruntime-web
   * @param graphs - ArrayBuffers by name: all of GRAPHS
   * @param files - ArrayBuffers by path within the model's directory: all of FILES
   */
  static async open(ort, graphs, files) {
    const model = new Model(ort), graph = json(graphs, "graphs.json")
    model.config = readSettings(files, graph)
    model.groups = graph.words // the course's words, by what they say: style, subject, ...
    model.readTokenizer(json(files, TOKENIZER), model.config.text_encoder.max_position_embeddings)
    model.sessions = {}
    for (const [part, file] of Object.entries(WEIGHTS)) {
      const tensors = attempt(file, "is damaged", () => open(files[file]))
      const weights = pack(tensors, graph[part].weights, file)
      if (part === "text_encoder") model.readTable(tensors, file)
      model.sessions[part] = await createSession(ort, graphs[`${part}.onnx`], weights)
    }
    return model
  }

  constructor(ort) {
    this.ort = ort
  }

  /** Open the U-Net of one step (lesson 9), which has the shape of the other one. */
  async openFast(graphs, file) {
    const tensors = attempt(FAST, "is damaged", () => scaled(open(file)))
    const weights = pack(tensors, json(graphs, "graphs.json").unet.weights, FAST)
    this.sessions.fast = await createSession(this.ort, graphs["unet.onnx"], weights)
  }

  readTokenizer(content, length) {
    this.tokenizerFile = content
    this.tokenizer = attempt(TOKENIZER, "is damaged", () => new Tokenizer(content, length))
  }

  readTable(tensors, file) {
    const rows = this.tokenizer.vocabulary.size, width = this.config.text_encoder.hidden_size
    this.table = pack(tensors, [[TABLE, [rows, width]]], file)
  }

  /** Prompts become the sequences that the U-Net attends to: prompts x tokens x width. */
  async encode(prompts) {
    const tokens = prompts.flatMap(prompt => this.tokenizer.encode(prompt))
    const width = this.config.text_encoder.hidden_size, shape = [prompts.length, this.tokenizer.length, width]
    const rows = new Float32Array(tokens.length * width)
    tokens.forEach((token, i) => rows.set(this.table.subarray(token * width, (token + 1) * width), i * width))
    const { context } = await this.run("text_encoder", { words: [rows, shape] })
    return context.data
  }

  /**
   * Predict the noise in latents at step t for each prompt.
   * @returns eps, in the latents' shape, and looked: prompts x tokens x height x width
   */
  async predict(latents, t, context, part = "unet") {
    const shape = this.shape(latents), width = this.config.text_encoder.hidden_size
    const inputs = { latents: [latents, shape], t: [Float32Array.of(t), [1]] }
    inputs.context = [context, [shape[0], this.tokenizer.length, width]]
    const { eps, looked } = await this.run(part, inputs)
    return { eps: eps.data, looked: looked.data }
  }

  /** From noise to clean latents in one step, along a straight line: x0 = x - v, where v = eps - x0 (lesson 9). */
  async leap(noise, context) {
    const { eps: v } = await this.predict(noise, this.config.scheduler.num_train_timesteps, context, "fast")
    return noise.map((value, i) => value - v[i])
  }

  /** Latents to pictures: numbers from about -1 to 1, pictures x 3 x height x width. */
  async decode(latents) {
    const unscaled = latents.map(value => value / this.config.vae.scaling_factor)
    const { pictures } = await this.run("vae", { latents: [unscaled, this.shape(latents)] })
    return pictures.data
  }

  /** How many numbers the latents of one picture have. */
  get size() {
    return this.config.unet.in_channels * this.config.unet.sample_size ** 2
  }

  shape(latents) {
    const side = this.config.unet.sample_size
    return [latents.length / this.size, this.config.unet.in_channels, side, side]
  }

  run(part, inputs) {
    const tensors = {}
    for (const [name, [data, shape]] of Object.entries(inputs))
      tensors[name] = new this.ort.Tensor("float32", data, shape)
    return this.sessions[part].run(tensors)
  }
}

/** The settings of the networks and the scheduler; those on which the graphs depend must be the graphs' own. */
function readSettings(files, graph) {
  const config = { scheduler: json(files, SCHEDULER) }
  for (const part of Object.keys(WEIGHTS)) {
    config[part] = json(files, `${part}/config.json`)
    for (const [name, wanted] of Object.entries(graph[part].config)) {
      const [ours, theirs] = [wanted, config[part][name]].map(value => JSON.stringify(value))
      if (theirs !== undefined && theirs !== ours)
        throw new Error(`this model has another shape: in ${part}, ${name} is ${theirs}; here it must be ${ours}`)
    }
  }
  const scale = config.vae.scaling_factor
  if (!(scale > 0)) throw new Error(`vae/config.json is damaged (scaling_factor is ${scale}): copy it again`)
  const predicts = config.scheduler.prediction_type
  if (predicts !== "epsilon") throw new Error(`this model predicts "${predicts}"; here it must be the noise, "epsilon"`)
  return config
}

/** The weights of a graph in one block of float32, in the graph's own order. */
function pack(tensors, weights, file) {
  const block = new Float32Array(weights.reduce((sum, [, shape]) => sum + count(shape), 0))
  let offset = 0, odd = 0
  for (const [name, shape] of weights) {
    const tensor = tensors.get(name), theirs = tensor && tensor.shape.join(" x ")
    if (!tensor) throw new Error(`${file} is another model's: it has no ${name}`)
    if (theirs !== shape.join(" x "))
      throw new Error(`${file} has another shape: ${name} is ${theirs}; here it must be ${shape.join(" x ")}`)
    block.set(tensor.read(), offset)
    offset += count(shape)
  }
  for (let i = 0; i < block.length; i++) odd += block[i] * 0
  if (odd !== 0) throw new Error(`${file} holds weights that are not numbers (NaN): copy it again, or train it again`)
  return block
}

function createSession(ort, graph, weights) {
  const externalData = [{ path: "weights", data: new Uint8Array(weights.buffer) }]
  const quiet = { logSeverityLevel: 3 } // errors only
  return ort.InferenceSession.create(new Uint8Array(graph), { externalData, executionProviders: ["wasm"], ...quiet })
}

function json(files, name) {
  return attempt(name, "is damaged", () => JSON.parse(new TextDecoder().decode(files[name])))
}

/** Do something with a file; whatever goes wrong is told in one line. */
function attempt(file, wrong, act) {
  try {
    return act()
  } catch (error) {
    throw new Error(`${file} ${wrong} (${error.message}): copy it again`, { cause: error })
  }
}
