//! The blocking crate `postgres` on pool threads, with the real server.

use crate::postgres_pool::{clients, double_all, start};
use crate::support::{MANY, is_installed, run_many};

#[test]
fn queries_of_many_green_threads_run_on_pool_threads() {
    if !(is_installed("postgres") && is_installed("initdb")) {
        return;
    }
    run_many(|ticker| {
        let server = start().expect("the server starts");
        let pool = clients(&server, 10);
        let begun = ticker.ticks();
        let count = i32::try_from(MANY).expect("a small number");
        assert_eq!(double_all(&pool, count).expect("answers"), i64::from(count * (count + 1)));
        // The queries take their time, in which the ticker ticks.
        assert!(ticker.ticks() > begun, "the OS thread was not blocked");
        assert!(pool.len() <= 10);
    });
}
