//! The blocking crate `mysql` on pool threads, with a real server.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use greenhub::{sleep, with_timeout};
use mysql::prelude::Queryable;

use crate::mysql_client::{THREADS, connections, double, double_all, start};
use crate::support::{MANY, is_installed, run_many};

#[test]
fn queries_of_many_green_threads_run_on_pool_threads() {
    if !is_installed("mariadbd") {
        return;
    }
    let server = Arc::new(start().expect("the server starts"));
    run_many(move |ticker| {
        let pool = connections(&server, 10);
        let begun = ticker.ticks();
        let count = i64::try_from(MANY).expect("a small number");
        assert_eq!(double_all(&pool, count).expect("answers"), count * (count + 1));
        // The queries take their time, in which the ticker ticks.
        assert!(ticker.ticks() > begun, "the OS thread was not blocked");
        assert!(pool.len() <= 10);
    });
}

#[test]
fn a_timeout_strikes_after_the_query_and_leaves_its_connection_usable() {
    if !is_installed("mariadbd") {
        return;
    }
    let server = Arc::new(start().expect("the server starts"));
    run_many(move |_ticker| {
        let (pool, slept) = (connections(&server, 1), Cell::new(None));
        assert_eq!(double(&pool, 1).expect("an answer"), 2);
        // The connection is open now, so the query is the first wait.
        let left = with_timeout(Duration::from_millis(5), || {
            let mut connection = pool.item().expect("the server accepts");
            let query = || connection.query_first("SELECT SLEEP(0.05)").expect("an answer");
            slept.set(THREADS.execute_scoped(query).expect("a pool thread"));
            sleep(Duration::from_secs(60));
        });
        assert!(left.is_err(), "the query takes longer");
        assert_eq!(slept.get(), Some(0), "the query has run to its end");
        // After half a query, the pool's only connection would give this one a wrong answer.
        assert_eq!(double(&pool, 21).expect("an answer"), 42);
    });
}
