//! Just enough HTTP/1.1 to open and close WHIP and WHEP sessions: one request a connection, so that each one may land on
//! another worker, as with many real clients. Must never know SDP. Read `desk.rs` next.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long an answer may take. A server that takes longer has lost the request.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer, in bytes; thousands of lines are far below it.
const LONGEST: u64 = 1 << 22;

/// An absolute `http` URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port as they stand in the URL.
    authority: String,
    pub path: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Url> {
        let Some(rest) = text.strip_prefix("http://") else { bail!("expected an http:// URL, found {text}") };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.is_empty() {
            bail!("expected a host in {text}");
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Url { authority: authority.to_owned(), path: path.to_owned() })
    }

    /// The URL of a `Location`, which is an absolute URL, an absolute path, or a path beside this one.
    pub fn join(&self, location: &str) -> Result<Url> {
        if location.starts_with("http://") {
            return Url::parse(location);
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let folder = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
            format!("{folder}{location}")
        };
        Ok(Url { authority: self.authority.clone(), path })
    }

    /// The server's address; of several the first.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        let with_port = if self.has_port() { self.authority.clone() } else { format!("{}:80", self.authority) };
        let mut found = with_port.to_socket_addrs().with_context(|| format!("no address for {}", self.authority))?;
        found.next().with_context(|| format!("no address for {}", self.authority))
    }

    fn has_port(&self) -> bool {
        self.authority.rsplit(']').next().is_some_and(|end| end.contains(':'))
    }
}

pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(bytes: &[u8]) -> Option<Response> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut response = Response { status, headers, body: String::new() };
        let body = &bytes[end + 4..];
        let chunked = response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let body = if chunked { dechunk(body)? } else { body.to_vec() };
        response.body = String::from_utf8(body).ok()?;
        Some(response)
    }

    /// True when the answer is whole, as some servers ignore `Connection: close`.
    fn is_whole(bytes: &[u8]) -> bool {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
        let Some(response) = Response::parse(&bytes[..end + 4]) else { return false };
        match response.header("content-length").and_then(|value| value.parse::<usize>().ok()) {
            Some(len) => bytes.len() >= end + 4 + len,
            None => response.status == 204 || response.status == 304,
        }
    }
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}

/// One request on a connection of its own.
pub fn request(method: &str, url: &Url, token: Option<&str>, body: Option<(&str, &str)>) -> Result<Response> {
    let address = url.address()?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", url.path, url.authority);
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    let content = body.map_or("", |(_, content)| content);
    if let Some((content_type, content)) = body {
        head += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", content.len());
    }
    stream.write_all(format!("{head}\r\n{content}").as_bytes())?;
    let mut bytes = Vec::new();
    let mut stream = stream.take(LONGEST);
    let mut chunk = [0; 16_384];
    while !Response::is_whole(&bytes) {
        match stream.read(&mut chunk)? {
            0 => break,
            count => bytes.extend(&chunk[..count]),
        }
    }
    Response::parse(&bytes).with_context(|| format!("{method} {}: no HTTP answer", url.path))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn locations_are_joined_as_browsers_do() {
        let base = Url::parse("http://127.0.0.1:7880/whep/room").unwrap();
        assert_eq!(base.join("/whep/room/1").unwrap().path, "/whep/room/1");
        assert_eq!(base.join("1").unwrap().path, "/whep/1");
        assert_eq!(base.join("http://other/x").unwrap(), Url::parse("http://other/x").unwrap());
        assert!(Url::parse("https://host/").is_err());
        assert_eq!(Url::parse("http://127.0.0.1").unwrap().address().unwrap().port(), 80);
        assert_eq!(Url::parse("http://[::1]:81/").unwrap().address().unwrap().to_string(), "[::1]:81");
    }

    #[test]
    fn answers_are_read_with_a_length_in_chunks_or_to_the_end() {
        for (answer, body) in [
            ("HTTP/1.1 201 Created\r\nlocation: /a\r\nContent-Length: 2\r\n\r\nok", "ok"),
            (
                "HTTP/1.1 201 Created\r\nLocation: /a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
                "ok!",
            ),
            ("HTTP/1.0 201 Created\r\nLocation: /a\r\n\r\nto the end", "to the end"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = Url::parse(&format!("http://{}/x", listener.local_addr().unwrap())).unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"v=0") {
                    let mut chunk = [0; 500];
                    let count = stream.read(&mut chunk).unwrap();
                    asked.extend(&chunk[..count]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(asked).unwrap()
            });
            let response = request("POST", &url, Some("t"), Some(("application/sdp", "v=0"))).unwrap();
            assert_eq!((response.status, response.body.as_str()), (201, body));
            assert_eq!(response.header("Location"), Some("/a"));
            let asked = server.join().unwrap();
            assert!(asked.starts_with("POST /x HTTP/1.1\r\n") && asked.contains("Authorization: Bearer t\r\n"));
        }
    }
}
