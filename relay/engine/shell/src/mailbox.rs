//! The queues between Python's thread and the engine's: commands one way, events the other, both bounded, each with a bell. Must never
//! wait, and must never hold the GIL on the engine's side. Read `reactor.rs` next.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use millrace_core::command::Command;
use millrace_core::event::Event;

use crate::bell::Bell;

/// Lists of commands in the queue. Python submits one list for each client's request, and each round of the engine takes 64. Beyond it
/// `submit` returns `Full`.
const COMMAND_LISTS: usize = 4096;
/// Events in the queue. When it is full the engine holds further events until there is room.
const EVENTS: usize = 16_384;
/// Events that one call of `Front::events` returns at the most, so that Python's loop can do other work between.
const EVENTS_A_CALL: usize = 1024;

/// Python's end.
pub struct Front {
    commands: SyncSender<Vec<Command>>,
    command_bell: Bell,
    /// Locked by Python threads alone; not contended in practice, as one loop reads.
    events: Mutex<Receiver<Event>>,
    event_bell: Bell,
}

/// The engine's end.
pub struct Back {
    commands: Receiver<Vec<Command>>,
    command_bell: Bell,
    events: SyncSender<Event>,
    event_bell: Bell,
    /// The event that did not fit.
    held: Option<Event>,
    /// Events were put in since the bell was rung.
    has_news: bool,
}

/// Why commands were not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    Full,
    /// The engine has stopped.
    Stopped,
}

pub fn mailbox() -> io::Result<(Front, Back)> {
    let (command_sender, commands) = sync_channel(COMMAND_LISTS);
    let (events, event_receiver) = sync_channel(EVENTS);
    let (command_bell, event_bell) = (Bell::new()?, Bell::new()?);
    let back = Back {
        commands,
        command_bell: Bell::share(command_bell.as_raw_fd())?,
        events,
        event_bell: Bell::share(event_bell.as_raw_fd())?,
        held: None,
        has_news: false,
    };
    Ok((Front { commands: command_sender, command_bell, events: Mutex::new(event_receiver), event_bell }, back))
}

impl Front {
    /// Queues commands, in order; never waits.
    pub fn submit(&self, commands: Vec<Command>) -> Result<(), SubmitError> {
        self.commands.try_send(commands).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Full,
            TrySendError::Disconnected(_) => SubmitError::Stopped,
        })?;
        self.command_bell.ring();
        Ok(())
    }

    /// Wakes the engine without a command.
    pub fn ring(&self) {
        self.command_bell.ring();
    }

    /// The events since the last call. The descriptor stays readable while there are more.
    pub fn events(&self) -> Vec<Event> {
        self.event_bell.silence();
        let events = self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let taken: Vec<Event> = events.try_iter().take(EVENTS_A_CALL).collect();
        if taken.len() == EVENTS_A_CALL {
            self.event_bell.ring();
        }
        taken
    }

    /// Readable when `events` has events.
    pub fn fd(&self) -> RawFd {
        self.event_bell.as_raw_fd()
    }
}

impl Back {
    /// Readable when there are commands.
    pub fn fd(&self) -> RawFd {
        self.command_bell.as_raw_fd()
    }

    /// To be called when `fd` is readable, before the commands are taken.
    pub fn silence(&self) {
        self.command_bell.silence();
    }

    pub fn next_commands(&self) -> Option<Vec<Command>> {
        self.commands.try_recv().ok()
    }

    /// True when `push` has room for an event, so Python is not too far behind.
    pub fn has_room(&mut self) -> bool {
        if let Some(held) = self.held.take() {
            self.push(held);
        }
        self.held.is_none()
    }

    /// Queues an event. To be called after `has_room` was true.
    pub fn push(&mut self, event: Event) {
        match self.events.try_send(event) {
            Ok(()) => self.has_news = true,
            Err(TrySendError::Full(event)) => self.held = Some(event),
            // Python's end is gone.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Rings Python's bell once for all events queued since the last call.
    pub fn announce(&mut self) {
        if std::mem::take(&mut self.has_news) {
            self.event_bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::command::CloseTransport;
    use millrace_core::event::PublicationStarted;

    use super::*;

    fn command(transport: u64) -> Command {
        Command::CloseTransport(CloseTransport { transport })
    }

    fn event(publication: u64) -> Event {
        Event::PublicationStarted(PublicationStarted { publication })
    }

    fn is_readable(fd: RawFd) -> bool {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry, no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn commands_arrive_in_order_and_ring() {
        let (front, back) = mailbox().expect("descriptors");
        assert!(!is_readable(back.fd()));
        assert_eq!(front.submit(vec![command(1), command(2)]), Ok(()));
        assert_eq!(front.submit(vec![command(3)]), Ok(()));
        assert!(is_readable(back.fd()));
        back.silence();
        assert!(!is_readable(back.fd()));
        let taken: Vec<Command> = std::iter::from_fn(|| back.next_commands()).flatten().collect();
        assert_eq!(taken, [command(1), command(2), command(3)]);
    }

    #[test]
    fn a_full_or_orphaned_mailbox_says_so_at_once() {
        let (front, back) = mailbox().expect("descriptors");
        for _ in 0..COMMAND_LISTS {
            assert_eq!(front.submit(Vec::new()), Ok(()));
        }
        assert_eq!(front.submit(Vec::new()), Err(SubmitError::Full));
        drop(back);
        assert_eq!(front.submit(Vec::new()), Err(SubmitError::Stopped));
    }

    #[test]
    fn no_event_is_lost_when_python_falls_behind() {
        let (front, mut back) = mailbox().expect("descriptors");
        let total = EVENTS as u64 + 500;
        let (mut next, mut seen) = (0, 0);
        while seen < total {
            while next < total && back.has_room() {
                back.push(event(next));
                next += 1;
            }
            assert!(next <= seen + EVENTS as u64 + 1, "bounded");
            back.announce();
            while is_readable(front.fd()) {
                for got in front.events() {
                    assert_eq!(got, event(seen));
                    seen += 1;
                }
            }
            assert!(back.has_room());
            back.announce();
        }
        assert_eq!(front.events(), []);
    }
}
