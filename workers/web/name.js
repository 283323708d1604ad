// The name under which this tab publishes where nobody needs a token. Owns the names of this browser and which tab has
// which; must never know a room. A tab that comes back after it was killed gets its name again, and so replaces its session.

const KEY = 'names';

// Returns a name that no other tab of this browser has while this one lives; null when the browser has no locks.
export async function publisherName() {
  if (!navigator.locks) return null;
  taken ??= take();
  return taken;
}

let taken = null;

async function take() {
  const names = known();
  for (const name of names) {
    if (await lock(name)) return name;
  }
  const name = `page-${crypto.randomUUID().slice(0, 8)}`;
  await lock(name);
  try {
    localStorage.setItem(KEY, JSON.stringify([...names, name].slice(-8)));
  } catch { /* no storage: the name lasts as long as this page */ }
  return name;
}

function known() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return [];
  }
}

// The browser frees a lock when its page is gone, however it went.
function lock(name) {
  return new Promise((resolve) => {
    navigator.locks.request(`millrace ${name}`, { ifAvailable: true }, (held) => {
      resolve(Boolean(held));
      return held ? new Promise(() => {}) : null;
    }).catch(() => resolve(false));
  });
}
