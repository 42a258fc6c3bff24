// What the page says: how far it is, and what went wrong. Texts are only ever set as text, never as markup.

export const at = id => document.getElementById(id)

export const say = text => (at("status").textContent = text)

export function complain(text) {
  at("error").textContent = text
  at("error").hidden = !text
  if (text) say("")
}

/** A button that loads the model, and what it says. */
export function offer(text) {
  at("again").textContent = text
  at("again").hidden = false
}

/** How much of the model is here, of `all` bytes. */
export function loading({ done, all }) {
  at("bar").value = done / all
  if (done === all) say("Preparing the model ...")
  else if (!at("status").textContent.includes("MB")) say(`Loading the model, ${Math.round(all / 1e6)} MB, once ...`)
}
