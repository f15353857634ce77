//! The choice, the construction and the replacement of hubs.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenhub::hub::{Hub, HubDescriptor, HubError, Key, Lease, Readiness, Ready, Rearm, Time, Watched, has_hub};
use greenhub::os::unix::net::UnixStream;
use greenhub::{Interest, get_default_hub, get_hub, register_hub, try_get_hub, use_hub, use_hub_with};

use crate::support;
use crate::support::poll_hub::PollHub;

const SHORT: Duration = Duration::from_millis(20);

/// A third-party hub over `poll(2)`, optionally with its own clock.
struct Mine {
    inner: PollHub,
    /// Time passes only while the loop waits.
    clock: Option<Rc<Cell<Time>>>,
}

impl Mine {
    const NAME: &str = "tests::mine.poll-1";

    fn new() -> io::Result<Mine> {
        Ok(Mine { inner: PollHub::new()?, clock: None })
    }

    fn descriptor() -> HubDescriptor {
        HubDescriptor { name: Mine::NAME, aliases: &["mine"], available: || true, build: || Ok(Box::new(Mine::new()?)) }
    }
}

impl Hub for Mine {
    fn name(&self) -> &'static str {
        Mine::NAME
    }

    fn rearm(&self) -> Rearm {
        self.inner.rearm()
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.inner.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.inner.forget(key, fd);
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let Some(clock) = &self.clock else { return self.inner.wait(watched, timeout, ready) };
        let timeout = timeout.expect("something is always due in these tests");
        clock.set(clock.get() + timeout);
        self.inner.wait(watched, Some(Duration::ZERO), ready)
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.inner.after_fork()
    }

    fn now(&self) -> Time {
        self.clock.as_ref().map_or_else(Time::monotonic, |clock| clock.get())
    }
}

/// Runs the rest of a test in its own process, in which `EVENTLET_HUB` is `hub` or not set.
///
/// Returns false in that process, and true in the parent after the child has succeeded.
fn with_environment(test: &str, hub: Option<&str>) -> bool {
    let variables: Vec<_> = hub.map(|hub| ("EVENTLET_HUB", hub)).into_iter().collect();
    with_variables(test, &variables)
}

/// Like [`with_environment`], with these variables alone to choose a hub.
fn with_variables(test: &str, variables: &[(&str, &str)]) -> bool {
    if support::is_child() {
        return false;
    }
    let output = support::rerun(test, |command: &mut Command| {
        command.env_remove("GREENHUB_HUB").env_remove("EVENTLET_HUB").envs(variables.iter().copied());
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{variables:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{test} is not the name of a test");
    true
}

#[test]
fn no_hub_exists_before_its_first_use() {
    support::run("no_hub_exists_before_its_first_use", || {
        assert!(!has_hub());
        let green = greenhub::spawn(|| 1);
        assert!(!has_hub(), "spawning has built the hub");
        greenhub::sleep(Duration::from_millis(1));
        assert!(has_hub());
        green.join().unwrap();
    });
}

#[test]
fn get_hub_returns_the_same_hub_each_time() {
    support::run("get_hub_returns_the_same_hub_each_time", || {
        let hub = get_hub();
        assert_eq!(get_hub().id(), hub.id());
        let inside = greenhub::spawn(|| get_hub().id());
        assert_eq!(inside.join().unwrap(), hub.id());
    });
}

#[test]
fn each_thread_has_a_hub_of_its_own() {
    support::run("each_thread_has_a_hub_of_its_own", || {
        let here = get_hub().id();
        let there = std::thread::spawn(|| get_hub().id()).join().unwrap();
        assert_ne!(here, there);
    });
}

#[test]
fn use_hub_leaves_other_threads_alone() {
    support::run("use_hub_leaves_other_threads_alone", || {
        let before = get_hub();
        let there = std::thread::spawn(|| {
            use_hub_with(Mine::new).unwrap();
            get_hub().name()
        });
        assert_eq!(there.join().unwrap(), Mine::NAME);
        assert!(before.is_current());
        assert_eq!(get_hub().id(), before.id());
        let another = std::thread::spawn(|| get_hub().name());
        assert_eq!(another.join().unwrap(), before.name());
    });
}

#[test]
fn use_hub_builds_nothing_before_first_use() {
    support::run("use_hub_builds_nothing_before_first_use", || {
        let built = Rc::new(Cell::new(0));
        use_hub_with({
            let built = Rc::clone(&built);
            move || {
                built.set(built.get() + 1);
                Mine::new()
            }
        })
        .unwrap();
        assert_eq!(built.get(), 0);
        let _ = (get_hub(), get_hub());
        greenhub::sleep(Duration::from_millis(1));
        assert_eq!(built.get(), 1);
    });
}

#[test]
fn timers_and_listeners_of_a_replaced_hub_never_fire() {
    support::run("timers_and_listeners_of_a_replaced_hub_never_fire", || {
        let fired = Rc::new(Cell::new(0));
        let note = |fired: &Rc<Cell<u32>>| {
            let fired = Rc::clone(fired);
            move || fired.set(fired.get() + 1)
        };
        let old = get_hub();
        let timer = old.schedule(SHORT / 4, note(&fired));
        let (reader, mut writer) = io::pipe().unwrap();
        let called = note(&fired);
        let registration = old.listen(reader, Interest::READ, move |_: Readiness| called()).unwrap();
        writer.write_all(b"x").unwrap();
        use_hub(old.name()).unwrap();
        greenhub::sleep(SHORT);
        assert_eq!(fired.get(), 0);
        assert!(!timer.cancel(), "the timer of the former hub can be cancelled");
        drop(registration);
        assert_eq!(get_hub().stats().timers, 0);
    });
}

#[test]
fn a_reference_to_a_replaced_hub_reaches_the_current_hub() {
    support::run("a_reference_to_a_replaced_hub_reaches_the_current_hub", || {
        let old = get_hub();
        use_hub(old.name()).unwrap();
        assert!(!old.is_current() && !old.is_running());
        let never = old.schedule(SHORT, || unreachable!("the timer was cancelled"));
        assert!(never.cancel());
        let fired = Rc::new(Cell::new(false));
        old.schedule(Duration::ZERO, {
            let fired = Rc::clone(&fired);
            move || fired.set(true)
        });
        let (reader, _writer) = io::pipe().unwrap();
        let registration = old.listen(reader, Interest::READ, |_: Readiness| ()).unwrap();
        assert_eq!(get_hub().stats().readers, 1);
        drop(registration);
        assert_eq!(get_hub().stats().readers, 0);
        greenhub::sleep(SHORT * 2);
        assert!(fired.get());
    });
}

#[test]
fn use_hub_with_the_same_name_builds_a_new_hub() {
    support::run("use_hub_with_the_same_name_builds_a_new_hub", || {
        let name = get_default_hub().unwrap().name;
        use_hub(name).unwrap();
        let first = get_hub();
        use_hub(name).unwrap();
        let second = get_hub();
        assert_eq!(first.name(), second.name());
        assert_ne!(first.id(), second.id());
        assert!(!first.is_current() && second.is_current());
    });
}

#[test]
fn the_environment_chooses_the_hub() {
    const TEST: &str = "the_environment_chooses_the_hub";
    if with_environment(TEST, Some(Mine::NAME)) {
        return;
    }
    support::run(TEST, || {
        register_hub(Mine::descriptor()).unwrap();
        assert_eq!(get_hub().name(), Mine::NAME);
        let there = std::thread::spawn(|| get_hub().name());
        assert_eq!(there.join().unwrap(), Mine::NAME);
    });
}

#[test]
fn use_hub_overrides_the_environment() {
    const TEST: &str = "use_hub_overrides_the_environment";
    if with_environment(TEST, Some("mine")) {
        return;
    }
    support::run(TEST, || {
        register_hub(Mine::descriptor()).unwrap();
        let preferred = get_default_hub().unwrap();
        for &name in [preferred.name].iter().chain(preferred.aliases) {
            use_hub(name).unwrap();
            assert_eq!(get_hub().name(), preferred.name, "by {name}");
        }
        use_hub(None).unwrap();
        assert_eq!(get_hub().name(), Mine::NAME);
    });
}

#[test]
fn without_any_choice_the_preferred_hub_is_used() {
    const TEST: &str = "without_any_choice_the_preferred_hub_is_used";
    if with_environment(TEST, None) {
        return;
    }
    support::run(TEST, || {
        let preferred = get_default_hub().unwrap().name;
        assert!(["epoll", "kqueue", "poll", "select"].contains(&preferred));
        #[cfg(target_os = "linux")]
        assert_eq!(preferred, "epoll");
        assert_eq!(get_hub().name(), preferred);
        use_hub_with(Mine::new).unwrap();
        use_hub(None).unwrap();
        assert_eq!(get_hub().name(), preferred);
    });
}

#[test]
fn an_empty_name_is_an_error() {
    support::run("an_empty_name_is_an_error", || {
        for name in ["", " ", "\t\n"] {
            let error = use_hub(name).unwrap_err();
            assert!(matches!(error, HubError::EmptyName { variable: None }), "{error:?}");
        }
        assert!(!has_hub());
    });
}

#[test]
fn an_empty_name_in_the_environment_is_an_error() {
    const TEST: &str = "an_empty_name_in_the_environment_is_an_error";
    if with_environment(TEST, Some("")) && with_environment(TEST, Some("  ")) {
        return;
    }
    support::run(TEST, || {
        for error in [try_get_hub().unwrap_err(), use_hub(None).unwrap_err()] {
            assert!(matches!(error, HubError::EmptyName { variable: Some("EVENTLET_HUB") }), "{error:?}");
        }
    });
}

#[test]
fn an_unknown_name_is_an_error_that_quotes_it() {
    support::run("an_unknown_name_is_an_error_that_quotes_it", || {
        let error = use_hub("nope").unwrap_err();
        assert!(matches!(&error, HubError::Unknown { name, variable: None, .. } if name == "nope"));
        let text = error.to_string();
        assert!(text.contains("\"nope\""), "{text}");
        assert!(!has_hub());
    });
}

#[test]
fn the_error_of_an_unknown_name_tells_usable_hubs_from_those_that_need_a_feature() {
    support::run("the_error_of_an_unknown_name_tells_usable_hubs_from_those_that_need_a_feature", || {
        register_hub(Mine::descriptor()).unwrap();
        register_hub(HubDescriptor { name: "tests::absent", aliases: &[], available: || false, ..Mine::descriptor() })
            .unwrap();
        let text = use_hub("nope").unwrap_err().to_string();
        let (usable, rest) = text.split_once("; ").unwrap();
        let usable: Vec<&str> = usable.split_once("known here are ").unwrap().1.split(", ").collect();
        assert_eq!(usable.last(), Some(&Mine::NAME), "{text}");
        for name in ["epoll", "kqueue", "poll", "select", "libevent", "tokio"] {
            let named = (usable.contains(&name), rest.contains(name));
            match use_hub(name) {
                Ok(()) => assert_eq!(named, (true, false), "{name}: {text}"),
                Err(HubError::NotCompiled { .. }) => assert_eq!(named, (false, true), "{name}: {text}"),
                Err(_) => assert_eq!(named, (false, false), "{name}: {text}"),
            }
        }
        let needs = |optional| HubError::Unknown { name: "x".into(), usable: "poll".into(), optional, variable: None };
        let texts = [vec![], vec!["tokio"], vec!["libevent", "tokio"]].map(|optional| needs(optional).to_string());
        let [none, one, two] = texts.each_ref().map(|text| text.split("; ").nth(1).unwrap());
        assert_eq!(none, "register_hub makes one of your own known");
        assert_eq!(one, "tokio needs the feature of this name");
        assert_eq!(two, "libevent and tokio need the features of these names");
    });
}

#[test]
fn an_unknown_name_in_the_environment_is_an_error_that_quotes_it() {
    const TEST: &str = "an_unknown_name_in_the_environment_is_an_error_that_quotes_it";
    if with_environment(TEST, Some("nope")) {
        return;
    }
    support::run(TEST, || {
        let text = try_get_hub().unwrap_err().to_string();
        assert!(text.contains("\"nope\"") && text.contains("EVENTLET_HUB"), "{text}");
        // The error is not final: the program can still choose a hub.
        use_hub(get_default_hub().unwrap().name).unwrap();
        assert_eq!(get_hub().name(), get_default_hub().unwrap().name);
    });
}

#[test]
fn greenhub_hub_comes_before_eventlet_hub() {
    const TEST: &str = "greenhub_hub_comes_before_eventlet_hub";
    if with_variables(TEST, &[("GREENHUB_HUB", "select"), ("EVENTLET_HUB", "asyncio-of-python")]) {
        return;
    }
    support::run(TEST, || assert_eq!(get_hub().name(), "select"));
}

#[test]
fn greenhub_hub_alone_chooses_the_hub() {
    const TEST: &str = "greenhub_hub_alone_chooses_the_hub";
    if with_variables(TEST, &[("GREENHUB_HUB", "select")]) {
        return;
    }
    support::run(TEST, || assert_eq!(get_hub().name(), "select"));
}

#[test]
fn an_empty_greenhub_hub_is_an_error_and_does_not_lead_to_eventlet_hub() {
    const TEST: &str = "an_empty_greenhub_hub_is_an_error_and_does_not_lead_to_eventlet_hub";
    let python = ("EVENTLET_HUB", "poll");
    if ["", "  "].into_iter().all(|name| with_variables(TEST, &[("GREENHUB_HUB", name), python])) {
        return;
    }
    support::run(TEST, || {
        for error in [try_get_hub().unwrap_err(), use_hub(None).unwrap_err()] {
            assert!(matches!(error, HubError::EmptyName { variable: Some("GREENHUB_HUB") }), "{error:?}");
            assert!(error.to_string().contains("(from GREENHUB_HUB)"), "{error}");
        }
    });
}

#[test]
fn the_error_of_a_hub_names_the_variable_that_it_was_read_from() {
    const TEST: &str = "the_error_of_a_hub_names_the_variable_that_it_was_read_from";
    for name in ["nope", if cfg!(target_os = "linux") { "kqueue" } else { "epoll" }] {
        for variable in ["GREENHUB_HUB", "EVENTLET_HUB"] {
            if !with_variables(TEST, &[(variable, name), ("EXPECTED", variable)]) {
                let expected = format!("(from {})", std::env::var("EXPECTED").unwrap());
                return support::run(TEST, move || {
                    let text = try_get_hub().unwrap_err().to_string();
                    assert!(text.contains(&expected), "{text}");
                });
            }
        }
    }
}

#[test]
#[cfg_attr(feature = "tokio", ignore = "tokio is compiled in")]
fn a_hub_in_the_environment_that_is_not_compiled_in_is_an_error_that_names_its_feature() {
    const TEST: &str = "a_hub_in_the_environment_that_is_not_compiled_in_is_an_error_that_names_its_feature";
    if with_environment(TEST, Some("tokio")) {
        return;
    }
    support::run(TEST, || {
        let text = try_get_hub().unwrap_err().to_string();
        assert!(text.contains("feature `tokio`"), "{text}");
    });
}

#[test]
fn a_hub_foreign_to_this_system_is_an_error_that_names_it() {
    support::run("a_hub_foreign_to_this_system_is_an_error_that_names_it", || {
        let foreign = if cfg!(target_os = "linux") { "kqueue" } else { "epoll" };
        let error = use_hub(foreign).unwrap_err();
        assert!(matches!(&error, HubError::Unavailable { name, .. } if name == foreign), "{error:?}");
        assert!(error.to_string().contains(foreign));
    });
}

#[test]
fn a_failed_use_hub_changes_nothing() {
    support::run("a_failed_use_hub_changes_nothing", || {
        let missing = HubDescriptor {
            name: "tests::missing",
            aliases: &[],
            available: || false,
            build: || Err(io::ErrorKind::Unsupported.into()),
        };
        register_hub(missing).unwrap();
        let fail = || {
            for name in ["", "nope", "tests::missing"] {
                assert!(use_hub(name).is_err());
            }
        };
        // A failure keeps a choice that was not used yet.
        use_hub_with(Mine::new).unwrap();
        fail();
        let hub = get_hub();
        assert_eq!(hub.name(), Mine::NAME);
        // A failure inside the main loop keeps a hub with its timer.
        let fired = Rc::new(Cell::new(false));
        let refused = Rc::new(RefCell::new(None));
        hub.schedule(SHORT, {
            let fired = Rc::clone(&fired);
            move || fired.set(true)
        });
        hub.schedule(Duration::ZERO, {
            let refused = Rc::clone(&refused);
            move || *refused.borrow_mut() = Some(use_hub(None))
        });
        fail();
        greenhub::sleep(SHORT * 2);
        assert!(fired.get());
        assert!(matches!(refused.take(), Some(Err(HubError::InMainloop))));
        assert_eq!(get_hub().id(), hub.id());
    });
}

#[test]
fn try_get_hub_in_the_constructor_of_a_hub_is_an_error() {
    support::run("try_get_hub_in_the_constructor_of_a_hub_is_an_error", || {
        let refused = Rc::new(RefCell::new(None));
        let finds = Rc::clone(&refused);
        let build = move || {
            *finds.borrow_mut() = Some(try_get_hub());
            Mine::new()
        };
        use_hub_with(build).unwrap();
        assert_eq!(get_hub().name(), Mine::new().unwrap().name());
        let Some(Err(error)) = refused.take() else { panic!("the constructor got a hub") };
        assert!(matches!(error, HubError::InHub), "{error:?}");
        assert_eq!(error.to_string(), "cannot get the hub from inside its own constructor: the hub does not exist yet");
    });
}

#[test]
fn use_hub_in_the_main_loop_is_an_error() {
    support::run("use_hub_in_the_main_loop_is_an_error", || {
        let hub = get_hub();
        let refused = Rc::new(RefCell::new(None));
        hub.schedule(Duration::ZERO, {
            let refused = Rc::clone(&refused);
            move || *refused.borrow_mut() = Some(use_hub_with(Mine::new))
        });
        greenhub::sleep(Duration::from_millis(1));
        assert!(matches!(refused.take(), Some(Err(HubError::InMainloop))));
        assert!(hub.is_current());
    });
}

#[test]
fn a_registered_hub_is_found_by_its_dotted_name() {
    support::run("a_registered_hub_is_found_by_its_dotted_name", || {
        const NAMED: HubDescriptor = HubDescriptor {
            name: "some-crate::hubs.best:1",
            aliases: &["best-of.all"],
            available: || true,
            build: || Ok(Box::new(Mine::new()?)),
        };
        register_hub(NAMED).unwrap();
        for name in [NAMED.name, NAMED.aliases[0]] {
            use_hub(name).unwrap();
            assert_eq!(get_hub().name(), Mine::NAME);
        }
        let there = std::thread::spawn(|| use_hub(NAMED.name));
        assert!(there.join().unwrap().is_ok(), "another thread does not know the hub");
    });
}

#[test]
fn a_name_is_registered_once() {
    support::run("a_name_is_registered_once", || {
        let named = |name, aliases| HubDescriptor { name, aliases, ..Mine::descriptor() };
        register_hub(named("tests::once", &["once-more"])).unwrap();
        let taken = [
            (named("tests::once", &[]), "tests::once"),
            (named("once-more", &[]), "once-more"),
            (named("tests::other", &["once-more"]), "once-more"),
            (named("tests::twice", &["tests::twice"]), "tests::twice"),
            (named("epolls", &[]), "epolls"),
            (named("tests::other", &["libevent"]), "libevent"),
        ];
        for (descriptor, expected) in taken {
            let error = register_hub(descriptor).unwrap_err();
            assert!(matches!(&error, HubError::Duplicate { name } if name == expected), "{error:?}");
        }
        let error = register_hub(named("tests::blank", &[" "])).unwrap_err();
        assert!(matches!(error, HubError::EmptyName { .. }), "{error:?}");
        assert!(matches!(use_hub("tests::other"), Err(HubError::Unknown { .. })), "the refused registration was kept");
    });
}

#[test]
fn a_third_party_hub_over_poll_runs_timers_and_listeners() {
    support::run("a_third_party_hub_over_poll_runs_timers_and_listeners", || {
        use_hub_with(Mine::new).unwrap();
        let log = Rc::new(RefCell::new(Vec::new()));
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let echo = greenhub::spawn(move || {
            let mut buffer = [0; 3];
            other.read_exact(&mut buffer).unwrap();
            other.write_all(&buffer).unwrap();
        });
        let (reader, mut writer) = io::pipe().unwrap();
        let heard = {
            let log = Rc::clone(&log);
            move |_: Readiness| log.borrow_mut().push("heard")
        };
        let registration = get_hub().listen(reader, Interest::READ, heard).unwrap();
        greenhub::thread::yield_now();
        one.write_all(b"abc").unwrap();
        one.read_exact(&mut [0; 3]).unwrap();
        echo.join().unwrap();
        writer.write_all(b"x").unwrap();
        while log.borrow().is_empty() {
            greenhub::sleep(Duration::from_millis(1));
        }
        drop(registration);
        assert!(log.take().iter().all(|&entry| entry == "heard"));
        for (delay, entry) in [(3, "third"), (1, "first"), (2, "second")] {
            let log = Rc::clone(&log);
            get_hub().schedule(SHORT * delay, move || log.borrow_mut().push(entry));
        }
        greenhub::sleep(SHORT * 4);
        assert_eq!(log.take(), ["first", "second", "third"]);
        assert_eq!(get_hub().name(), Mine::NAME);
    });
}

#[test]
fn is_available_leaves_no_hub_behind() {
    const TEST: &str = "is_available_leaves_no_hub_behind";
    if with_environment(TEST, None) {
        return;
    }
    support::run(TEST, || {
        let before = support::open_descriptors();
        for _ in 0..50 {
            assert!((get_default_hub().unwrap().available)());
            assert!(use_hub("kqueue").is_err() || use_hub("epoll").is_err());
        }
        assert_eq!(support::open_descriptors(), before);
        assert!(!has_hub());
    });
}

#[test]
#[cfg(feature = "libevent")]
fn libevent_is_found_by_its_names_and_never_by_default() {
    support::run("libevent_is_found_by_its_names_and_never_by_default", || {
        for name in ["libevent", "pyevent"] {
            use_hub(name).unwrap();
            assert_eq!(get_hub().name(), "libevent");
            greenhub::sleep(Duration::from_millis(1));
        }
        assert_ne!(get_default_hub().unwrap().name, "libevent");
    });
}

#[test]
#[cfg(feature = "tokio")]
fn tokio_is_found_by_its_names_and_never_by_default() {
    support::run("tokio_is_found_by_its_names_and_never_by_default", || {
        for name in ["tokio", "twistedr", "asyncio"] {
            use_hub(name).unwrap();
            assert_eq!(get_hub().name(), "tokio");
            greenhub::sleep(Duration::from_millis(1));
        }
        assert_ne!(get_default_hub().unwrap().name, "tokio");
    });
}

/// Asserts that the hub with these names is an error that names its feature.
fn is_not_compiled_in(names: &[&str]) {
    for &name in names {
        let error = use_hub(name).unwrap_err();
        assert!(matches!(&error, HubError::NotCompiled { feature, .. } if *feature == names[0]), "{error:?}");
        assert!(error.to_string().contains(&format!("feature `{}`", names[0])), "{error}");
        let taken =
            register_hub(HubDescriptor { name: "tests::other", aliases: &["libevent", "tokio"], ..Mine::descriptor() });
        assert!(matches!(taken, Err(HubError::Duplicate { .. })), "{taken:?}");
    }
}

#[test]
#[cfg_attr(feature = "libevent", ignore = "libevent is compiled in")]
fn a_hub_that_is_not_compiled_in_is_an_error_that_names_its_feature() {
    support::run("a_hub_that_is_not_compiled_in_is_an_error_that_names_its_feature", || {
        is_not_compiled_in(&["libevent", "pyevent"]);
    });
}

#[test]
#[cfg_attr(feature = "tokio", ignore = "tokio is compiled in")]
fn tokio_that_is_not_compiled_in_is_an_error_that_names_its_feature() {
    support::run("tokio_that_is_not_compiled_in_is_an_error_that_names_its_feature", || {
        is_not_compiled_in(&["tokio", "twistedr", "asyncio"]);
    });
}

#[test]
fn replaced_hubs_and_ended_threads_leave_no_descriptor_open() {
    const TEST: &str = "replaced_hubs_and_ended_threads_leave_no_descriptor_open";
    if with_environment(TEST, None) {
        return;
    }
    support::run(TEST, || {
        let use_one = || {
            greenhub::sleep(Duration::from_millis(1));
            let (mut one, other) = UnixStream::pair().unwrap();
            one.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert!(one.read(&mut [0]).is_err());
            drop(other);
        };
        let before = support::open_descriptors();
        for _ in 0..20 {
            std::thread::spawn(use_one).join().unwrap();
        }
        assert_eq!(support::open_descriptors(), before, "after threads");
        std::thread::spawn(move || {
            use_one();
            let before = support::open_descriptors();
            for _ in 0..20 {
                use_hub(None).unwrap();
                use_one();
            }
            assert_eq!(support::open_descriptors(), before, "after hubs");
        })
        .join()
        .unwrap();
        assert_eq!(support::open_descriptors(), before, "at the end");
    });
}

#[test]
fn a_hub_with_its_own_clock_drives_the_timers() {
    support::run("a_hub_with_its_own_clock_drives_the_timers", || {
        const HOUR: Duration = Duration::from_secs(3600);
        let clock = Rc::new(Cell::new(Time::from_nanos(1)));
        use_hub_with({
            let clock = Rc::clone(&clock);
            move || Ok(Mine { inner: PollHub::new()?, clock: Some(clock) })
        })
        .unwrap();
        get_hub().set_timer_slack(0, Duration::ZERO);
        let begun = Instant::now();
        let woken = Rc::new(RefCell::new(Vec::new()));
        for hours in [5, 1, 3] {
            let (woken, clock) = (Rc::clone(&woken), Rc::clone(&clock));
            greenhub::spawn(move || {
                greenhub::sleep(HOUR * hours);
                woken.borrow_mut().push((hours, clock.get()));
            });
        }
        greenhub::sleep(HOUR * 6);
        let at = |hours| (hours, Time::from_nanos(1) + HOUR * hours);
        assert_eq!(*woken.borrow(), [at(1), at(3), at(5)]);
        assert_eq!(get_hub().now(), Time::from_nanos(1) + HOUR * 6);
        assert!(begun.elapsed() < HOUR);
    });
}

#[test]
fn waiters_of_a_replaced_hub_wait_on_the_next() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            greenhub::sleep(Duration::from_millis(1));
        }
    }
    support::run("waiters_of_a_replaced_hub_wait_on_the_next", || {
        let name = get_hub().name();
        // Ends when the hub is replaced. The destructor of its closure then yields to the reader.
        let sleeps = Sleeps;
        let delayed = greenhub::spawn_after(Duration::from_secs(100), move || drop(sleeps));
        greenhub::thread::yield_now();
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let reader = greenhub::spawn(move || {
            let mut byte = [0];
            here.read_exact(&mut byte).map(|()| byte[0])
        });
        use_hub(name).unwrap();
        there.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b'x');
        assert!(delayed.join().is_err());
    });
}
