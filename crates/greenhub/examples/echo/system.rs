//! The limits of the system, and statistics of this process.

use std::ops::Sub;

use greenhub::HubRef;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::options::{Mode, Options};

/// An allowance for the descriptors besides connections: standard streams, hub, signals, listening sockets.
const OTHERS: u64 = 32;

/// Reduces the default number of connections to the capacity of the hub, and says so on standard error.
///
/// Returns an error if the command line asks for more connections than the hub can hold.
pub(crate) fn fit_to_hub(options: &mut Options, hub: &str) -> Result<(), String> {
    // A set of select(2) holds only numbers below this limit.
    const ROOM: u64 = libc::FD_SETSIZE as u64;
    let needed = needed(options);
    if hub != "select" || needed <= ROOM {
        return Ok(());
    }
    let possible = (ROOM - OTHERS) / per_connection(options);
    let wanted = options.connections();
    if options.connections.is_some() {
        return Err(format!(
            "{wanted} connections need up to {needed} descriptors and the hub select holds those below {ROOM}: choose another hub, or use --connections {possible}"
        ));
    }
    eprintln!("the hub select holds descriptors below {ROOM}: {possible} connections instead of {wanted}");
    options.connections = Some(possible as usize);
    Ok(())
}

/// Raises the limit of open files as far as needed and allowed.
pub(crate) fn raise_descriptor_limit(options: &Options) -> Result<(), String> {
    let per_connection = per_connection(options);
    let needed = needed(options);
    let limit = getrlimit(Resource::Nofile);
    let (Some(soft), hard) = (limit.current, limit.maximum) else { return Ok(()) };
    if soft >= needed && per_connection > 0 {
        return Ok(());
    }
    let hard = hard.unwrap_or(u64::MAX);
    let wish = if per_connection > 0 { needed } else { hard };
    // Only a privileged process may go beyond the hard limit.
    let tries = [(wish, hard.max(wish)), (hard, hard)];
    let raised = tries.into_iter().find(|(current, maximum)| {
        setrlimit(Resource::Nofile, Rlimit { current: Some(*current), maximum: Some(*maximum) }).is_ok()
    });
    let allowed = raised.map_or(soft, |(current, _)| current);
    if allowed >= needed {
        return Ok(());
    }
    let possible = (allowed.saturating_sub(OTHERS)) / per_connection.max(1);
    Err(format!(
        "{} connections need {needed} descriptors and this process may open {allowed}: raise the hard limit (ulimit -Hn), or use --connections {possible}",
        options.connections()
    ))
}

/// Returns the number of descriptors that a connection takes in this process.
fn per_connection(options: &Options) -> u64 {
    match options.mode() {
        Mode::Both => 2,
        Mode::Clients(_) => 1,
        // A server does not know the number of its clients.
        Mode::Server(_) => 0,
    }
}

/// Returns the number of descriptors that this process needs for its known connections.
fn needed(options: &Options) -> u64 {
    (options.connections() as u64).saturating_mul(per_connection(options)).saturating_add(OTHERS)
}

/// Returns an error if the messages do not fit into the available memory.
///
/// Without this check the system might kill another process to free memory.
pub(crate) fn require_memory(options: &Options) -> Result<(), String> {
    // A client has two buffers, for the sent and the received message. A server keeps no message.
    let needed = match options.mode() {
        Mode::Server(_) => 0,
        Mode::Both | Mode::Clients(_) => (options.connections() as u64).saturating_mul(2 * options.bytes as u64),
    };
    let Some(available) = available_memory().filter(|available| needed > *available) else { return Ok(()) };
    Err(format!(
        "{} connections with messages of {} bytes need {needed} bytes of memory and {available} are available: use fewer connections or shorter messages",
        options.connections(),
        options.bytes
    ))
}

/// Returns the available memory, if the system reports it.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the resident memory of this process, if the system reports it.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The approximate number of system calls of a hub and its sockets.
#[derive(Copy, Clone)]
pub(crate) struct Calls(u64);

impl Calls {
    pub(crate) fn of(hub: &HubRef) -> Calls {
        let stats = hub.stats();
        let hubs_own = match hub.name() {
            // The hub registers nothing: `watch` makes no system call.
            "poll" => stats.waits,
            // A wait calls select, and then poll if select has found something, as in nearly every wait of a busy run.
            // `watch` checks the number by fcntl.
            "select" => 2 * stats.waits + stats.watches,
            _ => stats.waits + stats.watches,
        };
        Calls(hubs_own + stats.operations)
    }

    pub(crate) fn count(self) -> u64 {
        self.0
    }
}

impl Sub for Calls {
    type Output = Calls;

    fn sub(self, before: Calls) -> Calls {
        Calls(self.0 - before.0)
    }
}
