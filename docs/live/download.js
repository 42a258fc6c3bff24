// Fetching files of a known size, with progress, and one clear line when the network fails.

const PATIENCE = 30_000 // milliseconds without a byte

/**
 * Fetch files.
 * @param sizes - { path: bytes }, as in `files.json`
 * @param tell - called with the number of bytes that are here, and of all
 * @returns ArrayBuffers by path
 */
export async function download(sizes, tell) {
  const all = Object.values(sizes).reduce((sum, size) => sum + size, 0)
  const control = new AbortController()
  let here = 0
  const fetchAll = wait => {
    const count = bytes => {
      wait() // the network works, whichever file it brings
      tell((here += bytes), all)
    }
    const fetched = ([path, size]) => fetchWhole(path, size, count, control.signal).then(buffer => [path, buffer])
    return Promise.all(Object.entries(sizes).map(fetched))
  }
  try {
    return Object.fromEntries(await inTime(fetchAll))
  } catch (error) {
    control.abort() // the other files
    const [got, of] = [here, all].map(bytes => (bytes / 1e6).toFixed(1))
    throw new Error(`the download stopped at ${got} of ${of} MB (${error.message})`, { cause: error })
  }
}

async function fetchWhole(path, size, count, signal) {
  const answer = await fetch(path, { signal })
  if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`)
  const whole = new Uint8Array(size), reader = answer.body.getReader()
  for (let filled = 0; ; ) {
    const { done, value } = await reader.read()
    if (done && filled === size) return whole.buffer
    if (done || filled + value.length > size) throw new Error(`${path} is not ${size} bytes long`)
    whole.set(value, filled)
    filled += value.length
    count(value.length)
  }
}

/** What there is to fetch, with each file's size, as `build.py` lists it at an address. */
export async function list(address) {
  try {
    return await inTime(async () => (await fetch(address)).json())
  } catch (error) {
    throw new Error(`the download could not start (${error.message})`, { cause: error })
  }
}

/**
 * What `act` gives, or an error once half a minute has passed without a word from it.
 * @param act - called with a function that it calls whenever something has come
 */
export async function inTime(act) {
  let timer, fail
  const late = new Promise((_, reject) => (fail = reject))
  const wait = () => {
    clearTimeout(timer)
    timer = setTimeout(() => fail(new Error("nothing came for half a minute")), PATIENCE)
  }
  wait()
  try {
    return await Promise.race([act(wait), late])
  } finally {
    clearTimeout(timer)
  }
}

/** Unpack what gzip has packed. */
export function unpacked(buffer) {
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))
  return new Response(stream).arrayBuffer()
}
