// What a person gives to others or types elsewhere: links that only watch, the line of a frame, the commands of OBS and
// ffmpeg. Owns their words; must never put a token that may do more than watch into a link. `access.js` knows tokens.
import { onlyWatches } from './access.js';

export const base = new URL('.', import.meta.url).href;

export function playerUrl(room) {
  return `${base}watch/${encodeURIComponent(room)}`;
}

// Returns { link, note }: a link for others, or none and what to do. Without a token the server is asked what strangers see.
export async function watchLink(room, token) {
  if (onlyWatches(token, room)) {
    return { link: `${playerUrl(room)}#token=${token}`, note: 'Copied, with your access token, which may only watch this room.' };
  }
  if (await isForAnybody(room, token)) return { link: playerUrl(room), note: 'Copied. Whoever opens it can watch.' };
  const why = token ? 'Your access token may do more than watch, so it is not shared.' : 'This room asks viewers for an access token.';
  return { link: '', note: `${why} On the server, make a link that only watches: ${tokenCommand(room, '--subscribe')}` };
}

async function isForAnybody(room, token) {
  const response = await fetch('rooms').catch(() => null);
  if (!response?.ok) return false;
  // Where a token was needed to come in, rooms that nobody else sees are not for anybody.
  return !token || (await response.json()).some(({ name }) => name === room);
}

export function tokenCommand(room, rights = '') {
  return ['millrace token --config millrace.toml --room', quoted(room), '--identity guest', rights, '--link', quoted(base)].filter(Boolean).join(' ');
}

export function frameLine(room) {
  return `<iframe src="${playerUrl(room)}" title="${encodeURIComponent(room)}" width="640" height="360" allow="autoplay; fullscreen" style="border:0"></iframe>`;
}

export function whipUrl(room) {
  return `${base}whip/${encodeURIComponent(room)}`;
}

export function ffmpegCommand(room, token) {
  const how = '-c:v libx264 -profile:v baseline -pix_fmt yuv420p -tune zerolatency -g 60 -c:a libopus -ac 2';
  const authorization = token ? ` -authorization ${quoted(token)}` : '';
  return `ffmpeg -re -i movie.mp4 ${how} -f whip${authorization} ${quoted(whipUrl(room))}`;
}

// As a POSIX shell takes it.
function quoted(text) {
  return /^[A-Za-z0-9_.\/:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// Returns false when the browser does not let the page copy: over HTTP it lets none.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
