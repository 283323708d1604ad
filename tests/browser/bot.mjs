// One headless browser, steered by JSON lines: {"id", "do", ...} in, {"id", "value"} or {"id", "error"} out.
// Owns the browser's start, flags and profile; must never know what a test wants of a page. `browser.py` is the other end.
import puppeteer from 'puppeteer-core';
import { createInterface } from 'node:readline';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [kind] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), `millrace-${kind}-`));

const CHROMIUM = {
  executablePath: '/usr/bin/chromium',
  userDataDir: profile,
  args: [
    '--no-sandbox', '--use-fake-device-for-media-stream=fps=30', '--use-fake-ui-for-media-stream',
    '--autoplay-policy=no-user-gesture-required', '--disable-dev-shm-usage', '--disable-gpu', '--mute-audio',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
    '--window-size=1280,900',
  ],
};

const FIREFOX = {
  browser: 'firefox',
  executablePath: '/usr/bin/firefox-esr',
  userDataDir: profile,
  extraPrefsFirefox: {
    'media.navigator.streams.fake': true,
    'media.navigator.permission.disabled': true,
    'media.devices.insecure.enabled': true,
    'media.getusermedia.insecure.enabled': true,
    'media.peerconnection.ice.obfuscate_host_addresses': false,
    'media.autoplay.default': 0,
    'app.update.enabled': false,
    'network.captive-portal-service.enabled': false,
    'network.connectivity-service.enabled': false,
    'browser.safebrowsing.malware.enabled': false,
    'browser.safebrowsing.phishing.enabled': false,
    'datareporting.policy.dataSubmissionEnabled': false,
  },
};

const browser = await puppeteer.launch({ headless: true, ...(kind === 'firefox' ? FIREFOX : CHROMIUM) });
const pages = new Map();

async function pageOf(name) {
  if (!pages.has(name)) {
    const page = await browser.newPage();
    page.on('pageerror', (error) => process.stderr.write(`${kind} ${name}: ${error.message}\n`));
    page.on('console', (message) => process.stderr.write(`${kind} ${name}: ${message.text()}\n`));
    pages.set(name, page);
  }
  return pages.get(name);
}

const VERBS = {
  async goto({ page = 'main', url }) {
    await (await pageOf(page)).goto(url, { waitUntil: 'domcontentloaded', timeout: 30000 });
  },
  async eval({ page = 'main', code, frame = '' }) {
    // The code is the body of an async function; its result must survive JSON. A frame is named by a part of its URL.
    const place = await pageOf(page);
    const where = frame ? await place.waitForFrame((one) => one !== place.mainFrame() && one.url().includes(frame)) : place;
    return where.evaluate(`(async () => { ${code} })()`);
  },
  async crash({ page = 'main' }) {
    // As when the system ends a tab that takes too much memory: no event of the page tells it.
    const place = await pageOf(page);
    const crashed = new Promise((resolve) => { place.once('error', resolve); });
    place.goto('chrome://crash').catch(() => {});
    await crashed;
    pages.delete(page);
  },
  async scheme({ page = 'main', value }) {
    await (await pageOf(page)).emulateMediaFeatures([{ name: 'prefers-color-scheme', value }]);
  },
  async viewport({ page = 'main', width, height }) {
    await (await pageOf(page)).setViewport({ width, height });
  },
  async screenshot({ page = 'main', path }) {
    await (await pageOf(page)).screenshot({ path, fullPage: false });
  },
  async close({ page = 'main' }) {
    await (await pageOf(page)).close();
    pages.delete(page);
  },
};

async function end() {
  await browser.close().catch(() => {});
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  process.exit(0);
}

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
say({ ready: true, version: await browser.version() });

const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const { id, do: verb, ...rest } = JSON.parse(line);
  try {
    say({ id, value: (await VERBS[verb](rest)) ?? null });
  } catch (error) {
    say({ id, error: String(error.message ?? error) });
  }
});
lines.on('close', end);
process.on('SIGTERM', end);
