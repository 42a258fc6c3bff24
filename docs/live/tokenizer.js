// Lesson 1: a text becomes token numbers, exactly as `CLIPTokenizer` does it.

const END = "</w>" // marks the last piece of a word
const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/
const SPACE = /\p{White_Space}+/gu
const WORDS = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu

export class Tokenizer {
  /**
   * @param file - what is in `tokenizer/tokenizer.json`
   * @param length - tokens in a prompt, start and end included
   */
  constructor(file, length) {
    this.vocabulary = new Map(Object.entries(file.model.vocab))
    this.pieces = new Map(Object.entries(file.model.vocab).map(([piece, id]) => [id, piece]))
    this.ranks = new Map(file.model.merges.map((pair, rank) => [[pair].flat().join(" "), rank]))
    this.start = this.vocabulary.get("<|startoftext|>")
    this.end = this.vocabulary.get("<|endoftext|>")
    this.pad = file.padding?.pad_id ?? this.end
    this.length = length
  }

  /** All tokens of a text, without start and end, however many there are. */
  split(text) {
    return text.split(SPECIAL).flatMap(part => {
      if (SPECIAL.test(part)) return [this.vocabulary.get(part)]
      return words(part).flatMap(word => this.merge(word)).map(piece => this.vocabulary.get(piece) ?? this.end)
    })
  }

  /** Token numbers of a prompt, cut off or padded to the model's length. */
  encode(text) {
    const inner = this.split(text).slice(0, this.length - 2)
    const padding = Array(this.length - 2 - inner.length).fill(this.pad)
    return [this.start, ...inner, this.end, ...padding]
  }

  /** Byte pair encoding: join neighbours, the pair that was learnt first before the others. */
  merge(word) {
    const letters = [...new TextEncoder().encode(word)].map(byte => LETTERS[byte])
    let pieces = [...letters.slice(0, -1), letters.at(-1) + END]
    for (;;) {
      const ranks = pieces.slice(1).map((piece, i) => this.ranks.get(`${pieces[i]} ${piece}`) ?? Infinity)
      const best = Math.min(...ranks, Infinity)
      if (best === Infinity) return pieces
      const i = ranks.indexOf(best)
      pieces = [...pieces.slice(0, i), pieces[i] + pieces[i + 1], ...pieces.slice(i + 2)]
    }
  }

  /** A token as people read it; half a letter of another alphabet shows as a small square. */
  show(token) {
    const piece = this.pieces.get(token).replace(END, "")
    if (token === this.start || token === this.end) return piece
    const bytes = [...piece].map(letter => LETTERS.indexOf(letter))
    return new TextDecoder().decode(Uint8Array.from(bytes)).replaceAll("\ufffd", "▫")
  }
}

/** Lower case, one letter at a time (a Greek final sigma stays an ordinary one), then words, digits and signs. */
function words(text) {
  const plain = text.normalize("NFC").replace(SPACE, " ")
  const lower = Array.from(plain, letter => letter.toLowerCase()).join("")
  const found = lower.match(WORDS) ?? []
  return found.flatMap(word => (word.startsWith("<|") ? word.match(/\p{L}+|\P{L}+/gu) : [word]))
}

/** The character that stands for each byte: itself where it can be printed, else one beyond 255 (GPT-2's table). */
const LETTERS = (() => {
  const printable = byte => (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173
  let beyond = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : beyond++))
})()
