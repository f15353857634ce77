//! Ping-pong without a runtime: one epoll set, level-triggered, a read and a write for each report.

use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{read, write};

use crate::Pair;

/// Sends a message of `bytes` over each pair and back, `rounds` times.
///
/// A message must fit into the buffers of a socket.
///
/// # Panics
///
/// Panics if a system call fails, or if a message does not arrive in one piece.
pub fn ping_pong(pairs: Vec<Pair>, rounds: u64, bytes: usize) {
    let set = epoll::create(CreateFlags::CLOEXEC).expect("an epoll set");
    let ends: Vec<_> = pairs.into_iter().flat_map(|(near, far)| [near, far]).collect();
    let mut message = vec![7; bytes];
    let send = |end: usize, message: &[u8]| assert_eq!(write(&ends[end], message), Ok(bytes));
    for (index, end) in ends.iter().enumerate() {
        epoll::add(&set, end.as_fd(), EventData::new_u64(index as u64), EventFlags::IN)
            .expect("the set takes the socket");
    }
    for near in (0..ends.len()).step_by(2) {
        send(near, &message);
    }
    let mut left = vec![rounds; ends.len() / 2];
    let mut playing = left.len();
    let mut events = Vec::with_capacity(1024);
    while playing > 0 {
        events.clear();
        epoll::wait(&set, spare_capacity(&mut events), None).expect("epoll_wait succeeds");
        for event in &events {
            let end = event.data.u64() as usize;
            assert_eq!(read(&ends[end], &mut message), Ok(bytes));
            if end % 2 == 1 {
                send(end, &message);
                continue;
            }
            left[end / 2] -= 1;
            if left[end / 2] > 0 {
                send(end, &message);
            } else {
                playing -= 1;
            }
        }
    }
}
