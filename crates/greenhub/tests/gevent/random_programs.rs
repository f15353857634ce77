//! Random programs of watchers, green threads, cancellations and kills, compared event for event with a reference
//! model.
//!
//! All kinds of watchers take part but those of children and files, whose events do not come at a point of the program:
//! `children` and `files` have their tests, and `liveness` counts them beside the others.
//!
//! `GREENHUB_SEEDS` sets the number of programs, and `GREENHUB_SEED` the first seed. A failing program is shrunk and
//! printed.

mod program;
mod real;
mod reference;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::random::seeds;
use crate::support::run;
use program::Program;

/// Runs a program and its model. Returns the first difference.
fn compare(program: &Program) -> Result<(), String> {
    let text = |payload: Box<dyn std::any::Any + Send>| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| "no text".to_owned(), |text| (*text).to_owned()),
    };
    let ran = catch_unwind(AssertUnwindSafe(|| real::run(program)));
    let outcome = ran.map_err(|payload| format!("the program panicked: {}", text(payload)))?;
    let modeled = catch_unwind(AssertUnwindSafe(|| reference::run(program, &outcome.idle_turns)));
    let expected = modeled.unwrap_or_else(|payload| vec![format!("the model panicked: {}", text(payload))]);
    let trace = outcome.trace;
    match (0..expected.len().max(trace.len())).find(|&at| expected.get(at) != trace.get(at)) {
        None => Ok(()),
        Some(at) => {
            let context = trace[at.saturating_sub(20)..at].join("\n");
            Err(format!("{context}\nevent {at} is\n  {:?}\nbut should be\n  {:?}", trace.get(at), expected.get(at)))
        }
    }
}

/// Returns the smallest program that fails as `program` does, with its difference.
fn shrink(mut program: Program, mut difference: String) -> (Program, String) {
    'smaller: loop {
        for smaller in program.smaller() {
            if let Err(other) = compare(&smaller) {
                (program, difference) = (smaller, other);
                continue 'smaller;
            }
        }
        return (program, difference);
    }
}

/// The number of programs that run in sequence on one OS thread.
const BATCH: usize = 64;

#[test]
fn random_programs_match_the_model() {
    let all: Vec<u64> = seeds(1000, 2).collect();
    for batch in all.chunks(BATCH) {
        let batch = batch.to_vec();
        let failed = run("random_programs_match_the_model", || {
            batch.into_iter().find_map(|seed| {
                let program = Program::random(seed);
                let difference = compare(&program).err()?;
                let (program, difference) = shrink(program, difference);
                Some(format!("seed {seed}: {difference}\n{:#?}", program.0))
            })
        });
        if let Some(failed) = failed {
            panic!("{failed}");
        }
    }
}
