//! The cost of a message among many descriptors of which few are busy: each hub, bare and under green threads, compared
//! with libevent and libev in C.
//!
//! `ring [REPETITIONS]` prints two tables: one for messages that return to their place, and one for messages that move
//! around the ring. Each cell has the least and the median processor time per message, in nanoseconds, over repetitions
//! in which the rows alternate. In brackets is the ratio of the median to that of the first row, which is libevent if
//! its headers are installed. Each measurement is a process of its own, and all run on one processor.
//!
//! `ring --figures [TEXT]` prints a part of this as lines of [`benches::figures`], for pipes as well.

use std::env;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use benches::children;
use benches::figures::{Figures, Unit, skip};
use benches::peers::Peer;
use benches::processors::processors;
use benches::raise_descriptor_limit;
use benches::ring::{By, Kind, Load, alone, bare, green, raw, tasks};
use greenhub::hub::Lease;
use greenhub::use_hub;
use hub_epoll::EpollHub;
use hub_poll::PollHub;
use hub_select::SelectHub;
use rustix::process::{Resource, getrlimit};

type Failure = Box<dyn Error>;

const PLACES: [usize; 3] = [100, 1_000, 10_000];

const BUSY: usize = 100;

const MESSAGES: usize = 100_000;

/// The time after which a measurement counts as hung.
const LIMIT: Duration = Duration::from_secs(60);

const HUBS: &[&str] =
    if cfg!(feature = "libevent") { &["epoll", "poll", "select", "libevent"] } else { &["epoll", "poll", "select"] };

const DRIVERS: [(&str, &str); 4] = [
    ("life", "the hub, lent for life"),
    ("wait", "the hub, lent for one wait"),
    ("source", "green threads, `Source`"),
    ("trampoline", "green threads, `trampoline`"),
];

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => tables(7),
        [number] if number.parse().is_ok_and(|number: usize| number > 0) => tables(number.parse().expect("a number")),
        ["measure", driver, hub, ref numbers @ .., kind] => measure(driver, hub, numbers, kind),
        _ => match Figures::requested(&words) {
            Some(figures) => print_figures(&figures),
            None => Err("usage: ring [REPETITIONS], or ring --figures [TEXT]".into()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// A row of the table: its name, and the command to measure it.
struct Row {
    name: String,
    program: PathBuf,
    words: Vec<&'static str>,
}

fn tables(repetitions: usize) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let rows = rows()?;
    table(&rows, repetitions, 0, "the same stay busy")?;
    println!();
    table(&rows, repetitions, 1, "all in turn")
}

fn table(rows: &[Row], repetitions: usize, step: usize, title: &str) -> Result<(), Failure> {
    let mut cells: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); PLACES.len()]; rows.len()];
    for _ in 0..repetitions {
        for (column, places) in PLACES.into_iter().enumerate() {
            for (row, cells) in rows.iter().zip(&mut cells) {
                cells[column].extend(run(row, places, step, Kind::Eventfd)?);
            }
        }
    }
    cells.iter_mut().flatten().for_each(|times| times.sort_by(f64::total_cmp));
    let heads = PLACES.map(|places| format!(" {BUSY} of {places} |"));
    println!("| {title} |{}\n|---|{}", heads.concat(), "---:|".repeat(heads.len()));
    for (row, times) in rows.iter().zip(&cells) {
        let beside = cells[0].iter().zip(times).map(|(first, times)| format!(" {} |", cell(times, first)));
        println!("| {} |{}", row.name, beside.collect::<String>());
    }
    Ok(())
}

/// Returns the rows that can run here. The first one is the base of the ratios.
fn rows() -> Result<Vec<Row>, Failure> {
    let this = env::current_exe()?;
    let mut rows = Vec::new();
    for peer in Peer::RINGS {
        match peer.build()? {
            Ok(program) => rows.push(Row { name: format!("{}, from C", peer.name), program, words: vec![] }),
            Err(missing) => eprintln!("skipped: {}, from C: {missing}", peer.name),
        }
    }
    let alone = "nothing: the reads and writes alone".to_owned();
    rows.push(Row { name: alone, program: this.clone(), words: vec!["measure", "alone", "-"] });
    if !cfg!(feature = "libevent") {
        eprintln!("skipped: hub-libevent: not built (--features libevent)");
    }
    for (driver, name) in DRIVERS {
        for hub in HUBS {
            rows.push(Row {
                name: format!("{hub}: {name}"),
                program: this.clone(),
                words: vec!["measure", driver, hub],
            });
        }
    }
    Ok(rows)
}

/// Measures a row, and returns nanoseconds per message. Returns `None` if the hub cannot hold the descriptors.
fn run(row: &Row, places: usize, step: usize, kind: Kind) -> Result<Option<f64>, Failure> {
    let numbers = [places, BUSY, MESSAGES, step].map(|number| number.to_string());
    let mut command = Command::new(&row.program);
    command.args(&row.words).args(numbers).arg(if kind == Kind::Pipe { "pipe" } else { "eventfd" });
    let processor = processors().last().ok_or("no processor")?;
    let said =
        children::output(&mut command, &[*processor], LIMIT).map_err(|error| format!("{}: {error}", row.name))?;
    match said.trim() {
        TOO_MANY => Ok(None),
        nanos => Ok(Some(nanos.parse::<f64>()? / MESSAGES as f64)),
    }
}

/// Prints the figures of the hub epoll beside the peers. The messages move around, so each of them ends a wait.
fn print_figures(figures: &Figures) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let this = env::current_exe()?;
    let mut rows = Vec::new();
    for (name, words) in [
        ("greenhub", ["measure", "source", "epoll"]),
        ("greenhub, the hub alone", ["measure", "life", "epoll"]),
        ("raw epoll", ["measure", "raw", "-"]),
        ("tokio", ["measure", "tokio", "-"]),
    ] {
        rows.push(Row { name: name.to_owned(), program: this.clone(), words: words.into() });
    }
    for peer in Peer::RINGS.into_iter().filter(|peer| !peer.name.contains(',')) {
        match peer.build()? {
            Ok(program) => rows.push(Row { name: peer.name.to_owned(), program, words: vec![] }),
            Err(missing) => skip(peer.name, missing),
        }
    }
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    for (kind, name, counts) in
        [(Kind::Eventfd, "eventfds", [100, 1_000, 10_000]), (Kind::Pipe, "pipes", [100, 1_000, 8_000])]
    {
        for places in counts {
            let group = format!("a message in a ring, {BUSY} of {places} {name} busy");
            let each = if kind == Kind::Pipe { 2 } else { 1 };
            if open_files < (places * each + 100) as u64 {
                skip(&group, "the limit of open files is too low");
                continue;
            }
            for row in rows.iter().filter(|row| figures.wants(&group, &row.name)) {
                if let Some(nanos) = run(row, places, 1, kind)? {
                    figures.print(&group, &row.name, Unit::Processor, nanos);
                }
            }
        }
    }
    Ok(())
}

/// Formats the least and the median of sorted times, and the ratio of the median to that of `others`.
fn cell(times: &[f64], others: &[f64]) -> String {
    let median = |times: &[f64]| times.get(times.len() / 2).copied();
    match (median(times), median(others)) {
        (Some(time), Some(other)) => format!("{:.0} / {time:.0} ({:.2})", times[0], time / other),
        _ => "–".to_owned(),
    }
}

const TOO_MANY: &str = "too many";

/// Measures once, and prints nanoseconds.
fn measure(driver: &str, hub: &str, numbers: &[&str], kind: &str) -> Result<(), Failure> {
    let numbers: Vec<usize> = numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [places, busy, messages, step] = numbers[..] else { return Err("a measurement takes four numbers".into()) };
    let kind = if kind == "pipe" { Kind::Pipe } else { Kind::Eventfd };
    let load = Load { places, busy, messages: messages as u64, step, kind };
    let time = match driver {
        "alone" => alone(load),
        "raw" => raw(load),
        "tokio" => tasks(load),
        "life" => measure_bare(hub, Lease::Life, load),
        "wait" => measure_bare(hub, Lease::Wait, load),
        "source" | "trampoline" => {
            use_hub(hub)?;
            green(if driver == "source" { By::Source } else { By::Trampoline }, load)
        }
        _ => return Err(format!("no such driver: {driver}").into()),
    };
    match time {
        Ok(time) => println!("{}", time.as_nanos()),
        // The hub select refuses numbers that its sets cannot hold with this error.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => println!("{TOO_MANY}"),
        Err(error) => return Err(error.into()),
    }
    // Most green threads stay parked: do not wait for them.
    std::process::exit(0);
}

fn measure_bare(hub: &str, lease: Lease, load: Load) -> io::Result<Duration> {
    match hub {
        "epoll" => bare(EpollHub::new()?, lease, load),
        "poll" => bare(PollHub::new()?, lease, load),
        "select" => bare(SelectHub::new()?, lease, load),
        #[cfg(feature = "libevent")]
        "libevent" => bare(hub_libevent::LibeventHub::new()?, lease, load),
        _ => Err(io::Error::other(format!("no such hub: {hub}"))),
    }
}
