// Lesson 5: from noise and two prompts to latents, one step at a time.

/** Classifier-free guidance: eps_empty + s (eps_text - eps_empty) (arXiv 2207.12598, eq. 6). */
export function guide(empty, text, scale) {
  return empty.map((value, i) => value + scale * (text[i] - value))
}

/**
 * The loop of lesson 5, for one picture.
 * @param model - encoded prompts and latents go in, noise comes out: see `Model.predict`
 * @param scheduler - one of SCHEDULERS, made for a number of steps
 * @param x - latents, pure noise
 * @param context - the negative prompt (or the empty one) and the prompt, encoded
 * @yields after each step: its number, t, the latents x, x0 (the estimate of the clean latents), and where the
 *   model used the prompt's words (tokens x height x width)
 */
export async function* denoise(model, scheduler, x, context, guidanceScale) {
  for (const [i, t] of scheduler.timesteps.entries()) {
    const both = new Float32Array(2 * x.length) // one pass for both prompts
    both.set(x), both.set(x, x.length)
    const { eps, looked } = await model.predict(both, t, context)
    const guided = guide(eps.subarray(0, x.length), eps.subarray(x.length), guidanceScale)
    const { x0, x: next } = scheduler.step(i, x, guided)
    x = next
    yield { i, t, x, x0, looked: looked.subarray(looked.length / 2) }
  }
}
