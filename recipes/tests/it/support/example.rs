//! An example as a process of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LIMIT;

/// The example under test.
const NAME: &str = "twisted_style";

/// A running example. The process is killed when this is dropped.
pub(crate) struct Example {
    process: Option<Child>,
    stderr: BufReader<ChildStderr>,
}

/// Builds the example with the profile of this test, and returns its path. `cargo test --test` alone does not build it.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("this test is a file");
        let directory = test.parent().and_then(Path::parent).expect("tests are in TARGET/PROFILE/deps");
        let profile = match directory.file_name().and_then(OsStr::to_str) {
            Some("debug") => "dev",
            other => other.expect("the name of a profile"),
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "recipes", "--example", NAME, "--profile", profile, "--target-dir"])
            .arg(directory.parent().expect("profiles are in TARGET"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo starts");
        assert!(built.success(), "the example {NAME} does not build");
        directory.join("examples").join(NAME)
    })
}

impl Example {
    /// Starts the example.
    pub(crate) fn start(arguments: &[&str]) -> Example {
        let mut command = Command::new(program());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the example starts");
        let stderr = BufReader::new(process.stderr.take().expect("piped"));
        Example { process: Some(process), stderr }
    }

    /// Returns the next line of standard error, or an empty string at its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("a pipe");
        line
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let id = self.process.as_ref().expect("it runs").id();
        let process = Pid::from_raw(id.try_into().expect("a process ID")).expect("not 0");
        kill_process(process, Signal::INT).expect("it runs");
    }

    /// Waits for the end. Returns the status, the whole standard output, and the rest of standard error.
    #[track_caller]
    pub(crate) fn end(mut self) -> Output {
        let process = self.process.as_mut().expect("it runs");
        let mut stdout = process.stdout.take().expect("piped");
        // Reads at the same time: a full pipe would stop the example.
        let stdout = thread::spawn(move || {
            let mut text = Vec::new();
            stdout.read_to_end(&mut text).map(|_| text)
        });
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait().expect("a child") {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "the example hangs");
            thread::sleep(Duration::from_millis(5));
        };
        let mut stderr = Vec::new();
        self.stderr.read_to_end(&mut stderr).expect("a pipe");
        self.process = None;
        Output { status, stdout: stdout.join().expect("no panic").expect("a pipe"), stderr }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
