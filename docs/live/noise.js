// Lesson 3: the same noise for the same seed as `torch.randn` on a CPU.

/** The Mersenne twister, as `torch.Generator().manual_seed(seed)` (Matsumoto and Nishimura, 1998). */
export class Generator {
  /** @param seed - a whole number, 0 .. 2^32 - 1 */
  constructor(seed) {
    const state = (this.state = new Uint32Array(624))
    this.used = 624
    state[0] = seed
    for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i
  }

  /** The next 32 random bits. */
  next() {
    if (this.used === 624) this.twist()
    let y = this.state[this.used++]
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    return (y ^ (y >>> 18)) >>> 0
  }

  twist() {
    const s = this.state
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff)
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
    }
    this.used = 0
  }

  /** A number from 0 to 1, 1 left out, of 24 random bits: what a float32 holds. */
  uniform() {
    return (this.next() & 0xffffff) / 2 ** 24
  }
}

/**
 * Numbers from a normal distribution, by Box and Muller's method in blocks of 16: as `torch.randn(n)`.
 * @param n - 16 or more: for fewer, torch has another way
 */
export function randn(generator, n) {
  if (n < 16) throw new RangeError(`randn draws 16 numbers or more; got ${n}`)
  const x = Float32Array.from({ length: n }, () => generator.uniform())
  for (let i = 0; i + 16 <= n; i += 16) boxMuller(x.subarray(i, i + 16))
  if (n % 16) boxMuller(x.subarray(n - 16).map(() => generator.uniform()), x.subarray(n - 16)) // the last 16 afresh
  return x
}

/** Two uniform numbers, u and v, become two normal ones: sqrt(-2 log u) cos(2 pi v), and with the sine. */
function boxMuller(uniform, out = uniform) {
  for (let j = 0; j < 8; j++) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform[j])), angle = 2 * Math.PI * uniform[j + 8]
    out[j] = radius * Math.cos(angle)
    out[j + 8] = radius * Math.sin(angle)
  }
}
