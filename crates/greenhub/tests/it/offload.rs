//! Work for other OS threads.

use crate::support;

#[test]
fn a_job_that_ends_at_once_still_wakes_main() {
    support::run("a_job_that_ends_at_once_still_wakes_main", || {
        // Between the end of a job and the look at its result nothing else keeps the loop.
        for i in 0..2000 {
            assert_eq!(greenhub::offload(move || i).unwrap(), i);
        }
    });
}
