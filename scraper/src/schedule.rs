//! When which loop is due: one heap and one task for all loops of a manager.
//!
//! A loop that waits is an entry of a few words here and no task of its own: a task with its timer is some hundred bytes,
//! and there are as many as targets. Times are those of the runtime's timer, so that a jump of the wall clock wakes nobody
//! early; each loop looks at the wall clock itself when it is woken.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::scrape_loop::ScrapeLoop;

/// Entries of ended loops that may lie in the heap, beside as many as there are others.
const ENDED_SLACK: usize = 1024;

/// All loops that wait.
#[derive(Default)]
pub(crate) struct Schedule {
    waiting: Mutex<Waiting>,
    /// Told when something is due before what the task waits for.
    sooner: Notify,
}

#[derive(Default)]
struct Waiting {
    heap: BinaryHeap<Reverse<Entry>>,
    /// Loops that ended while they were in the heap.
    ended: usize,
    /// Whether the task runs: from the first loop to the last.
    driven: bool,
}

struct Entry {
    at: Instant,
    /// The schedule keeps no loop alive.
    who: Weak<ScrapeLoop>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl Schedule {
    /// Wakes a loop at the given time. Called on a runtime.
    pub(crate) fn wake_at(self: &Arc<Self>, at: Instant, who: &Arc<ScrapeLoop>) {
        let mut waiting = self.waiting.lock();
        let is_first = waiting.heap.peek().is_none_or(|Reverse(first)| at < first.at);
        waiting.heap.push(Reverse(Entry { at, who: Arc::downgrade(who) }));
        let starts = !std::mem::replace(&mut waiting.driven, true);
        drop(waiting);
        if starts {
            tokio::spawn(Arc::clone(self).drive());
        } else if is_first {
            self.sooner.notify_one();
        }
    }

    /// Notes that a loop ended while it waited; its entry is forgotten when it is due, or sooner when there are many.
    pub(crate) fn note_ended(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ended += 1;
        if waiting.ended > ENDED_SLACK + waiting.heap.len() / 2 {
            waiting.heap.retain(|Reverse(entry)| entry.who.strong_count() > 0);
            waiting.heap.shrink_to_fit();
            waiting.ended = 0;
        }
    }

    /// Wakes loops until there are none.
    async fn drive(self: Arc<Self>) {
        let mut due = Vec::new();
        while let Some(next) = self.take_due(&mut due) {
            for who in due.drain(..) {
                who.woken();
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Takes what is due; returns when to look again, and `None` when there is nothing to wait for.
    fn take_due(&self, due: &mut Vec<Arc<ScrapeLoop>>) -> Option<Instant> {
        let now = Instant::now();
        let waiting = &mut *self.waiting.lock();
        while let Some(first) = waiting.heap.peek_mut() {
            if first.0.at > now {
                break;
            }
            let Reverse(entry) = std::collections::binary_heap::PeekMut::pop(first);
            match entry.who.upgrade() {
                Some(who) => due.push(who),
                None => waiting.ended = waiting.ended.saturating_sub(1),
            }
        }
        match waiting.heap.peek() {
            Some(Reverse(first)) => Some(first.at),
            // What is due now comes back soon.
            None if !due.is_empty() => Some(now),
            None => {
                waiting.driven = false;
                None
            }
        }
    }
}
