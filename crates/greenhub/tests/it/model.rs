//! Random programs on the main loop, compared event for event with a reference model.
//!
//! `GREENHUB_SEEDS` sets the number of programs a test runs, `GREENHUB_SEED` the first seed. A failing program is
//! shrunk and printed.

mod program;
mod real;
mod reference;
mod virtual_hub;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::random::seeds;
use crate::support::{in_child, is_child, rerun};
use program::{Layer, Op, Program};

/// The number of programs that run in sequence on one OS thread, so that state left behind by a program meets the next.
const BATCH: usize = 16;

/// Runs the programs on an OS thread of their own; returns the index and the error of the first failure.
fn check(programs: Vec<Program>) -> Result<(), (usize, String)> {
    let (tell, hear) = mpsc::channel();
    let count = programs.len();
    std::thread::spawn(move || {
        for (index, program) in programs.iter().enumerate() {
            let ran = catch_unwind(AssertUnwindSafe(|| compare(program)));
            let ran = ran.unwrap_or_else(|payload| {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(format!("panicked: {}", text.unwrap_or_default()))
            });
            let failed = ran.is_err();
            if tell.send(ran.map_err(|error| (index, error))).is_err() || failed {
                return;
            }
        }
    });
    for index in 0..count {
        match hear.recv_timeout(Duration::from_secs(120)) {
            Ok(result) => result?,
            Err(error) => return Err((index, format!("no end: {error}"))),
        }
    }
    Ok(())
}

fn compare(program: &Program) -> Result<(), String> {
    let outcome = real::run(program).map_err(|error| error.to_string())?;
    let main = program.with_epilogue();
    let expected = catch_unwind(AssertUnwindSafe(|| reference::run(program, &main, &outcome.choices)))
        .unwrap_or_else(|_| vec!["the reference panicked".to_owned()]);
    if let Some(at) = (0..expected.len().max(outcome.trace.len())).find(|&at| expected.get(at) != outcome.trace.get(at))
    {
        let context = outcome.trace[at.saturating_sub(30)..at.min(outcome.trace.len())].join("\n");
        let (real, expected) = (outcome.trace.get(at), expected.get(at));
        return Err(format!("{context}\nevent {at} is {real:?}\n but should be {expected:?}"));
    }
    if outcome.leaks.is_empty() { Ok(()) } else { Err(format!("not given back: {:?}", outcome.leaks)) }
}

/// Shrinks a failing program; returns the smallest program that still fails, and its error.
fn shrink(mut program: Program, mut error: String) -> (Program, String) {
    'smaller: loop {
        for candidate in program.smaller() {
            if let Err((_, why)) = check(vec![candidate.clone()]) {
                (program, error) = (candidate, why);
                continue 'smaller;
            }
        }
        return (program, error);
    }
}

fn random_programs(layer: Layer) {
    // The panic hook and the report stream are process-wide.
    if is_child() {
        return compare_random_programs(layer);
    }
    let test = std::thread::current().name().expect("tests are named").to_owned();
    let output = rerun(&test, |_| {});
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn compare_random_programs(layer: Layer) {
    real::take_reports();
    std::panic::set_hook(Box::new(|_| {}));
    let all: Vec<u64> = seeds(usual_programs(), 1).collect();
    for batch in all.chunks(BATCH) {
        let programs: Vec<Program> = batch.iter().map(|&seed| Program::random(seed, layer)).collect();
        let Err((index, error)) = check(programs.clone()) else { continue };
        let seed = batch[index];
        let program = programs[index].clone();
        let message = match check(vec![program.clone()]) {
            Ok(()) => {
                format!("seed {seed} fails only after the programs before it in its batch: {error}\n{program:#?}")
            }
            Err((_, error)) => {
                let (program, error) = shrink(program, error);
                format!("seed {seed}: {error}\n{:#?}", program.bodies)
            }
        };
        eprintln!("{message}");
        panic!("{layer:?}: the program of seed {seed} differs from its model");
    }
}

/// Returns the number of programs of each test on the hub under test.
///
/// All programs run on a hub of their own. So the many of them run with the hubs that the facade prefers, and only some
/// with the others, which may be compiled in with other features.
fn usual_programs() -> u64 {
    match std::env::var("GREENHUB_HUB").as_deref() {
        Err(_) | Ok("epoll" | "kqueue") => 8000,
        Ok(_) => 500,
    }
}

#[test]
fn random_threads_match_the_model() {
    random_programs(Layer::Threads);
}

#[test]
fn random_timeouts_match_the_model() {
    random_programs(Layer::Timeouts);
}

#[test]
fn random_pipes_match_the_model() {
    random_programs(Layer::Pipes);
}

#[test]
fn random_closing_reuse_and_scopes_match_the_model() {
    random_programs(Layer::Everything);
}

/// Compares a program that once differed from the model.
fn matches_the_model(bodies: Vec<Vec<Op>>) {
    in_child(|| {
        real::take_reports();
        let program = Program { bodies };
        if let Err((_, error)) = check(vec![program.clone()]) {
            panic!("{error}\n{:#?}", program.bodies);
        }
    });
}

#[test]
fn the_handle_of_a_finished_callback_cancels_no_other() {
    let callback = vec![Op::Schedule(2, 3, vec![]), Op::Unschedule(1)];
    matches_the_model(vec![vec![Op::Spawn(1)], vec![Op::Schedule(2, 1, callback)]]);
}

#[test]
fn a_sleeper_and_a_callback_with_equal_deadlines_keep_their_order() {
    let body = vec![Op::Spawn(2), Op::Yield, Op::Schedule(2, 0, vec![])];
    matches_the_model(vec![vec![Op::Spawn(1)], body, vec![Op::Sleep(2)]]);
}

#[test]
fn a_killer_with_a_pending_exit_still_kills() {
    let killer = vec![Op::Catch(vec![Op::Yield]), Op::Kill(2)];
    matches_the_model(vec![vec![Op::Spawn(1), Op::Spawn(2)], killer, vec![Op::Kill(1), Op::Yield]]);
}

#[test]
fn a_scope_left_by_an_exit_does_not_wait_for_unstarted_children() {
    matches_the_model(vec![vec![Op::Spawn(1)], vec![Op::Scope(vec![2], vec![Op::Kill(1)])], vec![Op::Yield]]);
}

#[test]
fn a_reader_that_lost_its_data_is_woken_by_a_close() {
    let thief = vec![Op::Receive(0, None), Op::Receive(1, None), Op::CloseReader(1)];
    let main = vec![Op::Spawn(2), Op::Spawn(1), Op::Yield, Op::Send(0, None), Op::Send(1, None)];
    matches_the_model(vec![main, thief, vec![Op::Receive(1, None)]]);
}
