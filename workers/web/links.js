// The STUN and TURN servers that an answer names in its Link headers (RFC 8288, RFC 9725 section 4.6), as
// RTCPeerConnection takes them. Must never know a connection; `session.js` has it.

const LINK = /<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:\\.|[^"\\])*"|[^\s;,"]+))*)/g;
const PARAMETER = /;\s*([\w-]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^\s;,"]+))/g;

// `header` is the Link field, several joined by commas, or null. A list of { urls, username, credential }.
export function iceServers(header) {
  const servers = [];
  for (const [, urls, rest] of (header ?? '').matchAll(LINK)) {
    const parameters = {};
    for (const [, name, quoted, bare] of rest.matchAll(PARAMETER)) {
      parameters[name.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? bare;
    }
    if (parameters.rel !== 'ice-server' || !/^(stun|turn)s?:/.test(urls)) continue;
    const { username, credential } = parameters;
    servers.push(username === undefined ? { urls } : { urls, username, credential });
  }
  return servers;
}
