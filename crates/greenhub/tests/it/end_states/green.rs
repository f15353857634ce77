//! The side of greenhub: each operation runs in a green thread.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use greenhub::GreenThread;

use super::case::Case;
use super::sockets::{Results, Scene, green};

/// The number of scenes that exist at once. Limited because `select(2)` accepts no descriptor above 1023.
const AT_ONCE: usize = 16;

/// The time for all operations of a chunk that return in std.
const LIMIT: Duration = Duration::from_secs(20);

/// The maximum number of turns of the main loop for each case.
///
/// A wait that spins on its reports takes over a hundred turns in a millisecond.
const TURNS: u64 = 30;
/// The maximum number of turns of the main loop for each sleep of the test itself.
const TURNS_OF_SLEEP: u64 = 2;

fn turns() -> u64 {
    greenhub::get_hub().stats().turns
}

fn names(cases: &[Case]) -> String {
    cases.iter().map(Case::name).collect::<Vec<_>>().join(", ")
}

struct Performer {
    case: Case,
    results: Results,
    thread: GreenThread<()>,
}

impl Performer {
    fn start(scene: &Scene) -> Performer {
        let results = Results::default();
        let thread = greenhub::spawn(scene.operation(results.clone(), |call| call()));
        Performer { case: scene.case, results, thread }
    }
}

/// Performs the cases. `expected` holds the results of std.
pub(crate) fn run(
    cases: &[Case],
    expected: &HashMap<String, String>,
    blocked_after: Duration,
) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut left = LIMIT;
    for cases in cases.chunks(AT_ONCE) {
        let (turns_before, mut sleeps) = (turns(), 0);
        let mut sleep = || {
            greenhub::sleep(Duration::from_millis(1));
            sleeps += 1;
        };
        let mut scenes: Vec<_> = cases.iter().map(|&case| green::scene(case)).collect();
        let mut performers: Vec<_> = scenes.iter().filter(|scene| scene.case.begun).map(Performer::start).collect();
        (0..5).for_each(|_| sleep());
        scenes.iter_mut().for_each(Scene::end);
        performers.extend(scenes.iter().filter(|scene| !scene.case.begun).map(Performer::start));
        let (returning, blocking): (Vec<_>, Vec<_>) =
            performers.iter().partition(|performer| !expected[&performer.case.name()].ends_with("blocked"));
        let begun = Instant::now();
        let finished = |performer: &&Performer| performer.thread.is_finished();
        while begun.elapsed() < left.max(blocked_after)
            && (!returning.iter().all(finished) || !blocking.iter().all(finished) && begun.elapsed() < blocked_after)
        {
            sleep();
        }
        let (taken, allowed) = (turns() - turns_before, TURNS * cases.len() as u64 + TURNS_OF_SLEEP * sleeps);
        assert!(taken <= allowed, "{taken} turns instead of {allowed} at most: {}", names(cases));
        left = left.saturating_sub(begun.elapsed().saturating_sub(blocked_after));
        for Performer { case, results, thread } in performers {
            found.insert(case.name(), results.words(!thread.is_finished()));
            thread.kill();
        }
    }
    found
}
