//! The buffer of reports that a wait fills.

use super::interest::Readiness;
use super::watched::Key;

/// The reports of one [`Hub::wait`](crate::hub::Hub::wait).
///
/// Each loop has one buffer. It grows to the largest batch and keeps that capacity, so a wait allocates nothing in the
/// long run.
///
/// ```
/// use greenhub::hub::{Key, Readiness, Ready};
/// let mut ready = Ready::new();
/// ready.push(Key::new(3, 1), Readiness::READ);
/// assert_eq!(ready.reports(), [(Key::new(3, 1), Readiness::READ)]);
/// ready.clear();
/// assert!(ready.reports().is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Ready {
    reports: Vec<(Key, Readiness)>,
}

impl Ready {
    /// Creates an empty buffer.
    #[must_use]
    pub fn new() -> Ready {
        Ready::default()
    }

    /// Adds a report: the registration `key` has this `readiness`.
    #[inline]
    pub fn push(&mut self, key: Key, readiness: Readiness) {
        self.reports.push((key, readiness));
    }

    /// Returns the reports in the order in which they were pushed.
    #[must_use]
    #[inline]
    pub fn reports(&self) -> &[(Key, Readiness)] {
        &self.reports
    }

    /// Removes all reports and keeps the capacity.
    #[inline]
    pub fn clear(&mut self) {
        self.reports.clear();
    }
}
