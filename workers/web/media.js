// Where a publisher's picture and sound come from: camera, screen, or a drawn test picture with a soft tone.
// Owns the capture; must never know a connection. `app.js` publishes what it returns.

const WANTED = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

export async function capture(source) {
  if (source === 'test') return testPicture();
  if (!navigator.mediaDevices) {
    throw new Error('This page may use cameras only over HTTPS or on this machine itself. The test picture works everywhere.');
  }
  if (source === 'screen') return navigator.mediaDevices.getDisplayMedia({ video: WANTED, audio: true });
  try {
    return await navigator.mediaDevices.getUserMedia({ video: WANTED, audio: true });
  } catch (error) {
    if (error.name === 'NotAllowedError') throw new Error('The browser was not allowed to use the camera.');
    if (error.name !== 'NotFoundError') throw error;
    return testPicture();
  }
}

// Moving bars and a clock: enough motion for an encoder to work on, and a time to compare between two screens.
function testPicture() {
  const canvas = document.createElement('canvas');
  canvas.width = 1280;
  canvas.height = 720;
  const pen = canvas.getContext('2d', { alpha: false });
  const colours = ['#c8d6cf', '#d9b44a', '#4ab6a8', '#4f9d5d', '#a65fa0', '#c4553b', '#3e62b0'];
  const draw = () => {
    const now = new Date();
    const bar = canvas.width / colours.length;
    colours.forEach((colour, place) => {
      pen.fillStyle = colour;
      pen.fillRect(Math.floor(place * bar), 0, Math.ceil(bar), canvas.height);
    });
    const x = ((now.getTime() / 4) % (canvas.width + 240)) - 240;
    pen.fillStyle = '#0c1413';
    pen.fillRect(x, 470, 240, 120);
    pen.fillRect(280, 240, 720, 150);
    pen.fillStyle = '#ffffff';
    pen.font = '600 96px ui-monospace, monospace';
    pen.textAlign = 'center';
    pen.fillText(`${now.toTimeString().slice(0, 8)}.${Math.floor(now.getMilliseconds() / 100)}`, 640, 348);
  };
  draw();
  const ticking = setInterval(draw, 1000 / 30);
  const stream = canvas.captureStream(30);

  const audio = new AudioContext();
  const tone = audio.createOscillator();
  const level = audio.createGain();
  level.gain.value = 0.05;
  tone.frequency.value = 440;
  const out = audio.createMediaStreamDestination();
  tone.connect(level).connect(out);
  tone.start();
  audio.resume().catch(() => {});
  stream.addTrack(out.stream.getAudioTracks()[0]);

  stream.release = () => {
    clearInterval(ticking);
    tone.stop();
    audio.close();
  };
  return stream;
}

export function release(stream) {
  stream.getTracks().forEach((track) => track.stop());
  stream.release?.();
}
