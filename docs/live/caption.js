// The words that a model knows, and sentences built of them, as `scenes.caption` builds them.

const ARTICLES = new Set(["a", "an", "of"])
const OTHER = "other" // the group of a model's own words, which no caption of the course has a place for
const END = "</w>"
const MOST = 100 // words of its own that a model's chips show

/** Which phrase of each group a prompt holds (of "other", a list of all), and whether it holds nothing else. */
export function parse(prompt, groups) {
  const found = {}
  let rest = ` ${prompt.toLowerCase().replace(/\s+/g, " ").trim()} `
  for (const [group, phrases] of Object.entries(groups))
    for (const phrase of [...phrases].sort((a, b) => b.length - a.length)) {
      if ((found[group] && group !== OTHER) || !rest.includes(` ${phrase} `)) continue
      found[group] = group === OTHER ? [...(found[group] ?? []), phrase] : phrase
      rest = rest.replace(` ${phrase} `, " | ")
    }
  const plain = rest.split(/[\s|]+/).every(word => word === "" || ARTICLES.has(word))
  return { found, plain }
}

/** A prompt with a phrase in it, in place of another of its group; if the phrase is there already, without it. */
export function toggle(prompt, groups, group, phrase) {
  const { found, plain } = parse(prompt, groups), there = holds(found, group, phrase)
  if (plain && group !== OTHER && !found[OTHER]) return compose({ ...found, [group]: there ? "" : phrase })
  const old = there ? phrase : group !== OTHER && found[group]
  if (!old) return `${prompt.trim()} ${phrase}`.trim()
  const pattern = old.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll(" ", "\\s+")
  const changed = prompt.replace(new RegExp(`(?<!\\S)${pattern}(?!\\S)`, "i"), () => (there ? "" : phrase))
  return changed.replace(/\s+/g, " ").trim()
}

/** Whether a phrase of a group is among those that `parse` found. */
export const holds = (found, group, phrase) => [found[group]].flat().includes(phrase)

/** A caption: "a photograph of an astronaut riding a red horse on the moon", or as much of it as there is. */
function compose({ style, subject, action, colour, mount, place }) {
  const ridden = [colour, mount].filter(Boolean).join(" ")
  return [style && `${article(style)} of`, subject && article(subject), action, ridden && article(ridden), place]
    .filter(Boolean)
    .join(" ")
}

const article = noun => `${"aeiou".includes(noun[0]) ? "an" : "a"} ${noun}`

/**
 * The phrases that a model's tokenizer knows, by group; further words of its own make a last group, "other".
 * A word is a token that ends a word and was never joined further.
 */
export function known(tokenizer, groups) {
  const whole = word => tokenizer.merge(word).length === 1
  const complete = phrases => phrases.filter(phrase => phrase.split(" ").every(whole))
  const kept = Object.entries(groups).map(([group, phrases]) => [group, complete(phrases)])
  const listed = new Set([...kept.flatMap(([, phrases]) => phrases.flatMap(phrase => phrase.split(" "))), ...ARTICLES])
  const joined = new Set([...tokenizer.ranks.keys()].map(pair => pair.split(" ")[1]))
  const ends = [...tokenizer.vocabulary].filter(([piece]) => piece.endsWith(END) && !joined.has(piece))
  const words = ends.map(([, token]) => tokenizer.show(token)).filter(word => !word.includes("▫")) // no half letters
  const other = words.filter(word => word.length > 1 && !listed.has(word))
  return Object.fromEntries([...kept, [OTHER, other.slice(0, MOST)]].filter(([, phrases]) => phrases.length))
}

/** What is odd about a prompt, a line each: words that no caption had, and an end that is cut off. */
export function advise(tokenizer, prompt) {
  const lines = [], words = new Set(prompt.toLowerCase().match(/\p{L}+/gu) ?? [])
  const seen = word => tokenizer.merge(word).length === 1 && !/^[b-z]$/.test(word)
  const unknown = [...words].filter(word => !seen(word))
  if (unknown.length) lines.push(`The model has never seen: ${shorten(unknown.join(", "))}.`)
  const room = tokenizer.length - 2, tokens = tokenizer.split(prompt)
  if (tokens.length > room) {
    const end = tokens.slice(room).map(token => tokenizer.show(token)).join(" ")
    lines.push(`Only the first ${room} of ${tokens.length} tokens count; this is cut off: ${shorten(end)}`)
  }
  return lines
}

const shorten = text => (text.length > 90 ? `${text.slice(0, 87)}...` : text)
