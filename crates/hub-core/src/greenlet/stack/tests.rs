use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::param::page_size;

use super::slab::Geometry;
use super::*;

const SIZE: usize = 256 << 10;

/// Runs the test `test` again in its own process, with `GREENHUB_TEST_CHILD` set to `role`, and with the variables
/// `vars`.
pub(in crate::greenlet) fn in_child(test: &str, role: &str, vars: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("GREENHUB_TEST_CHILD", role)
        .envs(vars.iter().copied())
        .output()
        .unwrap()
}

/// Returns the role of this process, if [`in_child`] started it.
pub(in crate::greenlet) fn role() -> Option<String> {
    env::var("GREENHUB_TEST_CHILD").ok()
}

#[track_caller]
fn assert_passes(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child ran no test: {text}");
}

fn header(stack: &StackRef) -> &Stack {
    // SAFETY: the tests read a stack only while its `Stacks` live.
    unsafe { stack.as_ref() }
}

fn give(stacks: &Stacks, stack: StackRef) {
    // SAFETY: no test leaves a root on a stack.
    unsafe { stacks.give(stack) };
}

/// Writes to the byte just below the top.
fn touch(stack: StackRef) {
    // SAFETY: the stack was taken, so its memory belongs to the test.
    unsafe { header(&stack).top().sub(1).write_volatile(1) };
}

fn maps_lines() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn a_stack_has_at_least_the_requested_size() {
    let stacks = Stacks::new();
    for size in [0, 1, SMALLEST, SMALLEST + 1, 100_000, SIZE, 5 << 20] {
        for _ in 0..40 {
            let stack = stacks.take(size).unwrap();
            let stack = header(&stack);
            assert!(stack.size() >= size.max(SMALLEST));
            assert!(stack.top().addr() - stack.bottom().addr() >= stack.size());
        }
    }
}

#[test]
fn sizes_are_rounded_up_to_the_next_class() {
    let sizes = [(0, 0), (1, 0), (65_536, 0), (65_537, 1), (131_072, 1), (131_073, 2), (SIZE - 1, 2), (SIZE, 2)];
    for (size, class) in sizes {
        assert_eq!(class_of(size), class, "{size}");
        assert!(size_of_class(class) >= size);
    }
}

#[test]
fn a_stack_larger_than_the_largest_class_is_refused() {
    let largest = size_of_class(CLASSES - 1);
    for size in [largest + 1, usize::MAX] {
        let error = Stacks::new().take(size).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("a stack of {size} bytes was asked for; the largest has {largest} bytes")
        );
    }
}

#[test]
fn the_largest_class_can_be_taken() {
    let stacks = Stacks::new();
    let stack = stacks.take(size_of_class(CLASSES - 1)).unwrap();
    touch(stack);
    give(&stacks, stack);
}

#[test]
fn stacks_are_an_odd_number_of_pages_apart_in_every_class() {
    for class in 0..CLASSES {
        let Geometry { stride, guard } = Geometry::of_class(class);
        assert_eq!(stride % page_size(), 0);
        assert_eq!(stride / page_size() % 2, 1, "class {class}");
        assert!(guard >= 64 << 10);
    }
}

#[test]
fn neighbours_are_one_stride_apart() {
    let stacks = Stacks::new();
    let bottoms: Vec<_> = (0..16).map(|_| header(&stacks.take(SIZE).unwrap()).bottom().addr()).collect();
    let stride = Geometry::of_class(class_of(SIZE)).stride;
    assert!(bottoms.windows(2).all(|pair| pair[1] - pair[0] == stride));
}

#[test]
fn tops_have_thirty_two_colours_and_keep_a_cache_line() {
    let stacks = Stacks::new();
    let tops: Vec<_> = (0..48).map(|_| header(&stacks.take(SIZE).unwrap()).top().addr()).collect();
    assert!(tops.iter().all(|top| top % 64 == 0));
    // The second slab has 32 stacks.
    let colours: HashSet<_> = tops[16..].iter().map(|top| top % page_size()).collect();
    assert_eq!(colours.len(), 32);
    assert!(tops[16..].windows(2).all(|pair| pair[0] % page_size() != pair[1] % page_size()));
}

#[test]
fn a_touched_top_is_one_page() {
    let stacks = Stacks::new();
    for _ in 0..64 {
        let stack = stacks.take(SIZE).unwrap();
        // SAFETY: the stack was taken, so its memory belongs to the test.
        unsafe { header(&stack).top().sub(1_800).write_bytes(1, 1_800) };
        assert!(header(&stack).high_water().unwrap() <= page_size());
    }
}

#[test]
fn the_stack_given_back_last_is_taken_first() {
    let stacks = Stacks::new();
    let [a, b, c] = [(); 3].map(|()| stacks.take(SIZE).unwrap());
    for stack in [b, a, c] {
        give(&stacks, stack);
    }
    assert_eq!([(); 3].map(|()| stacks.take(SIZE).unwrap()), [c, a, b]);
}

#[test]
fn a_class_does_not_hand_out_the_stacks_of_another() {
    let stacks = Stacks::new();
    let small = stacks.take(SMALLEST).unwrap();
    give(&stacks, small);
    assert_ne!(stacks.take(SIZE).unwrap(), small);
    assert_eq!(stacks.take(1).unwrap(), small);
}

#[test]
fn taking_and_giving_agrees_with_a_model() {
    let stacks = Stacks::new();
    let sizes = [SMALLEST, 128 << 10, SIZE];
    let mut used: Vec<(usize, StackRef)> = Vec::new();
    let mut idle: [Vec<StackRef>; 3] = Default::default();
    let mut seen = HashSet::new();
    let mut random = Rng::with_seed(1);
    for step in 0..20_000 {
        if random.bool() || used.is_empty() {
            let which = random.usize(..3);
            let stack = stacks.take(sizes[which]).unwrap();
            match idle[which].pop() {
                Some(expected) => assert_eq!(stack, expected, "step {step}"),
                None => assert!(seen.insert(stack), "step {step}: a stack in use was handed out"),
            }
            used.push((which, stack));
        } else {
            let (which, stack) = used.swap_remove(random.usize(..used.len()));
            give(&stacks, stack);
            idle[which].push(stack);
        }
        if step % 1_000 == 0 {
            let stats = stacks.stats();
            assert_eq!((stats.in_use, stats.idle), (used.len(), idle.iter().map(Vec::len).sum()));
        }
    }
}

#[test]
fn trimming_keeps_the_hottest_and_frees_the_rest() {
    let stacks = Stacks::new();
    let taken: Vec<_> = (0..100).map(|_| stacks.take(SIZE).unwrap()).collect();
    for &stack in &taken {
        touch(stack);
        header(&stack).context.set(1);
        give(&stacks, stack);
    }
    assert_eq!(stacks.trim(), 36);
    assert_eq!(stacks.trim(), 0);
    let stats = stacks.stats();
    assert_eq!((stats.in_use, stats.idle, stats.trimmed), (0, 64, 36));
    for (number, stack) in taken.iter().enumerate() {
        let trimmed = number < 36;
        assert_eq!(header(stack).high_water().unwrap() == 0, trimmed, "{number}");
        assert_eq!(header(stack).context.get() == 0, trimmed, "{number}");
    }
    // Hot ones come first, then the trimmed ones, each once, before any new one.
    let again: Vec<_> = (0..100).map(|_| stacks.take(SIZE).unwrap()).collect();
    assert!(again.iter().eq(taken.iter().rev()));
}

#[test]
fn trimming_all_of_a_class_leaves_no_stack_idle() {
    let stacks = Stacks::new();
    let stack = stacks.take(SIZE).unwrap();
    give(&stacks, stack);
    assert_eq!(Stacks::trim_class(&stacks.classes[class_of(SIZE)], 0), 1);
    assert_eq!((stacks.stats().idle, stacks.stats().trimmed), (0, 1));
    assert_eq!(stacks.take(SIZE).unwrap(), stack);
}

#[test]
fn high_water_is_the_distance_to_the_lowest_touched_page() {
    let stacks = Stacks::new();
    let stack = stacks.take(SIZE).unwrap();
    assert_eq!(header(&stack).high_water().unwrap(), 0);
    touch(stack);
    let one = header(&stack).high_water().unwrap();
    assert!(one > 0 && one <= page_size());
    // SAFETY: the stack was taken, so its memory belongs to the test.
    unsafe { header(&stack).top().sub(100_000).write_volatile(1) };
    let water = header(&stack).high_water().unwrap();
    assert!((100_000..100_000 + page_size()).contains(&water), "{water}");
}

#[cfg(target_os = "linux")]
#[test]
fn every_stack_has_its_guard() {
    let (_reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the system reads one byte there, or refuses to.
    let is_readable = |at: *mut u8| unsafe { libc::write(writer.as_raw_fd(), at.cast(), 1) } == 1;
    for kind in [GuardKind::Advice, GuardKind::Protect] {
        let stacks = Stacks::with_guard(kind);
        // More stacks than are guarded at once.
        let all: Vec<_> = (0..100).map(|_| stacks.take(SIZE).unwrap()).collect();
        for stack in &all {
            let bottom = header(stack).bottom();
            assert!(is_readable(bottom));
            assert!(!is_readable(bottom.wrapping_sub(1)));
        }
    }
}

#[test]
fn a_guard_ends_where_its_stack_ends() {
    let stacks = Stacks::new();
    let stack = stacks.take(SIZE).unwrap();
    let stack = header(&stack);
    let bottom = stack.bottom().addr();
    let guard = Geometry::of_class(class_of(SIZE)).guard;
    assert!(!stack.guard_contains(bottom));
    assert!(stack.guard_contains(bottom - 1));
    assert!(stack.guard_contains(bottom - guard));
    assert!(!stack.guard_contains(bottom - guard - 1));
}

#[test]
fn a_guard_is_found_by_address_until_its_slab_is_gone() {
    let stacks = Stacks::new();
    let all: Vec<_> = (0..60).map(|_| stacks.take(SIZE).unwrap()).collect();
    for &stack in &all {
        let bottom = header(&stack).bottom().addr();
        assert_eq!(stack_guarded_at(bottom - 1), Some(stack));
        assert_eq!(stack_guarded_at(bottom), None);
    }
    let address = header(&all[0]).bottom().addr() - 1;
    for stack in all {
        give(&stacks, stack);
    }
    drop(stacks);
    assert_eq!(stack_guarded_at(address), None);
}

#[test]
fn stats_count_slabs_and_stacks() {
    let stacks = Stacks::new();
    assert_eq!(stacks.stats(), StackStats::default());
    let [a, _b, _c] = [(); 3].map(|()| stacks.take(SIZE).unwrap());
    give(&stacks, a);
    let stats = stacks.stats();
    assert_eq!((stats.slabs, stats.mapped, stats.in_use, stats.idle, stats.unguarded), (1, 16, 2, 1, 0));
    assert_eq!(stats.resident, 3 * page_size());
    // A process with few greenlets reserves little.
    assert!(stats.reserved < 8 << 20, "{}", stats.reserved);
}

/// Returns whether the page of `address` belongs to the process. Asks the system, and does not touch the page.
fn is_mapped(address: *mut u8) -> bool {
    let mut page = 0u8;
    // SAFETY: the system checks the range and writes one byte.
    unsafe { libc::mincore(address.cast(), page_size(), (&raw mut page).cast()) == 0 }
}

#[test]
fn dropping_unmaps_idle_slabs_and_leaks_those_in_use() {
    // Runs in its own process, so that no other test maps memory where a slab was.
    if role().is_none() {
        let test = "greenlet::stack::tests::dropping_unmaps_idle_slabs_and_leaks_those_in_use";
        return assert_passes(&in_child(test, "alone", &[]));
    }
    let stacks = Stacks::new();
    let all: Vec<_> = (0..48).map(|_| stacks.take(SIZE).unwrap()).collect();
    let bottoms: Vec<_> = all.iter().map(|stack| header(stack).bottom()).collect();
    // The first slab has 16; one of the second stays in use.
    for &stack in &all[..47] {
        give(&stacks, stack);
    }
    touch(all[47]);
    drop(stacks);
    assert!(!is_mapped(bottoms[0]));
    assert!(!is_mapped(bottoms[15]));
    assert!(is_mapped(bottoms[16]));
    assert_eq!(header(&all[47]).size(), SIZE);
    touch(all[47]);
}

#[test]
fn releasing_unmaps_unused_slabs_and_the_rest_is_taken_again() {
    if role().is_none() {
        let test = "greenlet::stack::tests::releasing_unmaps_unused_slabs_and_the_rest_is_taken_again";
        return assert_passes(&in_child(test, "alone", &[]));
    }
    let stacks = Stacks::new();
    // Three slabs, of 16, 32 and 64 stacks; one of the second stays in use.
    let all: Vec<_> = (0..100).map(|_| stacks.take(SIZE).unwrap()).collect();
    let bottoms: Vec<_> = all.iter().map(|stack| header(stack).bottom()).collect();
    for (number, &stack) in all.iter().enumerate() {
        touch(stack);
        if number != 20 {
            give(&stacks, stack);
        }
    }
    stacks.release();
    let slabs = [0, 20, 90].map(|number| is_mapped(bottoms[number]));
    assert_eq!(slabs, [false, true, false]);
    let stats = stacks.stats();
    assert_eq!((stats.slabs, stats.in_use, stats.idle, stats.trimmed), (1, 1, 0, 31));
    // The idle ones of the slab that stays come first, then new ones.
    let again: Vec<_> = (0..40).map(|_| stacks.take(SIZE).unwrap()).collect();
    again.iter().for_each(|&stack| touch(stack));
    let known = again.iter().filter(|stack| bottoms.contains(&header(stack).bottom())).count();
    assert!(known >= 31, "{known}");
    assert!(again.iter().all(|stack| header(stack).bottom() != bottoms[20]));
    for stack in again {
        give(&stacks, stack);
    }
    give(&stacks, all[20]);
    stacks.release();
    assert_eq!((stacks.stats().slabs, stacks.stats().most), (0, 0));
}

#[test]
fn a_guard_traps() {
    let test = "greenlet::stack::tests::a_guard_traps";
    if let Some(role) = role() {
        let kind = if role.starts_with("advice") { GuardKind::Advice } else { GuardKind::Protect };
        let stacks = Stacks::with_guard(kind);
        let all: Vec<_> = (0..100).map(|_| stacks.take(SIZE).unwrap()).collect();
        for &stack in &all {
            touch(stack);
            give(&stacks, stack);
        }
        if role.ends_with("trimmed") {
            assert_eq!(stacks.trim(), 36);
        }
        // The first stack given back is among the trimmed ones.
        let bottom = header(&all[0]).bottom();
        // SAFETY: the lowest byte of an idle stack, which is not in use.
        unsafe { bottom.write_volatile(1) };
        println!("the stack itself is writable");
        // SAFETY: none; this must end the process.
        unsafe { bottom.sub(1).write_volatile(1) };
        println!("the guard was writable");
        return;
    }
    for role in ["advice", "advice trimmed", "protect", "protect trimmed"] {
        let output = in_child(test, role, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("the stack itself is writable"), "{role}: {text}");
        assert!(!text.contains("the guard was writable"), "{role}");
        assert!(!output.status.success(), "{role}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn guards_by_advice_take_no_mapping() {
    let test = "greenlet::stack::tests::guards_by_advice_take_no_mapping";
    if role().is_none() {
        return assert_passes(&in_child(test, "alone", &[]));
    }
    // Linux before 6.13 lacks the advice, and protection is used instead.
    let stacks = Stacks::with_guard(GuardKind::Advice);
    let before = maps_lines();
    let _all: Vec<_> = (0..1_000).map(|_| stacks.take(SIZE).unwrap()).collect();
    let by_advice = kernel() >= (6, 13);
    assert_eq!(maps_lines() < before + 30, by_advice);
}

/// Returns the version of the running Linux.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap(), parts.next().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_million_stacks_take_few_mappings() {
    let test = "greenlet::stack::tests::a_million_stacks_take_few_mappings";
    if role().is_none() {
        return assert_passes(&in_child(test, "alone", &[]));
    }
    if kernel() < (6, 13) {
        return;
    }
    let stacks = Stacks::with_guard(GuardKind::Advice);
    let begin = Instant::now();
    for _ in 0..1_000_000 {
        stacks.take(SIZE).unwrap();
    }
    let time = begin.elapsed();
    let lines = maps_lines();
    assert!(lines < 200, "{lines} lines");
    println!("{time:?}, {lines} lines, {:?}", stacks.stats());
    assert!(time < Duration::from_secs(120));
}

#[cfg(target_os = "linux")]
#[test]
fn protection_stops_before_the_mapping_limit_with_a_clear_error() {
    let test = "greenlet::stack::tests::protection_stops_before_the_mapping_limit_with_a_clear_error";
    if role().is_none() {
        return assert_passes(&in_child(test, "alone", &[("GREENHUB_GUARD", "mprotect")]));
    }
    let limit: usize = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    if limit > 200_000 {
        return;
    }
    let stacks = Stacks::new();
    let mut taken = Vec::new();
    let error = loop {
        match stacks.take(SMALLEST) {
            Ok(stack) => taken.push(stack),
            Err(error) => break error,
        }
    };
    assert_eq!(taken.len(), (limit - limit / 16) / 2);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot guard another stack: {} stacks take two memory mappings each, and the process may have {limit} in \
             all; raise `vm.max_map_count`, or use Linux 6.13 or later, where a guard takes no mapping",
            taken.len()
        )
    );
    // The process still works, and so do the stacks.
    assert!(std::thread::spawn(|| true).join().unwrap());
    give(&stacks, taken[0]);
    assert_eq!(stacks.take(1).unwrap(), taken[0]);
    // The other policy continues without guards.
    // SAFETY: nothing in this process runs on these stacks.
    unsafe { set_policy(StackPolicy::Unguarded) };
    let more: Vec<_> = (0..100).map(|_| stacks.take(SMALLEST).unwrap()).collect();
    more.iter().for_each(|&stack| touch(stack));
    assert!(stacks.stats().unguarded >= 100);
    // The mappings that a dropped pool gives back are available to the next one.
    for stack in taken.into_iter().chain(more) {
        give(&stacks, stack);
    }
    drop(stacks);
    // SAFETY: as above.
    unsafe { set_policy(StackPolicy::Guarded) };
    Stacks::new().take(SIZE).unwrap();
}

#[test]
fn the_environment_chooses_the_guard() {
    let test = "greenlet::stack::tests::the_environment_chooses_the_guard";
    if let Some(role) = role() {
        let taken = Stacks::new().take(SIZE);
        match role.as_str() {
            "error" => assert_eq!(
                taken.unwrap_err().to_string(),
                "GREENHUB_GUARD is \"mprotekt\"; it must be \"advice\" or \"mprotect\""
            ),
            role => assert_eq!(format!("{:?}", GuardKind::preferred().unwrap()), role),
        }
        return;
    }
    for (value, role) in [("mprotect", "Protect"), ("advice", "Advice"), ("mprotekt", "error")] {
        assert_passes(&in_child(test, role, &[("GREENHUB_GUARD", value)]));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_address_space_slabs_shrink_and_then_there_is_a_clear_error() {
    let test = "greenlet::stack::tests::without_address_space_slabs_shrink_and_then_there_is_a_clear_error";
    if role().is_none() {
        return assert_passes(&in_child(test, "alone", &[]));
    }
    let pages: usize = fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    let room = 100 << 20;
    let limit = (pages * page_size() + room) as u64;
    rustix::process::setrlimit(
        rustix::process::Resource::As,
        rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) },
    )
    .unwrap();
    let stacks = Stacks::new();
    let mut count = 0;
    let error = loop {
        match stacks.take(1 << 20) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!((75..100).contains(&count), "{count}");
    let text = error.to_string();
    assert!(text.starts_with("cannot reserve ") && text.contains("for a stack of 1048576 bytes"), "{text}");
    assert!(text.contains("ulimit -v"), "{text}");
}

#[test]
fn the_default_size_is_the_process_s() {
    let test = "greenlet::stack::tests::the_default_size_is_the_process_s";
    if role().is_none() {
        return assert_passes(&in_child(test, "alone", &[]));
    }
    assert_eq!(default_size(), SIZE);
    set_default_size(50_000).unwrap();
    assert_eq!(std::thread::spawn(default_size).join().unwrap(), 64 << 10);
    assert!(matches!(set_default_size(usize::MAX), Err(StackError::TooLarge { .. })));
    assert_eq!(default_size(), 64 << 10);
}

#[test]
fn stacks_may_move_and_are_gone_with_their_thread() {
    thread_local! {
        static STACKS: Stacks = const { Stacks::new() };
    }
    std::thread::spawn(|| {
        let moved = Stacks::new();
        let stack = moved.take(SIZE).unwrap();
        let moved = Box::new(moved);
        give(&moved, stack);
        assert_eq!(moved.take(SIZE).unwrap(), stack);
        STACKS.with(|stacks| give(stacks, stacks.take(SIZE).unwrap()));
    })
    .join()
    .unwrap();
}

#[test]
fn a_forked_child_guards_its_own_stacks_and_not_its_parent_s() {
    let test = "greenlet::stack::tests::a_forked_child_guards_its_own_stacks_and_not_its_parent_s";
    if role().is_none() {
        return assert_passes(&in_child(test, "alone", &[]));
    }
    let stacks = Stacks::new();
    let first = stacks.take(SIZE).unwrap();
    // The slabs of 16, 32, … up to the one of 512, whose guards come in batches.
    let taken = (1..496 + 1).map(|_| stacks.take(SIZE).unwrap()).last().unwrap();
    let stride = Geometry::of_class(class_of(SIZE)).stride;
    // The lowest address of the first guard that was not due yet.
    let low = header(&taken).bottom().addr() - Geometry::of_class(class_of(SIZE)).guard;
    let later = header(&taken).bottom().with_addr(low + 32 * stride);
    // SAFETY: the child only takes stacks, touches memory and ends. This process has one other OS thread, which waits
    // for the test.
    match unsafe { libc::fork() } {
        0 => {
            let child = (0..40).map(|_| stacks.take(SIZE).unwrap()).last().unwrap();
            touch(child);
            // SAFETY: either a fault, which the parent expects, or private memory.
            unsafe { header(&first).bottom().sub(1).write_volatile(1) };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        child => {
            let mut status = 0;
            // SAFETY: the child from above, waited for once.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFSIGNALED(status), "an inherited guard did not trap");
            // SAFETY: memory of this slab from which no stack was cut. It must not trap here, because only the child
            // has installed that guard.
            unsafe { later.write_volatile(1) };
        }
    }
}
