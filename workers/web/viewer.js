// Plays one room in a video element: a WHEP session of `session.js`, its tracks, and sound where the browser allows it.
// Owns the element's stream; must never know what else is on the page. `app.js` and `watch.js` show its state.
import { Session } from './session.js';

// The URL of a room's WHEP endpoint; `base` is the server's, with a slash at its end. An empty participant is the first
// publisher.
export function whepUrl(base, room, participant = '') {
  const query = participant ? `?participant=${encodeURIComponent(participant)}` : '';
  return `${base}whep/${encodeURIComponent(room)}${query}`;
}

// Returns a session that is not started. `onpicture` is called with the first picture, `onmuted` when the browser plays
// sound only after a click.
export function viewerOf({ video, url, token, onstate, onpicture, onmuted }) {
  return new Session({
    url,
    token,
    prepare: (pc) => {
      // Not an empty stream: a page with a video that waits for one never finishes loading.
      video.srcObject = null;
      pc.addTransceiver('video', { direction: 'recvonly' });
      pc.addTransceiver('audio', { direction: 'recvonly' });
    },
    ontrack: ({ track }) => {
      track.addEventListener('unmute', () => {
        // With the first packet and not before: an element is silent while a picture of its stream is missing. And as a new
        // stream: Chromium does not notice the first track of an empty one when it is sound.
        const tracks = video.srcObject?.getTracks() ?? [];
        if (!tracks.includes(track)) video.srcObject = new MediaStream([...tracks, track]);
        if (track.kind === 'video') onpicture();
        video.play().catch((error) => {
          // The next track's coming ended it, and plays again.
          if (error.name !== 'NotAllowedError') return;
          // A browser lets a page begin with sound only after a click; the picture may start at once.
          video.muted = true;
          video.play().catch(() => {});
          onmuted();
        });
      });
    },
    onstate,
  });
}
