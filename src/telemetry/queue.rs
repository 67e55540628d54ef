//! The lines of the log on their way to standard error: a bounded queue and the one thread that writes.
//!
//! Whoever reads standard error may be slow, stuck or gone. Then lines are dropped and counted, the newest first, and
//! nothing else happens: no task waits, and none hears of an error.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait to be written.
const BYTES: usize = 4 << 20;

/// What the process logs.
pub(super) static LINES: Queue = Queue::new(BYTES);

/// Lines of the process that were dropped since its start: nobody read standard error, or it was closed.
pub fn dropped() -> u64 {
    LINES.state().dropped
}

/// Lines that wait for the thread that writes them.
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    limit: usize,
}

struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// One line is out of the queue and not written yet.
    writing: bool,
    dropped: u64,
    /// How many of them a line has told of.
    told: u64,
    started: bool,
}

impl Queue {
    pub(super) const fn new(limit: usize) -> Self {
        let state = State { lines: VecDeque::new(), bytes: 0, writing: false, dropped: 0, told: 0, started: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new(), limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, or drops it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.bytes + line.len() > self.limit {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        drop(state);
        self.filled.notify_one();
    }

    /// Starts the thread that writes to standard error, once in a process.
    pub(super) fn start(&'static self) -> std::io::Result<()> {
        if std::mem::replace(&mut self.state().started, true) {
            return Ok(());
        }
        let write = || self.write_to(&mut std::io::stderr());
        std::thread::Builder::new().name("log".to_owned()).spawn(write).map(drop)
    }

    /// Writes lines as they come, for ever. What cannot be written is dropped.
    fn write_to(&self, out: &mut impl Write) -> ! {
        loop {
            let line = self.next();
            let written = out.write_all(&line).is_ok();
            let lost = self.written(written);
            if lost > 0 {
                tracing::warn!(dropped = lost, "standard error was not read: lines of the log were dropped");
            }
        }
    }

    fn next(&self) -> Box<[u8]> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return line;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A line has left. Gives how many were dropped that nobody has told of yet, as soon as lines get through again.
    fn written(&self, well: bool) -> u64 {
        let mut state = self.state();
        state.writing = false;
        if !well {
            state.dropped += 1;
        }
        let lost = if well && state.lines.is_empty() { state.dropped - state.told } else { 0 };
        state.told += lost;
        if state.lines.is_empty() {
            self.emptied.notify_all();
        }
        lost
    }

    /// Waits until everything is written, at most `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let state = self.state();
        if state.started {
            let busy = |state: &mut State| state.writing || !state.lines.is_empty();
            drop(self.emptied.wait_timeout_while(state, patience, busy));
        }
    }
}

/// Where the subscriber writes each line, whole.
pub(super) struct Writer(pub(super) &'static Queue);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a line only when it is told to.
    struct Stuck(mpsc::Receiver<std::io::Result<()>>, mpsc::Sender<String>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            // A test that has ended takes everything.
            self.0.recv().unwrap_or(Ok(()))?;
            let _ = self.1.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_nobody_waits() {
        static QUEUE: Queue = Queue::new(10);
        let ((allow, allowed), (out, lines)) = (mpsc::channel(), mpsc::channel());
        QUEUE.state().started = true;
        std::thread::spawn(|| QUEUE.write_to(&mut Stuck(allowed, out)));
        for _ in 0..100 {
            QUEUE.push(b"12345");
        }
        let dropped = QUEUE.state().dropped;
        assert!((97..=98).contains(&dropped), "two wait, and one may be in the writer's hands: {dropped}");
        QUEUE.flush(Duration::from_millis(10));
        // Its reader is gone for one line, and comes back.
        allow.send(Err(std::io::ErrorKind::BrokenPipe.into())).unwrap();
        allow.send(Ok(())).unwrap();
        assert_eq!(lines.recv_timeout(Duration::from_secs(10)).unwrap(), "12345");
        drop(allow);
        QUEUE.push(b"last");
        while lines.recv_timeout(Duration::from_secs(10)).unwrap() != "last" {}
        QUEUE.flush(Duration::from_secs(10));
        let state = QUEUE.state();
        assert_eq!((state.dropped, state.told), (dropped + 1, dropped + 1));
    }
}
