// The page: two panels (publish, watch) and the list of rooms. Owns the elements; must never know SDP or HTTP.
// `session.js` keeps a connection alive, `media.js` captures, `figures.js` measures.
import { CODECS, Figures } from './figures.js';
import { capture, release } from './media.js';
import { Refused, Session } from './session.js';

const token = document.getElementById('token');
token.value = sessionStorage.getItem('token') ?? '';
token.addEventListener('change', () => {
  sessionStorage.setItem('token', token.value.trim());
  listRooms();
});

const WORDS = { connecting: 'Connecting …', waiting: 'Nobody is sending right now. The picture comes by itself.', retrying: 'Connecting again …' };
// On the stage while there is no picture.
const IDLE = { connecting: 'Connecting …', connected: 'Sound only', waiting: 'Waiting for a publisher …', retrying: 'Connecting again …' };
const BADGES = { connecting: 'connecting', connected: 'live', waiting: 'waiting', retrying: 'reconnecting' };

class Panel {
  constructor(name, direction) {
    this.root = document.getElementById(name);
    this.direction = direction;
    this.form = this.root.querySelector('form');
    this.button = this.form.querySelector('button');
    this.startWord = this.button.textContent;
    this.video = this.root.querySelector('video');
    this.stage = this.root.querySelector('.stage');
    this.idle = this.root.querySelector('.idle');
    this.idleWord = this.idle.textContent;
    this.badge = this.root.querySelector('.badge');
    this.message = this.root.querySelector('.message');
    this.list = this.root.querySelector('.figures');
    this.session = null;
    // What a person should know for as long as all is well, and what `notice` said last.
    this.note = '';
    this.noticed = '';
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.session) this.stop();
      else this.start();
    });
  }

  async start() {
    if (!this.form.reportValidity()) {
      this.say('A room\u2019s name has only letters, digits and _ . -', true);
      return;
    }
    this.say('');
    this.note = '';
    this.noticed = '';
    this.button.disabled = true;
    try {
      const session = await this.open(new FormData(this.form));
      this.session = session;
      this.figures = new Figures();
      this.measuring = setInterval(() => this.measure(), 1000);
      this.button.textContent = 'Stop';
      this.button.classList.add('stop');
      session.start();
    } catch (error) {
      this.say(error.message, true);
    } finally {
      this.button.disabled = false;
    }
  }

  stop() {
    this.session?.stop();
  }

  handleState(state, detail, status) {
    if (status === 401) {
      detail = token.value.trim() ? `The access token is refused: ${detail}` : 'This server asks for an access token. Paste it above.';
    }
    if (status === 401 || status === 403) document.querySelector('.access').open = true;
    this.root.dataset.state = state;
    this.idle.textContent = IDLE[state] ?? this.idleWord;
    this.badge.hidden = !(state in BADGES);
    this.badge.textContent = BADGES[state] ?? '';
    this.badge.classList.toggle('connected', state === 'connected');
    const words = state === 'connected' ? this.note : WORDS[state];
    this.say(state === 'failed' ? detail : [detail, words].filter(Boolean).join(' '), state === 'failed');
    if (state === 'ended' || state === 'failed') this.reset();
  }

  reset() {
    clearInterval(this.measuring);
    this.session = null;
    this.list.hidden = true;
    this.button.textContent = this.startWord;
    this.button.classList.remove('stop');
    this.stage.classList.remove('live');
    this.video.srcObject = null;
    this.ended?.();
  }

  async measure() {
    const session = this.session;
    if (session?.pc?.connectionState !== 'connected') return;
    const rows = await this.figures.read(session.pc, this.direction);
    const notice = this.notice?.() ?? '';
    if (notice !== this.noticed) this.say(notice || this.note, Boolean(notice));
    this.noticed = notice;
    this.list.hidden = false;
    this.list.replaceChildren(...rows.flatMap(([name, value]) => {
      const term = document.createElement('dt');
      const figure = document.createElement('dd');
      term.textContent = name;
      figure.textContent = value;
      const pair = document.createElement('div');
      pair.append(term, figure);
      return pair;
    }));
  }

  say(text, isError = false) {
    this.message.textContent = text;
    this.message.classList.toggle('error', isError);
  }
}

const publish = new Panel('publish', 'out');
publish.open = async function open(fields) {
  const { stream, note } = await capture(fields.get('source'));
  this.note = note;
  this.ended = () => release(stream);
  stream.getVideoTracks()[0]?.addEventListener('ended', () => this.stop());
  this.video.srcObject = stream;
  this.stage.classList.add('live');
  return new Session({
    url: `whip/${encodeURIComponent(fields.get('room'))}`,
    token: token.value.trim(),
    prepare: (pc) => {
      for (const track of stream.getTracks()) {
        const transceiver = pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
        if (track.kind === 'video') preferCodec(transceiver, fields.get('codec'));
      }
    },
    onstate: (...state) => this.handleState(...state),
  });
};

const watch = new Panel('watch', 'in');
watch.open = async function open(fields) {
  const participant = fields.get('participant').trim();
  const query = participant ? `?participant=${encodeURIComponent(participant)}` : '';
  return new Session({
    url: `whep/${encodeURIComponent(fields.get('room'))}${query}`,
    token: token.value.trim(),
    prepare: (pc) => {
      this.video.srcObject = new MediaStream();
      pc.addTransceiver('video', { direction: 'recvonly' });
      pc.addTransceiver('audio', { direction: 'recvonly' });
    },
    ontrack: (event) => {
      event.track.addEventListener('unmute', () => {
        // With the first packet and not before: an element is silent while a picture of its stream is missing. And as a new
        // stream: Chromium does not notice the first track of an empty one when it is sound.
        const tracks = this.video.srcObject.getTracks();
        if (!tracks.includes(event.track)) this.video.srcObject = new MediaStream([...tracks, event.track]);
        if (event.track.kind === 'video') this.stage.classList.add('live');
        this.video.play().catch((error) => {
          // The next track's coming ended it, and plays again.
          if (error.name !== 'NotAllowedError') return;
          // A browser lets a page begin with sound only after a click; the picture may start at once.
          this.video.muted = true;
          this.video.play().catch(() => {});
          this.note = 'The sound is off until you turn it on in the picture.';
          this.say(this.note);
        });
      });
    },
    onstate: (...state) => this.handleState(...state),
  });
};

// Black would say nothing: the picture's codec may be one that this browser did not take.
watch.notice = () => {
  const video = watch.session?.pc.getTransceivers().find(({ receiver }) => receiver.track.kind === 'video');
  // A refused m-line is forgotten by some browsers; the first of a bundle stays and is inactive.
  const isRefused = !video || ['stopped', 'inactive'].includes(video.currentDirection);
  const taken = isRefused ? [] : video.receiver.getParameters().codecs?.map(({ mimeType }) => mimeType.slice(6).toLowerCase());
  const sent = sentCodec(watch.form.room.value, watch.form.participant.value.trim());
  if (!isRefused && (!sent || !taken?.length || taken.includes(sent))) return '';
  return `This browser cannot play the publisher\u2019s picture${sent ? `, which is ${CODECS[sent] ?? sent}` : ''}.`;
};

function sentCodec(name, participant) {
  const publishers = listed.find((room) => room.name === name)?.publishers ?? [];
  const publisher = participant ? publishers.find((one) => one.participant === participant) : publishers[0];
  return publisher?.tracks.find(({ kind }) => kind === 'video')?.codec;
}

function preferCodec(transceiver, mimeType) {
  if (!mimeType || !transceiver.setCodecPreferences) return;
  const codecs = RTCRtpSender.getCapabilities('video').codecs;
  const first = codecs.filter((codec) => codec.mimeType === mimeType);
  if (first.length === 0) throw new Refused(422, `This browser cannot send ${mimeType.split('/')[1]}.`);
  transceiver.setCodecPreferences([...first, ...codecs.filter((codec) => codec.mimeType !== mimeType)]);
}

const rooms = document.getElementById('rooms');
let listed = [];

async function listRooms() {
  const message = rooms.querySelector('.message');
  try {
    const headers = token.value.trim() ? { Authorization: `Bearer ${token.value.trim()}` } : {};
    const response = await fetch('rooms', { headers });
    if (!response.ok) {
      message.textContent = response.status === 401 || response.status === 403
        ? 'The room of your access token is listed here.'
        : `The list of rooms is not available (${response.status}).`;
      rooms.querySelector('ul').replaceChildren();
      return;
    }
    listed = await response.json();
  } catch {
    message.textContent = 'The server does not answer.';
    return;
  }
  message.textContent = listed.length === 0 ? 'Nobody is here yet. Publish something!' : '';
  rooms.querySelector('ul').replaceChildren(...listed.map(roomRow));
}

function roomRow(room) {
  const row = document.createElement('li');
  const name = document.createElement('b');
  name.textContent = room.name;
  const who = document.createElement('span');
  const names = room.publishers.map((publisher) => {
    const codecs = publisher.tracks.map(({ codec }) => CODECS[codec] ?? codec).filter(Boolean).join(' + ');
    return codecs ? `${publisher.participant} (${codecs})` : publisher.participant;
  });
  who.textContent = names.length ? names.join(', ') : 'waiting for a publisher';
  const viewers = document.createElement('span');
  viewers.textContent = `${room.viewers} watching`;
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Watch';
  button.addEventListener('click', () => {
    watch.stop();
    watch.form.room.value = room.name;
    watch.form.participant.value = '';
    watch.start();
    watch.root.scrollIntoView({ behavior: 'smooth' });
  });
  row.append(name, who, viewers, button);
  return row;
}

const base = new URL('.', location.href).href;
document.getElementById('obs-url').textContent = `${base}whip/demo`;
document.getElementById('ffmpeg-command').textContent =
  `ffmpeg -re -i movie.mp4 -c:v libx264 -profile:v baseline -pix_fmt yuv420p -tune zerolatency -g 60 -c:a libopus -ac 2 -f whip ${base}whip/demo`;

listRooms();
setInterval(() => { if (!document.hidden) listRooms(); }, 2000);
addEventListener('pagehide', () => { publish.stop(); watch.stop(); });

// `/?watch=demo` and `/?publish=demo&source=test&codec=video/VP8` start by themselves, for links and for screens on a wall.
const query = new URLSearchParams(location.search);
for (const [panel, name] of [[publish, 'publish'], [watch, 'watch']]) {
  if (!query.has(name)) continue;
  panel.form.room.value = query.get(name);
  for (const field of ['source', 'codec', 'participant']) {
    if (panel.form[field] && query.has(field)) panel.form[field].value = query.get(field);
  }
  panel.start();
}

// For the curious, and for tests: the live sessions under one name.
globalThis.millrace = { publish, watch };
