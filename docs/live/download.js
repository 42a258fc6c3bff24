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
  let here = 0
  const fetched = Object.entries(sizes).map(async ([path, size]) => {
    const count = bytes => tell((here += bytes), all)
    return [path, await fetchWhole(path, size, count)]
  })
  try {
    return Object.fromEntries(await Promise.all(fetched))
  } catch (error) {
    const [got, of] = [here, all].map(bytes => (bytes / 1e6).toFixed(1))
    throw new Error(`the download stopped at ${got} of ${of} MB (${error.message})`, { cause: error })
  }
}

async function fetchWhole(path, size, count) {
  const answer = await inTime(fetch(path))
  if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`)
  const whole = new Uint8Array(size), reader = answer.body.getReader()
  for (let filled = 0; ; ) {
    const { done, value } = await inTime(reader.read())
    if (done && filled === size) return whole.buffer
    if (done || filled + value.length > size) throw new Error(`${path} has not the ${size} bytes that it should have`)
    whole.set(value, filled)
    filled += value.length
    count(value.length)
  }
}

/** What a promise gives, or an error if it takes too long. */
function inTime(promise) {
  let timer
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error("nothing came for half a minute")), PATIENCE)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Unpack what gzip has packed. */
export function unpacked(buffer) {
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"))
  return new Response(stream).arrayBuffer()
}
