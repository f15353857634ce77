//! Jobs for other OS threads.

use crate::support;

#[test]
fn a_job_that_ends_at_once_still_wakes_main() {
    support::run("a_job_that_ends_at_once_still_wakes_main", || {
        // After the end of the job, only its undelivered result keeps the loop waiting.
        for i in 0..2000 {
            assert_eq!(greenhub::tpool::execute(move || i).unwrap(), i);
        }
    });
}
