// The access token of this tab: out of a link's fragment, kept over a reload, and what it says about itself. Owns where it
// is kept; must never send it anywhere. `app.js` and `watch.js` give it to their sessions, `share.js` into links.

const KEY = 'token';
// What a claim set may hold when a stranger is to have it: a name, times, and one room to watch.
const HARMLESS = ['iss', 'sub', 'exp', 'nbf', 'iat', 'jti', 'name', 'video'];
const HARMLESS_GRANTS = ['room', 'roomJoin', 'canSubscribe', 'hidden'];

// A framed page may be forbidden any storage: then a token lasts until the next reload.
function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
}

export function keepToken(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch { /* as above */ }
}

// Returns the link's token and room, and takes them out of the address bar and the history. Without a token in the link,
// the one that this tab has.
export function takeLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const token = link.get('token')?.trim();
  if (!token) return { token: stored(), room: '', isNew: false };
  history.replaceState(history.state, '', location.pathname + location.search);
  keepToken(token);
  return { token, room: link.get('room') ?? claimsOf(token)?.video?.room ?? '', isNew: true };
}

// Returns what a JWT claims, unchecked: the server checks it. Null when the token is none.
export function claimsOf(token) {
  try {
    const text = atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (one) => one.charCodeAt(0))));
    return typeof claims === 'object' ? claims : null;
  } catch {
    return null;
  }
}

// True when whoever has this token can watch the room and do nothing else: so it may stand in a link for others.
export function onlyWatches(token, room) {
  const claims = claimsOf(token);
  const grants = claims?.video;
  if (!grants || grants.room !== room || grants.roomJoin !== true || grants.canPublish !== false) return false;
  if ((grants.canSubscribe ?? true) !== true) return false;
  const others = Object.entries(grants).filter(([name]) => !HARMLESS_GRANTS.includes(name));
  return others.every(([, value]) => value === false) && Object.keys(claims).every((name) => HARMLESS.includes(name));
}
