// openid-client gets tokens from the provider: as a service, or as a person whose browser is these few lines.
// With a private JWK as `dpop` the service's token is bound to that key.
// In: { issuer, resource, secret, scope, dpop? } or { issuer, resource, person }. Out: { access_token, id_token? }.

import * as client from 'openid-client'
import { pair, read, write } from './peer.mjs'

const { issuer, resource, secret, scope, dpop, person } = await read()
const loopback = { execute: [client.allowInsecureRequests] }

// Follows redirects and sends the provider's two forms, until it leads back to the client.
async function browse(start, back) {
  const cookies = new Map()
  let [url, form] = [start, undefined]
  for (let step = 0; step < 20; step += 1) {
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET',
      body: form,
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
    })
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)
      cookies.set(name, value)
    }
    form = undefined
    const next = response.headers.get('location')
    const page = await response.text()
    if (next !== null) {
      url = new URL(next, url)
      if (url.href.startsWith(back)) return url
    } else {
      const submit = /action="([^"]+)"/.exec(page)
      if (submit === null) throw new Error(`no form at ${url}: ${response.status} ${page.slice(0, 500)}`)
      form = page.includes('name="login"')
        ? new URLSearchParams({ prompt: 'login', login: person, password: 'any' })
        : new URLSearchParams({ prompt: 'consent' })
      url = new URL(submit[1], url)
    }
  }
  throw new Error('the provider never led back')
}

if (person === undefined) {
  const config = await client.discovery(new URL(issuer), 'ci-runner', secret, undefined, loopback)
  const DPoP = dpop && client.getDPoPHandle(config, await pair(dpop))
  const { access_token } = await client.clientCredentialsGrant(config, { scope, resource }, { DPoP })
  write({ access_token })
} else {
  const config = await client.discovery(new URL(issuer), 'desk-app', undefined, client.None(), loopback)
  const back = 'http://127.0.0.1/back'
  const verifier = client.randomPKCECodeVerifier()
  const state = client.randomState()
  const nonce = client.randomNonce()
  const start = client.buildAuthorizationUrl(config, {
    redirect_uri: back,
    scope: 'openid groups orders',
    resource,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    max_age: '3600',
  })
  const landed = await browse(start, back)
  const { access_token, id_token } = await client.authorizationCodeGrant(
    config,
    landed,
    { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, maxAge: 3600 },
    { resource },
  )
  write({ access_token, id_token })
}
