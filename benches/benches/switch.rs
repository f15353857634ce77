//! A switch there and one back, by hand: the floor of everything else.

use benches::timed;
use context::stack::FixedSizeStack;
use context::{Context, Transfer};
use criterion::{Criterion, criterion_group, criterion_main};
use greenhub::{Greenlet, Payload};

extern "C" fn bounce(mut from: Transfer) -> ! {
    loop {
        // SAFETY: whoever jumped here is suspended in that jump, and its stack lives on.
        from = unsafe { from.context.resume(0) };
    }
}

fn context_alone(criterion: &mut Criterion) {
    let stack = FixedSizeStack::default();
    // SAFETY: the stack outlives the last jump into it, at the end of this function; `bounce` keeps nothing on it
    // that would have to be dropped.
    let mut there = Some(unsafe { Context::new(&stack, bounce) });
    criterion.bench_function("switch there and back/context", |bencher| {
        let mut there_and_back = || {
            let context = there.take().expect("put back after each jump");
            // SAFETY: each context is resumed once; `bounce` jumps straight back.
            there = Some(unsafe { context.resume(0) }.context);
        };
        bencher.iter_custom(|count| timed(count, &mut there_and_back));
    });
}

fn greenlet(criterion: &mut Criterion) {
    let main = Greenlet::main();
    let bounce = Greenlet::new(move |mut payload| {
        loop {
            payload = main.switch(payload)?;
        }
    });
    criterion.bench_function("switch there and back/greenhub", |bencher| {
        let there_and_back = || bounce.switch(Payload::unit()).expect("it only bounces");
        bencher.iter_custom(|count| timed(count, there_and_back));
    });
}

criterion_group!(benches, context_alone, greenlet);
criterion_main!(benches);
