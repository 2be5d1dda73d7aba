// oauth4webapi as the client of our endpoints: what it asks, and what it makes of the answer.
// In: { do, issuer, … }. Out: what the library read, or { refused } with what it threw.

import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from 'jose'
import * as oauth from 'oauth4webapi'
import { pair, read, refusal, write } from './peer.mjs'

const insecure = { [oauth.allowInsecureRequests]: true }
const question = await read()

async function discovered() {
  const issuer = new URL(question.issuer)
  const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
  return oauth.processDiscoveryResponse(issuer, response)
}

// As it is declared: { client_id, secret } or { client_id, key }, or nothing at all.
async function authentication() {
  const { client_id, secret, key, secret_in_body } = question.client ?? {}
  if (secret_in_body !== undefined) return [{ client_id }, oauth.ClientSecretPost(secret_in_body)]
  if (secret !== undefined) return [{ client_id }, oauth.ClientSecretBasic(secret)]
  if (key !== undefined) {
    const signing = { key: await importJWK(key, 'ES256'), kid: key.kid }
    return [{ client_id }, oauth.PrivateKeyJwt(signing)]
  }
  // A credential that proves itself: no client authentication, and no name of a client either.
  return [{ client_id: client_id ?? 'nobody' }, client_id === undefined ? () => {} : oauth.None()]
}

// Once more where the server asks for a nonce (RFC 9449 §8, §9), as the library's documentation does it.
async function withNonce(attempt) {
  try {
    return { ...(await attempt()), nonce_asked: false }
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    return { ...(await attempt()), nonce_asked: true }
  }
}

const actions = {
  // A key for a client or for DPoP, as private JWK, with its RFC 7638 thumbprint.
  async key() {
    const { privateKey } = await generateKeyPair('ES256', { extractable: true })
    const jwk = await exportJWK(privateKey)
    const jkt = await calculateJwkThumbprint(jwk)
    return { jwk: { ...jwk, kid: jkt, alg: 'ES256' }, jkt }
  },

  async discover() {
    const resource = new URL(question.resource)
    const response = await oauth.resourceDiscoveryRequest(resource, insecure)
    return {
      server: await discovered(),
      resource: await oauth.processResourceDiscoveryResponse(resource, response),
    }
  },

  // RFC 9068 §4 and RFC 9449 §7, as a resource server has them.
  async validate() {
    const server = await discovered()
    const results = []
    for (const { method, url, headers } of question.requests) {
      const request = new Request(url, { method, headers })
      try {
        const options = { requireDPoP: question.dpop ?? false, signingAlgorithms: ['ES256'], ...insecure }
        results.push({ claims: await oauth.validateJwtAccessToken(server, request, question.audience, options) })
      } catch (error) {
        results.push(refusal(error))
      }
    }
    return { results }
  },

  async token() {
    const server = await discovered()
    const [client, authenticate] = await authentication()
    const DPoP = question.dpop === undefined ? undefined : oauth.DPoP(client, await pair(question.dpop))
    return withNonce(async () => {
      const response = await oauth.genericTokenEndpointRequest(
        server,
        client,
        authenticate,
        question.grant_type,
        new URLSearchParams(question.parameters),
        { DPoP, ...insecure },
      )
      const headers = Object.fromEntries(response.headers)
      const recognizedTokenTypes = { n_a: () => {} }
      const answer = await oauth.processGenericTokenEndpointResponse(server, client, response, {
        recognizedTokenTypes,
      })
      return { answer, headers }
    })
  },

  async introspect() {
    const server = await discovered()
    const [client, authenticate] = await authentication()
    client.introspection_signed_response_alg = question.jwt ? 'ES256' : undefined
    const response = await oauth.introspectionRequest(server, client, authenticate, question.token, {
      additionalParameters: question.parameters,
      requestJwtResponse: question.jwt ?? false,
      ...insecure,
    })
    const kind = response.headers.get('content-type')
    const answer = await oauth.processIntrospectionResponse(server, client, response)
    // The library leaves the signature to whoever wants it checked.
    if (question.jwt) await oauth.validateApplicationLevelSignature(server, response, insecure)
    return { answer, kind }
  },

  async revoke() {
    const server = await discovered()
    const [client, authenticate] = await authentication()
    const response = await oauth.revocationRequest(server, client, authenticate, question.token, insecure)
    await oauth.processRevocationResponse(response)
    return { revoked: true }
  },

  // One request to a resource, as bearer or with a proof of possession.
  async resource() {
    const DPoP = question.dpop === undefined ? undefined : oauth.DPoP({}, await pair(question.dpop))
    return withNonce(async () => {
      const response = await oauth.protectedResourceRequest(
        question.token,
        question.method,
        new URL(question.url),
        new Headers(question.headers),
        question.body,
        { DPoP, ...insecure },
      )
      return { status: response.status, body: await response.text() }
    })
  },
}

try {
  write(await actions[question.do]())
} catch (error) {
  if (!(error instanceof oauth.WWWAuthenticateChallengeError || error instanceof oauth.ResponseBodyError
    || error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError)) throw error
  const challenges = error instanceof oauth.WWWAuthenticateChallengeError ? error.cause : null
  write({ ...refusal(error), challenges })
}
