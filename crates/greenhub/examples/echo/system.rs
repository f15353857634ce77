//! What the system allows and what it says about this process.

use std::ops::Sub;

use greenhub::HubRef;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::options::{Mode, Options};

/// Descriptors besides connections: standard streams, hub, signals, listening sockets.
const OTHERS: u64 = 32;

/// Makes no more connections than the hub can hold if nobody said how many, and says so.
pub(crate) fn fit_to_hub(options: &mut Options, hub: &str) -> Result<(), String> {
    // A set of select(2) holds the numbers below this.
    const ROOM: u64 = libc::FD_SETSIZE as u64;
    let needed = needed(options);
    if hub != "select" || needed <= ROOM {
        return Ok(());
    }
    let possible = (ROOM - OTHERS) / per_connection(options);
    let wanted = options.connections();
    if options.connections.is_some() {
        return Err(format!(
            "{wanted} connections need {needed} descriptors and the hub select holds those below {ROOM}: choose another hub, or use --connections {possible}"
        ));
    }
    eprintln!("the hub select holds descriptors below {ROOM}: {possible} connections instead of {wanted}");
    options.connections = Some(possible as usize);
    Ok(())
}

/// Raises the limit as far as is needed and allowed.
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

/// How many descriptors of this process a connection takes.
fn per_connection(options: &Options) -> u64 {
    match options.mode() {
        Mode::Both => 2,
        Mode::Clients(_) => 1,
        // It does not know how many will come.
        Mode::Server(_) => 0,
    }
}

/// How many descriptors this process needs, as far as it knows.
fn needed(options: &Options) -> u64 {
    (options.connections() as u64).saturating_mul(per_connection(options)).saturating_add(OTHERS)
}

/// Refuses messages for which there is no memory: the system might end some other process for them.
pub(crate) fn require_memory(options: &Options) -> Result<(), String> {
    // A client compares what it received with what it sent; a server keeps no message.
    let needed = match options.mode() {
        Mode::Server(_) => 0,
        Mode::Both | Mode::Clients(_) => (options.connections() as u64).saturating_mul(2 * options.bytes as u64),
    };
    let Some(available) = available_memory().filter(|available| needed > *available) else { return Ok(()) };
    Err(format!(
        "{} connections with messages of {} bytes need {needed} bytes of memory and {available} are available: use fewer or shorter ones",
        options.connections(),
        options.bytes
    ))
}

/// What this system could give to a process, where it says so.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The resident memory of this process, where the system says so.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The system calls that a hub and the sockets on it have made.
#[derive(Copy, Clone)]
pub(crate) struct Calls(u64);

impl Calls {
    pub(crate) fn of(hub: &HubRef) -> Calls {
        let stats = hub.stats();
        let hubs_own = match hub.name() {
            // It is told everything at each wait.
            "poll" => stats.waits,
            // What a wait found is looked at by a second call.
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
