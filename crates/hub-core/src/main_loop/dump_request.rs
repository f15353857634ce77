//! Requests to a loop for a dump of its greenlets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to one loop for a dump. It is pending as long as it exists.
pub(crate) struct DumpRequest {
    /// Whether the request is void.
    is_cancelled: Arc<AtomicBool>,
    /// Makes the dump and reports it. The report stream is user code: it may switch, fork or panic.
    dump: fn(),
}

impl DumpRequest {
    /// Makes a request that is void once `is_cancelled` is set.
    pub(crate) fn new(is_cancelled: &Arc<AtomicBool>, dump: fn()) -> Arc<DumpRequest> {
        Arc::new(DumpRequest { is_cancelled: Arc::clone(is_cancelled), dump })
    }

    /// Makes the dump unless the request is void. A request that comes during the dump leads to another dump.
    pub(super) fn carry_out(self: Arc<Self>) {
        let (is_cancelled, dump) = (self.is_cancelled.load(Ordering::Acquire), self.dump);
        drop(self);
        if !is_cancelled {
            dump();
        }
    }
}
