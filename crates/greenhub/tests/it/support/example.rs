//! Runs an example as a separate process. The tests of `recipes` use this file, too.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The time after which an example counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// Builds an example with the profile of this test, and returns its path.
///
/// `cargo test --test` alone does not build the examples.
pub(crate) fn program(name: &str) -> PathBuf {
    static PROGRAMS: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut programs = PROGRAMS.lock().expect("not poisoned");
    let program = programs.entry(name.to_owned()).or_insert_with(|| {
        let test = std::env::current_exe().expect("this test is a file");
        let directory = test.parent().and_then(Path::parent).expect("tests are in TARGET/PROFILE/deps");
        let profile = match directory.file_name().and_then(OsStr::to_str) {
            Some("debug") => "dev",
            other => other.expect("the name of a profile"),
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--example", name, "--profile", profile])
            .args(["--features", &super::example_features()])
            .arg("--target-dir")
            .arg(directory.parent().expect("profiles are in TARGET"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo starts");
        assert!(built.success(), "the example {name} does not build");
        directory.join("examples").join(name)
    });
    program.clone()
}

/// Returns a command that runs the example with these arguments, and with pipes for its output.
pub(crate) fn command<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Calls `attempt` with growing time limits in seconds until `in_time` accepts its result.
///
/// Returns the last limit and the result. The first limit is enough unless the machine is busy.
#[track_caller]
pub(crate) fn with_time<T>(attempt: impl Fn(&str) -> T, in_time: impl Fn(&T) -> bool) -> (&'static str, T) {
    for limit in ["0.5", "5"] {
        let done = attempt(limit);
        if in_time(&done) {
            return (limit, done);
        }
    }
    ("30", attempt("30"))
}

/// Returns whether no URL but `url` timed out, according to the printed lines.
pub(crate) fn only_timed_out(printed: &str, url: &str) -> bool {
    printed.lines().filter(|line| line.contains(": timed out")).all(|line| line.contains(url))
}

/// Runs a command to its end.
///
/// # Panics
///
/// Panics if the command hangs: kills it, and puts its standard error in the message.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child = command.spawn().expect("the example starts");
    let (stdout, stderr) = (child.stdout.take().map(read), child.stderr.take().map(read));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if began.elapsed() > LIMIT {
            child.kill().expect("a child");
            child.wait().expect("a child");
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let [stdout, stderr] =
        [stdout, stderr].map(|reader| reader.map_or_else(Vec::new, |it| it.join().expect("the reader returns")));
    let printed = String::from_utf8_lossy(&stderr);
    let status = status.unwrap_or_else(|| panic!("{command:?} hangs: it has run for {LIMIT:?} and printed: {printed}"));
    Output { status, stdout, stderr }
}

fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).expect("a pipe");
        text
    })
}

/// A server in its own process. Dropping the value kills the process.
pub(crate) struct Server {
    process: Option<Child>,
    /// The first line on its standard error.
    pub(crate) greeting: String,
    rest: BufReader<ChildStderr>,
    _watchdog: mpsc::Sender<()>,
}

impl Server {
    /// Starts the server, and waits for the first line on its standard error.
    pub(crate) fn start(command: &mut Command) -> Server {
        let mut process = command.spawn().expect("the example starts");
        let watchdog = watch(&process);
        let mut rest = BufReader::new(process.stderr.take().expect("standard error is piped"));
        let mut greeting = String::new();
        rest.read_line(&mut greeting).expect("a line");
        Server { process: Some(process), greeting, rest, _watchdog: watchdog }
    }

    /// Waits until the server prints a line that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) {
        let mut line = self.greeting.clone();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.rest.read_line(&mut line).expect("the output is UTF-8"), 0, "{text:?} was not printed");
        }
    }

    /// Interrupts the server as Ctrl-C does, and returns its remaining output.
    pub(crate) fn interrupt(self) -> Output {
        let process = self.process.as_ref().expect("the process runs");
        kill_process(Pid::from_child(process), Signal::INT).expect("the process runs");
        self.wait()
    }

    /// Waits until the server ends by itself.
    pub(crate) fn wait(mut self) -> Output {
        let process = self.process.take().expect("the process runs");
        let mut stderr = Vec::new();
        self.rest.read_to_end(&mut stderr).expect("a pipe");
        let output = process.wait_with_output().expect("a child");
        Output { stderr, ..output }
    }
}

/// Kills the process after the limit, unless the returned sender is dropped before.
fn watch(process: &Child) -> mpsc::Sender<()> {
    let (done, is_done) = mpsc::channel();
    let process = Pid::from_child(process);
    std::thread::spawn(move || {
        if is_done.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(process, Signal::KILL);
        }
    });
    done
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child");
            process.wait().expect("a child");
        }
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that the process ended with this status and an empty standard error.
#[track_caller]
pub(crate) fn ends(output: &Output, status: i32) {
    assert_eq!((output.status.code(), errors(output).as_str()), (Some(status), ""));
}

/// Asserts that the process ended with this status, an empty standard output, and one error line with these words.
#[track_caller]
pub(crate) fn refuses(output: &Output, status: i32, words: &[&str]) {
    let text = errors(output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}
