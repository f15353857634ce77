//! redis's blocking interface over green sockets, with the real server.

use std::time::Duration;

use greenhub::spawn;
use greenhub_adapters::redis::{Connection, connect};
use redis::{Commands, ConnectionLike, RedisConnectionInfo, pipe};

use crate::redis_pool::{add_all, ask, pool, start, subscribe, url};
use crate::support::{MANY, is_installed, run_many};

/// The time limit of a connection.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn many_green_threads_share_a_pool_of_connections() {
    if !is_installed("redis-server") {
        return;
    }
    run_many(|ticker| {
        let server = start().expect("the server starts");
        let pool = pool(&url(&server), 20);
        assert_eq!(add_all(&pool, "sum", MANY as i64).expect("answers"), (MANY * (MANY + 1) / 2) as i64);
        assert!(pool.len() <= 20);
        // A blocking command blocks one green thread.
        let waiter = {
            let mut connection = connect(url(&server), LIMIT).expect("the server accepts");
            spawn(move || connection.blpop::<_, (String, String)>("queue", 0.0))
        };
        ticker.gate().pass();
        assert!(!waiter.is_finished());
        ask(&pool, |connection| connection.lpush::<_, _, ()>("queue", "an item")).expect("the server answers");
        assert_eq!(waiter.join().expect("no panic").expect("an answer").1, "an item");
    });
}

#[test]
fn many_green_threads_receive_the_messages_of_a_channel() {
    if !is_installed("redis-server") {
        return;
    }
    run_many(|ticker| {
        let server = start().expect("the server starts");
        let readers: Vec<_> = (0..MANY)
            .map(|_| {
                let mut subscribed = subscribe(&url(&server), "news").expect("the server accepts");
                spawn(move || subscribed.get_message()?.get_payload::<String>())
            })
            .collect();
        ticker.gate().pass();
        let mut connection = connect(url(&server), LIMIT).expect("the server accepts");
        assert_eq!(connection.publish::<_, _, usize>("news", "hello").expect("an answer"), MANY);
        for reader in readers {
            assert_eq!(reader.join().expect("no panic").expect("a message"), "hello");
        }
    });
}

#[test]
fn the_real_server_understands_logins_pipelines_and_both_protocols() {
    if !is_installed("redis-server") {
        return;
    }
    run_many(|_| {
        let server = start().expect("the server starts");
        for query in ["", "?protocol=resp3", "?db=1", "?db=1&protocol=resp3"] {
            let mut connection = connect(url(&server) + query, LIMIT).expect("the server accepts");
            let results: (i64, Vec<String>) = pipe()
                .atomic()
                .del("list")
                .ignore()
                .rpush("list", &["a", "b"])
                .lrange("list", 0, -1)
                .query(&mut connection)
                .expect("an answer");
            assert_eq!(results, (2, vec!["a".to_owned(), "b".to_owned()]), "{query}");
            assert!(connection.check_connection());
        }
        let info = RedisConnectionInfo::default().set_password("wrong");
        let stream = greenhub::os::unix::net::UnixStream::connect(server.socket()).expect("the server accepts");
        assert!(Connection::new(stream, &info).is_err());
    });
}
