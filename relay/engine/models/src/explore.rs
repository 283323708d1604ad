//! Runs a scene in every possible way: which thread continues, which store a load sees, where a writer is killed. Owns the threads,
//! which are coroutines of one, and the path of choices; must never know what a scene promises.
//! Read `memory.rs` for what a load may see, `../tests/main.rs` for the scenes.
//!
//! A scene is run again and again, each time along another path: the last choice with a way left takes it, and the choices before stay.
//! So a scene must do the same whenever the choices are the same. A thread may be interrupted before each access to a word that another
//! thread uses, too, and one of them changes. These words are learnt during the runs; when a new one is found, all begins anew.
//! Interruptions are bounded. The switch from a thread that ends or waits is none.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use generator::{Generator, Gn};

use super::memory::{Knowledge, Memory};

/// In words of 8 bytes: an assertion that fails formats its message here. Touched pages alone cost memory.
const STACK: usize = 32 * 1024;

thread_local! {
    static EXECUTION: RefCell<Option<Execution>> = const { RefCell::new(None) };
}

type Coroutine = Generator<'static, (), ()>;

/// One run of a scene, and what lasts from run to run.
#[derive(Default)]
struct Execution {
    memory: Memory,
    threads: Vec<Thread>,
    current: usize,
    bells: Vec<Bell>,
    /// Bodies of threads that have not begun.
    begun: Vec<Coroutine>,
    interruptions_left: usize,
    path: Vec<Choice>,
    at: usize,
    /// By word: who has read, who has written, one bit for each thread.
    users: Vec<(u64, u64)>,
    contested: Vec<bool>,
    trace: Option<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Choice {
    taken: usize,
    of: usize,
}

#[derive(Default)]
struct Thread {
    knows: Knowledge,
    waits: Option<Wait>,
    has_ended: bool,
    is_mortal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Thread(usize),
    Bell(usize),
}

#[derive(Default)]
struct Bell {
    is_rung: bool,
    knows: Knowledge,
}

struct Killed;

/// A thread of a scene; ask it for its result.
pub struct Handle<T> {
    thread: usize,
    result: Arc<Mutex<Option<T>>>,
}

/// Like an eventfd: a ring before the wait is not lost, and the thread that waited knows what the ringing one knew.
#[derive(Clone, Copy)]
pub struct Doorbell(usize);

/// Runs `scene` along every path with at most this many interruptions, and returns how many paths there are. Panics with the steps of the
/// first path on which the scene panics, or on which every thread waits.
pub fn explore(interruptions: usize, scene: impl Fn() + Send + Sync + 'static) -> u64 {
    let scene: Arc<dyn Fn() + Send + Sync> = Arc::new(scene);
    let (mut path, mut contested) = (Vec::new(), Vec::new());
    let mut paths = 0;
    loop {
        let begin = |path: &[Choice], contested: &[bool], trace| Execution {
            interruptions_left: interruptions,
            path: path.to_vec(),
            contested: contested.to_vec(),
            trace,
            ..Execution::default()
        };
        let (execution, outcome) = run(begin(&path, &contested, None), scene.clone());
        paths += 1;
        if let Err(cause) = outcome {
            let (execution, _) = run(begin(&execution.path, &contested, Some(Vec::new())), scene);
            let steps = execution.trace.unwrap_or_default().join("\n");
            panic!("path {paths}: {}\n{steps}", text(&cause));
        }
        let found: Vec<bool> = execution.users.into_iter().map(is_contested).collect();
        contested.resize(found.len(), false);
        if found.iter().zip(&contested).any(|(now, before)| *now && !before) {
            contested.iter_mut().zip(found).for_each(|(contested, now)| *contested |= now);
            (path, paths) = (Vec::new(), 0);
            continue;
        }
        path = execution.path;
        while path.last().is_some_and(|choice| choice.taken + 1 == choice.of) {
            path.pop();
        }
        match path.last_mut() {
            Some(choice) => choice.taken += 1,
            None => return paths,
        }
    }
}

/// Starts a thread of the scene that is under way. It knows what its parent knows.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Handle<T> {
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    let body = coroutine(move || *slot.lock().expect("one thread") = Some(body()));
    let thread = with(|execution| {
        let knows = execution.threads[execution.current].knows.of_child();
        execution.threads.push(Thread { knows, ..Thread::default() });
        execution.begun.push(body);
        execution.threads.len() - 1
    });
    Handle { thread, result }
}

impl<T> Handle<T> {
    /// Waits for the thread's end, and then knows what it knew.
    pub fn join(self) -> T {
        while with(|execution| !execution.threads[self.thread].has_ended) {
            wait(Wait::Thread(self.thread));
        }
        with(|execution| {
            let Execution { threads, current, .. } = execution;
            let knew = threads[self.thread].knows.clone();
            threads[*current].knows.learn(&knew);
        });
        self.result.lock().expect("one thread").take().expect("it ended without a panic")
    }
}

/// Runs a writer that may be killed before any of its stores; `None` when it was.
pub fn mortal<T>(write: impl FnOnce() -> T) -> Option<T> {
    let set = |is_mortal| with(|execution| execution.threads[execution.current].is_mortal = is_mortal);
    set(true);
    let outcome = catch_unwind(AssertUnwindSafe(write));
    set(false);
    match outcome {
        Ok(done) => Some(done),
        Err(cause) if cause.is::<Killed>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

impl Doorbell {
    /// Of the scene that is under way.
    #[expect(clippy::new_without_default, reason = "there is none outside a scene")]
    pub fn new() -> Doorbell {
        with(|execution| {
            execution.bells.push(Bell::default());
            Doorbell(execution.bells.len() - 1)
        })
    }

    pub fn ring(self) {
        may_die();
        interrupt(|_| true);
        with(|execution| {
            execution.note(|| "rings".to_owned());
            let bell = &mut execution.bells[self.0];
            bell.is_rung = true;
            bell.knows.learn(&execution.threads[execution.current].knows);
            execution.wake(Wait::Bell(self.0));
        });
    }

    pub fn wait(self) {
        interrupt(|_| true);
        while with(|execution| !execution.bells[self.0].is_rung) {
            wait(Wait::Bell(self.0));
        }
        with(|execution| {
            let Execution { threads, current, bells, .. } = execution;
            bells[self.0].is_rung = false;
            threads[*current].knows.learn(&bells[self.0].knows);
            execution.note(|| "is awake".to_owned());
        });
    }
}

pub(super) fn new_word(value: u64) -> usize {
    with(|execution| {
        execution.users.push((0, 0));
        execution.memory.new_word(value)
    })
}

pub(super) fn load(word: usize, order: Ordering) -> u64 {
    interrupt(|execution| execution.uses(word, false));
    with(|execution| {
        let count = execution.memory.visible(&execution.me().knows, word);
        let back = execution.choose(count);
        let Execution { memory, threads, current, .. } = execution;
        let value = memory.load(&mut threads[*current].knows, word, back, order);
        execution.note(|| format!("loads {} {order:?} = {value}", word * 8));
        value
    })
}

pub(super) fn store(word: usize, value: u64, order: Ordering) {
    interrupt(|execution| execution.uses(word, true));
    may_die();
    with(|execution| {
        execution.note(|| format!("stores {} {order:?} = {value}", word * 8));
        let Execution { memory, threads, current, .. } = execution;
        if threads.len() == 1 {
            memory.set(word, value);
        } else {
            memory.store(&mut threads[*current].knows, word, value, order);
        }
    });
}

pub(super) fn modify(word: usize, change: impl Fn(u64) -> u64, order: Ordering) -> u64 {
    interrupt(|execution| execution.uses(word, true));
    may_die();
    with(|execution| execution.modify(word, change, order))
}

pub(super) fn compare_exchange(
    word: usize,
    expected: u64,
    value: u64,
    success: Ordering,
    failure: Ordering,
) -> Result<u64, u64> {
    interrupt(|execution| execution.uses(word, true));
    may_die();
    with(|execution| {
        let visible = execution.memory.visible(&execution.me().knows, word);
        // It succeeds on the newest store alone, and may fail on any other.
        let ways: Vec<usize> =
            (0..visible).filter(|back| *back == 0 || execution.memory.peek(word, *back) != expected).collect();
        let back = ways[execution.choose(ways.len())];
        if back == 0 && execution.memory.peek(word, 0) == expected {
            return Ok(execution.modify(word, |_| value, success));
        }
        let Execution { memory, threads, current, .. } = execution;
        let found = memory.load(&mut threads[*current].knows, word, back, failure);
        execution.note(|| format!("finds {} = {found}, not {expected}", word * 8));
        Err(found)
    })
}

pub(crate) fn fence(order: Ordering) {
    // Sequentially consistent ones depend on their order.
    interrupt(|_| order == Ordering::SeqCst);
    with(|execution| {
        execution.note(|| format!("fence {order:?}"));
        let Execution { memory, threads, current, .. } = execution;
        memory.fence(&mut threads[*current].knows, order);
    });
}

impl Execution {
    fn me(&self) -> &Thread {
        &self.threads[self.current]
    }

    fn modify(&mut self, word: usize, change: impl Fn(u64) -> u64, order: Ordering) -> u64 {
        let Execution { memory, threads, current, .. } = self;
        let before = if threads.len() == 1 {
            let before = memory.peek(word, 0);
            memory.set(word, change(before));
            before
        } else {
            memory.modify(&mut threads[*current].knows, word, &change, order)
        };
        self.note(|| format!("changes {} {order:?} from {before} to {}", word * 8, change(before)));
        before
    }

    /// Notes that the current thread uses a word; whether that may matter to another.
    fn uses(&mut self, word: usize, writes: bool) -> bool {
        if self.threads.len() > 1 {
            let (readers, writers) = &mut self.users[word];
            *(if writes { writers } else { readers }) |= 1 << self.current;
        }
        self.contested.get(word) == Some(&true)
    }

    fn choose(&mut self, of: usize) -> usize {
        if of == 1 {
            return 0;
        }
        if self.at == self.path.len() {
            self.path.push(Choice { taken: 0, of });
        }
        let choice = self.path[self.at];
        assert_eq!(choice.of, of, "the scene does not do the same each time");
        self.at += 1;
        choice.taken
    }

    fn ready(&self) -> Vec<usize> {
        let can_run = |thread: &&usize| self.threads[**thread].waits.is_none() && !self.threads[**thread].has_ended;
        (0..self.threads.len()).collect::<Vec<_>>().iter().filter(can_run).copied().collect()
    }

    /// Lets a thread run that can; there is one, unless all have ended.
    fn pass_on(&mut self) {
        let ready = self.ready();
        if ready.is_empty() {
            assert!(self.threads.iter().all(|thread| thread.has_ended), "every thread waits");
            return;
        }
        self.current = ready[self.choose(ready.len())];
    }

    fn wake(&mut self, what: Wait) {
        self.threads.iter_mut().filter(|thread| thread.waits == Some(what)).for_each(|thread| thread.waits = None);
    }

    fn note(&mut self, step: impl FnOnce() -> String) {
        let current = self.current;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("  thread {current} {}", step()));
        }
    }
}

fn is_contested((readers, writers): (u64, u64)) -> bool {
    writers != 0 && (readers | writers).count_ones() > 1
}

/// Runs one execution to its end.
fn run(execution: Execution, scene: Arc<dyn Fn() + Send + Sync>) -> (Execution, Result<(), Box<dyn Any + Send>>) {
    EXECUTION.set(Some(execution));
    with(|execution| execution.threads.push(Thread::default()));
    let mut bodies = vec![coroutine(move || scene())];
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        while let Some(current) = with(|execution| (!execution.me().has_ended).then_some(execution.current)) {
            bodies[current].resume();
            bodies.append(&mut with(|execution| std::mem::take(&mut execution.begun)));
            if bodies[current].is_done() {
                with(|execution| {
                    execution.threads[current].has_ended = true;
                    execution.wake(Wait::Thread(current));
                    execution.pass_on();
                });
            }
        }
    }));
    if outcome.is_err() {
        // To drop a coroutine in the middle would unwind it, and it would go on with what it is no longer part of.
        std::mem::forget(bodies);
    }
    (EXECUTION.take().expect("set above"), outcome)
}

fn coroutine(body: impl FnOnce() + Send + 'static) -> Coroutine {
    Gn::new_opt(STACK, body)
}

#[expect(deprecated, reason = "the other way hands a scope to the body, and the atomics are far below it")]
fn switch() {
    generator::yield_with(());
}

fn with<T>(act: impl FnOnce(&mut Execution) -> T) -> T {
    EXECUTION.with_borrow_mut(|execution| act(execution.as_mut().expect("a scene is under way")))
}

/// Called before an access that may matter to other threads: lets one of them run first, or not.
fn interrupt(matters: impl FnOnce(&mut Execution) -> bool) {
    let is_interrupted = with(|execution| {
        if !matters(execution) || execution.interruptions_left == 0 {
            return false;
        }
        let others: Vec<usize> = execution.ready().into_iter().filter(|thread| *thread != execution.current).collect();
        let chosen = execution.choose(1 + others.len());
        if chosen > 0 {
            execution.interruptions_left -= 1;
            execution.current = others[chosen - 1];
        }
        chosen > 0
    });
    if is_interrupted {
        switch();
    }
}

fn wait(what: Wait) {
    with(|execution| {
        let current = execution.current;
        execution.threads[current].waits = Some(what);
        execution.pass_on();
    });
    switch();
}

fn may_die() {
    let is_killed = with(|execution| {
        let current = execution.current;
        let is_killed = execution.threads[current].is_mortal && execution.choose(2) == 1;
        if is_killed {
            execution.threads[current].is_mortal = false;
            execution.note(|| "is killed".to_owned());
        }
        is_killed
    });
    if is_killed {
        resume_unwind(Box::new(Killed));
    }
}

fn text(cause: &Box<dyn Any + Send>) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").to_owned()
}
