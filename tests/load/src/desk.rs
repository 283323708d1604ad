//! WHIP and WHEP requests, made by a few threads of their own so that no answer holds up the sweep. Owns those threads;
//! must never touch a client. Read `world.rs` next: it makes the requests and takes the answers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::answer::Answer;
use crate::http::{self, Url};
use crate::machine;

/// Requests under way at once: more than a server with one control thread answers at a time.
const THREADS: usize = 8;

/// A request.
pub enum Request {
    Open { client: usize, ticket: u64, url: Url, token: Option<String>, offer: String },
    Close { session: Session },
}

/// Its outcome.
pub enum Outcome {
    Opened { client: usize, ticket: u64, answer: Result<Box<(Answer, Session)>>, took: Duration },
    Closed { result: Result<()> },
}

/// The URL and token of a session that a DELETE ends.
#[derive(Clone, Debug)]
pub struct Session {
    pub url: Url,
    token: Option<String>,
}

pub struct Desk {
    requests: Sender<Request>,
    outcomes: Receiver<Outcome>,
    pub under_way: usize,
}

impl Desk {
    pub fn new() -> Desk {
        let (requests, taken) = channel::<Request>();
        let (given, outcomes) = channel();
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..THREADS {
            let (taken, given) = (taken.clone(), given.clone());
            thread::spawn(move || {
                // An answer can wait for the end of a burst: the burst's packets have their time of sending already.
                machine::yield_to_others();
                loop {
                    let request = match taken.lock() {
                        Ok(queue) => queue.recv(),
                        Err(_) => return,
                    };
                    // Either end is gone when the run is over.
                    let Ok(request) = request else { return };
                    if given.send(handle(request)).is_err() {
                        return;
                    }
                }
            });
        }
        Desk { requests, outcomes, under_way: 0 }
    }

    pub fn ask(&mut self, request: Request) {
        if self.requests.send(request).is_ok() {
            self.under_way += 1;
        }
    }

    pub fn next(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.try_recv().ok()?;
        self.under_way -= 1;
        Some(outcome)
    }
}

fn handle(request: Request) -> Outcome {
    match request {
        Request::Open { client, ticket, url, token, offer } => {
            let began = Instant::now();
            let answer = open(&url, token, &offer).map(Box::new);
            Outcome::Opened { client, ticket, answer, took: began.elapsed() }
        }
        Request::Close { session } => Outcome::Closed { result: close(&session) },
    }
}

fn open(url: &Url, token: Option<String>, offer: &str) -> Result<(Answer, Session)> {
    let response = http::request("POST", url, token.as_deref(), Some(("application/sdp", offer)))?;
    if response.status != 201 {
        bail!("POST {}: {} {}", url.path, response.status, response.body.trim());
    }
    let location = response.header("Location").context("a 201 without Location")?;
    let session = Session { url: url.join(location)?, token };
    Ok((Answer::parse(&response.body)?, session))
}

fn close(session: &Session) -> Result<()> {
    let response = http::request("DELETE", &session.url, session.token.as_deref(), None)?;
    if !(200..300).contains(&response.status) {
        bail!("DELETE {}: {}", session.url.path, response.status);
    }
    Ok(())
}
