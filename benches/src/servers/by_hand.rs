//! A server without a runtime: one epoll set, level-triggered, a read and a write for each report.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::net::{SocketFlags, accept_with};

use super::{BUFFER, Listener, Service};

/// The data of the listener in the set. A connection has its descriptor.
const LISTENER: u64 = u64::MAX;

pub(super) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    let listener = OwnedFd::from(listener);
    ioctl_fionbio(&listener, true)?;
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&set, listener.as_fd(), EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut streams: Vec<Option<OwnedFd>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = [0; BUFFER];
    loop {
        events.clear();
        epoll::wait(&set, spare_capacity(&mut events), None)?;
        for event in &events {
            let data = event.data.u64();
            if data == LISTENER {
                accept_all(&listener, &set, &mut streams)?;
                continue;
            }
            let place = &mut streams[data as usize];
            let Some(stream) = place else { continue };
            let answered = read(&*stream, &mut buffer).and_then(|count| match count {
                0 => Ok(0),
                count => write(&*stream, service.answer(&buffer[..count])),
            });
            // The set forgets a stream that is closed.
            if matches!(answered, Ok(0) | Err(_)) {
                *place = None;
            }
        }
    }
}

fn accept_all(listener: &OwnedFd, set: &OwnedFd, streams: &mut Vec<Option<OwnedFd>>) -> io::Result<()> {
    loop {
        let stream = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(stream) => stream,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let place = stream.as_raw_fd() as usize;
        epoll::add(set, stream.as_fd(), EventData::new_u64(place as u64), EventFlags::IN)?;
        if streams.len() <= place {
            streams.resize_with(place + 1, || None);
        }
        streams[place] = Some(stream);
    }
}
