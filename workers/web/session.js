// One WHIP or WHEP session of the page: POST, watch over it, take it up again when it breaks, DELETE at the end.
// Owns the RTCPeerConnection; must never know the page's elements. `app.js` gives it media and shows its state.

const RETRY_MS = [0, 300, 1000, 2000, 4000];
const LOOK_MS = 250;
// Media stands still on a network hiccup too, so after this long the server is asked whether it still knows us; then
// less and less often, for a viewer may wait for hours.
const STALL_MS = 750;
const STALL_LIMIT_MS = 15000;
// A changed network is worth a short wait; ICE itself gives up only after some 15 s.
const DISCONNECTED_MS = 3000;

export class Refused extends Error {
  constructor(status, detail, type = '') {
    super(detail);
    this.status = status;
    this.type = type;
  }

  // Somebody else publishes under our name: to come again would end that session, which would come again, and so on.
  get replaced() {
    return this.type.endsWith(':session-replaced');
  }

  // A refusal that another try may not meet again.
  get passing() {
    return this.status === 503 || this.status === 504 || this.status === 0;
  }
}

async function refusalOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch { /* not a problem document: the status line says it */ }
  const detail = problem.detail || problem.title || `${response.status} ${response.statusText}`;
  return new Refused(response.status, detail, problem.type);
}

export class Session {
  // prepare(pc) adds tracks or transceivers. onstate(state, detail): connecting, connected (media flows), waiting (a viewer
  // whose publisher is away), retrying, ended, failed (with the refusal's HTTP status).
  constructor({ url, token, prepare, onstate, ontrack }) {
    Object.assign(this, { url, token, prepare, onstate, ontrack });
    this.pc = null;
    this.resource = null;
    this.etag = null;
    this.state = '';
    this.closed = false;
    this.attempt = 0;
  }

  async start() {
    try {
      await this.#connect();
    } catch (error) {
      this.#dropConnection();
      if (this.closed) return;
      if (error instanceof Refused && !error.passing) this.#fail(error);
      else this.#retry(error.message);
    }
  }

  async #connect() {
    this.#say('connecting');
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.pc = pc;
    if (this.ontrack) pc.ontrack = (event) => this.ontrack(event, pc);
    pc.onconnectionstatechange = () => this.#handleState(pc);
    await this.prepare(pc);
    await pc.setLocalDescription(await pc.createOffer());
    const headers = { 'Content-Type': 'application/sdp' };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    let response;
    try {
      response = await fetch(this.url, { method: 'POST', headers, body: pc.localDescription.sdp });
    } catch {
      throw new Refused(0, 'The server does not answer.');
    }
    if (response.status !== 201) throw await refusalOf(response);
    this.resource = new URL(response.headers.get('Location'), response.url).href;
    this.etag = response.headers.get('ETag');
    if (this.closed) return this.#remove();
    await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  }

  #handleState(pc) {
    if (pc !== this.pc || this.closed) return;
    clearTimeout(this.waiting);
    if (pc.connectionState === 'connected') {
      this.attempt = 0;
      this.everConnected = true;
      if (!this.looking) this.#lookAfter(pc);
    } else if (pc.connectionState === 'failed') {
      const reason = this.everConnected ? 'The connection was lost.' : noPath();
      this.#probe().then(() => { if (pc === this.pc) this.#retry(reason); });
    } else if (pc.connectionState === 'disconnected') {
      this.#probe();
      this.waiting = setTimeout(() => this.#retry('The connection was lost.'), DISCONNECTED_MS);
    }
  }

  // The browser itself notices a dead server only after seconds: watch what should move.
  #lookAfter(pc) {
    const watches = pc.getTransceivers().some(({ currentDirection }) => currentDirection === 'recvonly');
    let before = 0;
    let movedAt = performance.now();
    let patience = STALL_MS;
    if (!watches) this.#say('connected');
    this.looking = setInterval(async () => {
      const bytes = bytesFrom(await pc.getStats(), watches);
      if (pc !== this.pc || this.closed) return;
      const now = performance.now();
      if (bytes !== before) {
        before = bytes;
        movedAt = now;
        patience = STALL_MS;
        this.#say('connected');
      } else if (now - movedAt > patience) {
        movedAt = now;
        patience = Math.min(patience * 2, STALL_LIMIT_MS);
        if (await this.#probe() && watches) this.#say('waiting');
      }
    }, LOOK_MS);
  }

  #say(state, detail, status) {
    if (state === this.state && !detail) return;
    this.state = state;
    this.onstate(state, detail, status);
  }

  // A trickle fragment without candidates changes nothing; 404 says that the server no longer knows the session. True when
  // it does.
  async #probe() {
    const pc = this.pc;
    if (!this.resource || this.closed) return false;
    try {
      const headers = { 'Content-Type': 'application/trickle-ice-sdpfrag' };
      if (this.etag) headers['If-Match'] = this.etag;
      if (this.token) headers.Authorization = `Bearer ${this.token}`;
      // Browsers write them in either order.
      const credentials = pc.localDescription.sdp.match(/^a=ice-(ufrag|pwd):.*$/gm).slice(0, 2);
      const response = await fetch(this.resource, { method: 'PATCH', headers, body: credentials.join('\r\n') });
      if (pc !== this.pc) return false;
      if (response.status === 404) {
        const refusal = await refusalOf(response);
        if (pc !== this.pc) return false;
        if (refusal.replaced) this.#fail(refusal);
        else this.#retry('The server lost this session.');
      }
      return response.ok;
    } catch {
      return false; // The server is away: the connection state will tell.
    }
  }

  #fail(refusal) {
    this.#dropConnection();
    this.#say('failed', refusal.message, refusal.status);
  }

  #retry(reason) {
    this.#dropConnection();
    if (this.closed) return;
    const wait = RETRY_MS[Math.min(this.attempt, RETRY_MS.length - 1)];
    this.attempt += 1;
    this.#say('retrying', reason);
    setTimeout(() => { if (!this.closed) this.start(); }, wait);
  }

  #dropConnection() {
    clearInterval(this.looking);
    clearTimeout(this.waiting);
    this.looking = null;
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

function noPath() {
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
  if (isHere && navigator.userAgent.includes('Firefox')) {
    return 'No media comes through: Firefox sends none to the loopback address. The server needs another address for it.';
  }
  return 'No media comes through: is the server\u2019s UDP port open from here?';
}
