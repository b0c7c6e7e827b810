//! The task between the reader and the shards: fills batches, by size and by age, and counts what comes back.
//!
//! One task owns the batches and the book-keeping, so there is no lock. It takes a piece of the log only while less
//! than the limit is outstanding; queues behind it can then be unbounded channels and are bounded all the same.
//!
//! The number of shards changes only while nothing is outstanding: a series may then move to another shard without
//! overtaking itself. When the destination does not answer in time for that, the number stays.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Shared;
use crate::backlog::Tagged;
use crate::queue::{AckTracker, Acknowledged, Batch, Item, Piece};
use crate::shard::planner::{self, Interval, Planner};
use crate::shard::{Done, Shard};

/// How often gauges are brought up to date and the number of shards is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long reading may pause for a change of the number of shards.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A shard as the dispatcher sees it.
struct Lane {
    queue: UnboundedSender<Batch>,
    task: JoinHandle<()>,
    /// The batch being filled, and when it goes out at the latest.
    batch: Batch,
    due: Option<Instant>,
}

/// A change of the number of shards that waits for requests under way.
struct Change {
    to: usize,
    give_up: Instant,
}

/// The way to whoever looks at newly tagged series, and back.
pub(super) struct Promotions {
    pub(super) tagged: UnboundedSender<Tagged>,
    pub(super) released: UnboundedReceiver<u64>,
}

/// The number of the next piece that need not be held; never without promotions.
async fn released(promotions: &mut Option<Promotions>) -> Option<u64> {
    match promotions {
        Some(p) => p.released.recv().await,
        None => std::future::pending().await,
    }
}

pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    runtime: Handle,
    pieces: Receiver<Piece>,
    position: watch::Sender<Acknowledged>,
    /// Where newly tagged series are looked at, and the pieces of which that is done.
    promotions: Option<Promotions>,
    tracker: AckTracker,
    lanes: Vec<Lane>,
    done: UnboundedReceiver<Done>,
    done_in: UnboundedSender<Done>,
    planner: Planner,
    since_plan: Interval,
    planned_at: Duration,
    change: Option<Change>,
}

impl Drop for Dispatcher {
    /// Also when the task is aborted, no shard outlives it.
    fn drop(&mut self) {
        self.lanes.iter().for_each(|l| l.task.abort());
    }
}

impl Dispatcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        pieces: Receiver<Piece>,
        position: watch::Sender<Acknowledged>,
        acknowledged: Acknowledged,
        promotions: Option<Promotions>,
        runtime: Handle,
    ) -> Self {
        let (done_in, done) = unbounded_channel();
        let queue = &shared.config.queue;
        let planner = Planner::new(queue.min_shards, queue.max_shards);
        let planned_at = shared.clock.monotonic();
        Self {
            shared,
            runtime,
            pieces,
            position,
            promotions,
            tracker: AckTracker::new(acknowledged),
            lanes: Vec::new(),
            done,
            done_in,
            planner,
            since_plan: Interval::default(),
            planned_at,
            change: None,
        }
    }

    /// Runs until `stop` tells within which time to finish. Returns whether everything taken was acknowledged.
    pub(super) async fn run(mut self, stop: oneshot::Receiver<Duration>) -> bool {
        self.set_shards(self.shared.config.queue.min_shards.max(1));
        let mut stop = pin!(stop);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = loop {
            let open = self.change.is_none() && self.tracker.outstanding() < self.limit();
            let due = self.lanes.iter().filter_map(|l| l.due).min();
            tokio::select! {
                // The order matters: what came back makes room before more is taken in.
                biased;
                deadline = &mut stop => break deadline.unwrap_or(Duration::ZERO),
                Some(done) = self.done.recv() => self.acknowledge(done),
                Some(piece) = released(&mut self.promotions) => self.release(piece),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.flush_due(Instant::now()),
                _ = tick.tick() => self.tick(),
                Some(piece) = self.pieces.recv(), if open => self.take(piece),
                // Only `stop` ends the loop: it can always be polled, so this is never reached while it is held.
                else => break Duration::ZERO,
            }
        };
        self.finish(deadline).await
    }

    /// Most items outstanding.
    fn limit(&self) -> usize {
        self.shared.config.queue.capacity.saturating_mul(self.lanes.len())
    }

    fn take(&mut self, piece: Piece) {
        self.since_plan.items_in += piece.items.len();
        let promotions = self.promotions.as_ref().filter(|_| !piece.newly_tagged.is_empty());
        let number = self.tracker.add(piece.end, piece.items.len(), promotions.is_some(), piece.read_at);
        if let Some(p) = promotions {
            let tagged = Tagged { piece: number, series: piece.newly_tagged };
            // Whoever looks at them ends only with this task; the piece stays held otherwise, which loses nothing.
            let _ = p.tagged.send(tagged);
        }
        for item in piece.items {
            self.push(number, item);
        }
        self.publish();
    }

    fn push(&mut self, piece: u64, item: Item) {
        let queue = &self.shared.config.queue;
        let i = (item.series.hash % self.lanes.len() as u64) as usize;
        let lane = &mut self.lanes[i];
        if lane.batch.is_empty() {
            lane.due = Some(Instant::now() + queue.batch_send_deadline);
        }
        lane.batch.push(piece, item);
        if lane.batch.len() >= queue.max_samples_per_send {
            lane.flush();
        }
    }

    fn flush_due(&mut self, now: Instant) {
        self.lanes.iter_mut().filter(|l| l.due.is_some_and(|d| d <= now)).for_each(Lane::flush);
    }

    fn acknowledge(&mut self, done: Done) {
        self.since_plan.items_out += done.items;
        self.since_plan.busy += done.busy;
        self.tracker.acknowledge(&done.receipt);
        self.publish();
        if self.tracker.outstanding() == 0
            && let Some(change) = self.change.take()
        {
            self.set_shards(change.to);
        }
    }

    fn release(&mut self, piece: u64) {
        self.tracker.release(piece);
        self.publish();
    }

    /// Tells the position's keeper, and the backlog lane how long samples have been waiting.
    fn publish(&self) {
        self.shared.note_waiting(self.tracker.waiting_since());
        let acknowledged = self.tracker.acknowledged();
        self.position.send_if_modified(|p| std::mem::replace(p, acknowledged) != acknowledged);
    }

    // === Number of shards ===

    fn set_shards(&mut self, number: usize) {
        assert!(self.tracker.outstanding() == 0, "shards change only while nothing is outstanding");
        self.lanes.clear(); // closes the queues, which ends the idle shards
        for _ in 0..number {
            let (queue, queue_rx) = unbounded_channel();
            let shard = Shard::new(self.shared.clone(), self.done_in.clone());
            let task = self.runtime.spawn(shard.run(queue_rx));
            self.lanes.push(Lane { queue, task, batch: Batch::default(), due: None });
        }
        self.shared.metrics.shards.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    fn tick(&mut self) {
        let behind = self.behind();
        self.shared.metrics.lag_seconds.set(behind.as_secs_f64());
        if self.change.as_ref().is_some_and(|c| c.give_up <= Instant::now()) {
            self.change = None;
        }
        let now = self.shared.clock.monotonic();
        let elapsed = now.saturating_sub(self.planned_at);
        if elapsed < planner::INTERVAL || self.change.is_some() {
            return;
        }
        self.planned_at = now;
        let interval = Interval { elapsed, behind, ..std::mem::take(&mut self.since_plan) };
        let (wanted, next) = self.planner.plan(self.lanes.len(), interval);
        self.shared.metrics.shards_desired.set(wanted);
        if next != self.lanes.len() {
            self.begin_change(next);
        }
    }

    fn begin_change(&mut self, to: usize) {
        tracing::info!(
            destination = self.shared.config.name,
            from = self.lanes.len(),
            to,
            "changing the number of shards"
        );
        if self.tracker.outstanding() == 0 {
            return self.set_shards(to);
        }
        self.lanes.iter_mut().for_each(Lane::flush);
        self.change = Some(Change { to, give_up: Instant::now() + DRAIN_LIMIT });
    }

    /// Age of the newest acknowledged sample while others wait.
    fn behind(&self) -> Duration {
        match self.shared.highest_sent_ms() {
            Some(t) if self.tracker.outstanding() > 0 => {
                let age_ms = self.shared.clock.now_ms().saturating_sub(t);
                Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
            }
            _ => Duration::ZERO,
        }
    }

    // === The end ===

    /// Takes no more pieces, sends what is there as far as the deadline allows.
    async fn finish(mut self, deadline: Duration) -> bool {
        // Closed first, so that a reader which waits to hand on a piece learns of the end.
        self.pieces.close();
        while let Ok(piece) = self.pieces.try_recv() {
            self.take(piece);
        }
        self.lanes.iter_mut().for_each(Lane::flush);
        let end = Instant::now() + deadline;
        // Whoever looks at newly tagged series does so at once when no more can come.
        let mut released = self.promotions.take().map(|p| p.released);
        while self.tracker.outstanding() > 0 || self.tracker.holds() {
            let next = async {
                match &mut released {
                    Some(released) => tokio::select! {
                        Some(done) = self.done.recv() => Some(Ok(done)),
                        Some(piece) = released.recv() => Some(Err(piece)),
                        else => None,
                    },
                    None => self.done.recv().await.map(Ok),
                }
            };
            match tokio::time::timeout_at(end, next).await {
                Ok(Some(Ok(done))) => self.acknowledge(done),
                Ok(Some(Err(piece))) => self.release(piece),
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!(
                        destination = self.shared.config.name,
                        samples = self.tracker.outstanding(),
                        "stopped before everything read was acknowledged; it is sent again after the next start"
                    );
                    break;
                }
            }
        }
        self.tracker.outstanding() == 0 && !self.tracker.holds()
    }
}

impl Lane {
    fn flush(&mut self) {
        self.due = None;
        if !self.batch.is_empty() {
            // The shard ends only with its queue, so somebody is there to take the batch.
            let sent = self.queue.send(std::mem::take(&mut self.batch));
            debug_assert!(sent.is_ok(), "a shard lives as long as its queue");
        }
    }
}
