//! The engine as Python sees it: one class whose methods do not grow in number. Owns the conversions in and out; must never do the
//! engine's work on Python's thread. Read `reactor.rs` next; `relay/_engine.pyi` is this file for the type checker.

mod bell;
mod crash_traces;
mod handshakes;
mod lanes;
mod mailbox;
mod poll;
mod reactor;
mod scheduling;
mod steering;
mod tcp;
mod thread;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_arena::Arena;
use millrace_core::command::Command;
use millrace_core::config::EngineConfig;
use millrace_core::stats::Stats;
use pyo3::exceptions::{PyBufferError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bell::Bell;
use crate::handshakes::Handshakes;
use crate::mailbox::{Front, SubmitError};
use crate::reactor::{Parts, Reactor};
use crate::steering::FlowMap;
use crate::thread::Thread;
use crate::udp::Socket;

/// The reactor has one bit for each socket.
const MAX_SOCKETS: usize = 64;

/// Listeners, inbox, doors by slot, the most connections.
type TcpDescriptors = (Vec<RawFd>, RawFd, Vec<RawFd>, usize);

#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::Engine;
}

/// The packet path of one worker, on a thread of its own.
#[pyclass(frozen, module = "relay._engine")]
struct Engine {
    mailbox: Front,
    arena: Arena,
    stop: Arc<AtomicBool>,
    goodbye: Arc<AtomicBool>,
    life: Mutex<Life>,
}

enum Life {
    Made(Box<Parts>),
    Running(Thread),
    Over,
}

#[pymethods]
impl Engine {
    /// `sockets`: bound UDP sockets; `config`: a packed EngineConfig; `arena`: its memfd; `doorbells`: an eventfd per slot.
    /// All descriptors stay the caller's. `tcp`: listeners that all workers share, the end of a Unix socket at which this slot is
    /// passed connections, the other end of each slot's, and how many connections there may be; None without ICE-TCP.
    #[new]
    #[pyo3(signature = (sockets, slot, config, arena, doorbells, flow_map, tcp=None))]
    fn new(
        sockets: Vec<RawFd>,
        slot: u8,
        config: &[u8],
        arena: RawFd,
        doorbells: Vec<RawFd>,
        flow_map: Option<RawFd>,
        tcp: Option<TcpDescriptors>,
    ) -> PyResult<Engine> {
        let config: EngineConfig = rmp_serde::from_slice(config).map_err(refused)?;
        let arena = Arena::attach(arena).map_err(refused)?;
        let slots = arena.parameters().slots as usize;
        if config.slot != slot || usize::from(slot) >= slots || doorbells.len() != slots {
            return Err(refused(format!("slot {slot} and {} doorbells do not fit {slots} slots", doorbells.len())));
        }
        if sockets.len() > MAX_SOCKETS {
            return Err(refused(format!("{} sockets are more than {MAX_SOCKETS}", sockets.len())));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let goodbye = Arc::new(AtomicBool::new(true));
        let (front, back) = mailbox::mailbox()?;
        let mut engine = millrace_core::engine::Engine::new(config, arena.clone()).map_err(refused)?;
        if let Some(kernel) = lanes::kernel() {
            engine.use_lanes(kernel);
        }
        let parts = Parts {
            engine,
            arena: arena.clone(),
            slot,
            sockets: sockets.into_iter().map(Socket::share).collect::<io::Result<_>>()?,
            doorbells: doorbells.into_iter().map(Bell::share).collect::<io::Result<_>>()?,
            flow_map: flow_map.map(FlowMap::share).transpose()?,
            tcp: tcp
                .map(|(listeners, inbox, doors, max)| tcp::Sockets::share(&listeners, inbox, &doors, max))
                .transpose()?,
            mailbox: back,
            stop: stop.clone(),
            goodbye: goodbye.clone(),
        };
        Ok(Engine { mailbox: front, arena, stop, goodbye, life: Mutex::new(Life::Made(Box::new(parts))) })
    }

    /// Starts the thread. RuntimeError when it was started before.
    fn start(&self) -> PyResult<()> {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *life, Life::Over) {
            Life::Made(parts) => {
                let handshakes = Handshakes::start()?;
                let poll = parts.listen(&handshakes)?;
                let work = move || Reactor::new(*parts, poll, handshakes).run();
                *life = Life::Running(Thread::start(self.stop.clone(), work)?);
                Ok(())
            }
            other => {
                *life = other;
                Err(PyRuntimeError::new_err("the engine was started before"))
            }
        }
    }

    /// Passes a packed list of commands to the engine. ValueError when it does not parse, BufferError when the engine is too far behind,
    /// RuntimeError when it has stopped; then no command of the list is carried out.
    fn submit(&self, commands: &[u8]) -> PyResult<()> {
        let commands: Vec<Command> = rmp_serde::from_slice(commands).map_err(refused)?;
        self.mailbox.submit(commands).map_err(|error| match error {
            SubmitError::Full => PyBufferError::new_err("the engine is behind with its commands"),
            SubmitError::Stopped => PyRuntimeError::new_err("the engine has stopped"),
        })
    }

    /// Readable when `events` has events.
    fn fileno(&self) -> RawFd {
        self.mailbox.fd()
    }

    /// A packed list of the events since the last call.
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        pack(py, &self.mailbox.events())
    }

    /// A packed list with a map for each slot, in their order: counter's name to value.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let slots = 0..self.arena.parameters().slots as u8;
        let counters = |slot| Stats::new(self.arena.clone(), slot).read().into_iter().collect();
        let all: Vec<BTreeMap<String, u64>> = slots.map(counters).collect();
        pack(py, &all)
    }

    /// Ends the thread, within two seconds or with a RuntimeError. A second call is no error. With `goodbye` every client gets BYE and
    /// close_notify; without, all sessions stay in the arena for a successor.
    fn stop(&self, py: Python<'_>, goodbye: bool) -> PyResult<()> {
        self.goodbye.store(goodbye, Relaxed);
        let life = {
            let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *life, Life::Over)
        };
        let Life::Running(thread) = life else { return Ok(()) };
        let ended = py.detach(|| thread.stop(|| self.mailbox.ring()));
        if ended { Ok(()) } else { Err(PyRuntimeError::new_err("the engine does not end")) }
    }
}

impl Drop for Engine {
    /// Without `stop` before, the thread ends by itself, and this does not wait for it.
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.mailbox.ring();
    }
}

fn pack<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyBytes>> {
    let packed = rmp_serde::to_vec_named(value).map_err(|error| PyOSError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &packed))
}

/// The error for an argument that is wrong.
fn refused(problem: impl ToString) -> PyErr {
    PyValueError::new_err(problem.to_string())
}
