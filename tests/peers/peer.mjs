// What every peer here shares: one JSON document in on stdin, one out on stdout, and nothing else on stdout.

import { importJWK } from 'jose'

export async function read() {
  let text = ''
  for await (const part of process.stdin.setEncoding('utf8')) text += part
  return JSON.parse(text)
}

export function write(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}

// What a library says when it does not take something: an answer, and no failure of the script.
export function refusal(error) {
  return {
    refused: {
      name: error.name,
      code: error.code ?? null,
      message: error.message,
      claim: error.claim ?? null,
      status: error.status ?? null,
      error: error.error ?? null,
      because: error.cause instanceof Error ? error.cause.message : null,
    },
  }
}

// Both halves of a private JWK, as the clients want them.
export async function pair(jwk) {
  const { d: _, ...half } = jwk
  return {
    privateKey: await importJWK(jwk, 'ES256'),
    publicKey: await importJWK(half, 'ES256', { extractable: true }),
  }
}
