// One WHIP or WHEP session of the page: POST, watch over it, take it up again when it breaks, DELETE at the end.
// Owns the RTCPeerConnection; must never know the page's elements. `app.js` gives it media and shows its state.

const RETRY_MS = [0, 300, 1000, 2000, 4000];
// Media stands still on a network hiccup too, so after this long the server is asked whether it still knows us.
const STALL_MS = 1500;

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  // A refusal that another try may not meet again.
  get passing() {
    return this.status === 503 || this.status === 504 || this.status === 0;
  }
}

async function refusalOf(response) {
  let detail = `${response.status} ${response.statusText}`;
  try {
    const problem = await response.json();
    detail = problem.detail || problem.title || detail;
  } catch { /* not a problem document: the status line says it */ }
  return new Refused(response.status, detail);
}

export class Session {
  // prepare(pc) adds tracks or transceivers; onstate(state, detail): connecting, connected, retrying, ended, failed.
  constructor({ url, token, prepare, onstate, ontrack }) {
    Object.assign(this, { url, token, prepare, onstate, ontrack });
    this.pc = null;
    this.resource = null;
    this.etag = null;
    this.closed = false;
    this.attempt = 0;
    this.lastBytes = 0;
    this.movedAt = 0;
  }

  async start() {
    try {
      await this.#connect();
    } catch (error) {
      this.#dropConnection();
      if (this.closed) return;
      if (error instanceof Refused && !error.passing) {
        this.onstate('failed', error.message);
        return;
      }
      this.#retry(error.message);
    }
  }

  async #connect() {
    this.onstate('connecting');
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
    if (pc.connectionState === 'connected') {
      this.attempt = 0;
      this.movedAt = performance.now();
      this.onstate('connected');
    } else if (pc.connectionState === 'failed') {
      this.#retry('The connection was lost.');
    } else if (pc.connectionState === 'disconnected') {
      this.#probe();
    }
  }

  // Called about once a second with the transport's byte count that should move.
  noteBytes(bytes) {
    const now = performance.now();
    if (bytes !== this.lastBytes) {
      this.lastBytes = bytes;
      this.movedAt = now;
    } else if (this.pc?.connectionState === 'connected' && now - this.movedAt > STALL_MS) {
      this.movedAt = now;
      this.#probe();
    }
  }

  // An empty trickle fragment changes nothing; 404 says that the server no longer knows the session.
  async #probe() {
    const pc = this.pc;
    if (!this.resource || this.closed) return;
    try {
      const headers = { 'Content-Type': 'application/trickle-ice-sdpfrag' };
      if (this.etag) headers['If-Match'] = this.etag;
      if (this.token) headers.Authorization = `Bearer ${this.token}`;
      const credentials = /a=ice-ufrag:.*\r\na=ice-pwd:.*\r\n/.exec(pc.localDescription.sdp)?.[0] ?? '';
      const response = await fetch(this.resource, { method: 'PATCH', headers, body: credentials });
      if (response.status === 404 && pc === this.pc) this.#retry('The server lost this session.');
    } catch { /* the server is away: the connection state will tell */ }
  }

  #retry(reason) {
    this.#dropConnection();
    if (this.closed) return;
    const wait = RETRY_MS[Math.min(this.attempt, RETRY_MS.length - 1)];
    this.attempt += 1;
    this.onstate('retrying', reason);
    setTimeout(() => { if (!this.closed) this.start(); }, wait);
  }

  #dropConnection() {
    if (this.resource) this.#remove();
    if (this.pc) {
      this.pc.onconnectionstatechange = null;
      this.pc.close();
      this.pc = null;
    }
    this.lastBytes = 0;
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
    this.onstate('ended');
  }
}
