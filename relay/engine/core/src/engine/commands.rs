//! Carries out the control plane's commands, one arm each. A command that cannot be carried out changes nothing, and the event
//! `CommandFailed` tells the reason. Must never decide when a command is due. Read `../command.rs` for their shapes.

use super::{
    Client, ClientKey, Counter, Engine, Feed, Publication, PublicationKey, Published, Reading, Subscribed,
    Subscription, SubscriptionKey,
};
use crate::command::{
    Attach, Command, MAX_RECORD_BYTES, OpenTransport, Publish, ReportTransport, RestartIce, SaveRecord, SetWish,
    Subscribe,
};
use crate::event::{CommandFailed, Event, TransportReport};
use crate::forward::subscription::layers::MAX_LAYERS;
use crate::outbox::Path;
use crate::time::Time;
use crate::transport::Transport;

/// What one SDES item can name (RFC 3550 section 6.5).
const MAX_CNAME: usize = 255;

impl Engine {
    /// Carries out one command.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        let (name, id, result) = match command {
            Command::OpenTransport(open) => ("OpenTransport", open.transport, self.open_transport(now, open)),
            Command::RestartIce(restart) => ("RestartIce", restart.transport, self.restart_ice(now, &restart)),
            Command::CloseTransport(close) => {
                ("CloseTransport", close.transport, self.close_transport(now, close.transport))
            }
            Command::Publish(publish) => ("Publish", publish.publication, self.publish(now, &publish)),
            Command::Unpublish(unpublish) => {
                ("Unpublish", unpublish.publication, self.unpublish(unpublish.publication))
            }
            Command::Subscribe(subscribe) => ("Subscribe", subscribe.subscription, self.subscribe(&subscribe)),
            Command::Attach(attach) => ("Attach", attach.subscription, self.attach(now, &attach)),
            Command::Detach(detach) => ("Detach", detach.subscription, self.detach(detach.subscription)),
            Command::Unsubscribe(unsubscribe) => {
                ("Unsubscribe", unsubscribe.subscription, self.unsubscribe(unsubscribe.subscription))
            }
            Command::ReportTransport(ask) => ("ReportTransport", ask.transport, self.report_transport(ask)),
            Command::SaveRecord(save) => ("SaveRecord", save.transport, self.save_control_record(save)),
            Command::SetWish(wish) => ("SetWish", wish.subscription, self.set_wish(now, wish)),
            Command::MoveTransport(command) => ("MoveTransport", command.transport, self.move_transport(now, command)),
        };
        if let Err(reason) = result {
            self.events.push_back(Event::CommandFailed(CommandFailed { command: name.to_owned(), id, reason }));
        }
    }

    fn open_transport(&mut self, now: Time, open: OpenTransport) -> Result<(), String> {
        if self.clients.len() >= self.max_transports {
            return Err(format!("the engine holds {} transports, its limit", self.max_transports));
        }
        if self.client_by_id.contains_key(&open.transport) {
            return Err("the transport is open already".to_owned());
        }
        if self.client_by_ufrag.contains_key(&open.local_ufrag) {
            return Err("the local ufrag is taken".to_owned());
        }
        let transport = Transport::new(now, &open, &self.contexts, &self.limits)?;
        let client = Client::new(transport, open.local_ufrag.clone(), self.limits.max_streams);
        let key = self.clients.insert(client);
        self.ask_with_prover(key);
        self.client_by_id.insert(open.transport, key);
        self.client_by_ufrag.insert(open.local_ufrag, key);
        self.stats.set(Counter::Transports, self.clients.len() as u64);
        self.open_record(key);
        self.schedule(now, key);
        Ok(())
    }

    fn restart_ice(&mut self, now: Time, restart: &RestartIce) -> Result<(), String> {
        let key = self.client_key(restart.transport)?;
        if self.client_by_ufrag.contains_key(&restart.local_ufrag) {
            return Err("the local ufrag is taken".to_owned());
        }
        self.clients[key].transport.restart_ice(now, restart);
        self.clients[key].ufrags.push(restart.local_ufrag.clone());
        self.client_by_ufrag.insert(restart.local_ufrag.clone(), key);
        self.mark_unsaved(key);
        self.handle_transport_events(now, key);
        Ok(())
    }

    fn close_transport(&mut self, now: Time, transport: u64) -> Result<(), String> {
        let key = self.client_key(transport)?;
        self.say_bye(key);
        self.clients[key].transport.close(now, &mut self.outbox);
        self.handle_transport_events(now, key);
        Ok(())
    }

    fn publish(&mut self, now: Time, publish: &Publish) -> Result<(), String> {
        let client = self.client_key(publish.transport)?;
        if self.publication_by_id.contains_key(&publish.publication) {
            return Err("the publication is open already".to_owned());
        }
        let mut logs = publish.encodings.iter().map(|encoding| encoding.log).collect::<Vec<_>>();
        check_logs(&mut logs, self.arena.logs())?;
        if let Some(taken) =
            publish.encodings.iter().find(|encoding| self.publication_by_log.contains_key(&encoding.log))
        {
            return Err(format!("track log {} is in use", taken.log));
        }
        let publication = Publication::new(publish, &self.arena, self.slot)?;
        // The log has the parameter sets, so a record needs none.
        let kept = Publish { parameter_sets: serde_bytes::ByteBuf::new(), ..publish.clone() };
        let published = Published { publication, publish: kept, client, has_news: false };
        let key = self.publications.insert(published);
        self.publication_by_id.insert(publish.publication, key);
        for encoding in &publish.encodings {
            self.publication_by_log.insert(encoding.log, key);
        }
        self.clients[client].publications.push(key);
        self.clients[client].streams.add(publish);
        self.clients[client].handle_published(publish);
        self.watch_silence(now, client);
        self.mark_unsaved(client);
        self.stats.set(Counter::Publications, self.publications.len() as u64);
        // Subscriptions may have been attached before the log was open.
        self.reconnect(now);
        Ok(())
    }

    fn unpublish(&mut self, publication: u64) -> Result<(), String> {
        let key = *self.publication_by_id.get(&publication).ok_or("no such publication")?;
        let client = self.publications[key].client;
        self.clients[client].publications.retain(|known| *known != key);
        self.clients[client].streams.remove(publication);
        self.mark_unsaved(client);
        self.remove_publication(key);
        Ok(())
    }

    pub(super) fn remove_publication(&mut self, key: PublicationKey) {
        self.take_publication(key).close();
    }

    /// Takes a publication out of the tables; its logs stay open.
    pub(super) fn take_publication(&mut self, key: PublicationKey) -> Publication {
        let published = self.publications.remove(key);
        self.publication_by_id.remove(&published.publication.id());
        self.publication_by_log.retain(|_, owner| *owner != key);
        self.advanced.retain(|advanced| *advanced != key);
        self.stats.set(Counter::Publications, self.publications.len() as u64);
        published.publication
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), String> {
        let client = self.client_key(subscribe.transport)?;
        if self.subscription_by_id.contains_key(&subscribe.subscription) {
            return Err("the subscription is open already".to_owned());
        }
        if subscribe.cname.len() > MAX_CNAME {
            return Err(format!("the cname has {} bytes, more than {MAX_CNAME}", subscribe.cname.len()));
        }
        let key = self.subscriptions.insert(Subscribed {
            subscription: Subscription::new(subscribe, self.repair_delay),
            subscribe: subscribe.clone(),
            attach: None,
            words: None,
            client,
        });
        self.assign_words(key);
        self.mark_unsaved(client);
        self.subscription_by_id.insert(subscribe.subscription, key);
        self.clients[client].subscriptions.push(key);
        self.stats.set(Counter::Subscriptions, self.subscriptions.len() as u64);
        Ok(())
    }

    fn attach(&mut self, now: Time, attach: &Attach) -> Result<(), String> {
        let key = self.subscription_key(attach.subscription)?;
        check_logs(&mut attach.logs.clone(), self.arena.logs())?;
        self.stop_reading(key);
        self.subscriptions[key].subscription.attach(attach);
        self.subscriptions[key].attach = Some(attach.clone());
        self.mark_unsaved(self.subscriptions[key].client);
        for log in &attach.logs {
            self.read_log(now, *log, attach.publication, key);
        }
        self.join(now, key);
        let client = self.subscriptions[key].client;
        self.schedule(now, client);
        Ok(())
    }

    pub(super) fn read_log(&mut self, now: Time, log: u32, publication: u64, key: SubscriptionKey) {
        if self.readings.get(&log).is_some_and(|reading| reading.feed.publication() != publication) {
            // The log has been opened for another publication. Subscriptions to the old one would wait for ever.
            for stale in self.readings.get(&log).map_or_else(Vec::new, |reading| reading.subscriptions.clone()) {
                self.stop_reading(stale);
                self.subscriptions[stale].subscription.detach();
            }
            self.close_reading(log);
        }
        let reading = self.readings.entry(log).or_insert_with(|| Reading {
            feed: Feed::open(&self.arena, log, publication, self.slot),
            subscriptions: Vec::new(),
            is_dirty: false,
        });
        reading.subscriptions.push(key);
        if reading.feed.owner().is_none() {
            self.reconnect_soon(now);
        }
    }

    fn detach(&mut self, subscription: u64) -> Result<(), String> {
        let key = self.subscription_key(subscription)?;
        self.stop_reading(key);
        self.subscriptions[key].subscription.detach();
        self.subscriptions[key].attach = None;
        self.mark_unsaved(self.subscriptions[key].client);
        Ok(())
    }

    fn set_wish(&mut self, now: Time, wish: SetWish) -> Result<(), String> {
        let key = self.subscription_key(wish.subscription)?;
        if self.subscriptions[key].subscription.wish() == wish.height {
            return Ok(());
        }
        self.subscriptions[key].subscription.set_wish(wish.height);
        let client = self.subscriptions[key].client;
        self.mark_unsaved(client);
        if self.clients[client].transport.is_connected() {
            self.pass_on_key_frame_request_of(now, key);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, subscription: u64) -> Result<(), String> {
        let key = self.subscription_key(subscription)?;
        let client = self.subscriptions[key].client;
        self.send_rtcp(client, |engine, writer| engine.write_bye(key, writer));
        self.clients[client].subscriptions.retain(|known| *known != key);
        self.remove_subscription(key);
        // At once, because the next subscription may get its words.
        self.save_record(client);
        Ok(())
    }

    pub(super) fn remove_subscription(&mut self, key: SubscriptionKey) {
        self.stop_reading(key);
        self.backlog.retain(|known| *known != key);
        let subscribed = self.subscriptions.remove(key);
        self.subscription_by_id.remove(&subscribed.subscription.id());
        self.stats.set(Counter::Subscriptions, self.subscriptions.len() as u64);
    }

    fn stop_reading(&mut self, key: SubscriptionKey) {
        for log in self.subscriptions[key].subscription.logs().to_vec() {
            let Some(reading) = self.readings.get_mut(&log) else { continue };
            let Some(position) = reading.subscriptions.iter().position(|known| *known == key) else { continue };
            reading.subscriptions.remove(position);
            if reading.subscriptions.is_empty() {
                self.close_reading(log);
            } else if let Some((fanning, next)) = &mut self.fanning
                && *fanning == log
                && position < *next
            {
                *next -= 1;
            }
        }
    }

    fn close_reading(&mut self, log: u32) {
        if let Some(reading) = self.readings.remove(&log) {
            reading.feed.close();
        }
        if self.fanning.is_some_and(|(fanning, _)| fanning == log) {
            self.fanning = None;
        }
    }

    fn report_transport(&mut self, ask: ReportTransport) -> Result<(), String> {
        let client = &self.clients[self.client_key(ask.transport)?];
        let publications = client.publications.iter().map(|key| self.publications[*key].publication.report());
        let subscriptions = client.subscriptions.iter().map(|key| self.subscriptions[*key].subscription.report());
        self.events.push_back(Event::TransportReport(TransportReport {
            transport: ask.transport,
            request: ask.request,
            state: client.transport.phase().label().to_owned(),
            remote_address: client.transport.path().map(|path| path.remote.to_string()),
            remote_protocol: client.transport.path().map(|path| protocol_of(path).to_owned()),
            srtp_profile: client.profile.clone(),
            packets_received: client.traffic.packets_received,
            bytes_received: client.traffic.bytes_received,
            packets_sent: client.traffic.packets_sent,
            bytes_sent: client.traffic.bytes_sent,
            drops: client.traffic.drops(),
            round_trip_ms: client.round_trip_ms,
            publications: publications.collect(),
            subscriptions: subscriptions.collect(),
        }));
        Ok(())
    }

    fn save_control_record(&mut self, save: SaveRecord) -> Result<(), String> {
        let key = self.client_key(save.transport)?;
        if save.record.len() > MAX_RECORD_BYTES {
            return Err(format!("the record has {} bytes, more than {MAX_RECORD_BYTES}", save.record.len()));
        }
        let before = std::mem::replace(&mut self.clients[key].control_record, save.record.into_vec());
        if self.clients[key].record.is_none() {
            return Err("the slot has no session record left".to_owned());
        }
        if !self.save_record(key) {
            self.clients[key].control_record = before;
            self.mark_unsaved(key);
            return Err(format!("the session record has room for {} bytes", self.arena.parameters().session_bytes));
        }
        Ok(())
    }

    pub(super) fn client_key(&self, transport: u64) -> Result<ClientKey, String> {
        self.client_by_id.get(&transport).copied().ok_or_else(|| "no such transport".to_owned())
    }

    fn subscription_key(&self, subscription: u64) -> Result<SubscriptionKey, String> {
        self.subscription_by_id.get(&subscription).copied().ok_or_else(|| "no such subscription".to_owned())
    }
}

fn protocol_of(path: Path) -> &'static str {
    if path.socket.is_tcp() { "tcp" } else { "udp" }
}

/// Checks the logs of one publication: one for each encoding, each of them in the arena, no two the same.
fn check_logs(logs: &mut [u32], count: u32) -> Result<(), String> {
    if logs.is_empty() || logs.len() > MAX_LAYERS {
        return Err(format!("{} track logs, not 1 to {MAX_LAYERS}", logs.len()));
    }
    logs.sort_unstable();
    if let Some(log) = logs.iter().find(|log| **log >= count) {
        return Err(format!("track log {log} does not exist"));
    }
    match logs.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("track log {} is named twice", pair[0])),
        None => Ok(()),
    }
}
