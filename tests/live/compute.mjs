// What the live page's modules answer, for tests in Python: a question in JSON on stdin, the answer in JSON on stdout.

import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"

import { advise, known, parse, toggle } from "../../docs/live/caption.js"
import { download, list } from "../../docs/live/download.js"
import { Generator, randn } from "../../docs/live/noise.js"
import { coloured } from "../../docs/live/picture.js"
import { open } from "../../docs/live/safetensors.js"
import { guide } from "../../docs/live/sampling.js"
import { alphaBar, SCHEDULERS } from "../../docs/live/scheduler.js"
import { check, fromHash, toHash } from "../../docs/live/settings.js"
import { Tokenizer } from "../../docs/live/tokenizer.js"

/** What a function gives, or what it says when it refuses. */
const said = act => {
  try {
    return act()
  } catch (error) {
    return { refused: error.message }
  }
}

/** A server whose files come slowly: path -> [[milliseconds to wait, bytes], ...]; a file without an end hangs. */
async function slowly(files, act) {
  const server = createServer(async (request, answer) => {
    for (const [wait, bytes] of files[request.url]) {
      await new Promise(go => setTimeout(go, wait))
      bytes === "end" ? answer.end() : answer.write("x".repeat(bytes))
    }
  })
  await new Promise(go => server.listen(0, "127.0.0.1", go))
  try {
    return await act(`http://127.0.0.1:${server.address().port}`)
  } catch (error) {
    return { refused: error.message.replaceAll(/http\S+(?=[/])/g, "") }
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

/** While half a minute passes in a second. */
async function faster(act) {
  const before = globalThis.setTimeout
  globalThis.setTimeout = (late, wait) => before(late, wait >= 30_000 ? wait / 30 : wait)
  try {
    return await act()
  } finally {
    globalThis.setTimeout = before
  }
}

const tokenizerOf = (file, length) => new Tokenizer(JSON.parse(readFileSync(file)), length)

const answers = {
  tokens({ file, length, texts }) {
    const tokenizer = tokenizerOf(file, length)
    return texts.map(one => ({ ids: tokenizer.encode(one), shown: tokenizer.split(one).map(id => tokenizer.show(id)) }))
  },

  noise({ seeds, sizes }) {
    return seeds.map(seed => {
      const generator = new Generator(seed)
      return sizes.map(n => said(() => [...randn(generator, n)]))
    })
  },

  /** A whole loop without a network: for data from one normal distribution the noise in x is known exactly. */
  loops({ loops, config, mean, deviation }) {
    return loops.map(({ name, steps, x, more }) => {
      const settings = { ...config, ...more }, alphas = alphaBar(settings)
      const scheduler = new SCHEDULERS[name](settings, steps)
      const clean = scheduler.timesteps.map((t, i) => {
        const a = alphas[t]
        const eps = x.map(v => (Math.sqrt(1 - a) * (v - Math.sqrt(a) * mean)) / (a * deviation ** 2 + 1 - a))
        const step = scheduler.step(i, x, eps)
        x = step.x
        return step.x0
      })
      return { timesteps: scheduler.timesteps, x, clean }
    })
  },

  downloads: ({ files, sizes }) =>
    faster(() =>
      slowly(files, async address => {
        const asked = Object.entries(sizes).map(([path, size]) => [address + path, size]), told = []
        const got = await download(Object.fromEntries(asked), (here, all) => told.push([here, all]))
        return { lengths: Object.values(got).map(buffer => buffer.byteLength), last: told.at(-1) }
      }),
    ),
  lists: ({ files }) => faster(() => slowly(files, address => list(`${address}/files.json`))),

  tensors: ({ files }) =>
    files.map(file =>
      said(() => {
        const tensors = [...open(Uint8Array.from(readFileSync(file)).buffer)]
        const told = tensors.map(([name, { shape, read }]) => [name, { shape, values: [...read()].map(String) }])
        return Object.fromEntries(told)
      }),
    ),

  guided: ({ empty, text, scale }) => guide(empty, text, scale),
  settings: ({ typed }) => typed.map(one => said(() => check(one))),
  links: ({ pairs }) => pairs.map(([settings, beside]) => fromHash(`#${toHash(settings, beside)}`)),
  hashed: ({ pairs }) => pairs.map(([settings, beside]) => toHash(settings, beside)),
  hashes: ({ hashes }) => hashes.map(fromHash),
  parsed: ({ prompts, groups }) => prompts.map(prompt => parse(prompt, groups)),
  toggled: ({ clicks, groups }) => clicks.map(([prompt, group, phrase]) => toggle(prompt, groups, group, phrase)),
  known: ({ file, length, groups }) => known(tokenizerOf(file, length), groups),
  advice({ file, length, prompts }) {
    const tokenizer = tokenizerOf(file, length)
    return prompts.map(prompt => advise(tokenizer, prompt))
  },
  coloured: ({ frame, map }) => [...coloured(Uint8ClampedArray.from(frame), map)],
}

const { question, ...rest } = JSON.parse(await text(process.stdin))
process.stdout.write(JSON.stringify(await answers[question](rest)))
