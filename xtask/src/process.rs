//! Child processes with a limit of time.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The end of a process.
pub enum End {
    Exited(ExitStatus),
    /// The limit was over.
    Killed,
}

/// A pipe of a process.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Pipe {
    Stdout,
    Stderr,
}

/// Runs `command` and passes on each line that it prints. Kills it after `limit`.
///
/// # Errors
///
/// Returns an error if the command cannot be started.
pub fn watch(command: &mut Command, limit: Duration, each: impl Fn(Pipe, &str) + Sync) -> io::Result<End> {
    let mut child = piped(command).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pid = child.id();
    within(pid, limit, || {
        thread::scope(|scope| {
            // The pipes may outlive the process in one that it started, which then counts as hung as well.
            scope.spawn(|| stderr.map(|pipe| each_line(pipe, |line| each(Pipe::Stderr, line))));
            if let Some(pipe) = stdout {
                each_line(pipe, |line| each(Pipe::Stdout, line));
            }
        });
        child.wait()
    })
    .map(|(status, killed)| if killed { End::Killed } else { End::Exited(status) })
}

/// Runs `command` and returns what it prints.
///
/// # Errors
///
/// Returns an error if the command cannot be started, or is killed because `limit` is over.
pub fn collect(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let child = piped(command).spawn()?;
    match within(child.id(), limit, || child.wait_with_output())? {
        (output, false) => Ok(output),
        (_, true) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {} s", limit.as_secs()))),
    }
}

fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Runs `body`, and kills `pid` with all that it started if `body` is not over within `limit`. Returns whether it did.
fn within<T>(pid: u32, limit: Duration, body: impl FnOnce() -> io::Result<T>) -> io::Result<(T, bool)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watchdog = scope.spawn(|| {
            let start = Instant::now();
            while !over.load(Ordering::Relaxed) {
                if start.elapsed() > limit {
                    kill(pid);
                    return true;
                }
                thread::sleep(Duration::from_millis(50));
            }
            false
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        Ok((result?, watchdog.join().unwrap_or_default()))
    })
}

fn each_line(pipe: impl Read, each: impl Fn(&str)) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    // A test may print any bytes.
    while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Kills `pid` and its descendants. A process group would be simpler, but would not get the interrupt of a terminal.
fn kill(pid: u32) {
    let mut victims = vec![pid];
    let mut next = 0;
    while next < victims.len() {
        victims.extend(children(victims[next]));
        next += 1;
    }
    let _ = Command::new("kill").arg("-KILL").args(victims.iter().map(u32::to_string)).status();
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent_in_stat(&stat) == Some(parent)
    })
    .collect()
}

/// Returns the parent in a line of `/proc/<pid>/stat`. The name before it may hold any letter, so its last bracket
/// counts.
fn parent_in_stat(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn every_line_of_both_pipes_is_passed_on() {
        let lines = Mutex::new(Vec::new());
        let each = |pipe, line: &str| lines.lock().unwrap().push((pipe, line.to_owned()));
        let end = watch(&mut shell("echo out; echo err >&2; exit 3"), Duration::from_secs(600), each).unwrap();
        assert!(matches!(end, End::Exited(status) if status.code() == Some(3)));
        let mut lines = lines.into_inner().unwrap();
        lines.sort_by_key(|(_, line)| line.clone());
        assert_eq!(lines, [(Pipe::Stderr, "err".to_owned()), (Pipe::Stdout, "out".to_owned())]);
    }

    #[test]
    fn a_hanging_process_is_killed_with_its_descendants() {
        let start = Instant::now();
        let mut hanging = shell("sleep 600 & sleep 600; true");
        assert!(matches!(watch(&mut hanging, Duration::from_millis(200), |_, _| {}), Ok(End::Killed)));
        let error = collect(&mut hanging, Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.to_string(), "no end after 0 s");
        assert!(start.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in_stat("12 (a) b) S 7 12 12 0"), Some(7));
    }
}
