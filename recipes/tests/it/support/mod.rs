//! The helpers of the tests, which run in each way on two OS threads, beside a ticker.

#[path = "../../../../crates/greenhub/tests/it/support/example.rs"]
pub(crate) mod example;
mod ticker;

pub(crate) use ticker::Ticker;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use greenhub::process::Command as GreenCommand;
use greenhub::thread::os;
use recipes::way::Way;

/// Returns the features with which an example is built: none.
fn example_features() -> String {
    String::new()
}

/// The time after which a test counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// Every way in which a runtime of Tokio is at hand.
pub(crate) const WITH_TOKIO: &[Way] =
    &[Way::IMPLICIT, Way::Explicit, Way::ExplicitThreads, Way::Beside("epoll"), Way::Beside("poll")];

/// Both kinds of runtime in which a program runs green threads.
pub(crate) const EXPLICIT: &[Way] = &[Way::Explicit, Way::ExplicitThreads];

/// Every hub that needs no runtime.
pub(crate) const WITHOUT_TOKIO: &[Way] = &[Way::Hub("epoll"), Way::Hub("poll"), Way::Hub("select")];

/// Every way.
pub(crate) fn every_way() -> Vec<Way> {
    [WITH_TOKIO, WITHOUT_TOKIO].concat()
}

/// Runs `recipe` in each way, on two OS threads at once, each with a ticker.
///
/// # Panics
///
/// Panics if the recipe panics or hangs.
#[track_caller]
pub(crate) fn run(ways: &[Way], recipe: impl Fn(&Ticker) + Clone + Send + 'static) {
    for way in ways {
        let (sender, ended) = channel();
        let run = || {
            let (way, sender, recipe) = (*way, sender.clone(), recipe.clone());
            os::spawn(move || {
                way.run(move || recipe(&Ticker::start()));
                // Without a receiver the test has failed already.
                let _ = sender.send(());
            })
        };
        let threads = [run(), run()];
        drop(sender);
        for _ in &threads {
            match ended.recv_timeout(LIMIT) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{way}: the recipe hangs"),
                Err(RecvTimeoutError::Disconnected) => panic!("{way}: the recipe has panicked"),
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic after the recipe"));
    }
}

/// The number of green threads that use a library at once.
pub(crate) const MANY: usize = 500;

/// Runs `recipe` with [`MANY`] green threads in view: on epoll and on poll, on one OS thread, with a ticker.
///
/// The sockets of several OS threads could exceed the limit of descriptors, and `select` takes 1024 at most.
///
/// # Panics
///
/// Panics if the recipe panics or hangs.
#[track_caller]
pub(crate) fn run_many(recipe: impl Fn(&Ticker) + Clone + Send + 'static) {
    recipes::descriptors::raise_limit();
    for hub in ["epoll", "poll"] {
        let (sender, ended) = channel();
        let recipe = recipe.clone();
        let thread = os::spawn(move || {
            Way::Hub(hub).run(move || recipe(&Ticker::start()));
            // Without a receiver the test has failed already.
            let _ = sender.send(());
        });
        assert_ne!(ended.recv_timeout(LIMIT), Err(RecvTimeoutError::Timeout), "the recipe hangs on {hub}");
        thread.join().expect("the recipe has panicked");
    }
}

/// Returns whether a program is installed. Says that the test is skipped if it is not.
pub(crate) fn is_installed(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = asked.is_ok();
    if !is_there {
        eprintln!("{program} is not installed: this test is skipped");
    }
    is_there
}

/// Writes a file for other programs, and returns its path. The caller removes it.
pub(crate) fn temporary_file(name: &str, text: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("recipes-{}-{number}-{name}", std::process::id()));
    std::fs::write(&path, text).expect("a file");
    path
}

/// Asks a server of HTTPS by curl and by openssl, which know its certificate. The bodies must be lines of `secret`.
pub(crate) fn ask_by_curl_and_openssl(certificate: &str, address: SocketAddr) {
    let file = temporary_file("root.pem", certificate);
    let body = "secret\n".repeat(1000);
    let mut curl = GreenCommand::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--cacert"]).arg(&file).arg(format!("https://localhost:{}/", address.port()));
    let output = curl.output().expect("curl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, body.as_bytes());
    let mut openssl = GreenCommand::new("openssl");
    openssl.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-CAfile"]).arg(&file);
    openssl.args(["-connect", &address.to_string()]);
    let piped = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().expect("openssl starts");
    child.stdin.as_mut().expect("a pipe").write_all(REQUEST.as_bytes()).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&body));
    std::fs::remove_file(file).expect("a file");
}

/// A request by HTTP, after whose response the server closes the connection.
pub(crate) const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
