//! Tests of the example `threads` as a program: output and exit status.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::example;
use crate::support::example::{ends, errors, refuses, text};
use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};

fn threads<A: AsRef<OsStr>>(options: &[&str], files: &[A]) -> Command {
    let mut command = example::command("threads", options);
    command.args(files);
    command
}

fn run<A: AsRef<OsStr>>(options: &[&str], files: &[A]) -> Output {
    example::run(&mut threads(options, files))
}

const NONE: &[&str] = &[];

/// A directory that is removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("greenhub-threads-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// Writes files of different sizes. The largest comes first: its sum is computed last and printed first.
    fn files(&self, count: usize) -> Vec<PathBuf> {
        let content = |number: usize| vec![number as u8; if number == 0 { 3 << 20 } else { number * 101 }];
        (0..count).map(|number| self.file(&number.to_string(), &content(number))).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the output of `sha256sum`.
fn expected(files: &[PathBuf]) -> String {
    let digest = |path: &Path| Sha256::digest(fs::read(path).expect("a file"));
    let hex = |path: &Path| digest(path).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    files.iter().map(|path| format!("{}  {}\n", hex(path), path.display())).collect()
}

#[test]
fn known_sums() {
    let directory = Directory::new("known");
    let (empty, abc) = (directory.file("empty", b""), directory.file("abc", b"abc"));
    let output = run(&[], &[&empty, &abc]);
    ends(&output, 0);
    let sums = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ];
    assert_eq!(text(&output), format!("{}  {}\n{}  {}\n", sums[0], empty.display(), sums[1], abc.display()));
}

#[test]
fn sums_keep_the_order_of_the_files_for_any_number_of_threads() {
    let directory = Directory::new("order");
    let files = directory.files(120);
    let expected = expected(&files);
    for (threads, green, jobs) in [("1", "1", "1"), ("1", "50", "3"), ("5", "1", "2"), ("8", "9", "20")] {
        let output = run(&["--threads", threads, "--green", green, "--jobs", jobs], &files);
        ends(&output, 0);
        assert_eq!(text(&output), expected, "{threads} threads, {green} green threads, {jobs} jobs");
    }
}

#[test]
fn far_more_green_threads_than_files() {
    let directory = Directory::new("few");
    let files = directory.files(2);
    let output = run(&["--threads", "4", "--green", "500"], &files);
    ends(&output, 0);
    assert_eq!(text(&output), expected(&files));
}

#[test]
fn verbose_prints_the_work_of_each_thread() {
    let directory = Directory::new("verbose");
    let files = directory.files(30);
    let output = run(&["--verbose", "--threads", "3", "--green", "2"], &files);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let printed = errors(&output);
    let done = |number: usize| {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("OS thread {number}: ")))?;
        line.strip_suffix(" files by 2 green threads")?.parse::<usize>().ok()
    };
    let done: Option<usize> = (0..3).map(done).sum();
    assert_eq!(done, Some(30), "{printed}");
    let bytes = (3 << 20) + (0..30).sum::<usize>() * 101;
    assert!(printed.contains(&format!("30 files, {bytes} bytes in ")), "{printed}");
}

#[test]
fn an_unreadable_file_fails_the_run_and_no_other_file() {
    let directory = Directory::new("missing");
    let files = directory.files(40);
    let (missing, folder) = (directory.0.join("missing"), directory.0.clone());
    let mut all = files.clone();
    all.insert(0, missing.clone());
    all.insert(20, folder.clone());
    let output = run(&["--threads", "2", "--green", "2"], &all);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output), expected(&files));
    let printed = errors(&output);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with(&format!("threads: {}: No such file", missing.display())), "{printed}");
    assert!(lines[1].starts_with(&format!("threads: {}: Is a directory", folder.display())), "{printed}");
}

#[test]
fn line_breaks_in_names_are_escaped() {
    let directory = Directory::new("names");
    let path = directory.file("a\nb\\c", b"abc");
    let output = run(&[], &[&path]);
    ends(&output, 0);
    let text = text(&output);
    assert!(text.starts_with("\\ba7816bf") && text.ends_with("a\\nb\\\\c\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"], NONE);
    ends(&output, 0);
    assert!(text(&output).contains("--green"));
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    refuses(&run(&[], NONE), 2, &["<FILE>", "--help"]);
    refuses(&run(&["--threads", "0"], &["x"]), 2, &["--threads", "1..=100"]);
    refuses(&run(&["--threads", "101"], &["x"]), 2, &["--threads", "1..=100"]);
    refuses(&run(&["--green", "0"], &["x"]), 2, &["--green"]);
    refuses(&run(&["--jobs", "none"], &["x"]), 2, &["--jobs"]);
    refuses(&run(&["--colour"], &["x"]), 2, &["--colour"]);
}

#[test]
fn an_unknown_hub_is_refused_with_status_2() {
    refuses(&run(&["--hub", "nope"], &["x"]), 2, &["nope"]);
    refuses(&example::run(threads(&[], &["x"]).env("GREENHUB_HUB", "nope")), 2, &["nope", "GREENHUB_HUB"]);
}

#[test]
fn the_requested_number_of_files_is_read_at_once() {
    let directory = Directory::new("jobs");
    let pipes: Vec<PathBuf> = (0..4).map(|number| directory.0.join(number.to_string())).collect();
    for pipe in &pipes {
        nix::unistd::mkfifo(pipe, Mode::S_IRWXU).expect("a pipe");
    }
    let mut command = threads(&["--jobs", "2"], &pipes);
    let running = std::thread::spawn(move || example::run(&mut command));
    // Opening a pipe for reading blocks until there is a writer, so a successful open of a writer counts a reader.
    let mut left = pipes.clone();
    while !left.is_empty() {
        let mut writers = Vec::new();
        let began = Instant::now();
        while writers.len() < 2 || began.elapsed() < Duration::from_millis(50) {
            assert!(began.elapsed() < Duration::from_secs(60), "no reader for {left:?}");
            left.retain(|pipe| {
                let writer = fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(pipe);
                writer.map(|writer| writers.push(writer)).is_err()
            });
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(writers.len(), 2, "the readers did not read at the same time");
    }
    let output = running.join().expect("no panic");
    ends(&output, 0);
    assert_eq!(text(&output).matches("e3b0c44298fc1c149afbf4c8996fb924").count(), 4);
}

#[test]
fn the_pool_size_in_the_environment_is_ignored() {
    let directory = Directory::new("pool");
    let files = directory.files(3);
    let output = example::run(threads(&[], &files).env("EVENTLET_THREADPOOL_SIZE", "many"));
    ends(&output, 0);
    assert_eq!(text(&output), expected(&files));
}

#[cfg(target_os = "linux")]
#[test]
fn a_failed_write_of_the_sums_fails_the_run() {
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full exists");
    let directory = Directory::new("full");
    let files = directory.files(20);
    let output = example::run(threads(&[], &files).stdout(full));
    refuses(&output, 1, &["write", "space"]);
}

#[test]
fn a_thread_without_a_hub_does_not_block_the_others() {
    let directory = Directory::new("descriptors");
    let files = directory.files(3);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\""]).arg(example::program("threads"));
    command.args(["--threads", "60", "--green", "1", "--jobs", "1"]).args(&files);
    let output = example::run(command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()));
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("could not be built"), "{}", errors(&output));
}
