//! The panic hook that names green threads. Each test runs in a process of its own, whose standard error is read.

use std::time::Duration;

use crate::support::green::{LONG, SHORT};
use crate::support::{is_child, rerun, run};
use greenhub::debug::install_panic_hook;
use greenhub::{Builder, get_hub, sleep, spawn, with_timeout};

/// Runs `body` in a process of its own, without backtraces, and returns its standard error there; `None` in that
/// process.
#[track_caller]
fn errors_of(name: &'static str, body: fn()) -> Option<String> {
    if is_child() {
        run(name, body);
        return None;
    }
    let output = rerun(name, |command| _ = command.env_remove("RUST_BACKTRACE"));
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stderr).unwrap())
}

fn panic_as(name: Option<&str>) {
    let builder = name.map_or_else(Builder::new, |name| Builder::new().name(name.into()));
    assert!(builder.spawn(|| panic!("broken")).unwrap().join().is_err());
}

#[test]
fn the_message_of_a_panic_names_the_green_thread_and_its_origin() {
    let errors = errors_of("the_message_of_a_panic_names_the_green_thread_and_its_origin", || {
        install_panic_hook();
        install_panic_hook();
        panic_as(Some("worker"));
        panic_as(None);
    });
    let Some(errors) = errors else { return };
    let lines: Vec<&str> = errors.lines().collect();
    let start = "green thread \"worker\" (spawned at crates/greenhub/tests/it/panic_hook.rs:";
    assert!(lines[0].is_empty() && lines[1].starts_with(start), "{errors}");
    assert!(lines[1].contains(") of OS thread '") && lines[1].ends_with("' panics:"), "{errors}");
    assert!(
        lines[3].starts_with("thread '") && lines[3].contains("' ") && lines[3].contains("panicked at "),
        "{errors}"
    );
    let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
    assert_eq!((lines[2], &lines[4..7]), ("", &["broken", note, ""][..]), "{errors}");
    assert!(lines[7].starts_with("green thread 1 (spawned at "), "{errors}");
    assert_eq!((lines[10], lines.len()), ("broken", 11), "{errors}");
}

#[test]
fn a_name_with_control_characters_is_escaped() {
    let errors = errors_of("a_name_with_control_characters_is_escaped", || {
        install_panic_hook();
        panic_as(Some("\u{1b}[2J\r\n\"it's\""));
    });
    let Some(errors) = errors else { return };
    assert!(errors.contains(r#"green thread "\u{1b}[2J\r\n\"it's\"" (spawned at "#), "{errors:?}");
    assert!(!errors.contains(['\u{1b}', '\r']), "{errors:?}");
}

#[test]
fn a_panic_outside_of_green_threads_has_stds_message() {
    let errors = errors_of("a_panic_outside_of_green_threads_has_stds_message", || {
        install_panic_hook();
        let broken = || std::thread::Builder::new().name("plain".into()).spawn(|| panic!("plain is broken")).unwrap();
        assert!(broken().join().is_err());
        sleep(SHORT);
        assert!(std::panic::catch_unwind(|| panic!("main is broken")).is_err());
    });
    let Some(errors) = errors else { return };
    assert!(errors.contains("thread 'plain'") && errors.contains("plain is broken"), "{errors}");
    assert!(errors.contains("main is broken") && !errors.contains("green thread"), "{errors}");
    assert_eq!(errors.matches("panicked at").count(), 2, "{errors}");
}

#[test]
fn a_panic_on_another_os_thread_names_the_green_thread_there() {
    let errors = errors_of("a_panic_on_another_os_thread_names_the_green_thread_there", || {
        install_panic_hook();
        let other = std::thread::Builder::new().name("other".into()).spawn(|| panic_as(Some("far away")));
        other.unwrap().join().unwrap();
    });
    let Some(errors) = errors else { return };
    assert!(errors.contains("green thread \"far away\" (spawned at "), "{errors}");
    assert!(errors.contains(" of OS thread 'other' panics:\n"), "{errors}");
}

#[test]
fn a_panic_of_a_callback_names_the_place_of_the_callback() {
    let errors = errors_of("a_panic_of_a_callback_names_the_place_of_the_callback", || {
        install_panic_hook();
        greenhub::debug::hub_exceptions(false);
        get_hub().schedule(Duration::ZERO, || panic!("broken"));
        sleep(SHORT);
    });
    let Some(errors) = errors else { return };
    assert!(errors.starts_with("\na callback (made at crates/greenhub/tests/it/panic_hook.rs:"), "{errors}");
    assert_eq!(errors.matches("panicked at").count(), 1, "{errors}");
}

#[test]
fn an_exit_is_no_panic_and_writes_nothing() {
    let errors = errors_of("an_exit_is_no_panic_and_writes_nothing", || {
        install_panic_hook();
        let green = spawn(|| sleep(LONG));
        sleep(SHORT);
        green.kill();
        assert!(green.join().unwrap_err().is_kill());
        assert!(spawn(|| with_timeout(SHORT, || sleep(LONG)).is_err()).join().unwrap());
    });
    assert!(errors.is_none_or(|errors| errors.is_empty()));
}

#[test]
fn a_former_hook_of_the_program_is_called_after_the_name() {
    let errors = errors_of("a_former_hook_of_the_program_is_called_after_the_name", || {
        std::panic::set_hook(Box::new(|info| eprintln!("the program's hook: {}", info.payload().is::<&str>())));
        install_panic_hook();
        panic_as(Some("worker"));
        assert!(std::panic::catch_unwind(|| panic!("main is broken")).is_err());
    });
    let Some(errors) = errors else { return };
    let lines: Vec<&str> = errors.lines().collect();
    assert!(lines[1].starts_with("green thread \"worker\" (spawned at ") && lines[1].ends_with(" panics:"), "{errors}");
    assert_eq!(lines[2..], ["the program's hook: true"; 2], "{errors}");
}

#[test]
fn a_backtrace_follows_the_name_where_the_environment_asks_for_it() {
    const NAME: &str = "a_backtrace_follows_the_name_where_the_environment_asks_for_it";
    if is_child() {
        return run(NAME, || {
            install_panic_hook();
            panic_as(Some("worker"));
        });
    }
    let output = rerun(NAME, |command| _ = command.env("RUST_BACKTRACE", "1"));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("\ngreen thread \"worker\" (spawned at "), "{errors}");
    assert_eq!(errors.matches("stack backtrace:").count(), 1, "{errors}");
}

#[test]
fn a_panic_that_aborts_has_the_backtrace_of_std() {
    const NAME: &str = "a_panic_that_aborts_has_the_backtrace_of_std";
    struct PanicsAgain;
    impl Drop for PanicsAgain {
        fn drop(&mut self) {
            panic!("broken again");
        }
    }
    if is_child() {
        return run(NAME, || {
            install_panic_hook();
            let _ = spawn(|| {
                let _again = PanicsAgain;
                panic!("broken");
            })
            .join();
        });
    }
    let output = rerun(NAME, |command| _ = command.env_remove("RUST_BACKTRACE"));
    assert!(!output.status.success(), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    let (_, last) = errors.split_once("broken again").expect("the second message");
    assert!(last.contains("stack backtrace:"), "{errors}");
}
