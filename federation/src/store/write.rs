//! The one place where rows are written; months and journal records go as ranges beside it. Tests make it fail here as a full
//! or dying disk does.

use model::StorageError;
use rocksdb::{WriteBatch, WriteOptions};

use super::Inner;

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// When the call returns.
    Now,
    /// With the next write that is.
    Later,
}

impl Inner {
    /// Writes a batch as a whole.
    pub(super) fn write(
        &self,
        op: &'static str,
        batch: WriteBatch,
        durable: Durable,
    ) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(durable == Durable::Now);
        #[cfg(test)]
        match self.write_fault.next() {
            fault::Next::Good => {}
            fault::Next::Fails => return Err(fault::error(op, &self.config.dir)),
            fault::Next::FailsButStays => {
                self.db.write_opt(batch, &options).map_err(|e| self.error(op, &e))?;
                return Err(fault::error(op, &self.config.dir));
            }
        }
        self.db.write_opt(batch, &options).map_err(|e| self.error(op, &e))
    }
}

#[cfg(test)]
pub(super) mod fault {
    use std::path::Path;

    use model::StorageError;
    use parking_lot::Mutex;

    /// What becomes of the next write.
    pub(in super::super) enum Next {
        Good,
        Fails,
        /// The bytes are in the log, but whoever wrote them is told otherwise, as when fsync fails.
        FailsButStays,
    }

    #[derive(Clone, Copy, Debug, Default)]
    enum State {
        #[default]
        Good,
        /// So many writes fail, nothing of them stays.
        Full(u32),
        /// So many writes are good, then one stays though it fails, and all later ones fail, as RocksDB does after a failed fsync
        /// until it is opened again.
        Dies(u32),
        Dead,
    }

    /// How the disk is.
    #[derive(Debug, Default)]
    pub(in super::super) struct WriteFault(Mutex<State>);

    impl WriteFault {
        pub(in super::super) fn full(&self, writes: u32) {
            self.set(State::Full(writes));
        }

        pub(in super::super) fn dies(&self, after: u32) {
            self.set(State::Dies(after));
        }

        /// Nothing brings a dead one back.
        fn set(&self, to: State) {
            let mut state = self.0.lock();
            if !matches!(*state, State::Dead) {
                *state = to;
            }
        }

        pub(in super::super) fn is_dead(&self) -> bool {
            matches!(*self.0.lock(), State::Dead)
        }

        pub(in super::super) fn is_good(&self) -> bool {
            matches!(*self.0.lock(), State::Good)
        }

        pub(super) fn next(&self) -> Next {
            let mut state = self.0.lock();
            let (next, then) = match *state {
                State::Good | State::Full(0) => (Next::Good, State::Good),
                State::Full(n) => (Next::Fails, State::Full(n - 1)),
                State::Dies(0) => (Next::FailsButStays, State::Dead),
                State::Dies(n) => (Next::Good, State::Dies(n - 1)),
                State::Dead => (Next::Fails, State::Dead),
            };
            *state = then;
            next
        }
    }

    pub(super) fn error(op: &'static str, dir: &Path) -> StorageError {
        StorageError::Io { op, path: dir.to_path_buf(), reason: "No space left on device".into() }
    }
}
