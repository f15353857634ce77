use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::ptr;

use context::{Context, Transfer};
use libc::{c_int, c_void, pthread_t};

use super::super::stack::{GuardKind, Stacks};
use super::super::stack::{in_child, role};
use super::*;

const SIZE: usize = 64 << 10;

/// Recurses to the given depth, with frames that the compiler cannot remove.
#[inline(never)]
fn dig(depth: usize) -> usize {
    let frame = std::hint::black_box([depth; 64]);
    if depth == 0 { frame[0] } else { dig(depth - 1) + frame[depth % 64] }
}

extern "C" fn dig_forever(_: Transfer) -> ! {
    let deep = dig(usize::MAX);
    unreachable!("reached {deep}");
}

/// Runs a greenlet that overflows its stack.
fn overflow(guard: GuardKind, others: usize) {
    let stacks = Stacks::with_guard(guard);
    for _ in 0..others {
        stacks.take(SIZE).unwrap();
    }
    let stack = stacks.take(SIZE).unwrap();
    // SAFETY: `stacks` lives, and the stack was taken, so it is writable from bottom to top and has no other user. The
    // entry never returns.
    unsafe {
        let stack = stack.as_ref();
        let stack = context::stack::Stack::new(stack.top().cast(), stack.bottom().cast());
        Context::new(&stack, dig_forever).resume(0);
    }
}

#[track_caller]
fn text_of_abort(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{:?}: {text}", output.status);
    text
}

#[test]
fn an_overflow_names_the_greenlet_and_the_remedy() {
    let test = "greenlet::overflow::tests::an_overflow_names_the_greenlet_and_the_remedy";
    if let Some(role) = role() {
        let guard = if role == "advice" { GuardKind::Advice } else { GuardKind::Protect };
        set_describe(|stack, out| {
            // SAFETY: the handler passes a stack that is mapped.
            assert_eq!(unsafe { stack.as_ref() }.size(), SIZE);
            out(b"greenlet 'worker-42'");
            out(b" (spawned at src/main.rs:12)");
        });
        return overflow(guard, 40);
    }
    for role in ["advice", "protect"] {
        let text = text_of_abort(&in_child(test, role, &[]));
        let message = "\ngreenlet 'worker-42' (spawned at src/main.rs:12) has overflowed its stack of 64 KiB\n\
                       fatal: stack overflow; `Builder::stack_size` gives a greenlet a larger stack\n";
        assert!(text.contains(message), "{role}: {text}");
    }
}

#[test]
fn an_overflow_without_a_description_is_still_reported() {
    let test = "greenlet::overflow::tests::an_overflow_without_a_description_is_still_reported";
    if role().is_some() {
        return overflow(GuardKind::Advice, 0);
    }
    let text = text_of_abort(&in_child(test, "overflow", &[]));
    assert!(text.contains("\na greenlet has overflowed its stack of 64 KiB\n"), "{text}");
}

#[test]
fn a_description_that_is_too_long_is_cut() {
    let test = "greenlet::overflow::tests::a_description_that_is_too_long_is_cut";
    if role().is_some() {
        set_describe(|_, out| (0..1_000).for_each(|_| out(b"name")));
        return overflow(GuardKind::Advice, 0);
    }
    let text = text_of_abort(&in_child(test, "overflow", &[]));
    assert!(text.contains(&"name".repeat(100)), "{text}");
    assert!(text.contains(" has overflowed its stack of 64 KiB\n"), "{text}");
}

/// Runs `body` on an OS thread that std does not know, and that therefore has no alternate stack.
fn on_foreign_thread(body: extern "C" fn(*mut c_void) -> *mut c_void) {
    // SAFETY: a plain OS thread, started with default attributes and joined once.
    unsafe {
        let mut thread: pthread_t = std::mem::zeroed();
        assert_eq!(libc::pthread_create(&raw mut thread, ptr::null(), body, ptr::null_mut()), 0);
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
    }
}

#[test]
fn an_overflow_on_a_thread_of_the_system_is_reported() {
    let test = "greenlet::overflow::tests::an_overflow_on_a_thread_of_the_system_is_reported";
    if role().is_some() {
        extern "C" fn body(_: *mut c_void) -> *mut c_void {
            overflow(GuardKind::Advice, 0);
            ptr::null_mut()
        }
        return on_foreign_thread(body);
    }
    let text = text_of_abort(&in_child(test, "overflow", &[]));
    assert!(text.contains("\na greenlet has overflowed its stack of 64 KiB\n"), "{text}");
}

#[test]
fn a_thread_of_the_system_gets_an_alternate_stack_and_gives_it_back() {
    static MEMORY: std::sync::Mutex<Option<usize>> = std::sync::Mutex::new(None);
    let test = "greenlet::overflow::tests::a_thread_of_the_system_gets_an_alternate_stack_and_gives_it_back";
    if role().is_none() {
        let output = in_child(test, "alone", &[]);
        return assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        if !AlternateStack::exists() {
            Stacks::new().take(SIZE).unwrap();
            *MEMORY.lock().unwrap() = AlternateStack::exists().then(|| AlternateStack::current().unwrap().ss_sp.addr());
        }
        ptr::null_mut()
    }
    on_foreign_thread(body);
    let address = MEMORY.lock().unwrap().unwrap();
    let mut page = 0u8;
    // SAFETY: the system checks the range and writes one byte.
    let mapped =
        unsafe { libc::mincore(ptr::without_provenance_mut(address), page_size(), (&raw mut page).cast()) == 0 };
    assert!(!mapped);
}

#[test]
fn an_alternate_stack_has_room_for_a_signal_frame_and_the_handler() {
    std::thread::spawn(|| {
        let of_std = AlternateStack::current().unwrap();
        let ours = AlternateStack { memory: Some(AlternateStack::make().unwrap()) };
        let size = AlternateStack::current().unwrap().ss_size;
        let least = signal_frame().max(libc::SIGSTKSZ) + (16 << 10);
        assert!((least..least + page_size()).contains(&size), "{size}");
        drop(ours);
        // SAFETY: this is the stack that std has made for this OS thread, and takes back at its end.
        assert_eq!(unsafe { libc::sigaltstack(&raw const of_std, ptr::null_mut()) }, 0);
    })
    .join()
    .unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn the_signal_frame_is_the_frame_that_the_system_names() {
    const AT_MINSIGSTKSZ: usize = 51;
    let vector = std::fs::read("/proc/self/auxv").unwrap();
    let words: Vec<usize> =
        vector.chunks_exact(size_of::<usize>()).map(|word| usize::from_ne_bytes(word.try_into().unwrap())).collect();
    let named = words.chunks_exact(2).find(|entry| entry[0] == AT_MINSIGSTKSZ);
    assert_eq!(signal_frame(), named.map_or(0, |entry| entry[1]));
}

#[test]
fn an_alternate_stack_is_out_of_use_before_its_memory_is_given_back() {
    std::thread::spawn(|| {
        let of_std = AlternateStack::current().unwrap();
        let ours = AlternateStack { memory: Some(AlternateStack::make().unwrap()) };
        assert_ne!(AlternateStack::current().unwrap().ss_sp, of_std.ss_sp);
        drop(ours);
        assert!(!AlternateStack::exists());
        // An alternate stack that is not in use any more leaves the current one installed.
        let ours = AlternateStack { memory: Some(AlternateStack::make().unwrap()) };
        // SAFETY: this is the stack that std has made for this OS thread, and takes back at its end.
        assert_eq!(unsafe { libc::sigaltstack(&raw const of_std, ptr::null_mut()) }, 0);
        drop(ours);
        assert_eq!(AlternateStack::current().unwrap().ss_sp, of_std.ss_sp);
    })
    .join()
    .unwrap();
}

#[test]
fn a_thread_that_has_an_alternate_stack_keeps_it() {
    std::thread::spawn(|| {
        let before = AlternateStack::current().unwrap().ss_sp;
        Stacks::new().take(SIZE).unwrap();
        assert!(!before.is_null());
        assert_eq!(AlternateStack::current().unwrap().ss_sp, before);
    })
    .join()
    .unwrap();
}

#[test]
fn an_overflow_of_a_thread_is_still_std_s_to_report() {
    let test = "greenlet::overflow::tests::an_overflow_of_a_thread_is_still_std_s_to_report";
    if role().is_some() {
        Stacks::new().take(SIZE).unwrap();
        let deep = std::thread::Builder::new().name("deep".into()).spawn(|| dig(usize::MAX)).unwrap();
        println!("{}", deep.join().unwrap());
        return;
    }
    let text = text_of_abort(&in_child(test, "overflow", &[]));
    assert!(text.contains("thread 'deep'") && text.contains("has overflowed its stack"), "{text}");
    assert!(!text.contains("greenlet has"), "{text}");
}

#[test]
fn a_fault_elsewhere_ends_the_process_as_before() {
    let test = "greenlet::overflow::tests::a_fault_elsewhere_ends_the_process_as_before";
    if role().is_some() {
        Stacks::new().take(SIZE).unwrap();
        // SAFETY: none; this must end the process.
        unsafe { ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
        return;
    }
    let output = in_child(test, "fault", &[]);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn the_previous_handler_gets_the_faults_that_are_not_ours() {
    let test = "greenlet::overflow::tests::the_previous_handler_gets_the_faults_that_are_not_ours";
    if let Some(role) = role() {
        extern "C" fn plain(signal: c_int) {
            // SAFETY: allowed in a signal handler.
            unsafe { libc::_exit(if signal == libc::SIGSEGV { 41 } else { 1 }) };
        }
        extern "C" fn with_info(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
            // SAFETY: the record is valid; the rest is allowed in a signal handler.
            unsafe { libc::_exit(if (*info).si_addr().addr() == 64 { 42 } else { 1 }) };
        }
        // SAFETY: both handlers do only what a handler may do, and have the type that the flags name.
        unsafe {
            let mut action: sigaction = std::mem::zeroed();
            if role == "plain" {
                action.sa_sigaction = plain as extern "C" fn(c_int) as usize;
            } else {
                action.sa_sigaction = with_info as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
                action.sa_flags = libc::SA_SIGINFO;
            }
            libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
        }
        Stacks::new().take(SIZE).unwrap();
        // SAFETY: none; this must reach the handler.
        unsafe { ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
        return;
    }
    for (role, code) in [("plain", 41), ("with info", 42)] {
        assert_eq!(in_child(test, role, &[]).status.code(), Some(code), "{role}");
    }
}

#[test]
fn the_default_action_of_a_signal_ends_the_process_as_before() {
    let test = "greenlet::overflow::tests::the_default_action_of_a_signal_ends_the_process_as_before";
    if role().is_some() {
        // SAFETY: plain system calls.
        unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            Stacks::new().take(SIZE).unwrap();
            libc::raise(libc::SIGBUS);
        }
        return;
    }
    assert_eq!(in_child(test, "default", &[]).status.signal(), Some(libc::SIGBUS));
}

#[test]
fn an_ignored_signal_stays_ignored_and_a_fault_ends_the_process() {
    let test = "greenlet::overflow::tests::an_ignored_signal_stays_ignored_and_a_fault_ends_the_process";
    if role().is_some() {
        // SAFETY: plain system calls.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_IGN);
            Stacks::new().take(SIZE).unwrap();
            libc::kill(libc::getpid(), libc::SIGSEGV);
        }
        println!("still here");
        // SAFETY: none; this must end the process.
        unsafe { ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
        return;
    }
    let output = in_child(test, "ignore", &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("still here"));
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn numbers_are_written_in_decimal() {
    for number in [0, 7, 10, 64, 1_000, usize::MAX] {
        let mut message = Message { bytes: [0; 768], len: 0 };
        message.push_number(number);
        assert_eq!(message.bytes[..message.len], *number.to_string().as_bytes());
    }
}
