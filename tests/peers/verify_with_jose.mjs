// jose as a backend has it: the broker's keys by their address, and one call token at a time.
// In: { jwks_uri, issuer, audience, typ, tokens, required? }. Out: { results: [{ payload, header } | { refused }] }.

import { createRemoteJWKSet, jwtVerify } from 'jose'
import { read, refusal, write } from './peer.mjs'

const { jwks_uri: uri, issuer, audience, typ, tokens, required } = await read()
const keys = createRemoteJWKSet(new URL(uri))
const requiredClaims = required ?? ['exp', 'iat', 'jti', 'sub']
const wanted = { issuer, audience, typ, algorithms: ['ES256'], requiredClaims }
const results = []
for (const token of tokens) {
  try {
    const { payload, protectedHeader: header } = await jwtVerify(token, keys, wanted)
    results.push({ payload, header })
  } catch (error) {
    results.push(refusal(error))
  }
}
write({ results })
