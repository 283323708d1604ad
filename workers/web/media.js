// Where a publisher's picture and sound come from: camera, screen, or a drawn test picture with a soft tone.
// Owns the capture; must never know a connection. `app.js` publishes what it returns.

const WANTED = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

const WHY = {
  camera: {
    NotAllowedError: 'The browser was not allowed to use the camera.',
    NotReadableError: 'The camera or the microphone does not start: another program may be using it.',
  },
  screen: {
    NotAllowedError: 'The screen was not shared.',
    NotReadableError: 'The screen cannot be captured: the system may not allow it.',
  },
};

// Returns the stream, and a note for the person when it is not all that was asked for.
export async function capture(source) {
  if (source === 'test') return { stream: testPicture(), note: '' };
  if (!navigator.mediaDevices) {
    throw new Error('This page may use cameras only over HTTPS or on this machine itself. The test picture works everywhere.');
  }
  if (source === 'screen' && !navigator.mediaDevices.getDisplayMedia) throw new Error('This browser cannot share its screen.');
  try {
    return source === 'screen'
      ? { stream: await navigator.mediaDevices.getDisplayMedia({ video: WANTED, audio: true }), note: '' }
      : await camera();
  } catch (error) {
    throw new Error(WHY[source][error.name] ?? `The ${source} does not start: ${error.message}`);
  }
}

// A browser finds nothing at all when one of two wanted devices is missing.
async function camera() {
  const found = (wanted) => navigator.mediaDevices.getUserMedia(wanted).catch((error) => {
    if (error.name !== 'NotFoundError') throw error;
    return null;
  });
  const both = await found({ video: WANTED, audio: true });
  if (both) return { stream: both, note: '' };
  const picture = await found({ video: WANTED });
  if (picture) return { stream: picture, note: 'There is no microphone: the picture goes without sound.' };
  return { stream: testPicture(), note: 'There is no camera: this is the test picture.' };
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
  const ticker = new Worker(new URL('ticker.js', import.meta.url));
  ticker.onmessage = draw;
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
    ticker.terminate();
    tone.stop();
    audio.close();
  };
  return stream;
}

export function release(stream) {
  stream.getTracks().forEach((track) => track.stop());
  stream.release?.();
}
