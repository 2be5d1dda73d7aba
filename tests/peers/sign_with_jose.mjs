// jose as somebody else's issuer: one JWT, signed with ES256.
// In: { key, header, payload }. Out: { jwt }.

import { importJWK, SignJWT } from 'jose'
import { read, write } from './peer.mjs'

const { key, header, payload } = await read()
const signing = new SignJWT(payload).setProtectedHeader({ alg: 'ES256', kid: key.kid, ...header })
write({ jwt: await signing.sign(await importJWK(key, 'ES256')) })
