// Everything that decides what is drawn, and the link that holds it.

import { SCHEDULERS } from "./scheduler.js"

export const DEFAULTS = {
  prompt: "a photograph of an astronaut riding a horse on the moon",
  negative: "",
  seed: 0,
  guidance: 4,
  steps: 30,
  scheduler: "ddim",
}
const NUMBERS = {
  seed: [0, 2 ** 32 - 1, "a whole number"],
  guidance: [0, 15, "a number"],
  steps: [1, 100, "a whole number"],
}

/**
 * Settings as they were typed or stood in a link, with numbers as numbers.
 * Throws an Error, in one line, for a setting with which there is no picture.
 */
export function check(typed) {
  const settings = { ...DEFAULTS, ...typed }
  for (const [name, [least, most, kind]] of Object.entries(NUMBERS)) {
    const text = String(settings[name]).trim(), value = Number(text)
    const right = text !== "" && value >= least && value <= most && (kind === "a number" || Number.isInteger(value))
    if (!right) throw new Error(`${name} must be ${kind} from ${least} to ${most}; got "${text.slice(0, 40)}"`)
    settings[name] = value
  }
  const choice = Object.keys(SCHEDULERS).join(" or "), got = settings.scheduler.slice(0, 40)
  if (!Object.hasOwn(SCHEDULERS, settings.scheduler)) throw new Error(`scheduler must be ${choice}; got "${got}"`)
  return settings
}

/** What follows "#" in a link: the settings, and of a picture beside it those that differ. */
export function toHash(settings, beside) {
  const names = Object.keys(DEFAULTS)
  const entries = names.map(name => [name, settings[name]])
  const differ = beside ? names.filter(name => String(beside[name]) !== String(settings[name])) : []
  if (beside && !differ.length) differ.push("seed") // so that the link tells that there are two
  entries.push(...differ.map(name => [`beside.${name}`, beside[name]]))
  return new URLSearchParams(entries).toString()
}

/** The settings in a link, not yet checked, and those of a picture beside it, if there is one. */
export function fromHash(hash) {
  const given = [...new URLSearchParams(hash.replace(/^#/, ""))]
  const some = prefix => {
    const found = given.map(([key, value]) => [key.slice(prefix.length), value, key.startsWith(prefix)])
    return Object.fromEntries(found.filter(([name, , fits]) => fits && Object.hasOwn(DEFAULTS, name)))
  }
  const settings = some(""), beside = some("beside.")
  return { settings, beside: Object.keys(beside).length ? { ...settings, ...beside } : null }
}
