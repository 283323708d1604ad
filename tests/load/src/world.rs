//! All clients of a run, and the one loop that runs them: sends what is due, polls every socket, renews consent. Owns the clients; must
//! never know what a scenario measures. Read `scenarios/mod.rs` next.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace_core::time::{Span, Time};

use crate::answer::Answer;
use crate::client::{Client, Side};
use crate::clock;
use crate::desk::{Desk, Outcome, Request, Session};
use crate::http::Url;
use crate::identity::random_u32;
use crate::link::{Link, Tools};
use crate::net::{self, Batch};
use crate::offer::{Media, Offer};
use crate::publisher::Publisher;
use crate::stream::{Kind, Shape};
use crate::viewer::{Counts, Findings, Viewer};

/// The time between the starts of two sweeps.
const SWEEP: Span = Span::from_millis(1);
/// Clients swept between two looks at what publishers have to send.
const STRIDE: usize = 16;
/// Handshakes under way at once; servers bound theirs.
const OPENING: usize = 32;

/// How clients are made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub gro: bool,
    /// Publishers' frames do not divide evenly.
    pub uneven: bool,
    /// One of this many viewers is of the sample.
    pub sample: usize,
}

/// A client's position in `World`, valid until the client is removed.
pub type ClientId = usize;

pub struct World {
    options: Options,
    ip: IpAddr,
    token: Option<String>,
    tools: Tools,
    batch: Batch,
    clients: Vec<Option<Client>>,
    publishers: Vec<ClientId>,
    /// Offers not yet posted, so that not all handshake at once.
    waiting: VecDeque<(ClientId, Url, String)>,
    opening: usize,
    desk: Desk,
    pub findings: Findings,
    /// The counts of viewers that have been removed.
    gone: Counts,
    clients_made: u64,
    sweep_at: Time,
    /// The first failures.
    pub troubles: Vec<String>,
    pub failed: usize,
}

impl World {
    /// A world without clients. They bind to `ip`, and send `token` if there is one.
    pub fn new(options: Options, tools: Tools, ip: IpAddr, token: Option<String>) -> World {
        World {
            options,
            ip,
            token,
            tools,
            batch: Batch::new(options.gro),
            clients: Vec::new(),
            publishers: Vec::new(),
            waiting: VecDeque::new(),
            opening: 0,
            desk: Desk::new(),
            findings: Findings::new(),
            gone: Counts::default(),
            clients_made: 0,
            sweep_at: Time(0),
            troubles: Vec::new(),
            failed: 0,
        }
    }

    pub fn add_publisher(&mut self, url: &Url, shapes: &[Shape]) -> Result<ClientId> {
        let mut streams = Vec::new();
        for shape in shapes {
            let media = Media { kind: shape.kind, ssrc: random_u32()?, rtx_ssrc: random_u32()? };
            streams.push((Shape { uneven: self.options.uneven, ..*shape }, media));
        }
        let media: Vec<_> = streams.iter().map(|(_, media)| *media).collect();
        let id = self.add(Side::Publisher(Publisher::new(&streams)), url, &media, net::Options::default())?;
        self.publishers.push(id);
        Ok(id)
    }

    /// One of the sample verifies every packet.
    pub fn add_viewer(&mut self, url: &Url, kinds: &[Kind], is_sample: bool) -> Result<ClientId> {
        let media: Vec<_> = kinds.iter().map(|kind| Media { kind: *kind, ssrc: 0, rtx_ssrc: 0 }).collect();
        let viewer = Viewer::new(is_sample, random_u32()?);
        self.add(Side::Viewer(viewer), url, &media, net::Options { stamps: is_sample, gro: self.options.gro })
    }

    fn add(&mut self, side: Side, url: &Url, media: &[Media], options: net::Options) -> Result<ClientId> {
        let socket = net::bind(self.ip, options).context("a socket for one more client")?;
        let link = Link::new(socket)?;
        let (ufrag, pwd) = link.credentials();
        let fingerprint = &self.tools.identity.fingerprint;
        let sends = matches!(side, Side::Publisher(_));
        let offer = Offer { ufrag, pwd, fingerprint, address: link.local()?, media, sends }.write();
        self.clients_made += 1;
        let client = Client::new(link, side, self.clients_made, clock::now());
        let id = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        if id == self.clients.len() {
            self.clients.push(None);
        }
        self.clients[id] = Some(client);
        self.waiting.push_back((id, url.clone(), offer));
        Ok(id)
    }

    /// Ends a client as a browser's page does, with DELETE; one that has no session says close_notify.
    pub fn remove(&mut self, id: ClientId) {
        let Some(mut client) = self.clients[id].take() else { return };
        self.publishers.retain(|publisher| *publisher != id);
        if let Side::Viewer(viewer) = &client.side {
            self.gone.add(&viewer.counts);
        }
        match client.session.take() {
            Some(session) => self.desk.ask(Request::Close { session }),
            None => client.link.close(clock::now(), &mut self.tools),
        }
    }

    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(id)?.as_ref()
    }

    pub fn client_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(id)?.as_mut()
    }

    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().flatten()
    }

    pub fn viewers(&self) -> impl Iterator<Item = (&Client, &Viewer)> {
        self.clients().filter_map(|client| Some((client, client.viewer()?)))
    }

    /// Where viewers receive: the destinations of the raw measurement.
    pub fn viewer_addresses(&self) -> Result<Vec<SocketAddr>> {
        self.viewers().map(|(client, _)| client.link.local()).collect()
    }

    pub fn counts(&self) -> Counts {
        let mut sum = self.gone;
        self.viewers().for_each(|(_, viewer)| sum.add(&viewer.counts));
        sum
    }

    /// Starts the publishers, their bursts spread over 20 ms.
    pub fn start_publishers(&mut self) {
        let (now, count) = (clock::now(), self.publishers.len() as u64);
        for (place, id) in self.publishers.iter().enumerate() {
            if let Some(Client { side: Side::Publisher(publisher), .. }) = &mut self.clients[*id] {
                publisher.start(now + Span(20_000 * place as u64 / count));
            }
        }
    }

    pub fn pause_publishers(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            if let Side::Publisher(publisher) = &mut client.side {
                publisher.pause();
            }
        }
    }

    /// Requests that are not answered yet, or not made.
    pub fn requests_left(&self) -> usize {
        self.desk.under_way + self.waiting.len()
    }

    pub fn run_for(&mut self, span: Duration) -> Result<()> {
        let end = clock::now() + Span(span.as_micros() as u64);
        while clock::now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Runs until `done` is true. An error that names `what` when it takes longer than `patience`.
    pub fn run_until(&mut self, what: &str, patience: Duration, mut done: impl FnMut(&World) -> bool) -> Result<()> {
        let end = clock::now() + Span(patience.as_micros() as u64);
        while !done(self) {
            if clock::now() > end {
                bail!("{what} took longer than {} s; {}", patience.as_secs(), self.troubles.join("; "));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Runs until every client is connected, or has failed.
    pub fn connect_all(&mut self, patience: Duration) -> Result<()> {
        self.run_until("connecting", patience, |world| {
            world.requests_left() == 0
                && world.clients().all(|client| client.link.is_connected() || client.link.broken.is_some())
        })
    }

    /// Removes all clients and waits for the answers.
    pub fn remove_all(&mut self) -> Result<()> {
        (0..self.clients.len()).for_each(|id| self.remove(id));
        self.waiting.clear();
        self.run_until("leaving", Duration::from_secs(60), |world| world.requests_left() == 0)
    }

    /// Runs one sweep.
    pub fn step(&mut self) -> Result<()> {
        self.sweep_at = clock::now();
        self.post_waiting();
        self.take_outcomes();
        self.opening = 0;
        let mut broken = Vec::new();
        for first in (0..self.clients.len()).step_by(STRIDE) {
            self.send_due()?;
            for id in first..(first + STRIDE).min(self.clients.len()) {
                if let Some(client) = &mut self.clients[id] {
                    client.attend(&mut self.batch, &mut self.tools, &mut self.findings);
                    self.opening += usize::from(!client.link.is_connected() && client.link.broken.is_none());
                    if let Some(why) = client.link.broken.as_ref().filter(|_| !client.has_failed) {
                        client.has_failed = true;
                        self.failed += 1;
                        broken.push(why.clone());
                    }
                }
            }
        }
        broken.into_iter().for_each(|why| self.note_trouble(why));
        self.send_due()?;
        let due = self.publishers.iter().filter_map(|id| self.client(*id)?.publisher()?.next_at()).min();
        let wake = due.map_or(self.sweep_at + SWEEP, |due| due.min(self.sweep_at + SWEEP));
        let span = Duration::from_micros(wake.since(clock::now()).0);
        if span.is_zero() {
            // Under a real-time policy (`chrt -f`) the threads that make requests would never run.
            thread::yield_now();
        } else {
            thread::sleep(span);
        }
        Ok(())
    }

    fn send_due(&mut self) -> Result<()> {
        for id in &self.publishers {
            if let Some(Client { link, side: Side::Publisher(publisher), .. }) = &mut self.clients[*id] {
                publisher.send_due(clock::now(), link)?;
            }
        }
        Ok(())
    }

    fn post_waiting(&mut self) {
        // Clients that wait are among those that are not connected yet.
        let mut open = self.opening.saturating_sub(self.waiting.len());
        while open < OPENING
            && let Some((client, url, offer)) = self.waiting.pop_front()
        {
            // It was removed before its request was made.
            let Some(found) = self.clients[client].as_mut() else { continue };
            found.asked_at = clock::now();
            let ticket = found.ticket;
            self.desk.ask(Request::Open { client, ticket, url, token: self.token.clone(), offer });
            open += 1;
        }
    }

    fn take_outcomes(&mut self) {
        while let Some(outcome) = self.desk.next() {
            match outcome {
                Outcome::Closed { result } => {
                    if let Err(error) = result {
                        self.note_trouble(format!("{error:#}"));
                    }
                }
                Outcome::Opened { client, ticket, answer, took } => self.take_answer(client, ticket, answer, took),
            }
        }
    }

    fn take_answer(&mut self, id: ClientId, ticket: u64, answer: Result<Box<(Answer, Session)>>, took: Duration) {
        let Some(client) = self.clients[id].as_mut().filter(|client| client.ticket == ticket) else {
            // It was removed meanwhile: so its session is deleted, too.
            if let Ok(opened) = answer {
                self.desk.ask(Request::Close { session: opened.1 });
            }
            return;
        };
        client.answer_took = Some(took);
        client.upkeep_at = clock::now();
        let accepted = answer.and_then(|opened| {
            let (answer, session) = *opened;
            client.session = Some(session);
            match &mut client.side {
                Side::Publisher(publisher) => publisher.accept(&answer),
                Side::Viewer(viewer) => viewer.accept(&answer),
            }
            client.link.accept(clock::now(), &answer, &self.tools)
        });
        if let Err(error) = accepted {
            client.link.broken = Some(format!("{error:#}"));
        }
    }

    fn note_trouble(&mut self, why: String) {
        if self.troubles.len() < 5 && !self.troubles.contains(&why) {
            self.troubles.push(why);
        }
    }
}
