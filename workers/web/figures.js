// Turns RTCPeerConnection statistics into the few figures that a person wants. Owns the differences between two
// readings; must never know the page. `app.js` shows what `read` returns.

export class Figures {
  constructor() {
    this.before = null;
  }

  // Returns { bytes, rows: [[name, value], ...] }; bytes is what should move while media flows.
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
          shown.codec = report.get(entry.codecId)?.mimeType?.split('/')[1] ?? shown.codec;
        } else if (!shown.codec) {
          shown.codec = report.get(entry.codecId)?.mimeType?.split('/')[1] ?? '';
        }
      } else if (entry.type === 'remote-inbound-rtp') {
        sums.lost += entry.packetsLost ?? 0;
        if (entry.roundTripTime !== undefined) shown.rtt = entry.roundTripTime * 1000;
      } else if (entry.type === 'candidate-pair' && entry.nominated && entry.currentRoundTripTime !== undefined) {
        shown.rtt ??= entry.currentRoundTripTime * 1000;
      } else if (entry.type === 'transport') {
        sums.received = entry.bytesReceived;
      }
    }
    const before = this.before ?? sums;
    this.before = sums;
    const seconds = Math.max((sums.at - before.at) / 1000, 0.001);
    const kbps = ((sums.bytes - before.bytes) * 8) / 1000 / seconds;
    const packets = sums.packets - before.packets;
    const lost = Math.max(sums.lost - before.lost, 0);
    const fps = (sums.frames - before.frames) / seconds;
    const rows = [
      ['Bitrate', kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${kbps.toFixed(0)} kbit/s`],
      ['Loss', `${packets + lost > 0 ? ((100 * lost) / (packets + lost)).toFixed(1) : '0.0'} %`],
      ['Round trip', shown.rtt === null ? '–' : `${shown.rtt.toFixed(0)} ms`],
      ['Codec', shown.codec || '–'],
      ['Picture', shown.size ? `${shown.size} at ${fps.toFixed(0)}` : '–'],
    ];
    if (shown.freezes !== null) rows.push(['Freezes', String(shown.freezes)]);
    // A publisher hears from a living server too: receiver reports and checks answered.
    return { bytes: direction === 'in' ? sums.bytes : sums.received ?? sums.bytes, rows };
  }
}
