//! How waiters learn of an end: hang-ups, shutdowns by either side, reports that no operation confirms.

mod support;

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use greenhub::os::unix::net::UnixStream;
use greenhub::{GreenThread, Interest, Readiness, trampoline};

/// Ends a wait that would last for ever, as a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Lets `green` run until it waits for a descriptor.
#[track_caller]
fn until_it_waits<T>(green: &GreenThread<T>) {
    for _ in 0..20 {
        greenhub::sleep(Duration::from_millis(1));
    }
    assert!(!green.is_finished(), "it should wait");
}

/// A raw terminal: the side of the program that drives it, whose calls do not block, and the terminal itself.
fn terminal() -> (std::fs::File, OwnedFd) {
    let (mut near, mut far) = (0, 0);
    // SAFETY: `openpty` gets two places to write to and no options; on success both numbers are open and nobody else's.
    // `termios` is a plain C structure, which `tcgetattr` fills.
    unsafe {
        assert_eq!(libc::openpty(&mut near, &mut far, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()), 0);
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(far, &mut modes), 0);
        libc::cfmakeraw(&mut modes);
        assert_eq!(libc::tcsetattr(far, libc::TCSANOW, &modes), 0);
        let (near, far) = (OwnedFd::from_raw_fd(near), OwnedFd::from_raw_fd(far));
        rustix::io::ioctl_fionbio(&near, true).unwrap();
        (near.into(), far)
    }
}

#[test]
fn a_writer_to_a_full_terminal_hears_of_its_hang_up() {
    support::run("a_writer_to_a_full_terminal_hears_of_its_hang_up", || {
        let (near, far) = terminal();
        while (&near).write(&[b'x'; 1024]).is_ok() {}
        let writer = greenhub::spawn(move || trampoline(&near, Interest::WRITE, Some(LIMIT)).unwrap());
        until_it_waits(&writer);
        drop(far);
        assert!(writer.join().unwrap().contains(Readiness::HANGUP));
    });
}

#[test]
fn a_writer_hears_of_a_hang_up_by_the_peer() {
    support::run("a_writer_hears_of_a_hang_up_by_the_peer", || {
        for unread in [&b""[..], b"unread"] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(unread).unwrap();
            near.set_write_timeout(Some(LIMIT)).unwrap();
            let writer = greenhub::spawn(move || (&near).write_all(&[0; 1 << 24]).unwrap_err().kind());
            until_it_waits(&writer);
            far.shutdown(Shutdown::Both).unwrap();
            assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe, "with {unread:?}");
        }
    });
}
