//! Shards: each sends one batch after the other, so that the samples of a series, which always go to the same shard,
//! arrive in order. How a batch is sent is in [`crate::delivery`]; how many shards there should be is computed in
//! [`planner`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::delivery::{Delivery, Load};
use crate::queue::{Batch, Receipt};
use crate::sender::Shared;
use crate::sender::metrics::Counts;

pub(crate) mod planner;

/// What a shard reports once a batch needs no more work.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) receipt: Receipt,
    /// Items in it.
    pub(crate) items: usize,
    /// Time spent in requests.
    pub(crate) busy: Duration,
}

/// One sequence of requests.
pub(crate) struct Shard {
    shared: Arc<Shared>,
    done: UnboundedSender<Done>,
    delivery: Delivery,
}

impl Shard {
    pub(crate) fn new(shared: Arc<Shared>, done: UnboundedSender<Done>) -> Self {
        Self { delivery: Delivery::new(shared.clone()), shared, done }
    }

    /// Sends what comes until the queue is closed.
    pub(crate) async fn run(mut self, mut queue: UnboundedReceiver<Batch>) {
        while let Some(batch) = queue.recv().await {
            let counts = Counts::of(&batch.items);
            let items = batch.len();
            let delivered = self.delivery.deliver(Load::Items(batch.items)).await;
            self.shared.metrics.add_pending(counts, -1);
            if self.done.send(Done { receipt: batch.receipt, items, busy: delivered.busy }).is_err() {
                return;
            }
        }
    }
}
