//! The debug console: inspects a running hub through a socket.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::fork::{exits_with, forked};
use crate::support::green;
use crate::support::green::{LONG, OnDrop, SHORT, held, pipe};
use crate::support::{in_child, is_child, open_descriptors, rerun, run};
use greenhub::debug::{Console, console};
use greenhub::greenthread::GreenletId;
use greenhub::net::Shutdown;
use greenhub::os::unix::net::UnixStream;
use greenhub::thread::yield_now;
use greenhub::{Builder, Interest, get_hub, sleep, spawn, spawn_after, trampoline};

const PROMPT: &str = "> ";

/// Returns a path for one test at which no file exists.
fn free_path(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("greenhub-{}-{test}", std::process::id()))
}

/// Runs `test` with a console and its path.
fn with_console(name: &'static str, test: impl FnOnce(Console, PathBuf) + Send + 'static) {
    run(name, move || {
        let path = free_path(&name[..name.len().min(40)]);
        test(console(&path).unwrap(), path);
    });
}

struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects, and reads up to the first prompt.
    fn connect(path: &PathBuf) -> (Client, String) {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Client(BufReader::new(stream));
        let banner = client.answer().unwrap();
        (client, banner)
    }

    fn new(path: &PathBuf) -> Client {
        Client::connect(path).0
    }

    /// Reads the answer up to the next prompt.
    fn answer(&mut self) -> io::Result<String> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !(text == PROMPT.as_bytes() || text.ends_with(b"\n> ")) {
            self.0.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        text.truncate(text.len() - PROMPT.len());
        Ok(String::from_utf8(text).unwrap())
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.0.get_mut(), "{line}").unwrap();
        self.answer().unwrap()
    }

    /// Returns the number of a green thread with its birth, as the list shows it.
    fn number_of(&mut self, id: GreenletId) -> String {
        let threads = self.ask("threads");
        let mut numbers = threads.lines().filter_map(|line| line.split_whitespace().next());
        let found = numbers.find(|number| number.split_once('.').is_some_and(|(number, _)| number == id.to_string()));
        found.unwrap_or_else(|| panic!("green thread {id} is missing: {threads}")).to_owned()
    }

    /// Returns whether the peer has closed the connection without further output.
    fn is_at_end(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

#[test]
fn a_client_is_greeted_and_each_command_answered() {
    with_console("a_client_is_greeted_and_each_command_answered", |console, path| {
        let (mut client, banner) = Client::connect(&path);
        assert!(
            banner.contains("console") && banner.contains(get_hub().name()) && banner.contains("`help`"),
            "{banner}"
        );
        let help = client.ask("help");
        for command in
            ["help", "threads", "backtrace", "dump", "listeners", "timers", "stats", "snapshot", "kill", "quit"]
        {
            assert!(help.contains(command), "{help}");
        }
        let _sleeper = Builder::new().name("sleeper".into()).spawn(|| sleep(LONG)).unwrap();
        let (reader, _writer) = pipe();
        let _reading =
            Builder::new().name("reading".into()).spawn(move || drop(trampoline(&reader, Interest::READ, None)));
        sleep(SHORT);
        let threads = client.ask("threads");
        assert!(threads.contains("\"sleeper\"") && threads.contains("sleeping"), "{threads}");
        assert!(threads.lines().any(|line| line.contains("console client") && line.contains("running")), "{threads}");
        let listeners = client.ask("listeners");
        assert!(listeners.starts_with("READERS:\n") && listeners.contains("\"reading\""), "{listeners}");
        assert!(client.ask("timers").contains("\"sleeper\""));
        let dump = client.ask("dump");
        assert!(dump.contains("\"sleeper\"") && dump.contains("sleeping"), "{dump}");
        let stats = client.ask("stats");
        assert!(stats.lines().any(|line| line.starts_with("turns ")), "{stats}");
        assert_eq!(client.ask(""), "");
        console.stop();
    });
}

#[test]
fn a_list_shows_a_thousand_entries_and_counts_the_others() {
    with_console("a_list_shows_a_thousand_entries_and_counts_the_others", |_console, path| {
        let sleepers: Vec<_> = (0..1500).map(|_| spawn(|| sleep(LONG))).collect();
        let mut client = Client::new(&path);
        // The main greenlet, the main loop, the console and its client are listed too.
        let threads = client.ask("threads");
        let mut lines = threads.lines();
        assert_eq!((lines.next(), lines.next_back()), (Some("GREEN THREADS:"), Some("  and 504 more")), "{threads}");
        assert_eq!(lines.clone().count(), 1000);
        // A listed sleeper has its time although the timers of the others are skipped.
        assert!(lines.filter(|line| line.contains(": sleeping, 3599.")).count() >= 996, "{threads}");
        assert!(client.ask("dump").contains("\nand 504 more\n"));
        let timers = client.ask("timers");
        assert_eq!(timers.lines().filter(|line| line.starts_with("  in ")).count(), 1000, "{timers}");
        let more = timers.lines().next_back().and_then(|line| line.strip_prefix("  and ")?.strip_suffix(" more"));
        // A client with a timeout has one timer more.
        assert!(
            more.and_then(|more| more.parse().ok()).is_some_and(|more: u32| (500..510).contains(&more)),
            "{timers}"
        );
        sleepers.into_iter().for_each(|sleeper| _ = sleeper.kill());
        assert!(!client.ask("threads").contains(" more\n"));
    });
}

#[test]
fn the_listeners_of_each_direction_are_counted_above_a_thousand() {
    in_child(|| {
        greenhub::debug::hub_prevent_multiple_readers(false);
        let path = free_path("listeners");
        let _console = console(&path).unwrap();
        let (reader, _writer) = pipe();
        let reader = Rc::new(reader);
        let readers: Vec<_> = (0..1200)
            .map(|_| {
                let reader = Rc::clone(&reader);
                spawn(move || drop(trampoline(&*reader, Interest::READ, None)))
            })
            .collect();
        let (full_reader, full) = pipe();
        rustix::io::ioctl_fionbio(&full, true).unwrap();
        while rustix::io::write(&full, &[0; 4096]).is_ok() {}
        let writer = spawn(move || drop(trampoline(&full, Interest::WRITE, None)));
        let mut client = Client::new(&path);
        let listeners = client.ask("listeners");
        let (readers_listed, writers) = listeners.split_once("WRITERS:\n").unwrap();
        let more = readers_listed.lines().next_back().unwrap();
        assert_eq!(readers_listed.lines().count(), 1002, "{readers_listed}");
        // The console, its client and this test read as well.
        assert!(more.starts_with("  and 20") && more.ends_with(" more"), "{more}");
        assert!(writers.lines().count() == 1 && writers.starts_with("  writing to "), "{writers}");
        readers.into_iter().for_each(|reader| _ = reader.kill());
        writer.kill();
        drop(full_reader);
    });
}

#[test]
fn an_unknown_command_is_answered_as_such() {
    with_console("an_unknown_command_is_answered_as_such", |_console, path| {
        let mut client = Client::new(&path);
        assert_eq!(client.ask("reboot now"), "unknown command \"reboot\"; `help` lists the commands\n");
        assert_eq!(client.ask("threads please"), "`threads` takes no arguments\n");
        assert!(client.ask("kill").contains("needs the number"));
        assert!(client.ask("kill nobody").contains("is not the number"));
        assert!(client.ask("\u{1b}[31m").contains("unknown command"), "a control sequence was accepted as a command");
        writeln!(client.0.get_mut(), "{}", "x".repeat(5000)).unwrap();
        let mut rest = String::new();
        client.0.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "that line is too long\n");
    });
}

#[test]
fn kill_ends_a_green_thread_and_no_other() {
    with_console("kill_ends_a_green_thread_and_no_other", |_console, path| {
        let dropped = Rc::new(std::cell::Cell::new(false));
        let drops = Rc::clone(&dropped);
        let target = spawn(move || {
            let _drops = OnDrop(move || drops.set(true));
            sleep(LONG);
        });
        let other = spawn(|| sleep(LONG));
        let mut client = Client::new(&path);
        let number = target.id().unwrap();
        assert!(client.ask(&format!("kill {number}")).contains("needs"), "a number alone was enough");
        let named = client.number_of(number);
        assert_eq!(client.ask(&format!("kill {named}")), format!("green thread {named} ends when it runs next\n"));
        assert!(target.join().unwrap_err().is_kill());
        assert!(dropped.get() && !other.is_finished());
        assert!(
            client.ask("kill 0").contains("there is no green thread 0"),
            "the main greenlet was killed as a green thread"
        );
        assert!(client.ask("kill 4000000000").contains("there is no green thread"));
        let later = spawn_after(LONG, || ());
        let later_named = client.number_of(later.id().unwrap());
        client.ask(&format!("kill {later_named}"));
        assert!(later.is_finished());
        other.kill();
    });
}

#[test]
fn a_number_of_an_ended_green_thread_kills_no_other() {
    with_console("a_number_of_an_ended_green_thread_kills_no_other", |_console, path| {
        let mut client = Client::new(&path);
        let ended = spawn(|| sleep(LONG));
        let number = client.number_of(ended.id().unwrap());
        let id = ended.id();
        ended.kill();
        // Births are counted in steps of 17 ms.
        sleep(Duration::from_millis(50));
        let successors: Vec<_> = std::iter::repeat_with(|| spawn(|| sleep(LONG))).take(8).collect();
        let successor = successors.iter().find(|green| green.id() == id).expect("the number is given to another");
        yield_now();
        for command in ["kill", "backtrace"] {
            let answer = client.ask(&format!("{command} {number}"));
            assert!(answer.contains(&format!("there is no green thread {number};")), "{answer}");
        }
        yield_now();
        assert!(!successor.is_finished(), "an innocent green thread was killed");
        let number = client.number_of(id.unwrap());
        client.ask(&format!("kill {number}"));
        yield_now();
        assert!(successor.is_finished());
        successors.into_iter().for_each(|green| _ = green.kill());
    });
}

#[test]
fn backtrace_is_answered_for_a_green_thread_or_says_why_not() {
    with_console("backtrace_is_answered_for_a_green_thread_or_says_why_not", |_console, path| {
        let green = spawn(|| sleep(LONG));
        let mut client = Client::new(&path);
        let answer = client.ask(&format!("backtrace {}", green.id().unwrap()));
        let is_expected = if cfg!(feature = "backtrace") {
            answer.contains("sleep") && answer.contains("switch.rs")
        } else {
            answer.contains("feature `backtrace`")
        };
        assert!(is_expected, "{answer}");
        assert!(client.ask("backtrace").contains("needs the number"));
        assert!(client.ask("backtrace nobody").contains("is not the number"));
        green.kill();
    });
}

#[test]
fn quit_ends_the_connection_and_the_server_goes_on() {
    with_console("quit_ends_the_connection_and_the_server_goes_on", |console, path| {
        let mut first = Client::new(&path);
        let mut second = Client::new(&path);
        assert_eq!(console.clients(), 2);
        writeln!(first.0.get_mut(), "quit").unwrap();
        assert!(first.is_at_end());
        assert!(second.ask("help").contains("quit"));
        yield_now();
        assert_eq!(console.clients(), 1);
    });
}

#[test]
fn each_client_gets_its_own_answers() {
    with_console("each_client_gets_its_own_answers", |_console, path| {
        let mut clients: Vec<Client> = (0..5).map(|_| Client::new(&path)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            writeln!(client.0.get_mut(), "kill 400000000{number}").unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate().rev() {
            let answer = client.answer().unwrap();
            assert!(answer.starts_with(&format!("there is no green thread 400000000{number};")), "{answer}");
        }
    });
}

#[test]
fn each_of_several_commands_sent_at_once_is_answered_in_a_turn_of_its_own() {
    with_console("each_of_several_commands_sent_at_once_is_answered_in_a_turn_of_its_own", |_console, path| {
        const COMMANDS: usize = 10;
        let mut clients: Vec<Client> = (0..4).map(|_| Client::new(&path)).collect();
        clients.iter_mut().for_each(|client| client.0.get_mut().write_all(&b"stats\n".repeat(COMMANDS)).unwrap());
        let mut turns: Vec<u64> = Vec::new();
        for client in &mut clients {
            for _ in 0..COMMANDS {
                let stats = client.answer().unwrap();
                let turn = stats.lines().find_map(|line| line.strip_prefix("turns ")).unwrap();
                turns.push(turn.trim().parse().unwrap());
            }
        }
        turns.sort_unstable();
        assert!(turns.is_sorted_by(|one, next| one < next), "two answers in one turn: {turns:?}");
        // The loop is idle again.
        let before = get_hub().stats().turns;
        sleep(20 * SHORT);
        assert!(get_hub().stats().turns - before < 20, "{} turns", get_hub().stats().turns - before);
    });
}

#[test]
fn a_client_that_leaves_at_once_does_no_harm() {
    with_console("a_client_that_leaves_at_once_does_no_harm", |console, path| {
        sleep(SHORT);
        let before = held();
        for round in 0..20 {
            let stream = UnixStream::connect(&path).unwrap();
            match round % 4 {
                0 => {}
                // Leaves before the greeting, during an answer, and after half a line.
                1 => stream.shutdown(Shutdown::Both).unwrap(),
                2 => (&stream).write_all(b"threads\nthreads\nthreads\n").unwrap(),
                _ => (&stream).write_all(b"thr").unwrap(),
            }
            drop(stream);
        }
        assert!(Client::new(&path).ask("help").contains("quit"));
        while console.clients() != 0 {
            sleep(SHORT);
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn a_client_that_takes_no_answers_is_disconnected_and_holds_up_no_other() {
    with_console("a_client_that_takes_no_answers_is_disconnected_and_holds_up_no_other", |console, path| {
        let stuck = UnixStream::connect(&path).unwrap();
        // The answers are larger than the buffers of the socket.
        let writes = spawn(move || {
            let gone = (0..).map(|_| (&stuck).write_all(&b"help\n".repeat(1000))).find_map(Result::err);
            (gone.unwrap().kind(), stuck)
        });
        sleep(4 * SHORT);
        let mut other = Client::new(&path);
        assert_eq!(console.clients(), 2);
        assert!(other.ask("help").contains("quit"));
        let (kind, _stuck) = writes.join().unwrap();
        assert!(matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{kind:?}");
        assert_eq!(console.clients(), 1);
        assert!(other.ask("help").contains("quit"));
    });
}

#[test]
fn a_client_above_the_bound_takes_the_place_of_the_one_that_was_idle_longest() {
    const NAME: &str = "a_client_above_the_bound_takes_the_place_of_the_one_that_was_idle_longest";
    with_console(NAME, |console, path| {
        let mut clients: Vec<Client> = (0..16).map(|_| Client::new(&path)).collect();
        // The second has not asked since, and is now idle for longer than the first.
        assert!(clients[0].ask("help").contains("quit"));
        let mut newest = Client::new(&path);
        let mut last_words = String::new();
        clients.remove(1).0.read_to_string(&mut last_words).unwrap();
        assert_eq!(last_words, "this connection ends: too many clients are connected, and it was idle longest\n");
        assert_eq!(console.clients(), 16);
        assert!(newest.ask("help").contains("quit"));
        assert!(clients.iter_mut().all(|client| client.ask("help").contains("quit")));
    });
}

#[test]
fn clients_that_take_no_answers_give_way_to_a_newer_one() {
    with_console("clients_that_take_no_answers_give_way_to_a_newer_one", |console, path| {
        let stuck: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let asks = b"help\n".repeat(2000);
        for stream in &stuck {
            stream.set_write_timeout(Some(SHORT)).unwrap();
            // Fails when the client's own buffer is full: the console waits to send by then.
            while (&*stream).write_all(&asks).is_ok() {}
        }
        let begin = Instant::now();
        assert!(Client::new(&path).ask("help").contains("quit"));
        assert!(begin.elapsed() < Duration::from_secs(9), "only the limit for an answer made room");
        drop(stuck);
        while console.clients() != 0 {
            sleep(SHORT);
        }
    });
}

#[test]
fn an_unterminated_last_line_is_a_command() {
    with_console("an_unterminated_last_line_is_a_command", |_console, path| {
        let mut client = Client::new(&path);
        client.0.get_mut().write_all(b"kill 0").unwrap();
        client.0.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        client.0.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "there is no green thread 0; `threads` lists the green threads\n> ");
    });
}

#[test]
fn only_the_owner_can_reach_the_socket() {
    with_console("only_the_owner_can_reach_the_socket", |console, path| {
        assert_eq!(console.path(), path);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn the_socket_never_has_a_mode_for_others() {
    with_console("the_socket_never_has_a_mode_for_others", |console, path| {
        console.stop();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let looked_at = path.clone();
        let looks = std::thread::spawn(move || {
            let mut open = Vec::new();
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                if let Ok(metadata) = std::fs::symlink_metadata(&looked_at) {
                    open.extend(Some(metadata.permissions().mode()).filter(|mode| mode & 0o077 != 0));
                }
            }
            open
        });
        for _ in 0..500 {
            greenhub::debug::console(&path).unwrap().stop();
        }
        drop(stop);
        assert_eq!(looks.join().unwrap(), [0_u32; 0]);
    });
}

#[test]
fn a_path_that_exists_is_an_error_and_is_left_alone() {
    with_console("a_path_that_exists_is_an_error_and_is_left_alone", |first, path| {
        let error = console(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(Client::new(&path).ask("help").contains("quit"));
        first.stop();
        console(&path).unwrap().stop();
        let error = console("/nonexistent/console").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nonexistent/console"), "{error}");
    });
}

#[test]
fn a_stopped_console_leaves_nothing_behind() {
    if !is_child() {
        // Tests of the same process open descriptors too.
        let output = rerun("a_stopped_console_leaves_nothing_behind", |_| ());
        return assert!(output.status.success(), "{output:?}");
    }
    run("a_stopped_console_leaves_nothing_behind", || {
        let path = free_path("stopped");
        sleep(SHORT);
        let (before, descriptors) = (held(), open_descriptors());
        let console = console(&path).unwrap();
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&path)).collect();
        console.stop();
        assert!(!path.exists());
        assert!(clients.iter_mut().all(Client::is_at_end));
        drop(clients);
        assert_eq!(held(), before);
        assert_eq!(open_descriptors(), descriptors);
    });
}

#[test]
fn a_dropped_console_ends_without_a_wait() {
    run("a_dropped_console_ends_without_a_wait", || {
        let path = free_path("dropped");
        sleep(SHORT);
        let before = held();
        let console = console(&path).unwrap();
        let mut client = Client::new(&path);
        drop(console);
        assert!(!path.exists());
        assert!(client.is_at_end());
        drop(client);
        assert_eq!(held(), before);
    });
}

#[test]
fn stop_keeps_a_file_that_replaced_the_socket() {
    with_console("stop_keeps_a_file_that_replaced_the_socket", |console, path| {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "not ours").unwrap();
        console.stop();
        assert_eq!(std::fs::read(&path).unwrap(), b"not ours");
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_client_that_kills_itself_is_gone() {
    with_console("a_client_that_kills_itself_is_gone", |console, path| {
        let mut client = Client::new(&path);
        let threads = client.ask("threads");
        let line = threads.lines().find(|line| line.contains("console client")).unwrap();
        let number = line.split_whitespace().next().unwrap();
        writeln!(client.0.get_mut(), "kill {number}").unwrap();
        let mut rest = String::new();
        client.0.read_to_string(&mut rest).unwrap();
        sleep(SHORT);
        assert_eq!(console.clients(), 0);
        assert!(Client::new(&path).ask("help").contains("quit"));
    });
}

/// Returns the id of the console's green thread.
fn server() -> GreenletId {
    let server = greenhub::debug::greenlets().into_iter().find(|info| info.name.as_deref() == Some("console"));
    server.expect("the console has a green thread").id
}

#[test]
fn a_killed_console_closes_its_listener_and_its_clients() {
    with_console("a_killed_console_closes_its_listener_and_its_clients", |console, path| {
        let mut client = Client::new(&path);
        let mut other = Client::new(&path);
        let number = client.number_of(server());
        writeln!(client.0.get_mut(), "kill {number}").unwrap();
        let mut rest = String::new();
        let _ = client.0.read_to_string(&mut rest);
        assert!(other.is_at_end());
        assert!(!path.exists());
        assert!(UnixStream::connect(&path).is_err());
        console.stop();
    });
}

#[test]
fn a_console_that_is_killed_before_it_begins_leaves_nothing_behind() {
    with_console("a_console_that_is_killed_before_it_begins_leaves_nothing_behind", |console, path| {
        assert!(hub_core::internal::request_exit(server()));
        assert!(!path.exists());
        console.stop();
    });
}

#[test]
fn a_console_with_a_broken_listener_ends_with_a_report() {
    const NAME: &str = "a_console_with_a_broken_listener_ends_with_a_report";
    if !is_child() {
        let output = rerun(NAME, |_| ());
        return assert!(output.status.success(), "{output:?}");
    }
    with_console(NAME, |console, path| {
        green::keep_reports();
        sleep(SHORT);
        let listeners = greenhub::debug::listeners();
        let waits = listeners.iter().find(|info| info.to_string().contains("console"));
        let waits = waits.expect("the console waits for a connection");
        let (reader, _writer) = io::pipe().unwrap();
        // SAFETY: the number stays open. The library only calls `accept` on the pipe that replaces the listener.
        let replaced = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&reader), waits.fd) };
        assert_eq!(replaced, waits.fd);
        greenhub::park::notify_opened(waits.fd);
        while path.exists() {
            sleep(SHORT);
        }
        assert_eq!(console.clients(), 0);
        let reports = green::reports();
        assert!(reports.len() == 1 && reports[0].contains("the console at"), "{reports:?}");
    });
}

#[test]
fn a_forked_child_leaves_the_clients_to_its_parent() {
    in_child(|| {
        let path = free_path("forked");
        let console = console(&path).unwrap();
        let mut connected = Client::new(&path);
        // Both wait for an answer when the process forks. Neither call lets the console run.
        writeln!(connected.0.get_mut(), "kill 4000000000").unwrap();
        let mut new = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let child = forked(|| {
            while console.clients() != 0 || greenhub::debug::greenlets().len() > 2 {
                sleep(SHORT);
            }
            assert!(path.exists(), "the child removed the socket of its parent");
        });
        exits_with(child, 0);
        assert!(connected.answer().unwrap().contains("there is no green thread"));
        while console.clients() != 2 {
            sleep(SHORT);
        }
        new.write_all(b"quit\n").unwrap();
        while console.clients() != 1 {
            sleep(SHORT);
        }
        let mut answer = String::new();
        new.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("greenhub console, process {},", std::process::id())), "{answer}");
    });
}
