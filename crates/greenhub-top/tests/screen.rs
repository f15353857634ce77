//! The program in a terminal of tmux, by its screen. Needs tmux: `cargo xtask test` runs these tests where it is.

mod support;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::{HANG, Program, TOP};

/// A terminal of tmux in which the program runs. It is closed when this is dropped.
struct Terminal {
    server: String,
}

impl Terminal {
    fn start(name: &str, program: &Program) -> Terminal {
        let terminal = Terminal { server: format!("greenhub-top-{}-{name}", std::process::id()) };
        let command = format!("exec '{TOP}' --interval 0.05 '{}'", program.path().display());
        let started = terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "24", &command]);
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server]).args(arguments).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        command.output().expect("tmux is installed")
    }

    fn press(&self, keys: &[&str]) {
        assert!(self.tmux(&[&["send-keys"], keys].concat()).status.success());
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// Waits until the screen is as expected, and returns it.
    #[track_caller]
    fn until(&self, is_expected: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is_expected(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < HANG, "{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn shows(&self, text: &str) -> String {
        self.until(|screen| screen.contains(text))
    }

    /// Waits until the program in the terminal has ended.
    #[track_caller]
    fn ends(&self) {
        let begun = Instant::now();
        while self.tmux(&["has-session"]).status.success() {
            assert!(begun.elapsed() < HANG, "{}", self.screen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
#[ignore = "needs tmux"]
fn the_screen_shows_the_green_threads_until_q() {
    let program = Program::start("screen");
    let terminal = Terminal::start("screen", &program);
    let screen = terminal.shows("carol");
    assert!(screen.starts_with(&format!("greenhub-top  process {}, thread served\n", std::process::id())), "{screen}");
    for text in ["TURNS/S", "LATENCY", "latency, the newest left", "greenlets ", "sleeping, ", "q quit"] {
        assert!(screen.contains(text), "{text}: {screen}");
    }
    terminal.press(&["/", "b", "o", "b", "Enter"]);
    let screen = terminal.until(|screen| !screen.contains("alice") && screen.contains("with \"bob\""));
    assert!(screen.contains("greenlets 1 of "), "{screen}");
    terminal.press(&["Down", "Enter"]);
    assert!(terminal.shows("Esc closes").contains("name       bob"));
    terminal.press(&["q"]);
    terminal.ends();
}

#[test]
#[ignore = "needs tmux"]
fn keys_sort_the_green_threads() {
    let program = Program::start("sorted");
    let terminal = Terminal::start("sorted", &program);
    let order = |screen: &str| ["alice", "bob", "carol"].map(|name| screen.find(name));
    terminal.until(|screen| order(screen).is_sorted() && order(screen)[0].is_some());
    terminal.press(&["n", "n"]);
    terminal.until(|screen| screen.contains("by name reversed") && order(screen).iter().rev().is_sorted());
}

#[test]
#[ignore = "needs tmux"]
fn a_blocked_loop_and_the_end_of_the_program_are_shown() {
    let mut program = Program::start("ended");
    let terminal = Terminal::start("ended", &program);
    terminal.shows("carol");
    program.block(Duration::from_secs(3));
    terminal.shows("the loop is blocked");
    terminal.shows("process ");
    program.end();
    let screen = terminal.shows("there is no socket");
    assert!(screen.contains("carol"), "the last answer stays: {screen}");
    let again = Program::start("ended");
    terminal.shows("thread served");
    drop(again);
    terminal.press(&["C-c"]);
    terminal.ends();
}

#[test]
#[ignore = "needs tmux"]
fn a_small_terminal_says_that_it_is_small() {
    let program = Program::start("small");
    let terminal = Terminal::start("small", &program);
    terminal.shows("carol");
    assert!(terminal.tmux(&["resize-window", "-x", "25", "-y", "4"]).status.success());
    // The message is wrapped.
    terminal.shows("small; q quits");
    assert!(terminal.tmux(&["resize-window", "-x", "80", "-y", "12"]).status.success());
    terminal.shows("greenlets ");
    terminal.press(&["q"]);
    terminal.ends();
}
