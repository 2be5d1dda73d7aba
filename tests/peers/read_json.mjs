// V8 reads JSON texts, and writes each in the form of RFC 8785: that standard takes numbers and strings as
// ECMAScript writes them, so this is no copy of anybody's reading.
// In: { texts }. Out: { results: [the canonical text, or null where it is no JSON] }.

import { read, write } from './peer.mjs'

function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  // Keys in the order of their UTF-16 code units, which is that of `sort`.
  const members = Object.keys(value).sort()
  return `{${members.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(',')}}`
}

const { texts } = await read()
const results = texts.map((text) => {
  try {
    return canonical(JSON.parse(text))
  } catch {
    return null
  }
})
write({ results })
