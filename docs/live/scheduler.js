// Lessons 3 and 5: the noise schedule, and two ways from one step to the next.
// The letters are the papers': x the noisy latents, eps the predicted noise, x0 the estimate of the clean latents.

/** alpha_bar_t: what is left of the signal's variance at step t (DDPM eq. 4). */
export function alphaBar({ beta_start, beta_end, beta_schedule, num_train_timesteps: n }) {
  const power = { linear: 1, scaled_linear: 2 }[beta_schedule]
  if (!power) throw new Error(`this page knows the schedules linear and scaled_linear; the model has ${beta_schedule}`)
  const [first, last] = [beta_start ** (1 / power), beta_end ** (1 / power)]
  let left = 1
  return Float64Array.from({ length: n }, (_, t) => (left *= 1 - (first + ((last - first) * t) / (n - 1)) ** power))
}

/** DDIM without noise of its own (arXiv 2010.02502, eq. 12 with sigma = 0). */
export class DDIM {
  /**
   * @param config - what is in `scheduler/scheduler_config.json`
   * @param steps - how many
   */
  constructor(config, steps) {
    this.alphas = alphaBar(config)
    this.last = config.set_alpha_to_one ? 1 : this.alphas[0]
    this.stride = Math.floor(this.alphas.length / steps)
    this.timesteps = timesteps(config.timestep_spacing, steps, this.alphas.length, config.steps_offset)
  }

  /** One step: latents x at timesteps[i] and their noise in; the estimate x0, and x at the next step, out. */
  step(i, x, eps) {
    const t = this.timesteps[i], next = t - this.stride
    const a = this.alphas[t], b = next >= 0 ? this.alphas[next] : this.last
    const x0 = x.map((value, j) => (value - Math.sqrt(1 - a) * eps[j]) / Math.sqrt(a))
    return { x0, x: x0.map((value, j) => Math.sqrt(b) * value + Math.sqrt(1 - b) * eps[j]) }
  }
}

/** DPM-Solver++ of order two, multistep: it also uses the estimate of the step before (arXiv 2211.01095, alg. 2). */
export class DPM {
  constructor(config, steps) {
    const a = alphaBar(config)
    this.timesteps = timesteps("linspace", steps + 1, a.length).slice(0, steps)
    this.along = [...this.timesteps.map(t => a[t]), 1] // alpha_bar at each step; the last leads to clean latents
  }

  step(i, x, eps) {
    const [a, b] = [this.along[i], this.along[i + 1]]
    const x0 = x.map((value, j) => (value - Math.sqrt(1 - a) * eps[j]) / Math.sqrt(a))
    const h = lambda(b) - lambda(a), last = i === this.timesteps.length - 1
    const ahead = i > 0 && !last ? h / (lambda(a) - lambda(this.along[i - 1])) / 2 : 0 // first and last: order one
    const before = this.before ?? x0
    this.before = x0
    const keep = Math.sqrt((1 - b) / (1 - a)), move = Math.sqrt(b) * (1 - Math.exp(-h))
    return { x0, x: x.map((value, j) => keep * value + move * (x0[j] + ahead * (x0[j] - before[j]))) }
  }
}

/** Half the logarithm of the signal-to-noise ratio: the time in which DPM-Solver's steps are measured. */
const lambda = a => Math.log(a / (1 - a)) / 2

export const SCHEDULERS = { ddim: DDIM, "dpm++": DPM } // the names of `sdlearn-draw --scheduler`

/** Which of the n training steps are taken, the noisiest first: diffusers' three spacings. */
function timesteps(spacing, steps, n, offset = 0) {
  const count = Array.from({ length: steps }, (_, i) => i)
  if (spacing === "trailing") return count.map(i => round(n - i * (n / steps)) - 1)
  if (spacing === "linspace") return count.map(i => round(i * ((n - 1) / (steps - 1 || 1)))).reverse()
  return count.map(i => i * Math.floor(n / steps) + offset).reverse() // leading
}

/** As numpy rounds: a half goes to the even neighbour. */
function round(x) {
  return x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)
}
