// One WHIP or WHEP session in a browser: POST, watch over it, take it up again when it breaks, DELETE at the end.
// Owns the RTCPeerConnection; must never know a page's elements. Other sites may import it, so what it exports stays:
// deploy/SESSION.md says how it is used. `app.js` publishes with it, `viewer.js` watches.

import { iceServers } from './links.js';

const RETRY_MS = [0, 300, 1000, 2000, 4000];
const LOOK_MS = 250;
// Media stands still on a network hiccup too, so after this long the server is asked whether it still knows us; then
// less and less often, for a viewer may wait for hours.
const STALL_MS = 750;
const STALL_LIMIT_MS = 15000;
// A server that does not answer for this long is said to be away, in all within two seconds of its end. It is asked again
// as often, as a person waits for it.
const ANSWER_MS = 750;
const AWAY_MS = 500;
// The server itself gives a request ten seconds.
const POST_MS = 15000;
// A changed network is worth a short wait; ICE itself gives up only after some 15 s.
const DISCONNECTED_MS = 3000;

// What a person is told for some of the server's reasons, whose own sentences are for operators.
const TOLD = {
  'sessions-full': 'The server is full.',
  overloaded: 'The server is full: it has as much to do as it can.',
  'no-slot': 'The server takes nobody in right now.',
  'too-many-requests-at-once': 'The server is full: too many are asking at once.',
  draining: 'The server is about to stop and opens no new room.',
};

export class Refused extends Error {
  // The HTTP status (0 when there was no answer), a sentence for a person, the problem's type (RFC 9457), and after how
  // many seconds the server wants to be asked again.
  constructor(status, detail, type = '', retryAfter = 0) {
    super(detail);
    this.status = status;
    this.type = type;
    this.retryAfter = retryAfter;
  }

  // Somebody else publishes under our name: to come again would end that session, which would come again, and so on.
  get replaced() {
    return this.type.endsWith(':session-replaced');
  }

  // A refusal that another try may not meet again.
  get passing() {
    return [0, 502, 503, 504].includes(this.status);
  }
}

async function refusalOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch { /* not a problem document: the status line says it */ }
  const type = problem.type ?? '';
  const detail = TOLD[type.split(':').pop()] || problem.detail || problem.title || `${response.status} ${response.statusText}`;
  return new Refused(response.status, detail, type, Number(response.headers.get('Retry-After')) || 0);
}

// What the server says of a session.
const KNOWN = 'known';
const AWAY = 'away';

export class Session {
  // prepare(pc) adds tracks or transceivers; ontrack(event, pc) is told of tracks that come. onstate(state, detail, status):
  // connecting, connected (media flows), waiting (a viewer whose publisher is away), away (the server does not answer),
  // retrying, ended, failed (with the refusal's HTTP status).
  constructor({ url, token, prepare, onstate, ontrack }) {
    Object.assign(this, { url, token, prepare, onstate, ontrack });
    this.pc = null;
    this.resource = null;
    this.etag = null;
    this.state = '';
    this.closed = false;
    this.attempt = 0;
    this.movedAt = 0;
  }

  async start() {
    try {
      await this.#connect();
    } catch (error) {
      this.#dropConnection();
      if (this.closed) return;
      if (error instanceof Refused && !error.passing) this.#fail(error);
      else this.#retry(error.message, error.retryAfter);
    }
  }

  async #connect() {
    // A retry goes on saying why.
    if (this.attempt === 0) this.#say('connecting');
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.pc = pc;
    if (this.ontrack) pc.ontrack = (event) => this.ontrack(event, pc);
    pc.onconnectionstatechange = () => this.#handleState(pc);
    await this.prepare(pc);
    // Not yet the local description, with which the browser begins to look for paths: the answer names the servers for that.
    const offer = await pc.createOffer();
    const headers = { 'Content-Type': 'application/sdp' };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    let response;
    try {
      response = await fetch(this.url, { method: 'POST', headers, body: offer.sdp, signal: AbortSignal.timeout(POST_MS) });
    } catch {
      throw new Refused(0, 'The server does not answer.');
    }
    if (response.status !== 201) throw await refusalOf(response);
    this.resource = new URL(response.headers.get('Location'), response.url).href;
    this.etag = response.headers.get('ETag');
    if (this.closed) return this.#remove();
    const answer = await response.text();
    pc.setConfiguration({ ...pc.getConfiguration(), iceServers: iceServers(response.headers.get('Link')) });
    await pc.setLocalDescription(offer);
    await pc.setRemoteDescription({ type: 'answer', sdp: answer });
  }

  #handleState(pc) {
    if (pc !== this.pc || this.closed) return;
    clearTimeout(this.waiting);
    if (pc.connectionState === 'connected') {
      this.attempt = 0;
      this.everConnected = true;
      if (!this.looking) this.#lookAfter(pc);
    } else if (pc.connectionState === 'failed') {
      const reason = this.everConnected ? 'The connection was lost.' : noPath(this.resource);
      this.#ask().then(() => { if (pc === this.pc) this.#retry(reason); });
    } else if (pc.connectionState === 'disconnected') {
      this.#ask();
      this.waiting = setTimeout(() => this.#retry('The connection was lost.'), DISCONNECTED_MS);
    }
  }

  // Asks the server now whether it still knows the session, for pages that have reason to believe that it is gone.
  look() {
    return this.#ask();
  }

  // The browser itself notices a dead server only after seconds: watch what should move.
  #lookAfter(pc) {
    const watches = pc.getTransceivers().some(({ currentDirection }) => currentDirection === 'recvonly');
    let before = 0;
    let askedAt = 0;
    let patience = STALL_MS;
    this.movedAt = performance.now();
    if (!watches) this.#say('connected');
    this.looking = setInterval(async () => {
      const bytes = bytesFrom(await pc.getStats(), watches);
      if (pc !== this.pc || this.closed) return;
      const now = performance.now();
      if (bytes !== before) {
        before = bytes;
        this.movedAt = now;
        patience = STALL_MS;
        this.#say('connected');
      } else if (now - Math.max(this.movedAt, askedAt) > patience) {
        askedAt = now;
        patience = Math.min(patience * 2, STALL_LIMIT_MS);
        const wasAway = this.state === 'away';
        const answer = await this.#ask();
        if (pc !== this.pc) return;
        if (answer === AWAY) patience = AWAY_MS;
        if (answer === KNOWN && (watches || wasAway)) this.#say(watches ? 'waiting' : 'connected');
      }
    }, LOOK_MS);
  }

  #say(state, detail, status) {
    if (state === this.state && !detail) return;
    this.state = state;
    this.onstate(state, detail, status);
  }

  // Returns KNOWN, AWAY, or nothing when neither is sure; one request at a time.
  async #ask() {
    if (!this.resource || this.closed || this.isRefused) return '';
    this.asking ??= this.#probe().finally(() => { this.asking = null; });
    const pc = this.pc;
    const answer = await this.asking;
    if (pc !== this.pc || this.closed) return '';
    // Media may go on while HTTP does not.
    if (answer === AWAY && performance.now() - this.movedAt > STALL_MS) this.#say('away');
    return answer;
  }

  // A trickle fragment without candidates changes nothing; 404 says that the server no longer knows the session.
  async #probe() {
    const pc = this.pc;
    try {
      const headers = { 'Content-Type': 'application/trickle-ice-sdpfrag' };
      if (this.etag) headers['If-Match'] = this.etag;
      if (this.token) headers.Authorization = `Bearer ${this.token}`;
      // Browsers write them in either order.
      const credentials = pc.localDescription.sdp.match(/^a=ice-(ufrag|pwd):.*$/gm).slice(0, 2);
      const signal = AbortSignal.timeout(ANSWER_MS);
      const response = await fetch(this.resource, { method: 'PATCH', headers, body: credentials.join('\r\n'), signal });
      if (pc !== this.pc) return '';
      if (response.status === 404) {
        const refusal = await refusalOf(response);
        if (pc !== this.pc) return '';
        if (refusal.replaced) this.#fail(refusal);
        else this.#retry('The server lost this session.');
      }
      // A token that was refused is not sent again and again: the connection's own state will tell.
      if (response.status === 401 || response.status === 403) this.isRefused = true;
      return response.ok ? KNOWN : '';
    } catch {
      return AWAY;
    }
  }

  #fail(refusal) {
    this.#dropConnection();
    this.#say('failed', refusal.message, refusal.status);
  }

  #retry(reason, afterSeconds = 0) {
    this.#dropConnection();
    if (this.closed) return;
    const wait = Math.max(RETRY_MS[Math.min(this.attempt, RETRY_MS.length - 1)], 1000 * (afterSeconds || 0));
    this.attempt += 1;
    this.#say('retrying', reason);
    clearTimeout(this.again);
    this.again = setTimeout(() => { if (!this.closed) this.start(); }, wait);
  }

  #dropConnection() {
    clearInterval(this.looking);
    clearTimeout(this.waiting);
    this.looking = null;
    this.asking = null;
    this.isRefused = false;
    if (this.resource) this.#remove();
    if (this.pc) {
      this.pc.onconnectionstatechange = null;
      this.pc.close();
      this.pc = null;
    }
  }

  #remove() {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    fetch(this.resource, { method: 'DELETE', headers, keepalive: true }).catch(() => {});
    this.resource = null;
  }

  stop() {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.again);
    this.#dropConnection();
    this.#say('ended');
  }
}

// A viewer waits for media. A publisher hears from a living server too, in receiver reports.
function bytesFrom(report, watches) {
  let bytes = 0;
  for (const entry of report.values()) {
    if (entry.type === (watches ? 'inbound-rtp' : 'candidate-pair')) bytes += entry.bytesReceived ?? 0;
  }
  return bytes;
}

function noPath(url) {
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname);
  if (isHere && navigator.userAgent.includes('Firefox')) {
    return 'No media comes through: Firefox sends none to the loopback address. The server needs another address for it.';
  }
  return 'No media comes through: are the server\u2019s UDP and TCP ports for media open from here?';
}
