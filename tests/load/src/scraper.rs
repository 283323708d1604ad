//! Reads a server's metrics again and again, as a monitoring system does, on a thread of its own. Owns that thread; must
//! never look at what it reads. Read `scenarios/joins.rs` next, which wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::http::{self, Url};
use crate::machine;

/// How soon the thread ends when it is asked to.
const LOOK: Duration = Duration::from_millis(20);

pub struct Scraper {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Scraper {
    /// One request every `interval`, the first at once.
    pub fn start(url: Url, interval: Duration) -> Scraper {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let thread = thread::spawn(move || {
            machine::yield_to_others();
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                let response = http::request("GET", &url, None, None)?;
                ensure!(response.status == 200, "GET {}: {}", url.path, response.status);
                took.push(began.elapsed());
                while began.elapsed() < interval && !told.load(Ordering::Relaxed) {
                    thread::sleep(LOOK.min(interval.saturating_sub(began.elapsed())));
                }
            }
            Ok(took)
        });
        Scraper { over, thread }
    }

    /// How long each request took; an error when one failed.
    pub fn stop(self) -> Result<Vec<Duration>> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the scraping thread panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_answer_is_timed_and_a_refusal_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/metrics", listener.local_addr().unwrap())).unwrap();
        let server = thread::spawn(move || {
            for status in ["200 OK", "200 OK", "404 Not Found"] {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 500]).unwrap() > 0);
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        });
        let scraper = Scraper::start(url.clone(), Duration::ZERO);
        server.join().unwrap();
        assert!(scraper.stop().is_err());
        let listener = TcpListener::bind(url.address().unwrap()).unwrap();
        let scraper = Scraper::start(url, Duration::from_secs(60));
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(scraper.stop().unwrap().len(), 1);
    }
}
