//! The cost of one wait of each hub, compared with poll(2) on an array that is filled once.
//!
//! Prints the processor time in nanoseconds of a wait that does not sleep, for several numbers of descriptors and of
//! ready descriptors. Each figure is the median over repetitions in which the hubs alternate.

use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use greenhub::Interest;
use greenhub::hub::{Hub, Lease, Ready, Watched};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The number of descriptors, and the number of ready descriptors among them.
const CASES: [(usize, usize); 7] = [(1, 0), (1, 1), (10, 0), (100, 0), (100, 100), (450, 0), (5000, 0)];

const REPETITIONS: usize = 31;

fn main() -> io::Result<()> {
    let max = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: max, maximum: max })?;
    println!("descriptors  ready    poll(2)       poll     select      epoll");
    for (count, ready) in CASES {
        let pairs = (0..count).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
        for (_, there) in &pairs[..ready] {
            (&mut &*there).write_all(b"x")?;
        }
        print!("{count:>11} {ready:>6}");
        for cost in measure(&pairs)? {
            print!(" {:>10}", cost.map_or("-".to_owned(), |cost| format!("{cost:.0}")));
        }
        println!();
    }
    Ok(())
}

/// Measures the cost of a wait for one end of each pair. Returns `None` if a hub cannot hold the descriptors.
fn measure(pairs: &[(UnixStream, UnixStream)]) -> io::Result<Vec<Option<f64>>> {
    let waits = (40_000 / (pairs.len() + 4)).clamp(20, 4_000);
    let mut watched = Watched::new();
    let mut hubs: [Box<dyn Hub>; 3] = [
        Box::new(hub_poll::PollHub::new()?),
        Box::new(hub_select::SelectHub::new()?),
        Box::new(hub_epoll::EpollHub::new()?),
    ];
    let mut can = [true; 3];
    for (here, _) in pairs {
        let key = watched.enter(here.as_raw_fd());
        for (hub, can) in hubs.iter_mut().zip(&mut can) {
            *can &= hub.watch(key, here.as_fd(), Interest::READ, Lease::Life).is_ok();
        }
        // SAFETY: `pairs` outlives the table.
        unsafe {
            watched.arm(key, Interest::READ);
            watched.lend(key);
        }
    }
    let mut kept: Vec<PollFd<'_>> =
        pairs.iter().map(|(here, _)| PollFd::new(here, PollFlags::IN | PollFlags::RDHUP)).collect();
    let mut ready = Ready::new();
    let mut costs = vec![Vec::new(); 1 + hubs.len()];
    for _ in 0..REPETITIONS {
        costs[0].push(time(waits, || {
            black_box(bare(&mut kept));
        }));
        for ((hub, can), costs) in hubs.iter_mut().zip(can).zip(&mut costs[1..]) {
            if can {
                costs.push(time(waits, || {
                    ready.clear();
                    hub.wait(&watched, Some(Duration::ZERO), &mut ready).expect("the wait succeeds");
                }));
            }
        }
    }
    Ok(costs.into_iter().map(median).collect())
}

/// Polls and looks for the reports, as a program without a hub does.
#[inline(never)]
fn bare(fds: &mut [PollFd<'_>]) -> usize {
    let found = poll(fds, Some(&Timespec::default())).expect("poll");
    fds.iter().filter(|fd| !fd.revents().is_empty()).take(found).count()
}

/// Returns the processor time of this OS thread for one of `calls` calls, in nanoseconds.
fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    let start = clock_gettime(ClockId::ThreadCPUTime);
    for _ in 0..calls {
        call();
    }
    let end = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = (end.tv_sec - start.tv_sec) as f64 * 1e9 + (end.tv_nsec - start.tv_nsec) as f64;
    nanos / calls as f64
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
