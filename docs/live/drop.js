// A model's directory, dropped on the page or chosen: its files, nothing else read.

import { FILES } from "./model.js"

const LIMIT = 100e6 // bytes: several times what the files of any model of this shape have

/**
 * Wait for a model, anywhere on the page or in a file input.
 * @param take - called with a function that resolves to its name and its Files, or throws in one line
 */
export function listen(input, take) {
  const over = isOver => document.body.classList.toggle("over", isOver)
  addEventListener("dragover", event => {
    event.preventDefault()
    over(true)
  })
  addEventListener("dragleave", () => over(false))
  addEventListener("drop", event => {
    event.preventDefault() // else the browser would leave the page and open the file
    over(false)
    const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.())
    take(() => fromDrop(entries))
  })
  input.onchange = () => {
    const files = [...input.files]
    input.value = "" // so that the same folder can be chosen again
    if (files.length) take(() => fromInput(files))
  }
}

/** From a drop: the first folder among what was dropped. Resolves to Files by path within the model's directory. */
async function fromDrop(entries) {
  const folder = entries.find(entry => entry?.isDirectory)
  if (!folder) throw new Error("drop the model's folder, such as runs/mine, not single files")
  const found = await Promise.all(FILES.map(async path => [path, await fileIn(folder, path)]))
  return { name: folder.name, files: checked(folder.name, Object.fromEntries(found)) }
}

/** From a file input that takes directories. */
function fromInput(all) {
  const name = all[0].webkitRelativePath.split("/")[0] || "what was chosen"
  const inside = new Map(all.map(file => [file.webkitRelativePath.slice(name.length + 1), file]))
  return { name, files: checked(name, Object.fromEntries(FILES.map(path => [path, inside.get(path)]))) }
}

/** The File at a path within a folder, or nothing. */
function fileIn(folder, path) {
  return new Promise(give => {
    const nothing = () => give()
    folder.getFile(path, {}, entry => entry.file(give, nothing), nothing)
  })
}

function checked(name, files) {
  for (const [path, file] of Object.entries(files)) {
    if (!file) throw new Error(`${name} has no ${path}: drop a folder that sdlearn-train has finished: runs/mine`)
    const size = `${Math.round(file.size / 1e6)} MB`
    if (file.size > LIMIT) throw new Error(`${name}/${path} is too large (${size}) for a model of the course's size`)
  }
  return files
}
