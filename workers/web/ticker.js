// A worker that only ticks: browsers slow a hidden page's own timers down to one a second, but not a worker's.
// `media.js` draws the test picture by it.
setInterval(() => postMessage(null), 1000 / 30);
