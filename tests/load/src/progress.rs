//! The bar that shows how far a run is, on a terminal only. Must never print a figure that is not in the report. Read
//! `report.rs` next.

use std::io::{IsTerminal, Write, stderr};

const WIDTH: usize = 24;

pub struct Progress {
    shown: bool,
    what: String,
    last: Option<(usize, String)>,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { shown: stderr().is_terminal(), what: String::new(), last: None }
    }

    /// Names the run that the bar is about from now on.
    pub fn begin(&mut self, what: String) {
        self.what = what;
        self.last = None;
    }

    /// Shows `done`, from 0 to 1, and the present step.
    pub fn show(&mut self, done: f64, note: &str) {
        let filled = (done.clamp(0.0, 1.0) * WIDTH as f64) as usize;
        let now = (filled, note.to_owned());
        if !self.shown || self.last.as_ref() == Some(&now) {
            return;
        }
        let bar = "=".repeat(filled) + &" ".repeat(WIDTH - filled);
        let _ = write!(stderr(), "\r\x1b[K[{bar}] {}: {note}", self.what);
        let _ = stderr().flush();
        self.last = Some(now);
    }

    pub fn clear(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
            let _ = stderr().flush();
        }
    }
}
