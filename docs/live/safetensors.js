// The file format of the weights: a length, a table of contents in JSON, then the numbers, one tensor after the other.

const BYTES = { F32: 4, F16: 2, BF16: 2, I8: 1 } // a number's size

/**
 * Open a safetensors file. Throws an Error if it is not whole.
 * @param buffer - an ArrayBuffer with all of it
 * @returns Map from name to { shape, read }; `read()` gives the numbers as a Float32Array
 */
export function open(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true))
  const contents = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, start - 8)))
  const tensors = new Map()
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(contents)) {
    if (name === "__metadata__") continue
    const [from, to] = data_offsets.map(offset => start + offset)
    if (!BYTES[dtype]) throw new Error(`${name} is stored as ${dtype}, and this page reads ${Object.keys(BYTES)}`)
    const whole = from >= start && to <= buffer.byteLength && to - from === count(shape) * BYTES[dtype]
    if (!whole) throw new Error(`${name} is not whole`)
    tensors.set(name, { shape, read: () => read(dtype, buffer.slice(from, to)) })
  }
  return tensors
}

/** Tensors in 8 bits, each times the scale of its output channel, which stands beside it as `name.scale`. */
export function scaled(tensors) {
  const rescale = ({ shape, read }, scale) => ({
    shape,
    read() {
      const whole = read(), scales = scale.read(), each = whole.length / scales.length
      return whole.map((value, i) => value * scales[Math.floor(i / each)])
    },
  })
  const found = [...tensors].map(([name, tensor]) => [name, tensor, tensors.get(`${name}.scale`)])
  return new Map(found.map(([name, tensor, scale]) => [name, scale ? rescale(tensor, scale) : tensor]))
}

export const count = shape => shape.reduce((product, side) => product * side, 1)

/** Numbers of any kind as float32; from 16 bits by looking them up in a table of all that there are. */
function read(dtype, bytes) {
  if (dtype === "F32") return new Float32Array(bytes)
  if (dtype === "I8") return Float32Array.from(new Int8Array(bytes))
  const table = (tables[dtype] ??= Float32Array.from({ length: 65536 }, (_, bits) => WIDEN[dtype](bits)))
  return Float32Array.from(new Uint16Array(bytes), bits => table[bits])
}

const tables = {}
const WIDEN = {
  /** Half precision: a sign, 5 bits of exponent, 10 of fraction. */
  F16(bits) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024
    if (exponent === 31) return fraction ? NaN : sign * Infinity
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction)
  },
  /** bfloat16: the upper half of a float32. */
  BF16(bits) {
    return new Float32Array(new Uint32Array([bits << 16]).buffer)[0]
  },
}
