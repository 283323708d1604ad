// The list of rooms: asks the server while the page is seen, shows who is where. Owns the list's elements, which live as
// long as their room, so that the keyboard's focus stays. It must never know a session. `app.js` is told what to watch.
import { CODECS } from './figures.js';

// In all under two seconds, so that a page without a picture, too, says by then that its server is gone. The first answer
// has longer: its connection is made first.
const LOOK_MS = 1000;
const ANSWER_MS = 900;
const FIRST_ANSWER_MS = 5000;

export class RoomList {
  // token() is the token to ask with. onwatch(room) follows a click, onaway() an answer that did not come.
  constructor(root, { token, onwatch, onaway }) {
    Object.assign(this, { root, token, onwatch, onaway });
    this.message = root.querySelector('.message');
    this.list = root.querySelector('ul');
    this.rooms = [];
    this.rows = new Map();
    // What was refused is not asked again, until there is another token.
    this.refused = null;
    this.isAnswered = false;
  }

  start() {
    this.refresh();
    setInterval(() => { if (!document.hidden) this.refresh(); }, LOOK_MS);
  }

  async refresh() {
    const token = this.token();
    if (token === this.refused || this.isAsking) return;
    this.isAsking = true;
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const response = await fetch('rooms', { headers, signal: AbortSignal.timeout(this.isAnswered ? ANSWER_MS : FIRST_ANSWER_MS) });
      this.isAnswered = true;
      if (response.ok) {
        this.show(await response.json());
        this.say(this.rooms.length === 0 ? 'Nobody is here yet. Publish something!' : '');
      } else {
        if (response.status === 401 || response.status === 403) this.refused = token;
        this.show([]);
        this.say(wordsFor(response.status, token));
      }
    } catch {
      this.showAway();
      this.onaway();
    } finally {
      this.isAsking = false;
    }
    if (this.token() !== token) this.refresh();
  }

  // What was listed may be over.
  showAway() {
    this.isAnswered = false;
    this.show([]);
    this.say('The server does not answer. The list comes back by itself.');
  }

  say(text) {
    if (this.message.textContent !== text) this.message.textContent = text;
  }

  show(rooms) {
    this.rooms = rooms;
    const names = rooms.map(({ name }) => name);
    for (const [name, row] of this.rows) {
      if (names.includes(name)) continue;
      row.root.remove();
      this.rows.delete(name);
    }
    rooms.forEach((room, place) => {
      if (!this.rows.has(room.name)) this.rows.set(room.name, this.row(room.name));
      const row = this.rows.get(room.name);
      // An element that is moved loses the focus.
      if (this.list.children[place] !== row.root) this.list.insertBefore(row.root, this.list.children[place] ?? null);
      row.who.textContent = publishersOf(room);
      row.viewers.textContent = `${room.viewers} watching`;
    });
  }

  row(name) {
    const root = document.createElement('li');
    const title = document.createElement('b');
    const [who, viewers] = [document.createElement('span'), document.createElement('span')];
    const button = document.createElement('button');
    title.textContent = name;
    button.type = 'button';
    button.textContent = 'Watch';
    button.setAttribute('aria-label', `Watch ${name}`);
    button.addEventListener('click', () => this.onwatch(name));
    root.append(title, who, viewers, button);
    return { root, who, viewers };
  }
}

function wordsFor(status, token) {
  if (status === 401) return token ? 'The access token is refused.' : 'This server lists rooms to whoever has an access token.';
  if (status === 403) return 'The access token opens no list of rooms.';
  return `The list of rooms is not available (${status}).`;
}

function publishersOf({ publishers }) {
  const names = publishers.map(({ participant, tracks }) => {
    const codecs = tracks.map(({ codec }) => CODECS[codec] ?? codec).filter(Boolean).join(' + ');
    return codecs ? `${participant} (${codecs})` : participant;
  });
  return names.join(', ') || 'waiting for a publisher';
}
