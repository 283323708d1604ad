// The page: two panels (publish, watch) and what is around them. Owns the elements; must never know SDP or HTTP.
// `session.js` keeps a connection alive, `media.js` captures, `figures.js` measures, `rooms.js` lists, `share.js` has links.
import { keepToken, takeLink } from './access.js';
import { CODECS, Figures } from './figures.js';
import { capture, release } from './media.js';
import { publisherName } from './name.js';
import { RoomList } from './rooms.js';
import { Refused, Session } from './session.js';
import { base, copy, ffmpegCommand, frameLine, tokenCommand, watchLink, whipUrl } from './share.js';
import { viewerOf, whepUrl } from './viewer.js';

const field = document.getElementById('token');
const token = () => field.value.trim();
const ROOM_RULE = 'A room\u2019s name is 1 to 256 characters, none a control, and not . or ..';

const WORDS = { connecting: 'Connecting …', waiting: 'Nobody is sending right now. The picture comes by itself.', away: 'The server does not answer. It is asked again and again.', retrying: 'Connecting again …' };
// On the stage while there is no picture.
const IDLE = { connecting: 'Connecting …', connected: 'Sound only', waiting: 'Waiting for a publisher …', away: 'The server does not answer.', retrying: 'Connecting again …' };
const BADGES = { connecting: 'connecting', connected: 'live', waiting: 'waiting', away: 'server away', retrying: 'reconnecting' };

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
    const { room } = this.form;
    room.value = room.value.trim();
    room.setCustomValidity('');
    // The sentence in the browser's own words would show the pattern.
    if (!room.validity.valid) room.setCustomValidity(ROOM_RULE);
    if (!this.form.reportValidity()) {
      this.say(ROOM_RULE, true);
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
      detail = token() ? `The access token is refused: ${detail}` : 'This server asks for an access token. Paste it above.';
    }
    if (status === 401 || status === 403) document.querySelector('.access').open = true;
    this.root.dataset.state = state;
    if (state === 'away') list.showAway();
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
    // A screen reader says again what is set again.
    if (this.message.textContent !== text) this.message.textContent = text;
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
  const name = token() ? null : await publisherName();
  return new Session({
    url: whipUrl(fields.get('room')) + (name ? `?participant=${encodeURIComponent(name)}` : ''),
    token: token(),
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
  return viewerOf({
    video: this.video,
    url: whepUrl(base, fields.get('room'), fields.get('participant').trim()),
    token: token(),
    onpicture: () => this.stage.classList.add('live'),
    onmuted: () => {
      this.note = 'The sound is off until you turn it on in the picture.';
      this.say(this.note);
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
  const publishers = list.rooms.find((room) => room.name === name)?.publishers ?? [];
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

const list = new RoomList(document.getElementById('rooms'), {
  token,
  onwatch(room) {
    watch.stop();
    watch.form.room.value = room;
    watch.form.participant.value = '';
    watch.start();
    hint();
    watch.root.scrollIntoView({ behavior: 'smooth' });
  },
  onaway: () => [publish, watch].forEach(({ session }) => session?.look()),
});

// What can be typed elsewhere, for the room and the token that stand in the page.
function hint() {
  const [sent, watched] = [publish, watch].map(({ form }) => form.room.value.trim() || 'demo');
  document.getElementById('obs-url').textContent = whipUrl(sent);
  document.getElementById('obs-token').textContent = token() ? ', bearer token as above' : '';
  document.getElementById('ffmpeg-command').textContent = ffmpegCommand(sent, token());
  document.getElementById('frame-line').textContent = frameLine(watched);
  document.getElementById('token-command').textContent = tokenCommand(sent);
}

async function share(button, room) {
  const said = button.closest('.share').querySelector('.said');
  const { link, note } = await watchLink(room, token());
  const isCopied = link && await copy(link);
  said.textContent = link && !isCopied ? `Copy this link: ${link}` : note;
  said.classList.toggle('error', !link);
}

for (const panel of [publish, watch]) {
  const button = panel.root.querySelector('.share button');
  button.addEventListener('click', () => share(button, panel.form.room.value.trim()));
  panel.form.addEventListener('input', hint);
}
document.querySelectorAll('button[data-copies]').forEach((button) => {
  button.addEventListener('click', async () => {
    const text = document.getElementById(button.dataset.copies);
    const word = button.textContent;
    if (await copy(text.textContent)) button.textContent = 'Copied';
    else getSelection().selectAllChildren(text);
    setTimeout(() => { button.textContent = word; }, 2000);
  });
});

function useToken() {
  keepToken(token());
  hint();
  list.refresh();
}

function useLink() {
  const link = takeLink();
  if (link.token) field.value = link.token;
  if (link.room) [publish, watch].forEach(({ form }) => { form.room.value = link.room; });
}

field.addEventListener('change', useToken);
addEventListener('hashchange', () => { useLink(); useToken(); });
useLink();
hint();
list.start();
addEventListener('pagehide', () => { publish.stop(); watch.stop(); });

// `/?watch=demo` and `/?publish=demo&source=test&codec=video/VP8` start by themselves, for links and for screens on a wall.
const query = new URLSearchParams(location.search);
for (const [panel, name] of [[publish, 'publish'], [watch, 'watch']]) {
  if (!query.has(name)) continue;
  panel.form.room.value = query.get(name);
  hint();
  for (const key of ['source', 'codec', 'participant']) {
    if (panel.form[key] && query.has(key)) panel.form[key].value = query.get(key);
  }
  panel.start();
}

// For the curious, and for tests: the live sessions under one name.
globalThis.millrace = { publish, watch, list };
