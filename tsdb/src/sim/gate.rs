//! Holds up the replay of a start at a place, so that a test does something meanwhile and the same things happen every time.

use std::cell::Cell;

use parking_lot::{Condvar, Mutex};

thread_local! {
    static HOLD: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The replay that `start` starts is held up after passing so many places where it can be.
pub(crate) fn held<T>(places: u64, start: impl FnOnce() -> T) -> T {
    HOLD.set(Some(places));
    let started = start();
    HOLD.set(None);
    started
}

#[derive(Debug)]
struct State {
    left: Option<u64>,
    reached: bool,
}

/// Where a replay passes.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        Self { state: Mutex::new(State { left: HOLD.take(), reached: false }), changed: Condvar::new() }
    }
}

impl Gate {
    /// Called by the replay.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock();
        match &mut state.left {
            None => return,
            Some(0) => state.reached = true,
            Some(n) => return *n -= 1,
        }
        while state.left.is_some() {
            self.changed.wait(&mut state);
        }
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.state.lock().reached
    }

    /// Nothing is held up from now on.
    pub(crate) fn open(&self) {
        self.state.lock().left = None;
        self.changed.notify_all();
    }
}
