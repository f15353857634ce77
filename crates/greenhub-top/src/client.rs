//! The client of a console.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::snapshot::Snapshot;

/// The pause after a failure, until the next attempt to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// News of one console.
pub(crate) struct Update {
    /// The index of the console.
    pub(crate) hub: usize,
    pub(crate) news: News,
}

pub(crate) enum News {
    /// The console was asked for a snapshot, which is not here yet.
    Asked(Instant),
    /// The answer, and the time that it took.
    Answered(Box<Snapshot>, Duration),
    /// The console cannot be asked. The next attempt follows.
    Failed(String),
}

/// Starts an OS thread that asks the console at `path` again and again, until the receiver is dropped.
///
/// # Errors
///
/// Returns the system's error if it refuses the OS thread.
pub(crate) fn start(hub: usize, path: PathBuf, interval: Duration, updates: Sender<Update>) -> Result<()> {
    let tell = move |news| updates.send(Update { hub, news }).is_ok();
    let run = move || {
        loop {
            // Only an error ends the questions.
            let Err(error) = ask_forever(&path, interval, &tell) else { return };
            if !tell(News::Failed(format!("{error:#}"))) {
                return;
            }
            thread::sleep(PAUSE);
        }
    };
    thread::Builder::new().name("client".to_owned()).spawn(run).context("cannot start an OS thread")?;
    Ok(())
}

/// Asks until the receiver of the answers is dropped.
fn ask_forever(path: &Path, interval: Duration, tell: &impl Fn(News) -> bool) -> Result<()> {
    let mut console = Console::connect(path)?;
    loop {
        let begun = Instant::now();
        if !tell(News::Asked(begun)) {
            return Ok(());
        }
        let snapshot = console.ask()?;
        if !tell(News::Answered(Box::new(snapshot), begun.elapsed())) {
            return Ok(());
        }
        thread::sleep(interval);
    }
}

/// Asks for one snapshot. Returns it with the time that the answer took.
///
/// # Errors
///
/// Returns an error if there is no console at `path`, or if it does not answer within `timeout`.
pub(crate) fn ask(path: &Path, timeout: Duration) -> Result<(Snapshot, Duration)> {
    let mut console = Console::connect(path)?;
    console.0.get_ref().set_read_timeout(Some(timeout)).context("cannot set a timeout")?;
    let begun = Instant::now();
    let snapshot = console.ask().map_err(|error| match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            anyhow!("{}: no answer for {timeout:?}: the loop of the program is blocked", path.display())
        }
        _ => error.context(path.display().to_string()),
    })?;
    Ok((snapshot, begun.elapsed()))
}

/// A connection to a console.
struct Console(BufReader<UnixStream>);

impl Console {
    fn connect(path: &Path) -> Result<Console> {
        let shown = path.display();
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Console(BufReader::new(stream))),
            Err(error) => Err(match error.kind() {
                ErrorKind::NotFound => {
                    anyhow!(
                        "there is no socket {shown}: does a program call `greenhub::debug::console` with this path?"
                    )
                }
                ErrorKind::ConnectionRefused => anyhow!("the program that served {shown} has ended"),
                ErrorKind::PermissionDenied => anyhow!("only the user that runs the program may connect to {shown}"),
                _ => anyhow!("cannot connect to {shown}: {error}"),
            }),
        }
    }

    /// Asks for a snapshot. The greeting and the prompts are skipped.
    fn ask(&mut self) -> Result<Snapshot> {
        // A program that has ended may have left lines that explain the error. So the answer is read in any case.
        let written = self.0.get_ref().write_all(b"snapshot\n");
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.0.read_line(&mut line)?;
            if length == 0 {
                written?;
                bail!("the program has closed the connection");
            }
            let answer = line.trim_start_matches("> ").trim_end();
            if answer.starts_with('{') {
                return Snapshot::parse(answer);
            }
            if answer.starts_with("unknown command") {
                bail!("the console knows no `snapshot`: the program uses an older greenhub");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::LINE;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;

    /// Serves a console that answers each line with one of `answers`, and calls `test` with its path.
    fn with_console<R>(name: &str, answers: &'static [&'static str], test: impl FnOnce(&Path) -> R) -> R {
        let path = std::env::temp_dir().join(format!("greenhub-top-{}-{name}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            (&stream).write_all(b"a greeting of any kind\n").expect("a reader");
            let mut lines = BufReader::new(&stream).lines();
            for answer in answers {
                (&stream).write_all(b"> ").expect("a reader");
                assert_eq!(lines.next().expect("a line").expect("a text"), "snapshot");
                (&stream).write_all(answer.as_bytes()).expect("a reader");
            }
            // The connection stays open until the client leaves.
            if answers.is_empty() {
                lines.for_each(drop);
            }
        });
        let result = test(&path);
        server.join().expect("no panic");
        std::fs::remove_file(path).expect("the socket");
        result
    }

    fn line() -> &'static str {
        static LINES: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        LINES.get_or_init(|| LINE.replace('\n', " ") + "\n")
    }

    fn one() -> &'static [&'static str] {
        Box::leak(Box::new([line()]))
    }

    fn error(path: &Path) -> String {
        format!("{:#}", ask(path, Duration::from_secs(60)).expect_err("no snapshot"))
    }

    #[test]
    fn greeting_and_prompt_are_skipped() {
        let (snapshot, _) = with_console("greeting", one(), |path| ask(path, Duration::from_secs(60)).expect("one"));
        assert_eq!(snapshot.process, 42);
    }

    #[test]
    fn a_missing_socket_is_named_with_its_remedy() {
        let message = error(Path::new("/nowhere/console"));
        assert_eq!(
            message,
            "there is no socket /nowhere/console: does a program call `greenhub::debug::console` with this path?"
        );
    }

    #[test]
    fn the_socket_of_a_program_that_has_ended_is_named() {
        let path = std::env::temp_dir().join(format!("greenhub-top-{}-ended", std::process::id()));
        drop(UnixListener::bind(&path).expect("a socket"));
        assert_eq!(error(&path), format!("the program that served {} has ended", path.display()));
        std::fs::remove_file(path).expect("the socket");
    }

    #[test]
    fn an_older_console_is_named() {
        let message = with_console("older", &["unknown command \"snapshot\"; `help` lists the commands\n"], error);
        assert!(message.ends_with("the console knows no `snapshot`: the program uses an older greenhub"), "{message}");
    }

    #[test]
    fn a_console_that_does_not_answer_is_given_up() {
        let asked = with_console("silent", &[], |path| ask(path, Duration::from_millis(50)));
        let message = asked.expect_err("silence").to_string();
        assert!(message.ends_with("no answer for 50ms: the loop of the program is blocked"), "{message}");
    }

    #[test]
    fn a_client_tells_of_questions_answers_and_the_end() {
        with_console("client", one(), |path| {
            let (sender, updates) = mpsc::channel();
            start(3, path.to_owned(), Duration::from_millis(1), sender).expect("an OS thread");
            let next = || {
                let update = updates.recv_timeout(Duration::from_secs(60)).expect("news");
                assert_eq!(update.hub, 3);
                update.news
            };
            assert!(matches!(next(), News::Asked(_)));
            assert!(matches!(next(), News::Answered(snapshot, _) if snapshot.process == 42));
            assert!(matches!(next(), News::Asked(_)));
            assert!(matches!(next(), News::Failed(_)));
        });
    }
}
