//! Wakes file discovery when something happens in the folders of its files.
//!
//! Only folders are watched: a file that is replaced is another one, and a mounted config map changes through a link beside
//! its files. What happened is not looked at; that it did makes all files be looked at. Notifications get lost (network
//! file systems, folders that are replaced), so they only ever make a look come sooner.

#[cfg(target_os = "linux")]
pub(super) use inotify::Watcher;

#[cfg(target_os = "linux")]
mod inotify {
    use std::collections::BTreeMap;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    use ::inotify::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init, remove_watch};
    use ::inotify::io::Errno;
    use parking_lot::Mutex;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Room for some dozens of events.
    const EVENTS_LEN_BYTES: usize = 4096;

    /// Folders that are watched, each with the number of its watch.
    pub(in super::super) struct Watcher {
        events: AsyncFd<OwnedFd>,
        folders: Mutex<BTreeMap<String, i32>>,
    }

    impl Watcher {
        /// # Errors
        /// When the system gives no more watchers.
        pub(in super::super) fn new() -> io::Result<Self> {
            let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            #[allow(deprecated, reason = "what is owned here has one file descriptor for its whole life")]
            let events = AsyncFd::with_interest(events, Interest::READABLE)?;
            Ok(Self { events, folders: Mutex::default() })
        }

        /// Watches a folder from now on, which may be another one of the same name than before.
        ///
        /// # Errors
        /// When the system gives no more watches. A folder that is not there is none.
        pub(in super::super) fn follow(&self, folder: &str) -> io::Result<()> {
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            let added = match add_watch(&self.events, if folder.is_empty() { "." } else { folder }, flags) {
                Ok(number) => Some(number),
                Err(Errno::NOENT | Errno::NOTDIR) => None,
                Err(e) => return Err(e.into()),
            };
            let mut folders = self.folders.lock();
            let before = match added {
                Some(number) => folders.insert(folder.to_owned(), number),
                None => folders.remove(folder),
            };
            let is_used = |number| folders.values().any(|known| *known == number);
            if let Some(before) = before.filter(|b| !is_used(*b)) {
                // Gone already when the folder was removed.
                let _ = remove_watch(&self.events, before);
            }
            Ok(())
        }

        /// Waits until something happened since the last call.
        ///
        /// # Errors
        /// When the system stops to tell.
        pub(in super::super) async fn changed(&self) -> io::Result<()> {
            let mut ready = self.events.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); EVENTS_LEN_BYTES];
            let mut events = Reader::new(ready.get_inner(), &mut buffer);
            loop {
                match events.next() {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::WOULDBLOCK) => break,
                    Err(e) => return Err(e.into()),
                }
            }
            ready.clear_ready();
            Ok(())
        }
    }
}

/// Nothing tells of changes; files are looked at regularly.
#[cfg(not(target_os = "linux"))]
pub(super) struct Watcher;

#[cfg(not(target_os = "linux"))]
impl Watcher {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn follow(&self, _folder: &str) -> std::io::Result<()> {
        Ok(())
    }

    pub(super) async fn changed(&self) -> std::io::Result<()> {
        std::future::pending().await
    }
}
