//! Accounting: every byte the engine asks a device (or the host, for the CPU twins) to hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes held now and at most so far.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    live: AtomicU64,
    peak: AtomicU64,
}

impl Counter {
    /// Counts `bytes` as held until the result is dropped.
    pub(crate) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        let live = self.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(live, Ordering::Relaxed);
        Held { counter: self.clone(), bytes }
    }

    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Lets the peak start again from what is held now.
    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.live(), Ordering::Relaxed);
    }
}

/// A share of a [`Counter`].
#[derive(Debug)]
pub(crate) struct Held {
    counter: Arc<Counter>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counter.live.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What an engine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of all live buffers.
    pub live: u64,
    /// The most there were at one time.
    pub peak: u64,
    /// Bytes that wgpu's own allocator reports, where it reports any: buffers rounded up to the driver's granularity,
    /// and staging memory that wgpu keeps.
    pub allocated: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_lives_and_the_peak() {
        let counter = Arc::new(Counter::default());
        let a = counter.hold(100);
        let b = counter.hold(50);
        drop(a);
        let c = counter.hold(20);
        assert_eq!((counter.live(), counter.peak()), (70, 150));
        drop((b, c));
        counter.reset_peak();
        assert_eq!((counter.live(), counter.peak()), (0, 0));
    }
}
