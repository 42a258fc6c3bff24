// Pixels on a canvas, and where in them the model used a word.

/** Put a frame (bytes: red, green, blue, opaque) on a canvas of its own size. */
export function paint(canvas, frame) {
  const side = Math.sqrt(frame.length / 4)
  canvas.width = canvas.height = side
  canvas.getContext("2d").putImageData(new ImageData(frame, side, side), 0, 0)
}

/** A frame that keeps its colours where the model used a word, and is pale elsewhere; the map is small and square. */
export function coloured(frame, map) {
  const side = Math.sqrt(frame.length / 4), small = Math.sqrt(map.length)
  const least = Math.min(...map), most = Math.max(...map), out = new Uint8ClampedArray(frame)
  for (let i = 0; i < frame.length; i += 4) {
    const [x, y] = [(i / 4) % side, Math.floor(i / 4 / side)].map(v => ((v + 0.5) * small) / side - 0.5)
    const heat = (between(map, small, x, y) - least) / (most - least || 1)
    const pale = 160 + (0.3 * (frame[i] + frame[i + 1] + frame[i + 2])) / 3
    for (let c = 0; c < 3; c++) out[i + c] = heat * frame[i + c] + (1 - heat) * pale
  }
  return out
}

/** The value of a small square map between its points, bilinear. */
function between(map, side, x, y) {
  const [left, top] = [x, y].map(v => Math.min(Math.max(Math.floor(v), 0), side - 1))
  const [right, below] = [x, y].map(v => Math.min(Math.max(Math.floor(v) + 1, 0), side - 1))
  const [u, v] = [x - Math.floor(x), y - Math.floor(y)]
  const row = y => (1 - u) * map[y * side + left] + u * map[y * side + right]
  return (1 - v) * row(top) + v * row(below)
}
