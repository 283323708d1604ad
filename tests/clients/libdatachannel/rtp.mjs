// Payload formats of what libdatachannel has no packetizer for here (VP8, RFC 7741; VP9, RFC 9628), how frames come out
// of packets again (H264 too, RFC 6184), and what RTCP asks of a sender. It must never know of sessions or files.
// Read next: `client.mjs`.
import { START_CODE, units } from './frames.mjs';

const HEADER_BYTES = 12;
// As much as libdatachannel's own packetizers put into one packet.
const MAX_PAYLOAD_BYTES = 1200;
const [IDR, SPS, STAP_A, FU_A] = [5, 7, 24, 28];
const [FEEDBACK_TRANSPORT, FEEDBACK_PAYLOAD] = [205, 206];
const [NACK, PLI, FIR] = [1, 1, 4];

// Makes the packets of one stream; sequence numbers go on from frame to frame.
export class Packetizer {
  constructor(codec, ssrc, payloadType) {
    Object.assign(this, { codec, ssrc, payloadType, sequence: Math.floor(Math.random() * 0x8000), picture: 0 });
  }

  packets(frame, timestamp) {
    const parts = [];
    for (let at = 0; at < frame.length; at += MAX_PAYLOAD_BYTES) parts.push(frame.subarray(at, at + MAX_PAYLOAD_BYTES));
    this.picture = (this.picture + 1) & 0x7fff;
    const isKey = isKeyFrame(this.codec, frame);
    return parts.map((part, index) => {
      const [isFirst, isLast] = [index === 0, index === parts.length - 1];
      const header = Buffer.alloc(HEADER_BYTES);
      header[0] = 0x80;
      header[1] = this.payloadType | (isLast ? 0x80 : 0);
      header.writeUInt16BE(this.sequence, 2);
      header.writeUInt32BE(timestamp, 4);
      header.writeUInt32BE(this.ssrc, 8);
      this.sequence = (this.sequence + 1) & 0xffff;
      return Buffer.concat([header, this.descriptor(isFirst, isLast, isKey), part]);
    });
  }

  descriptor(isFirst, isLast, isKey) {
    const picture = [0x80 | (this.picture >> 8), this.picture & 0xff];
    // X, S; I.
    if (this.codec === 'VP8') return Buffer.from([0x80 | (isFirst ? 0x10 : 0), 0x80, ...picture]);
    // I, P, B, E; a key frame's first packet has V and a structure of one layer without sizes.
    const first = 0x80 | (isKey ? 0 : 0x40) | (isFirst ? 0x08 : 0) | (isLast ? 0x04 : 0) | (isKey && isFirst ? 0x02 : 0);
    return Buffer.from([first, ...picture, ...(isKey && isFirst ? [0] : [])]);
  }
}

// Takes the packets of one stream in the order in which they come, and counts.
export class Counter {
  constructor(codec, expected) {
    Object.assign(this, { codec, expected, packets: 0, frames: 0, keyFrames: 0, like: 0 });
    this.missing = new Set();
    this.highest = null;
    this.begin(false);
  }

  begin(isWhole) {
    this.parts = [];
    this.isWhole = isWhole;
  }

  // Frames are whole only if their packets come in order; a repair that comes late closes a gap all the same.
  take(packet) {
    this.packets += 1;
    const sequence = packet.readUInt16BE(2);
    const ahead = this.highest === null ? 1 : (sequence - this.highest) & 0xffff;
    if (ahead === 0 || ahead >= 0x8000) {
      this.missing.delete(sequence);
      return;
    }
    for (let number = 1; number < ahead; number += 1) this.missing.add((this.highest + number) & 0xffff);
    if (ahead > 1) this.isWhole = false;
    const isFirst = this.highest === null;
    this.highest = sequence;
    const payload = payloadOf(packet);
    if (payload.length === 0) return;
    const { begins, part } = depacketize(this.codec, payload);
    // H264 says where a unit begins, not a picture: behind a gap, parameter sets of the picture may be missing.
    const tellsPictures = this.codec !== 'H264' || (isFirst && beginsWithParameterSets(payload));
    if (begins && tellsPictures && this.parts.length === 0) this.isWhole = true;
    this.parts.push(...part);
    if (!(packet[1] & 0x80) && this.codec !== 'opus') return;
    if (this.isWhole) {
      const frame = Buffer.concat(this.parts);
      this.frames += 1;
      if (this.expected.has(frame.toString('latin1'))) this.like += 1;
      if (isKeyFrame(this.codec, frame)) this.keyFrames += 1;
    }
    this.begin(true);
  }
}

function payloadOf(packet) {
  let at = HEADER_BYTES + 4 * (packet[0] & 0x0f);
  if (packet[0] & 0x10) at += 4 + 4 * packet.readUInt16BE(at + 2);
  const end = packet[0] & 0x20 ? packet.length - packet.at(-1) : packet.length;
  return packet.subarray(at, end);
}

function depacketize(codec, payload) {
  if (codec === 'VP8') return { begins: (payload[0] & 0x17) === 0x10, part: [payload.subarray(vp8Bytes(payload))] };
  if (codec === 'VP9') return { begins: (payload[0] & 0x08) !== 0, part: [payload.subarray(vp9Bytes(payload))] };
  if (codec === 'H264') return depacketizeH264(payload);
  return { begins: true, part: [payload] };
}

function vp8Bytes(payload) {
  if (!(payload[0] & 0x80)) return 1;
  let at = 2;
  if (payload[1] & 0x80) at += payload[at] & 0x80 ? 2 : 1;
  if (payload[1] & 0x40) at += 1;
  if (payload[1] & 0x30) at += 1;
  return at;
}

function vp9Bytes(payload) {
  let at = 1;
  if (payload[0] & 0x80) at += payload[at] & 0x80 ? 2 : 1;
  const isFlexible = payload[0] & 0x10;
  if (payload[0] & 0x20) at += isFlexible ? 1 : 2;
  if (isFlexible && payload[0] & 0x40) while (payload[at++] & 0x01);
  if (!(payload[0] & 0x02)) return at;
  const structure = payload[at++];
  if (structure & 0x10) at += 4 * ((structure >> 5) + 1);
  if (structure & 0x08) {
    for (let pictures = payload[at++]; pictures > 0; pictures -= 1) at += 1 + ((payload[at] >> 2) & 0x03);
  }
  return at;
}

function depacketizeH264(payload) {
  const type = payload[0] & 0x1f;
  if (type === FU_A) {
    const begins = (payload[1] & 0x80) !== 0;
    const head = begins ? [START_CODE, Buffer.from([(payload[0] & 0xe0) | (payload[1] & 0x1f)])] : [];
    return { begins, part: [...head, payload.subarray(2)] };
  }
  if (type !== STAP_A) return { begins: true, part: [START_CODE, payload] };
  const part = [];
  for (let at = 1; at + 2 < payload.length;) {
    const size = payload.readUInt16BE(at);
    part.push(START_CODE, payload.subarray(at + 2, at + 2 + size));
    at += 2 + size;
  }
  return { begins: true, part };
}

function beginsWithParameterSets(payload) {
  const type = payload[0] & 0x1f;
  return ((type === STAP_A ? payload[3] : type) & 0x1f) === SPS;
}

// Told from a whole frame: RFC 6386 section 9.1, the VP9 bitstream specification section 6.2 for profiles 0 to 2, and
// an IDR slice for H264.
function isKeyFrame(codec, frame) {
  if (codec === 'VP8') return (frame[0] & 0x01) === 0;
  if (codec === 'VP9') return (frame[0] & 0x0c) === 0;
  return codec === 'H264' && [...units(frame)].some((unit) => (unit[0] & 0x1f) === IDR);
}

export const isRtcp = (packet) => packet[1] >= 192 && packet[1] < 224;

// How many key frames and how many repairs a compound RTCP packet asks for (RFC 4585 section 6, RFC 5104).
export function requests(compound) {
  const found = { keyFrames: 0, repairs: 0 };
  for (let at = 0; at + 4 <= compound.length;) {
    const [format, type] = [compound[at] & 0x1f, compound[at + 1]];
    const end = at + 4 + 4 * compound.readUInt16BE(at + 2);
    if (type === FEEDBACK_PAYLOAD && (format === PLI || format === FIR)) found.keyFrames += 1;
    if (type === FEEDBACK_TRANSPORT && format === NACK) {
      for (let pair = at + 12; pair + 4 <= end; pair += 4) {
        found.repairs += 1 + compound.readUInt16BE(pair + 2).toString(2).replaceAll('0', '').length;
      }
    }
    at = end;
  }
  return found;
}
