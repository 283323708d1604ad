// Turns RTCPeerConnection statistics into the few figures that a person wants. Owns the differences between two
// readings; must never know the page. `app.js` shows what `read` returns.

export const CODECS = { vp8: 'VP8', vp9: 'VP9', h264: 'H.264', av1: 'AV1', opus: 'Opus' };

function codecOf(entry, report) {
  const name = report.get(entry.codecId)?.mimeType?.split('/')[1];
  return name && (CODECS[name.toLowerCase()] ?? name);
}

export class Figures {
  constructor() {
    this.before = null;
  }

  // Returns [[name, value], ...].
  async read(pc, direction) {
    const sums = { at: performance.now(), bytes: 0, packets: 0, lost: 0, frames: 0 };
    const shown = { codec: '', size: '', rtt: null, freezes: null };
    const report = await pc.getStats();
    for (const entry of report.values()) {
      if (entry.type === (direction === 'in' ? 'inbound-rtp' : 'outbound-rtp')) {
        sums.bytes += (direction === 'in' ? entry.bytesReceived : entry.bytesSent) ?? 0;
        sums.packets += (direction === 'in' ? entry.packetsReceived : entry.packetsSent) ?? 0;
        if (direction === 'in') sums.lost += entry.packetsLost ?? 0;
        if (entry.kind === 'video') {
          sums.frames += (direction === 'in' ? entry.framesDecoded : entry.framesEncoded) ?? 0;
          if (entry.frameWidth) shown.size = `${entry.frameWidth}×${entry.frameHeight}`;
          if (entry.freezeCount !== undefined) shown.freezes = entry.freezeCount;
          shown.codec = codecOf(entry, report) ?? shown.codec;
        } else if (!shown.codec) {
          shown.codec = codecOf(entry, report) ?? '';
        }
      } else if (entry.type === 'remote-inbound-rtp') {
        sums.lost += entry.packetsLost ?? 0;
        if (entry.roundTripTime !== undefined) shown.rtt = entry.roundTripTime * 1000;
      } else if (entry.type === 'candidate-pair' && entry.nominated && entry.currentRoundTripTime !== undefined) {
        shown.rtt ??= entry.currentRoundTripTime * 1000;
      }
    }
    const before = this.before;
    this.before = sums;
    const rows = [
      ['Bitrate', before ? bitrate(((sums.bytes - before.bytes) * 8) / (sums.at - before.at)) : '–'],
      ['Loss', before ? `${share(sums.lost - before.lost, sums.packets - before.packets)} %` : '–'],
      ['Round trip', shown.rtt === null ? '–' : `${shown.rtt.toFixed(0)} ms`],
      ['Codec', shown.codec || '–'],
      ['Picture', shown.size || '–'],
      ['Frames', before ? `${((1000 * (sums.frames - before.frames)) / (sums.at - before.at)).toFixed(0)} / s` : '–'],
    ];
    if (shown.freezes !== null) rows.push(['Freezes', String(shown.freezes)]);
    return rows;
  }
}

function bitrate(kbps) {
  return kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${kbps.toFixed(0)} kbit/s`;
}

// A late packet makes the count of lost ones fall again.
function share(lost, arrived) {
  const counted = Math.max(lost, 0);
  return arrived + counted > 0 ? ((100 * counted) / (arrived + counted)).toFixed(1) : '0.0';
}
