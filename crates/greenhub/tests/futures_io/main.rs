//! `AsyncIo` with the traits of the crate `futures`, by the feature `futures-io`.

#[path = "../it/support/mod.rs"]
mod support;

use std::io::{IoSlice, IoSliceMut};

use crate::support::async_pair::{pair, spawn_upper_case};
use crate::support::run;
use futures_util::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use futures_util::stream::StreamExt;
use greenhub::future::{AsyncIo, block_on, spawn_future};

#[test]
fn vectored_reads_and_writes_are_one_system_call() {
    run("vectored_reads_and_writes_are_one_system_call", || {
        let (mut here, there) = pair();
        let mut there = AsyncIo::new(there);
        block_on(async {
            let before = greenhub::get_hub().stats().operations;
            let pieces = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
            assert_eq!(here.write_vectored(&pieces).await.expect("the buffer has room"), 5);
            let (mut one, mut other) = ([0; 2], [0; 8]);
            let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
            assert_eq!(there.read_vectored(&mut buffers).await.expect("the read succeeds"), 5);
            assert_eq!((&one, &other[..3]), (b"ab", &b"cde"[..]));
            assert_eq!(greenhub::get_hub().stats().operations - before, 2);
        });
    });
}

#[test]
fn close_ends_the_writing_half_alone() {
    run("close_ends_the_writing_half_alone", || {
        let (mut here, there) = pair();
        let peer = spawn_upper_case(there);
        let text = block_on(async {
            here.write_all(b"hello").await?;
            here.flush().await?;
            here.close().await?;
            let mut text = String::new();
            here.read_to_string(&mut text).await.map(|_| text)
        });
        assert_eq!(text.expect("an answer"), "HELLO");
        peer.join().expect("no panic");
    });
}

#[test]
fn the_halves_of_a_split_stream_run_in_two_green_threads() {
    run("the_halves_of_a_split_stream_run_in_two_green_threads", || {
        const LINES: usize = 2000;
        let (here, there) = pair();
        let (reader, mut writer) = here.split();
        let (echo_reader, mut echo_writer) = AsyncIo::new(there).split();
        let echo = spawn_future(async move {
            futures_util::io::copy(echo_reader, &mut echo_writer).await.expect("a peer");
            echo_writer.close().await.expect("the socket is connected");
        });
        let sent = spawn_future(async move {
            for number in 0..LINES {
                writer.write_all(format!("line {number}\n").as_bytes()).await.expect("a reader");
            }
            writer.close().await.expect("the socket is connected");
        });
        let received = block_on(
            BufReader::new(reader).lines().map(|line| line.expect("the peer sends UTF-8")).collect::<Vec<_>>(),
        );
        assert_eq!(received, (0..LINES).map(|number| format!("line {number}")).collect::<Vec<_>>());
        sent.join().expect("no panic");
        echo.join().expect("no panic");
    });
}
