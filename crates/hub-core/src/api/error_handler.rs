//! The error handler of a hub: the program decides about each report of the hub's OS thread.

use std::rc::Rc;

use super::hub_ref::HubRef;
use crate::error::LoopError;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::local;
use crate::report::{self, Filter, Report};

/// The decision of an [error handler](HubRef::set_error_handler) about a report.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Verdict {
    /// The report goes to the [stream](crate::set_report_stream), as without a handler.
    #[default]
    Report,
    /// The report goes nowhere. gevent's `NOT_ERROR`.
    Silent,
    /// The report goes to the stream, and the main loop ends with an error. gevent's `SYSTEM_ERROR`.
    ///
    /// The main greenlet's wait returns [`LoopErrorKind::System`](crate::LoopErrorKind::System) with the text of the
    /// report.
    System,
}

impl HubRef {
    /// Sets or removes the closure that decides about each report of this OS thread. Does not switch.
    ///
    /// The handler is called before the process-wide [report stream](crate::set_report_stream) gets the report, even if
    /// reports are switched [off](crate::hub_exceptions). The call is made where the failure is found, often on the
    /// main loop, so the handler must not block. If it panics, the report goes to the stream. The handler gets no
    /// reports of other OS threads, such as those of pools, of the blocking detector and of abandoned green threads. It
    /// is removed at the end of the hub. gevent's `hub.handle_error`.
    ///
    /// ```
    /// use greenhub::debug::Report;
    /// use greenhub::get_hub;
    /// use greenhub::hub::{LoopErrorKind, Verdict};
    /// get_hub().set_error_handler(Some(|report: &Report| match report {
    ///     Report::Unhandled { .. } => Verdict::System, // a failed green thread ends the program
    ///     _ => Verdict::Report,
    /// }));
    /// greenhub::spawn_n(|| panic!("the index is corrupt"));
    /// let error = get_hub().run_once(None).unwrap_err();
    /// assert_eq!(error.kind(), LoopErrorKind::System);
    /// ```
    #[doc(alias = "handle_error")]
    #[doc(alias = "NOT_ERROR")]
    #[doc(alias = "SYSTEM_ERROR")]
    pub fn set_error_handler(&self, handler: Option<impl Fn(&Report) -> Verdict + 'static>) {
        if !self.is_current() || local::has_ended() {
            return;
        }
        let filter = handler.map(|handler| {
            let filter: Filter = Rc::new(move |report: &Report| carry_out(handler(report), report));
            filter
        });
        drop_contained(report::set_filter(filter));
    }
}

/// Carries out a verdict. Returns whether the stream gets the report.
fn carry_out(verdict: Verdict, report: &Report) -> bool {
    if verdict == Verdict::System
        && let Some(local) = local::try_get()
    {
        local.main_loop.fail(LoopError::system(report.to_string().into()));
    }
    verdict != Verdict::Silent
}
