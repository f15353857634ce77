//! An echo of 64 bytes over socket pairs and over TCP, with both ends on one OS thread.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use benches::awaiting::{self, Awaited, runtime};
use benches::{Pair, Stopwatch, green, raw, scaled, tcp_pairs, unix_pairs};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use greenhub::future::defer_to_green_thread;
use greenhub::use_hub;
use tokio::io::{AsyncRead, AsyncWrite};

const BYTES: usize = 64;

/// A kind of socket, with the type of each library.
trait Kind {
    type Green: From<OwnedFd> + Read + Write + 'static;
    type Tokio: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    type May: FromRawFd + Read + Write + Send + 'static;

    const NAME: &str;

    fn pairs(count: usize) -> Vec<Pair>;

    /// Converts a socket. Must be called on a tokio runtime.
    fn for_tokio(socket: OwnedFd) -> Self::Tokio;
}

struct Unix;

impl Kind for Unix {
    type Green = greenhub::os::unix::net::UnixStream;
    type Tokio = tokio::net::UnixStream;
    type May = may::os::unix::net::UnixStream;

    const NAME: &str = "socket pairs";

    fn pairs(count: usize) -> Vec<Pair> {
        unix_pairs(count).expect("enough descriptors")
    }

    fn for_tokio(socket: OwnedFd) -> Self::Tokio {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true).expect("a socket");
        Self::Tokio::from_std(socket).expect("the runtime takes the socket")
    }
}

struct Tcp;

impl Kind for Tcp {
    type Green = greenhub::net::TcpStream;
    type Tokio = tokio::net::TcpStream;
    type May = may::net::TcpStream;

    const NAME: &str = "TCP connections";

    fn pairs(count: usize) -> Vec<Pair> {
        tcp_pairs(count).expect("enough descriptors")
    }

    fn for_tokio(socket: OwnedFd) -> Self::Tokio {
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true).expect("a socket");
        Self::Tokio::from_std(socket).expect("the runtime takes the socket")
    }
}

fn both<S>(pairs: Vec<Pair>, convert: impl Fn(OwnedFd) -> S) -> Vec<(S, S)> {
    pairs.into_iter().map(|(near, far)| (convert(near), convert(far))).collect()
}

fn raw_epoll<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    let watch = Stopwatch::start();
    raw::ping_pong(pairs, rounds, BYTES);
    watch.elapsed()
}

fn greenhub<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    let pairs = both(pairs, K::Green::from);
    let watch = Stopwatch::start();
    green::ping_pong(pairs, rounds, BYTES);
    watch.elapsed()
}

/// Green threads on the hub `tokio`.
fn on_hub_tokio<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    on_hub("tokio", || greenhub::<K>(pairs, rounds))
}

/// Green threads inside of a runtime of the program.
fn joined<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    on_hub("epoll", || {
        let played = defer_to_green_thread(move || greenhub::<K>(pairs, rounds));
        runtime().block_on(hub_tokio::run_until(played)).expect("the hub has a descriptor").expect("no panic")
    })
}

/// Green threads that await the sockets of tokio, on the hub `tokio`.
fn awaited<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    on_hub("tokio", || {
        let pairs = both(pairs, |socket| Awaited(K::for_tokio(socket)));
        let watch = Stopwatch::start();
        green::ping_pong(pairs, rounds, BYTES);
        watch.elapsed()
    })
}

/// Runs a measurement on another hub than the default one.
fn on_hub(name: &str, measure: impl FnOnce() -> Duration) -> Duration {
    use_hub(name).expect("the hub is compiled in");
    let elapsed = measure();
    use_hub(None).expect("not in the main loop");
    elapsed
}

fn tokio<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    // Without timers, which would cost a little.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async move {
        let pairs = both(pairs, K::for_tokio);
        let watch = Stopwatch::start();
        awaiting::ping_pong(pairs, rounds, BYTES).await;
        watch.elapsed()
    })
}

fn may<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    // SAFETY: `into_raw_fd` gives up the ownership of the open descriptor.
    let pairs = both(pairs, |socket| unsafe { K::May::from_raw_fd(socket.into_raw_fd()) });
    let watch = Stopwatch::start();
    let player = |(mut near, mut far): (K::May, K::May)| {
        may::go!(move || {
            let mut message = [0; BYTES];
            for _ in 0..rounds {
                far.read_exact(&mut message).expect("a message comes");
                far.write_all(&message).expect("the peer reads");
            }
        });
        may::go!(move || {
            let mut message = [7; BYTES];
            for _ in 0..rounds {
                near.write_all(&message).expect("a message is sent");
                near.read_exact(&mut message).expect("the message comes back");
            }
        })
    };
    let players: Vec<_> = pairs.into_iter().map(player).collect();
    for player in players {
        player.join().expect("no panic");
    }
    watch.elapsed()
}

fn echo<K: Kind>(criterion: &mut Criterion) {
    may::config().set_workers(1);
    for connections in [1, 1000] {
        let mut group = criterion.benchmark_group(format!("echo, {connections} {}", K::NAME));
        group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(3));
        let mut bench = |name: &str, run: fn(Vec<Pair>, u64) -> Duration| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    // Enough rounds that registering and closing the sockets cost little.
                    let rounds = (iterations / connections).max(50);
                    let elapsed = run(K::pairs(connections as usize), rounds);
                    scaled(elapsed, connections * rounds, iterations)
                });
            });
        };
        bench("raw epoll", raw_epoll::<K>);
        bench("greenhub", greenhub::<K>);
        bench("greenhub, hub tokio", on_hub_tokio::<K>);
        bench("greenhub, joined", joined::<K>);
        bench("greenhub, sockets of tokio", awaited::<K>);
        bench("tokio", tokio::<K>);
        bench("may", may::<K>);
    }
}

criterion_group!(benches, echo::<Unix>, echo::<Tcp>);
criterion_main!(benches);
