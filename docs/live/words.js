// The words on the page: tokens as they are typed, and chips to choose from.

import { holds } from "./caption.js"

const MORE = 10 // tokens shown beyond those that count

/** The tokens of a prompt; those that are cut off are struck out. */
export function showTokens(box, tokenizer, prompt) {
  const room = tokenizer.length - 2, tokens = tokenizer.split(prompt)
  const frame = (token, i) => element("span", tokenizer.show(token), i < room ? "" : "cut")
  const shown = tokens.slice(0, room + MORE).map(frame)
  const rest = tokens.length - shown.length
  box.replaceChildren(...shown, ...(rest > 0 ? [element("span", `and ${rest} more`, "more")] : []))
}

/** A chip for each phrase, a line for each group; `choose` is called with group and phrase. */
export function showChips(box, groups, choose) {
  const lines = Object.entries(groups).map(([group, phrases]) => {
    const line = document.createElement("fieldset"), chips = document.createElement("div")
    chips.append(...phrases.map(phrase => chip(group, phrase, choose)))
    line.append(element("legend", group), chips)
    return line
  })
  box.replaceChildren(...lines)
}

function chip(group, phrase, choose) {
  const button = element("button", phrase)
  button.type = "button"
  button.dataset.group = group
  button.onclick = () => choose(group, phrase)
  return button
}

/** Press the chips of the phrases that the prompt holds: `found`, as `parse` tells it. */
export function markChips(box, found) {
  for (const button of box.querySelectorAll("button"))
    button.ariaPressed = String(holds(found, button.dataset.group, button.textContent))
}

function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className })
}
