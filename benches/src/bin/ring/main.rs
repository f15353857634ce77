//! The cost of a message among many descriptors of which few are busy: each hub, bare and under green threads, compared
//! with libevent and libev in C.
//!
//! `ring [REPETITIONS]` prints two tables: one for messages that return to their place, and one for messages that move
//! around the ring. Each cell has the least and the median processor time per message, in nanoseconds, over repetitions
//! in which the rows alternate. In brackets is the ratio of the median to that of the first row, which is libevent if
//! its headers are installed. Each measurement is a process of its own, and all run on one processor.

mod peers;

use std::env;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use benches::raise_descriptor_limit;
use benches::ring::{By, Load, alone, bare, green};
use greenhub::hub::Lease;
use greenhub::use_hub;
use hub_epoll::EpollHub;
use hub_poll::PollHub;
use hub_select::SelectHub;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::peers::Peer;

type Failure = Box<dyn Error>;

const PLACES: [usize; 3] = [100, 1_000, 10_000];

const BUSY: usize = 100;

const MESSAGES: usize = 100_000;

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
        [driver, hub, ref numbers @ ..] if numbers.len() == 4 => measure(driver, hub, numbers),
        _ => Err("usage: ring [REPETITIONS]".into()),
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
    stay_on_one_processor()?;
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
                cells[column].extend(run(row, places, step)?);
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
    for peer in Peer::ALL {
        match peer.build(&this.with_file_name("peers"))? {
            Ok(program) => rows.push(Row { name: format!("{}, from C", peer.name), program, words: vec![] }),
            Err(missing) => eprintln!("skipped: {}, from C: {missing}", peer.name),
        }
    }
    let alone = "nothing: the reads and writes alone".to_owned();
    rows.push(Row { name: alone, program: this.clone(), words: vec!["alone", "-"] });
    if !cfg!(feature = "libevent") {
        eprintln!("skipped: hub-libevent: not built (--features libevent)");
    }
    for (driver, name) in DRIVERS {
        for hub in HUBS {
            rows.push(Row { name: format!("{hub}: {name}"), program: this.clone(), words: vec![driver, hub] });
        }
    }
    Ok(rows)
}

/// Measures a row, and returns nanoseconds per message. Returns `None` if the hub cannot hold the descriptors.
fn run(row: &Row, places: usize, step: usize) -> Result<Option<f64>, Failure> {
    let numbers = [places, BUSY, MESSAGES, step].map(|number| number.to_string());
    let output = Command::new(&row.program).args(&row.words).args(numbers).output()?;
    let said = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        return Err(format!("{}: {}", row.name, String::from_utf8_lossy(&output.stderr)).into());
    }
    match said.trim() {
        TOO_MANY => Ok(None),
        nanos => Ok(Some(nanos.parse::<f64>()? / MESSAGES as f64)),
    }
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
fn measure(driver: &str, hub: &str, numbers: &[&str]) -> Result<(), Failure> {
    let numbers: Vec<usize> = numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [places, busy, messages, step] = numbers[..] else { return Err("a measurement takes four numbers".into()) };
    let load = Load { places, busy, messages: messages as u64, step };
    let time = match driver {
        "alone" => alone(load),
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

/// Restricts this process and its children to one processor.
fn stay_on_one_processor() -> io::Result<()> {
    let mut allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|&processor| allowed.is_set(processor));
    allowed.clear();
    allowed.set(last.ok_or(io::ErrorKind::Unsupported)?);
    Ok(sched_setaffinity(None, &allowed)?)
}
