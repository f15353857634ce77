//! A switch by hand to another context and back: the lower bound for all other operations.

use benches::timed;
use context::stack::FixedSizeStack;
use context::{Context, Transfer};
use criterion::{Criterion, criterion_group, criterion_main};
use greenhub::greenlet::{Greenlet, Payload};

extern "C" fn bounce(mut from: Transfer) -> ! {
    loop {
        // SAFETY: the context that jumped here is suspended in that jump, and its stack is alive.
        from = unsafe { from.context.resume(0) };
    }
}

fn context_alone(criterion: &mut Criterion) {
    let stack = FixedSizeStack::default();
    // SAFETY: the stack is dropped at the end of this function, after the last jump into it. `bounce` keeps no value
    // with a destructor on the stack.
    let mut there = Some(unsafe { Context::new(&stack, bounce) });
    criterion.bench_function("switch there and back/context", |bencher| {
        let mut there_and_back = || {
            let context = there.take().expect("put back after each jump");
            // SAFETY: each context is resumed once, and `bounce` jumps straight back.
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
        let there_and_back = || bounce.switch(Payload::unit()).expect("the greenlet is alive");
        bencher.iter_custom(|count| timed(count, there_and_back));
    });
}

criterion_group!(benches, context_alone, greenlet);
criterion_main!(benches);
