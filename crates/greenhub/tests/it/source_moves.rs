//! Sources that move from one OS thread to another while an OS thread builds its hub.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::hubs::default_hub;
use crate::support::{in_child, limited};
use greenhub::park::{ReadHint, Source};
use greenhub::{Interest, sleep, spawn, use_hub_with};

const SHORT: Duration = Duration::from_millis(1);

fn source() -> (Arc<Source>, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (Arc::new(Source::new(reader.into()).unwrap()), writer)
}

/// An OS thread that waits for a source, and is stopped in between, while it builds its hub.
///
/// Afterwards it stays until this is dropped, so that it may remain the home of the source.
struct InTransit<T> {
    is_building: Receiver<()>,
    may_go: Sender<()>,
    outcome: Receiver<T>,
    _stays: Sender<()>,
}

impl<T: Send + 'static> InTransit<T> {
    /// Starts the OS thread, and returns when it builds its hub.
    fn start(wait: impl FnOnce() -> T + Send + 'static) -> InTransit<T> {
        let (building, is_building) = channel();
        let (may_go, go) = channel();
        let (sender, outcome) = channel();
        let (stays, ends) = channel::<()>();
        let stop = Arc::new(Mutex::new(Some((building, go))));
        std::thread::spawn(move || {
            greenhub::thread::os::run_and_shutdown(None, move || {
                use_hub_with(move || {
                    if let Some((building, go)) = stop.lock().unwrap().take() {
                        building.send(()).unwrap();
                        go.recv().unwrap();
                    }
                    default_hub()
                })
                .unwrap();
                sender.send(wait()).unwrap();
                // The loop carries out requests meanwhile.
                while ends.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    sleep(SHORT);
                }
            });
        });
        let in_transit = InTransit { is_building, may_go, outcome, _stays: stays };
        in_transit.is_building.recv().unwrap();
        in_transit
    }

    /// Lets the OS thread go on.
    fn go(&self) {
        self.may_go.send(()).unwrap();
    }

    /// Waits for the outcome of its wait.
    fn outcome(&self) -> T {
        self.outcome.recv().unwrap()
    }
}

/// Makes an OS thread that ends at once the home of a source.
fn visit(source: &Arc<Source>) {
    let source = Arc::clone(source);
    let wait = move || source.wait(Interest::READ, SHORT).unwrap_err().kind();
    assert_eq!(std::thread::spawn(wait).join().unwrap(), ErrorKind::TimedOut);
}

#[test]
fn a_wake_up_reaches_a_waiter_whose_hub_is_being_built() {
    limited(|| {
        let (source, _writer) = source();
        visit(&source);
        let is_ready = Arc::new(AtomicBool::new(false));
        let (reads, ready) = (Arc::clone(&source), Arc::clone(&is_ready));
        let reader = InTransit::start(move || {
            reads.read(Duration::from_secs(30), |_| match ready.load(Ordering::SeqCst) {
                true => Ok((7, ReadHint::Likely)),
                false => Err(ErrorKind::WouldBlock.into()),
            })
        });
        is_ready.store(true, Ordering::SeqCst);
        source.wake(Interest::READ);
        reader.go();
        assert_eq!(reader.outcome().unwrap(), 7);
    });
}

#[test]
fn a_waiter_in_transit_leaves_no_trace_in_the_count_of_operations() {
    // A closed source would be led to another file under its live borrow.
    in_child(|| {
        let (source, writer) = source();
        visit(&source);
        let waits = Arc::clone(&source);
        let waiter = InTransit::start(move || waits.wait(Interest::READ, SHORT).unwrap_err().kind());
        // This OS thread takes the source meanwhile.
        source.wait(Interest::READ, SHORT).unwrap_err();
        waiter.go();
        waiter.outcome();
        sleep(SHORT);
        source
            .with(|fd| {
                source.close();
                sleep(SHORT);
                rustix::io::write(&writer, b"data")?;
                assert_eq!(rustix::io::read(fd, &mut [0; 4])?, 4, "descriptor {}", source.as_raw_fd());
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn no_os_thread_takes_a_source_from_a_waiter_because_of_one_in_transit() {
    limited(|| {
        let (source, _writer) = source();
        visit(&source);
        let waits = Arc::clone(&source);
        let waiter = InTransit::start(move || waits.wait(Interest::READ, SHORT).unwrap_err().kind());
        source.wait(Interest::READ, SHORT).unwrap_err();
        waiter.go();
        waiter.outcome();
        sleep(SHORT);
        let waits = Arc::clone(&source);
        let waiting = spawn(move || waits.wait(Interest::READ, Duration::from_millis(100)).unwrap_err().kind());
        sleep(SHORT);
        let takes = Arc::clone(&source);
        let thief = std::thread::spawn(move || takes.wait(Interest::READ, SHORT).unwrap_err().kind());
        assert_eq!(thief.join().unwrap(), ErrorKind::ResourceBusy);
        assert_eq!(waiting.join().unwrap(), ErrorKind::TimedOut);
    });
}
