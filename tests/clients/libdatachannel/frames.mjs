// What lies in the files: whole frames, as they are sent and as they are looked for among what is received. It must
// never know of RTP. Read next: `client.mjs`.
import { readFileSync } from 'node:fs';

const FOUR_CC = { VP80: 'VP8', VP90: 'VP9' };
const IVF_HEADER_BYTES = 32;
const IVF_FRAME_HEADER_BYTES = 12;
const OGG_HEADER_BYTES = 27;
export const START_CODE = Buffer.from([0, 0, 0, 1]);
const [SEI, DELIMITER] = [6, 9];

// The file's codec and its frames; H264's are Annex B with four-byte start codes, without delimiters and SEI.
export function readFrames(path) {
  const content = readFileSync(path);
  if (path.endsWith('.ogg')) return { codec: 'opus', frames: readOgg(content) };
  if (path.endsWith('.h264')) return { codec: 'H264', frames: readAnnexB(content) };
  return { codec: FOUR_CC[content.toString('latin1', 8, 12)], frames: readIvf(content) };
}

function readIvf(content) {
  const frames = [];
  for (let at = IVF_HEADER_BYTES; at < content.length;) {
    const size = content.readUInt32LE(at);
    at += IVF_FRAME_HEADER_BYTES;
    frames.push(content.subarray(at, at + size));
    at += size;
  }
  return frames;
}

// One packet a page (RFC 3533 section 6); the first two pages are OpusHead and OpusTags (RFC 7845).
function readOgg(content) {
  const pages = [];
  for (let at = 0; at < content.length;) {
    const segments = content[at + OGG_HEADER_BYTES - 1];
    const begin = at + OGG_HEADER_BYTES + segments;
    const sizes = content.subarray(at + OGG_HEADER_BYTES, begin);
    at = begin + sizes.reduce((sum, size) => sum + size, 0);
    pages.push(content.subarray(begin, at));
  }
  return pages.slice(2);
}

function readAnnexB(content) {
  const frames = [];
  for (const unit of units(content)) {
    const type = unit[0] & 0x1f;
    // Each picture begins with a delimiter, which nobody sends.
    if (type === DELIMITER) frames.push([]);
    else if (type !== SEI) frames.at(-1).push(START_CODE, unit);
  }
  return frames.map((parts) => Buffer.concat(parts));
}

// The NAL units between start codes of three or four bytes.
export function* units(content) {
  const code = START_CODE.subarray(1);
  for (let at = content.indexOf(code); at >= 0;) {
    const begin = at + code.length;
    at = content.indexOf(code, begin);
    const end = at < 0 ? content.length : at - (content[at - 1] === 0 ? 1 : 0);
    yield content.subarray(begin, end);
  }
}
