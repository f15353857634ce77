//! A terminal view of running greenhub programs, by their console sockets.
//!
//! [`client`] asks each console for snapshots, on an OS thread of its own. [`app`] is the state of the view, which keys
//! and answers change. [`view`] draws it, and [`text`] prints one snapshot where there is no terminal.

mod app;
mod client;
mod snapshot;
mod text;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::app::{App, Effect};
use crate::client::Update;

/// Shows the hubs and green threads of running greenhub programs.
///
/// A program serves a console socket by `greenhub::debug::console`, for each hub that is to be shown. It needs the
/// feature `console` of greenhub.
///
/// Exit status: 0 after `q`, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "greenhub-top", version)]
struct Options {
    /// Console sockets, one for each hub
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Print one snapshot of each hub as text, as is done without a terminal
    #[arg(long)]
    once: bool,

    /// Time between two snapshots, in seconds
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    interval: Duration,

    /// Time to wait for the answer of a busy program with --once, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    timeout: Duration,
}

/// The longest time until a key is noticed or the ages on the screen change.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "greenhub-top: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.once || !io::stdout().is_terminal() {
        return print_once(options);
    }
    let (sender, updates) = mpsc::channel();
    for (hub, path) in options.paths.iter().enumerate() {
        client::start(hub, path.clone(), options.interval, sender.clone())?;
    }
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, App::new(&options.paths), &updates);
    ratatui::restore();
    shown
}

fn print_once(options: &Options) -> Result<()> {
    let mut output = io::stdout().lock();
    for path in &options.paths {
        let (snapshot, latency) = client::ask(path, options.timeout)?;
        output.write_all(text::format(path, &snapshot, latency).as_bytes()).context("cannot print the snapshot")?;
    }
    Ok(())
}

fn show(terminal: &mut DefaultTerminal, mut app: App, updates: &mpsc::Receiver<Update>) -> Result<()> {
    loop {
        while let Ok(update) = updates.try_recv() {
            app.update(update, Instant::now());
        }
        terminal.draw(|frame| view::draw(frame, &mut app, Instant::now())).context("cannot draw")?;
        if !event::poll(TICK).context("cannot read the keyboard")? {
            continue;
        }
        if let Event::Key(key) = event::read().context("cannot read the keyboard")?
            && key.kind == KeyEventKind::Press
            && app.press(key) == Effect::Quit
        {
            return Ok(());
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "not a time in seconds, more than 0".to_owned())
}
