// oidc-provider as somebody else's issuer, in a process of its own, on a free port of loopback.
// Its first line in: { resources, people: { NAME: { groups } }, service: { secret, scope }, review: { redirect_uri,
// client } where the page for reviewers is a client of it. Out: { issuer, jwks_uri }.
// Each later line: { do: "publish" | "promote" | "withdraw" }, the three steps of a change of keys. Out: { kids }.

import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { exportJWK, generateKeyPair } from 'jose'
import Provider from 'oidc-provider'
import { write } from './peer.mjs'

// It gives good advice about production on stdout, which is a wire here.
console.info = console.warn = console.log = console.error

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const settings = JSON.parse((await lines.next()).value)

let made = 0
async function newKey() {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true })
  made += 1
  return { ...(await exportJWK(privateKey)), alg: 'ES256', use: 'sig', kid: `provider-${made}` }
}

function providerWith(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: ['only for the tests'] },
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    clients: [
      {
        client_id: 'ci-runner',
        client_secret: settings.service.secret,
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
      },
      {
        client_id: 'desk-app',
        token_endpoint_auth_method: 'none',
        application_type: 'native',
        grant_types: ['authorization_code'],
        response_types: ['code'],
        redirect_uris: ['http://127.0.0.1/back'],
      },
      ...(settings.review
        ? [
            {
              client_id: 'broker-review',
              grant_types: ['authorization_code'],
              response_types: ['code'],
              redirect_uris: [settings.review.redirect_uri],
              ...settings.review.client,
            },
          ]
        : []),
    ],
    pkce: { required: () => true },
    claims: { openid: ['sub'], groups: ['groups'] },
    scopes: ['openid', 'groups'],
    // The ID token itself carries the claims: nobody here asks the userinfo endpoint.
    conformIdTokenClaims: false,
    findAccount: (_, name) =>
      name in settings.people && {
        accountId: name,
        claims: () => ({ sub: name, groups: settings.people[name].groups }),
      },
    extraTokenClaims: (_, token) =>
      token.accountId ? { groups: settings.people[token.accountId].groups } : undefined,
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => {
          if (!settings.resources.includes(resource)) throw new Error(`no such resource: ${resource}`)
          return {
            scope: `${settings.service.scope} orders`,
            audience: resource,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'ES256' } },
          }
        },
      },
    },
  })
}

let keys = [await newKey()]
let callback
const server = createServer((request, response) => callback(request, response))
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `http://127.0.0.1:${server.address().port}`
const renew = () => {
  callback = providerWith(issuer, keys).callback()
}
renew()
write({ issuer, jwks_uri: `${issuer}/jwks` })

const steps = {
  publish: async () => [...keys, await newKey()],
  promote: async () => [...keys.slice(1), keys[0]],
  withdraw: async () => keys.slice(0, -1),
}
for await (const line of lines) {
  keys = await steps[JSON.parse(line).do]()
  renew()
  write({ kids: keys.map((key) => key.kid) })
}
server.close()
server.closeAllConnections()
