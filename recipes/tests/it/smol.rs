//! smol's timers, sockets and `block_on`, beside green threads.

use std::time::{Duration, Instant};

use greenhub::spawn;

use crate::smol_beside::{ask_from_smol, echo, pause};
use crate::support::{every_way, run};

#[test]
fn timers_of_smol_are_awaited_on_every_hub() {
    run(&every_way(), |ticker| {
        let begun = Instant::now();
        let timer = spawn(|| pause(Duration::from_secs(1)));
        ticker.gate().pass();
        // It might have elapsed if the OS thread was held up.
        assert!(!timer.is_finished() || begun.elapsed() >= Duration::from_secs(1));
        timer.join().expect("no panic");
        assert!(begun.elapsed() >= Duration::from_secs(1));
    });
}

#[test]
fn sockets_of_smol_are_read_and_written_by_green_threads() {
    run(&every_way(), |_| {
        let message: Vec<u8> = (0..1_000_000u32).map(|i| (i / 3) as u8).collect();
        let echoes: Vec<_> = (0..4)
            .map(|_| {
                let message = message.clone();
                spawn(move || assert!(echo(&message).expect("an echo") == message))
            })
            .collect();
        echoes.into_iter().for_each(|echo| echo.join().expect("no panic"));
    });
}

#[test]
fn block_on_of_smol_waits_for_a_green_thread_of_another_os_thread() {
    run(&every_way(), |_| {
        let answered = ask_from_smol(|| {
            greenhub::sleep(Duration::from_millis(5));
            42
        });
        assert_eq!(answered.expect("an answer"), 42);
    });
}
