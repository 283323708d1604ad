// The player of one room at `/watch/{room}`, alone or in another site's frame. Owns its elements; must never know SDP or
// HTTP. `viewer.js` plays, `access.js` has the token of the link.
import { takeLink } from './access.js';
import { viewerOf, whepUrl } from './viewer.js';

const WORDS = {
  connecting: 'Connecting …',
  connected: '',
  waiting: 'Nobody is sending right now. The picture comes by itself.',
  away: 'The server does not answer. The picture comes back by itself.',
  retrying: 'Connecting again …',
  ended: '',
};

const base = new URL('.', import.meta.url).href;
const place = document.querySelector('main');
const video = document.querySelector('video');
const message = document.querySelector('.message');
const unmute = document.querySelector('button');
const room = roomOf(location.pathname);
document.title = `${room} · Millrace`;
document.querySelector('h1').textContent = room;

function roomOf(path) {
  try {
    return decodeURIComponent(path.split('/').pop());
  } catch {
    return path.split('/').pop();
  }
}

function show(state, detail, status) {
  place.dataset.state = state;
  if (status === 401) {
    detail = token ? `This link no longer opens the room: ${detail}` : 'This room needs a link with an access token. Ask whoever publishes for one.';
  }
  message.textContent = state === 'failed' ? detail : [detail, WORDS[state]].filter(Boolean).join(' ');
  if (state === 'connected' && !place.classList.contains('live')) message.textContent = 'Sound only';
  place.classList.toggle('heard', state === 'connected');
  if (state === 'failed') {
    place.classList.remove('live');
    video.srcObject = null;
  }
}

unmute.addEventListener('click', () => {
  video.muted = false;
  video.play().catch(() => {});
});
video.addEventListener('volumechange', () => { if (!video.muted) unmute.hidden = true; });

let { token } = takeLink();
let session = null;

function start() {
  session?.stop();
  session = viewerOf({
    video,
    url: whepUrl(base, room, new URLSearchParams(location.search).get('participant') ?? ''),
    token,
    onpicture: () => {
      place.classList.add('live');
      if (place.dataset.state === 'connected') message.textContent = '';
    },
    onmuted: () => { unmute.hidden = false; },
    onstate: show,
  });
  session.start();
  // For tests, and for whoever looks into the console.
  globalThis.millrace = { session, video };
}

start();
// A link that is opened in the tab of another one changes the fragment alone.
addEventListener('hashchange', () => {
  ({ token } = takeLink());
  start();
});
addEventListener('pagehide', () => session.stop());
// Back from the browser's cache of pages.
addEventListener('pageshow', (event) => { if (event.persisted) start(); });
