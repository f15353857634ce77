//! Injected faults of the system.
//!
//! `cargo xtask test --full` runs this test with every second wait of the hub failing, and sets `GREENHUB_FAULTS`.
//! Without that variable no wait fails.

use std::env;
use std::io::{self, Write};
use std::time::Duration;

use crate::support::limited;
use greenhub::hub::LoopErrorKind;
use greenhub::{Interest, TrampolineError, get_hub, sleep, spawn, trampoline};

const SHORT: Duration = Duration::from_millis(2);
const ROUNDS: usize = 20;

#[test]
fn a_failed_wait_of_the_hub_reaches_main_and_loses_no_wake_up() {
    limited(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let reading = spawn(move || {
            let mut received = 0;
            while received < ROUNDS {
                trampoline(&reader, Interest::READ, None).unwrap();
                received += rustix::io::read(&reader, &mut [0; ROUNDS]).unwrap();
            }
        });
        let sleeping = spawn(|| (0..ROUNDS).for_each(|_| sleep(SHORT)));
        let (idle, _writer) = io::pipe().unwrap();
        let (mut failed, mut sent) = (0, 0);
        while !reading.is_finished() || !sleeping.is_finished() {
            match trampoline(&idle, Interest::READ, Some(SHORT)) {
                Err(TrampolineError::TimedOut { .. }) if sent < ROUNDS => {
                    writer.write_all(b"x").unwrap();
                    sent += 1;
                }
                Err(TrampolineError::TimedOut { .. }) => {}
                Err(TrampolineError::Loop(error)) if error.kind() == LoopErrorKind::Wait => {
                    let expected = [libc::ENOMEM, libc::EAGAIN].map(Some);
                    assert!(expected.contains(&error.io_error().and_then(error_number)), "{error:?}");
                    assert!(error.to_string().contains(get_hub().name()), "{error}");
                    failed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        reading.join().unwrap();
        sleeping.join().unwrap();
        assert_eq!(failed > 0, env::var_os("GREENHUB_FAULTS").is_some(), "{failed} waits failed");
    });
}

/// Returns the number of an error of the system. The hub tokio has only the text of a panic, which ends with the error.
fn error_number(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let text = error.to_string();
        let (_, number) = text.split_once("I/O driver: Os { code: ")?;
        number.split_once(',')?.0.parse().ok()
    })
}
