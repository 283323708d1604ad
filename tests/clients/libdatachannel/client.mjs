// One libdatachannel client, a WHIP publisher put together as OBS does it, or a WHEP viewer. It tells what happens as
// JSON lines on standard output, and must never know what a test expects or how the relay works.
// Read next: `rtp.mjs`; `client_process.py` in the folder above is the other end.
import { once } from 'node:events';
import http from 'node:http';
import { parseArgs } from 'node:util';
import ndc from 'node-datachannel';
import { readFrames } from './frames.mjs';
import { Counter, Packetizer, isRtcp, requests } from './rtp.mjs';

// The kernel chooses a worker by a connection's ports, so so many connections reach each.
const MAX_POSTS = 100;
const TELL_EVERY_MS = 100;
// A sender that stood still for longer goes on from now.
const MAX_LATE_MS = 200;
const PAYLOAD_TYPES = { H264: 96, VP8: 97, VP9: 98, opus: 111 };
const KINDS = {
  video: { every: 1000 / 30, clock: 90000, codecs: ['H264', 'VP8', 'VP9'] },
  audio: { every: 20, clock: 48000, codecs: ['opus'] },
};

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: 'string' }, // The WHIP or WHEP endpoint of a room.
    slot: { type: 'string' }, // Offer again until this worker takes it.
    video: { type: 'string' }, // An IVF or H264 Annex B file: sent, or what is expected.
    audio: { type: 'string' }, // An Ogg file of Opus with one packet a page: sent, or what is expected.
    fmtp: { type: 'string' }, // H264's format parameters instead of the library's.
  },
});

const say = (event, values) => process.stdout.write(`${JSON.stringify({ event, ...values })}\n`);

async function request(method, url, type, body) {
  // A connection of its own for each request: so a request may reach any worker.
  const asked = http.request(url, { method, agent: false, headers: type ? { 'Content-Type': type } : {} });
  asked.end(body);
  const [answer] = await once(asked, 'response');
  let text = '';
  for await (const chunk of answer) text += chunk;
  return { status: answer.statusCode, headers: answer.headers, text };
}

async function post(offer) {
  for (let tries = 0; tries < MAX_POSTS; tries += 1) {
    const { status, headers, text } = await request('POST', options.url, 'application/sdp', offer);
    if (status !== 201) throw new Error(`POST: ${status} ${text}`);
    const session = new URL(headers.location, options.url);
    const slot = parseInt(session.pathname.split('/').at(-1).slice(0, 2), 16);
    if (options.slot === undefined || slot === Number(options.slot)) return { session, answer: text };
    await request('DELETE', session);
  }
  throw new Error(`no POST of ${MAX_POSTS} went to worker ${options.slot}`);
}

function describe(kind, codecs, direction) {
  const media = kind === 'video' ? new ndc.Video('0', direction) : new ndc.Audio('1', direction);
  for (const codec of codecs) {
    const payloadType = PAYLOAD_TYPES[codec];
    if (codec === 'opus') media.addOpusCodec(payloadType);
    else if (codec === 'H264' && options.fmtp !== undefined) media.addH264Codec(payloadType, options.fmtp);
    else media[`add${codec}Codec`](payloadType);
  }
  return media;
}

function publish(connection, kind) {
  const { codec, frames } = readFrames(options[kind]);
  const { every, clock } = KINDS[kind];
  const media = describe(kind, [codec], 'SendOnly');
  const ssrc = Math.floor(Math.random() * 0xffffffff) + 1;
  media.addSSRC(ssrc, 'libdatachannel', 'libdatachannel', `libdatachannel-${kind}`);
  const track = connection.addTrack(media);
  const config = new ndc.RtpPacketizationConfig(ssrc, 'libdatachannel', PAYLOAD_TYPES[codec], clock);
  const own = codec === 'VP8' || codec === 'VP9' ? new Packetizer(codec, ssrc, PAYLOAD_TYPES[codec]) : null;
  const chain = [new ndc.RtcpSrReporter(config), new ndc.RtcpNackResponder()];
  if (codec === 'H264') chain.unshift(new ndc.H264RtpPacketizer('StartSequence', config, 1200));
  if (codec === 'opus') chain.unshift(new ndc.RtpPacketizer(config));
  chain.slice(1).forEach((handler) => chain[0].addToChain(handler));
  track.setMediaHandler(chain[0]);
  const asked = { keyFrames: 0, repairs: 0 };
  let [next, sent, toldAt, due] = [0, 0, 0, performance.now()];
  track.onMessage((message) => {
    if (!isRtcp(message)) return;
    const { keyFrames, repairs } = requests(message);
    asked.keyFrames += keyFrames;
    asked.repairs += repairs;
    // Only the file's first frame is a key frame.
    if (keyFrames > 0) next = 0;
  });
  const send = () => {
    const now = performance.now();
    if (now - due > MAX_LATE_MS) due = now;
    due += every;
    setTimeout(send, due - now);
    if (!track.isOpen()) return;
    config.timestamp = Math.round((sent * every * clock) / 1000) >>> 0;
    const frame = frames[next];
    const packets = own ? own.packets(frame, config.timestamp) : [frame];
    packets.forEach((packet) => track.sendMessageBinary(packet));
    next = (next + 1) % frames.length;
    sent += 1;
    if (now - toldAt < TELL_EVERY_MS) return;
    toldAt = now;
    say('sent', { kind, frames: sent, key_frame_requests: asked.keyFrames, repairs_asked: asked.repairs });
  };
  send();
  return track;
}

function watch(connection, kind) {
  const expected = new Set(readFrames(options[kind]).frames.map((frame) => frame.toString('latin1')));
  const track = connection.addTrack(describe(kind, KINDS[kind].codecs, 'RecvOnly'));
  track.setMediaHandler(new ndc.RtcpReceivingSession());
  let [counter, toldAt] = [null, 0];
  track.onMessage((message) => {
    if (isRtcp(message)) return;
    if (counter === null) {
      const codec = KINDS[kind].codecs.find((name) => PAYLOAD_TYPES[name] === (message[1] & 0x7f));
      counter = new Counter(codec, expected);
      say('track', { kind, codec: `${kind}/${codec}` });
      // As a decoder does that begins.
      if (kind === 'video') track.requestKeyframe();
    }
    counter.take(message);
    if (performance.now() - toldAt < TELL_EVERY_MS) return;
    toldAt = performance.now();
    say('received', {
      kind, codec: `${kind}/${counter.codec}`, packets: counter.packets, frames: counter.frames,
      key_frames: counter.keyFrames, like_file: counter.like, missing: counter.missing.size,
    });
  });
  return track;
}

const connection = new ndc.PeerConnection('client', { iceServers: [] });
let [session, isEnding] = [null, false];

async function end(status) {
  if (isEnding) return;
  isEnding = true;
  if (session !== null) {
    const { status: answered, text } = await request('DELETE', session);
    say('ended', { status: answered, body: text });
  }
  connection.close();
  ndc.cleanup();
  process.exit(status);
}

function fail(error) {
  if (isEnding) return undefined;
  say('failed', { error: String(error.message ?? error) });
  return end(1);
}

for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => end(0));
try {
  const gathered = new Promise((resolve) => {
    connection.onGatheringStateChange((state) => state === 'complete' && resolve());
  });
  connection.onStateChange((state) => {
    say('state', { state });
    if (state === 'connected') say('connected', {});
    if (state === 'failed' || state === 'closed') fail(new Error(`the connection is ${state}`));
  });
  const add = { publish, watch }[positionals[0]];
  if (!add) throw new Error('usage: client.mjs [options] publish|watch');
  // Kept: a track that is collected is closed.
  globalThis.tracks = Object.keys(KINDS).filter((kind) => options[kind]).map((kind) => add(connection, kind));
  connection.setLocalDescription('offer');
  await gathered;
  const offer = connection.localDescription().sdp;
  const answered = await post(offer);
  session = answered.session;
  say('answered', { session: String(session), offer, answer: answered.answer });
  connection.setRemoteDescription(answered.answer, 'answer');
} catch (error) {
  await fail(error);
}
