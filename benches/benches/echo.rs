//! An echo of 64 bytes over socket pairs and over TCP, with both ends on one OS thread.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use benches::awaiting::{self, Awaited, runtime};
use benches::figures::skip;
use benches::{Pair, Stopwatch, green, raise_descriptor_limit, raw, scaled, tcp_pairs, unix_pairs};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use greenhub::future::defer_to_green_thread;
use greenhub::use_hub;
use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRent, AsyncWriteRentExt};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};

const BYTES: usize = 64;

/// A kind of socket, with the type of each library.
trait Kind {
    type Green: From<OwnedFd> + Read + Write + 'static;
    type Tokio: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    type Smol: TryFrom<OwnedFd, Error = io::Error> + smol::io::AsyncRead + smol::io::AsyncWrite + Unpin + 'static;
    type Monoio: AsyncReadRent + AsyncWriteRent + 'static;
    type May: FromRawFd + Read + Write + Send + 'static;

    const NAME: &str;

    fn pairs(count: usize) -> Vec<Pair>;

    /// Converts a socket. Must be called on a tokio runtime.
    fn for_tokio(socket: OwnedFd) -> Self::Tokio;

    /// Converts a socket. Must be called on a monoio runtime.
    fn for_monoio(socket: OwnedFd) -> Self::Monoio;
}

struct Unix;

impl Kind for Unix {
    type Green = greenhub::os::unix::net::UnixStream;
    type Tokio = tokio::net::UnixStream;
    type Smol = smol::net::unix::UnixStream;
    type Monoio = monoio::net::UnixStream;
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

    fn for_monoio(socket: OwnedFd) -> Self::Monoio {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true).expect("a socket");
        Self::Monoio::from_std(socket).expect("the runtime takes the socket")
    }
}

struct Tcp;

impl Kind for Tcp {
    type Green = greenhub::net::TcpStream;
    type Tokio = tokio::net::TcpStream;
    type Smol = smol::net::TcpStream;
    type Monoio = monoio::net::TcpStream;
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

    fn for_monoio(socket: OwnedFd) -> Self::Monoio {
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true).expect("a socket");
        Self::Monoio::from_std(socket).expect("the runtime takes the socket")
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

fn smol<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    use smol::io::{AsyncReadExt, AsyncWriteExt};
    let executor = smol::LocalExecutor::new();
    let pairs = both(pairs, |socket| K::Smol::try_from(socket).expect("the runtime takes the socket"));
    let watch = Stopwatch::start();
    let player = |(mut near, mut far): (K::Smol, K::Smol)| {
        let bounce = executor.spawn(async move {
            let mut message = [0; BYTES];
            for _ in 0..rounds {
                far.read_exact(&mut message).await.expect("a message comes");
                far.write_all(&message).await.expect("the peer reads");
            }
        });
        bounce.detach();
        executor.spawn(async move {
            let mut message = [7; BYTES];
            for _ in 0..rounds {
                near.write_all(&message).await.expect("a message is sent");
                near.read_exact(&mut message).await.expect("the message comes back");
            }
        })
    };
    let players: Vec<_> = pairs.into_iter().map(player).collect();
    smol::block_on(executor.run(async {
        for player in players {
            player.await;
        }
    }));
    watch.elapsed()
}

fn monoio<K: Kind>(pairs: Vec<Pair>, rounds: u64) -> Duration {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("a runtime");
    runtime.block_on(async move {
        let pairs = both(pairs, K::for_monoio);
        let watch = Stopwatch::start();
        let player = |(mut near, mut far): (K::Monoio, K::Monoio)| {
            monoio::spawn(async move {
                let mut message = vec![0; BYTES];
                for _ in 0..rounds {
                    let (read, received) = far.read_exact(message).await;
                    read.expect("a message comes");
                    let (written, sent) = far.write_all(received).await;
                    written.expect("the peer reads");
                    message = sent;
                }
            });
            monoio::spawn(async move {
                let mut message = vec![7; BYTES];
                for _ in 0..rounds {
                    let (written, sent) = near.write_all(message).await;
                    written.expect("a message is sent");
                    let (read, received) = near.read_exact(sent).await;
                    read.expect("the message comes back");
                    message = received;
                }
            })
        };
        let players: Vec<_> = pairs.into_iter().map(player).collect();
        for player in players {
            player.await;
        }
        watch.elapsed()
    })
}

fn echo<K: Kind>(criterion: &mut Criterion) {
    may::config().set_workers(1);
    raise_descriptor_limit().expect("the limit can be raised");
    for connections in [1, 50, 1000, 10_000] {
        let name = format!("echo, {connections} {}", K::NAME);
        if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < 2 * connections + 100) {
            skip(&name, "the limit of open files is too low for both ends");
            continue;
        }
        // Enough rounds that registering and closing the sockets cost little, and few enough for a sample.
        let least = if connections > 1000 { 10 } else { 50 };
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(1));
        let mut bench = |name: &str, run: fn(Vec<Pair>, u64) -> Duration| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let rounds = (iterations / connections).max(least);
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
        bench("smol", smol::<K>);
        bench("monoio", monoio::<K>);
    }
}

criterion_group!(benches, echo::<Unix>, echo::<Tcp>);
criterion_main!(benches);
