// Publishers and viewers inside a test's page, one per name: `peers.publish`, `peers.watch`, `peers.figures`, `peers.leave`.
// Owns their RTCPeerConnections and what they measure; must never know a test or the demo page. `peers.py` is the other end.
globalThis.peers ??= (() => {
  const MAX_POSTS = 100;
  const all = new Map();

  // The kernel gives a TCP connection to a worker by its ports, and a browser keeps connections. A body of the wrong type
  // is refused unread, which makes the server close this one.
  const leaveConnection = (url) => fetch(url, { method: 'POST', body: 'x' }).then((response) => response.text());

  async function post(peer, url, slot, token) {
    if (token) peer.headers = { Authorization: `Bearer ${token}` };
    const sdp = peer.pc.localDescription.sdp;
    for (let tried = 0; tried < MAX_POSTS; tried += 1) {
      peer.postedAt = performance.now();
      const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp', ...peer.headers }, body: sdp });
      const text = await response.text();
      peer.answeredAt = performance.now();
      if (response.status !== 201) throw new Error(`${response.status} ${text}`);
      peer.resource = new URL(response.headers.get('Location'), response.url).href;
      peer.session = peer.resource.split('/').pop();
      if (slot === null || parseInt(peer.session.slice(0, 2), 16) === slot) {
        await peer.pc.setRemoteDescription({ type: 'answer', sdp: text });
        return;
      }
      await fetch(peer.resource, { method: 'DELETE', headers: peer.headers });
      await leaveConnection(url);
    }
    throw new Error(`no POST of ${MAX_POSTS} went to worker ${slot}`);
  }

  // A canvas keeps its pace without a camera; sound is an oscillator.
  function drawn(width, height) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext('2d', { alpha: false });
    let step = 0;
    const ticking = setInterval(() => {
      step += 1;
      pen.fillStyle = `hsl(${step % 360} 60% 50%)`;
      pen.fillRect(0, 0, width, height);
      pen.fillStyle = '#000';
      pen.fillRect((step * 6) % width, height / 3, width / 8, height / 3);
    }, 1000 / 30);
    const stream = canvas.captureStream(30);
    const audio = new AudioContext();
    const tone = audio.createOscillator();
    const out = audio.createMediaStreamDestination();
    tone.connect(out);
    tone.start();
    stream.addTrack(out.stream.getAudioTracks()[0]);
    return { stream, release: () => { clearInterval(ticking); audio.close(); } };
  }

  async function captured(source, width, height) {
    if (source === 'canvas') return drawn(width, height);
    const video = { width, height, frameRate: 30 };
    return { stream: await navigator.mediaDevices.getUserMedia({ video, audio: true }), release: () => {} };
  }

  function only(transceiver, mimeType) {
    const codecs = RTCRtpSender.getCapabilities('video').codecs;
    const wanted = codecs.filter(({ mimeType: type }) => type === mimeType || type === 'video/rtx');
    if (!wanted.some(({ mimeType: type }) => type === mimeType)) throw new Error(`this browser has no ${mimeType}`);
    transceiver.setCodecPreferences(wanted);
  }

  function until(pc, state) {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (pc.connectionState === state) resolve(performance.now());
        else if (pc.connectionState === 'failed' || pc.connectionState === 'closed') reject(new Error(pc.connectionState));
      };
      pc.addEventListener('connectionstatechange', look);
      look();
    });
  }

  async function publish({ name, url, token, slot = null, codec = null, rids = null, source = 'camera', width = 320, height = 240 }) {
    const { stream, release } = await captured(source, width, height);
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const peer = { pc, stream, release, direction: 'outbound-rtp' };
    all.set(name, peer);
    for (const track of stream.getTracks()) {
      const init = { direction: 'sendonly', streams: [stream] };
      if (track.kind === 'video' && rids) {
        init.sendEncodings = rids.map((rid, place) => ({ rid, scaleResolutionDownBy: 2 ** (rids.length - 1 - place) }));
      }
      const transceiver = pc.addTransceiver(track, init);
      if (track.kind === 'video' && codec) only(transceiver, codec);
    }
    await pc.setLocalDescription();
    await post(peer, url, slot, token);
    peer.connectedAt = await until(pc, 'connected');
    return { session: peer.session, post: peer.answeredAt - peer.postedAt, connected: peer.connectedAt - peer.postedAt };
  }

  // Resolves when the POST is answered; `firstFrame` waits for the picture.
  async function watch({ name, url, token, slot = null, codec = null }) {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const video = document.createElement('video');
    Object.assign(video, { autoplay: true, playsInline: true, srcObject: new MediaStream() });
    document.body.append(video);
    const peer = { pc, video, frames: [], direction: 'inbound-rtp' };
    all.set(name, peer);
    peer.firstFrame = new Promise((resolve) => {
      const note = () => {
        peer.frames.push(performance.now());
        resolve(performance.now());
        video.requestVideoFrameCallback(note);
      };
      video.requestVideoFrameCallback(note);
    });
    pc.ontrack = ({ track }) => video.srcObject.addTrack(track);
    const transceiver = pc.addTransceiver('video', { direction: 'recvonly' });
    pc.addTransceiver('audio', { direction: 'recvonly' });
    if (codec) {
      const codecs = RTCRtpReceiver.getCapabilities('video').codecs;
      transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType === codec || mimeType === 'video/rtx'));
    }
    await pc.setLocalDescription();
    await post(peer, url, slot, token);
    return { session: peer.session, post: peer.answeredAt - peer.postedAt };
  }

  async function firstFrame(name) {
    const peer = all.get(name);
    const at = await peer.firstFrame;
    return { first: at - peer.postedAt, connected: (await until(peer.pc, 'connected')) - peer.postedAt };
  }

  function longestGap(times, since) {
    let longest = 0;
    let before = since;
    for (const at of [...times.filter((time) => time > since), performance.now()]) {
      longest = Math.max(longest, at - before);
      before = at;
    }
    return longest;
  }

  // What the browser counts by kind, and the longest time without a new picture since `since` (of performance.now()).
  async function figures(name, since = 0) {
    const peer = all.get(name);
    const report = await peer.pc.getStats();
    const found = { now: performance.now(), video: {}, audio: {} };
    for (const entry of report.values()) {
      if (entry.type !== peer.direction) continue;
      const sum = found[entry.kind];
      for (const [key, value] of Object.entries(entry)) {
        if (typeof value === 'number') sum[key] = (sum[key] ?? 0) + value;
      }
      if (entry.frameWidth) sum.width = Math.max(sum.width ?? 0, entry.frameWidth);
      sum.codec = report.get(entry.codecId)?.mimeType;
    }
    if (peer.frames) {
      found.pictures = peer.frames.filter((time) => time > since).length;
      found.gap = longestGap(peer.frames, since);
    }
    return found;
  }

  // Has the encoder go on with another one of the codecs that were negotiated.
  async function change(name, mimeType) {
    const sender = all.get(name).pc.getSenders().find(({ track }) => track?.kind === 'video');
    const parameters = sender.getParameters();
    const codec = parameters.codecs.find((one) => one.mimeType === mimeType);
    if (!codec) throw new Error(`${mimeType} was not negotiated: ${parameters.codecs.map((one) => one.mimeType)}`);
    parameters.encodings[0].codec = codec;
    await sender.setParameters(parameters);
  }

  async function leave(name) {
    const peer = all.get(name);
    all.delete(name);
    await fetch(peer.resource, { method: 'DELETE', headers: peer.headers });
    peer.pc.close();
    peer.stream?.getTracks().forEach((track) => track.stop());
    peer.release?.();
    peer.video?.remove();
  }

  return { all, publish, watch, firstFrame, figures, change, leave };
})();
