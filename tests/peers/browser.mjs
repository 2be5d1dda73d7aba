// Debian's Chromium, driven by Playwright: one command a line in, one answer a line out.
// The first line: { executable }. Then { do: NAME, … }; each answer is { ok: … } or { failed: why }.

import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'
import { write } from './peer.mjs'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const settings = JSON.parse((await lines.next()).value)
const LIMIT_MS = 10000

// Tests run as root in CI, where Chromium has no sandbox, and without a network, of which it shall not ask.
const browser = await chromium.launch({
  executablePath: settings.executable,
  handleSIGTERM: false,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--force-color-profile=srgb',
  ],
})
process.on('SIGTERM', () => browser.close().finally(() => process.exit(0)))
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

let context
let page
let said = []

// What a page says of itself that a test must hear: violations of its policy, mistakes of its script, requests.
async function fresh(options) {
  if (context) await context.close()
  context = await browser.newContext(options)
  context.setDefaultTimeout(LIMIT_MS)
  said = []
  await context.exposeBinding('__violated', (_, what) => said.push({ kind: 'policy', text: what }))
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      window.__violated(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile ?? ''}`)
    })
  })
  context.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) said.push({ kind: message.type(), text: message.text() })
  })
  context.on('weberror', (error) => said.push({ kind: 'script', text: String(error.error()) }))
  context.on('dialog', (dialog) => {
    said.push({ kind: 'dialog', text: dialog.message() })
    return dialog.dismiss()
  })
  context.on('request', (request) => said.push({ kind: 'request', text: request.url() }))
  page = await context.newPage()
  return browser.version()
}

const doing = {
  fresh: ({ options }) => fresh(options ?? {}),
  goto: async ({ url }) => (await page.goto(url, { waitUntil: 'load' })).status(),
  settle: async ({ url }) => {
    await page.waitForURL(url)
    return page.url()
  },
  url: () => page.url(),
  click: ({ at }) => page.locator(at).first().click(),
  fill: ({ at, text }) => page.locator(at).first().fill(text),
  choose: ({ at, text }) => page.locator(at).first().selectOption(text),
  press: ({ key }) => page.keyboard.press(key),
  text: ({ at }) => page.locator(at).first().innerText(),
  texts: ({ at }) => page.locator(at).allInnerTexts(),
  count: ({ at }) => page.locator(at).count(),
  until: ({ at, text }) => page.locator(at).filter({ hasText: text }).first().waitFor(),
  focused: () => page.evaluate(() => {
    const here = document.activeElement
    return { tag: here.tagName, id: here.id, text: here.innerText ?? '', row: here.closest('tr')?.dataset.index ?? null }
  }),
  style: ({ at, name, of }) => page.evaluate(
    ([at, name, of]) => getComputedStyle(document.querySelector(at), of ?? null).getPropertyValue(name), [at, name, of]),
  tell: async ({ code }) => page.evaluate(code),
  cookies: () => context.cookies(),
  content: () => page.content(),
  set: ({ html }) => page.setContent(html),
  said: () => said.splice(0),
  picture: ({ path, whole }) => page.screenshot({ path, fullPage: whole ?? false }).then(() => path),
  axe: async () => {
    // By the debugger's own way in, which no policy of the page stands in.
    await page.evaluate(axe)
    const found = await page.evaluate(() => window.axe.run({ resultTypes: ['violations'] }))
    return found.violations.map((each) => `${each.id}: ${each.help}: ${each.nodes.map((node) => node.target.join(' ')).join(', ')}`)
  },
}

write({ version: await fresh({}) })
for await (const line of lines) {
  const command = JSON.parse(line)
  try {
    write({ ok: (await doing[command.do](command)) ?? null })
  } catch (error) {
    write({ failed: String(error.message ?? error) })
  }
}
await browser.close()
