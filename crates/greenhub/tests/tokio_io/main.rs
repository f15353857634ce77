//! `AsyncIo` with Tokio's `AsyncRead` and `AsyncWrite`, by the feature `tokio-io`. No runtime of Tokio takes part.

#[path = "../it/support/mod.rs"]
mod support;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::support::async_pair::{pair, spawn_upper_case};
use crate::support::run;
use greenhub::future::{AsyncIo, block_on, spawn_future};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};

#[test]
fn poll_read_fills_behind_what_is_filled_and_keeps_what_is_initialized() {
    run("poll_read_fills_behind_what_is_filled_and_keeps_what_is_initialized", || {
        let (mut here, mut there) = pair();
        there.write_all(b"cd").expect("the buffer has room");
        let mut memory = [0; 8];
        let mut buffer = ReadBuf::new(&mut memory);
        buffer.put_slice(b"ab");
        let polled = Pin::new(&mut here).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        assert!(matches!(polled, Poll::Ready(Ok(()))));
        assert_eq!((buffer.filled(), buffer.initialized().len()), (&b"abcd"[..], 8));
    });
}

#[test]
fn poll_read_into_a_full_buffer_is_ready_without_a_read() {
    run("poll_read_into_a_full_buffer_is_ready_without_a_read", || {
        let (mut here, _there) = pair();
        let polled = Pin::new(&mut here).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut []));
        assert!(matches!(polled, Poll::Ready(Ok(()))));
    });
}

#[test]
fn a_read_at_the_end_of_the_data_fills_nothing() {
    run("a_read_at_the_end_of_the_data_fills_nothing", || {
        let (mut here, there) = pair();
        drop(there);
        assert_eq!(block_on(here.read(&mut [0; 8])).expect("the end"), 0);
    });
}

#[test]
fn vectored_writes_are_one_system_call() {
    run("vectored_writes_are_one_system_call", || {
        let (mut here, mut there) = pair();
        assert!(here.is_write_vectored());
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        let before = greenhub::get_hub().stats().operations;
        assert_eq!(block_on(here.write_vectored(&pieces)).expect("the buffer has room"), 5);
        assert_eq!(greenhub::get_hub().stats().operations - before, 1);
        let mut buffer = [0; 8];
        assert_eq!(there.read(&mut buffer).expect("the read succeeds"), 5);
        assert_eq!(&buffer[..5], b"abcde");
    });
}

#[test]
fn shutdown_ends_the_writing_half_alone() {
    run("shutdown_ends_the_writing_half_alone", || {
        let (mut here, there) = pair();
        let peer = spawn_upper_case(there);
        let text = block_on(async {
            here.write_all(b"hello").await?;
            here.flush().await?;
            here.shutdown().await?;
            let refused = here.write(b"more").await.expect_err("shut down");
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
            let mut text = String::new();
            here.read_to_string(&mut text).await.map(|_| text)
        });
        assert_eq!(text.expect("an answer"), "HELLO");
        peer.join().expect("no panic");
    });
}

#[test]
fn shutdown_of_a_pipe_closes_it() {
    run("shutdown_of_a_pipe_closes_it", || {
        let (mut reader, writer) = greenhub::io::pipe().expect("a pipe");
        let mut writer = AsyncIo::new(writer);
        block_on(async {
            writer.write_all(b"hello").await?;
            writer.shutdown().await
        })
        .expect("a reader");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the end");
        assert_eq!(text, "hello");
    });
}

#[test]
fn the_halves_of_a_split_stream_run_in_two_green_threads() {
    run("the_halves_of_a_split_stream_run_in_two_green_threads", || {
        const LINES: usize = 2000;
        let (here, there) = pair();
        let (reader, mut writer) = tokio::io::split(here);
        let (echo_reader, mut echo_writer) = tokio::io::split(AsyncIo::new(there));
        let echo = spawn_future(async move {
            let mut lines = BufReader::new(echo_reader).lines();
            while let Some(line) = lines.next_line().await.expect("the peer sends UTF-8") {
                echo_writer.write_all(format!("{line}\n").as_bytes()).await.expect("a reader");
            }
            echo_writer.shutdown().await.expect("the socket is connected");
        });
        let sent = spawn_future(async move {
            for number in 0..LINES {
                writer.write_all(format!("line {number}\n").as_bytes()).await.expect("a reader");
            }
            writer.shutdown().await.expect("the socket is connected");
        });
        let received = block_on(async {
            let (mut lines, mut count) = (BufReader::new(reader).lines(), 0);
            while let Some(line) = lines.next_line().await.expect("the peer sends UTF-8") {
                assert_eq!(line, format!("line {count}"));
                count += 1;
            }
            count
        });
        assert_eq!(received, LINES);
        sent.join().expect("no panic");
        echo.join().expect("no panic");
    });
}
