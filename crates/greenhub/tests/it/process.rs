//! Child processes: std's behaviour, and which green threads wait.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::support::fork::{ends_well, forked};
use crate::support::green::{LONG, SHORT, held, quiet_panic, ticker};
use crate::support::random::{Moment, Rng};
use crate::support::{alone, is_child, open_descriptors, rerun, run};
use greenhub::greenthread::KillOutcome;
use greenhub::os::unix::process::CommandExt;
use greenhub::process::{Child, ChildStdin, Command};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, with_timeout};

/// Spawns a child that outlives any test.
fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Spawns a child that ends when a green thread, after `when` has returned, writes to it.
fn child_until(when: impl FnOnce() + 'static) -> Child {
    let mut child = shell("read line").stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    spawn(move || {
        when();
        stdin.write_all(b"end\n").unwrap();
    });
    child
}

/// Kills and reaps a child, so that the test leaves none behind.
fn end(mut child: Child) {
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

/// Returns a closure that returns after several turns of the ticker.
fn several(ticks: &Rc<Cell<usize>>) -> impl FnOnce() + use<> {
    let ticks = Rc::clone(ticks);
    move || {
        let before = ticks.get();
        while ticks.get() < before + 10 {
            sleep(Duration::from_micros(100));
        }
    }
}

same_as_std! {
    fn output_returns_all_data_and_the_status() {
        let mut command = process::Command::new("sh");
        command.args(["-c", "cat; echo out; echo err >&2; exit 3"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
        // `output` leaves the command's stdio settings as they were.
        let mut child = command.stdin(process::Stdio::null()).stderr(process::Stdio::null()).spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(command.output().unwrap().stderr, b"");
    }

    fn input_reaches_the_child_and_its_output_returns() {
        let mut command = process::Command::new("tr");
        command.arg("a-z").arg("A-Z").stdin(process::Stdio::piped()).stdout(process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            for _ in 0..100_000 {
                stdin.write_all(b"abcdefghi\n").unwrap();
            }
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success() && output.stdout == b"ABCDEFGHI\n".repeat(100_000));
    }

    fn lines_are_read_while_the_child_runs() {
        let mut command = process::Command::new("sh");
        command.args(["-c", "while read line; do echo \"<$line>\"; done"]);
        let mut child = command.stdin(process::Stdio::piped()).stdout(process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in ["one", "two"] {
            writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), format!("<{line}>"));
        }
        // `wait` closes the child's input, which ends the child.
        assert!(child.wait().unwrap().success());
        assert!(lines.next().is_none());
    }

    fn environment_and_directory_are_set() {
        let mut command = process::Command::new("sh");
        command.args(["-c", "echo $ONE $TWO $THREE $GONE; pwd"]).current_dir("/").env("GONE", "x").env_remove("GONE");
        command.env("ONE", "1").envs([("TWO", "2"), ("THREE", "3")]);
        assert_eq!(command.output().unwrap().stdout, b"1 2 3\n/\n");
        assert_eq!(command.get_program(), "sh");
        assert_eq!(command.get_args().count(), 2);
        assert_eq!(command.get_envs().count(), 4);
        assert_eq!(command.get_current_dir(), Some(Path::new("/")));
        let mut command = process::Command::new("/usr/bin/env");
        assert_eq!(command.env_clear().env("ONLY", "this").output().unwrap().stdout, b"ONLY=this\n");
    }

    fn a_killed_child_reports_its_signal() {
        let mut child = process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal(), status.success()), (None, Some(9), false));
        // A second `wait` returns the same status, and a kill of a reaped child is not sent.
        assert_eq!(child.wait().unwrap(), status);
        assert_eq!(child.try_wait().unwrap(), Some(status));
        child.kill().unwrap();
    }

    fn a_missing_program_is_an_error() {
        let missing = process::Command::new("/there/is/no/such/program").spawn().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert_eq!(process::Command::new("/").status().unwrap_err().kind(), ErrorKind::PermissionDenied);
        let nowhere = process::Command::new("true").current_dir("/there/is/no/such/directory").output();
        assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(process::Command::new("a\0b").output().unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn a_child_reads_the_output_of_another() {
        let echo = process::Command::new("echo").arg("hello").stdout(process::Stdio::piped()).spawn().unwrap();
        let mut echo = echo;
        let stdout = echo.stdout.take().unwrap();
        let output = process::Command::new("tr").args(["a-z", "A-Z"]).stdin(stdout).output().unwrap();
        assert_eq!(output.stdout, b"HELLO\n");
        assert!(echo.wait().unwrap().success());
    }

    fn a_child_uses_pipes_and_files_as_its_streams() {
        let path = std::env::temp_dir().join(format!("greenhub-child-{}-{}", std::process::id(), module_path!().len()));
        let mut command = process::Command::new("sh");
        command.args(["-c", "echo told >&2; cat"]);
        let (reader, writer) = streams::pipe().unwrap();
        (&writer).write_all(b"in").unwrap();
        drop(writer);
        let (mut errors, stderr) = streams::pipe().unwrap();
        let status = command.stdin(reader).stdout(fs::File::create(&path).unwrap()).stderr(stderr).status().unwrap();
        // The command holds a duplicate of the other end.
        drop(command);
        assert!(status.success());
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), &*fs::read(&path).unwrap()), ("told\n", &b"in"[..]));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_child_uses_the_standard_outputs_of_its_parent() {
    let name = "a_child_uses_the_standard_outputs_of_its_parent";
    if !is_child() {
        let output = rerun(name, |_| {});
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success() && out.contains("to err\n") && err.contains("to out\n"), "{out}{err}");
        return;
    }
    run(name, || {
        let mut command = shell("echo to out; echo to err >&2");
        command.stdout(greenhub::io::stderr()).stderr(greenhub::io::stdout());
        assert!(command.status().unwrap().success());
    });
}

#[test]
fn waiting_for_a_child_lets_others_run() {
    run("waiting_for_a_child_lets_others_run", || {
        let ticks = ticker();
        assert!(child_until(several(&ticks)).wait().unwrap().success());
    });
}

#[test]
fn talking_to_a_child_lets_others_run() {
    run("talking_to_a_child_lets_others_run", || {
        let ticks = ticker();
        // More than a pipe's capacity on both outputs, before any input is read.
        let script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; wc -c";
        let mut child =
            shell(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let others_run = several(&ticks);
        let writer = spawn(move || {
            others_run();
            stdin.write_all(&[b'x'; 200_000]).unwrap();
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_007, 300_000));
        assert!(output.stdout.ends_with(b"200000\n"));
    });
}

#[test]
fn waiting_for_a_child_can_time_out() {
    run("waiting_for_a_child_can_time_out", || {
        let mut child = sleeper();
        let begun = Instant::now();
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
        assert!(with_timeout(SHORT, || child.wait()).is_err());
        child.kill().unwrap();
        assert_eq!(child.wait_timeout(LONG).unwrap().unwrap().signal(), Some(9));
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap().unwrap().signal(), Some(9));
    });
}

#[test]
fn talking_to_a_child_can_time_out() {
    run("talking_to_a_child_can_time_out", || {
        let before = held();
        let mut child = shell("echo begun; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut text = String::new();
        assert!(with_timeout(SHORT * 4, || stdout.read_to_string(&mut text)).is_err());
        end(child);
        stdout.read_to_string(&mut text).unwrap();
        drop(stdout);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_killed_waiter_leaves_the_child_usable() {
    run("a_killed_waiter_leaves_the_child_usable", || {
        let before = held();
        let child = Rc::new(RefCell::new(sleeper()));
        let lent = Rc::clone(&child);
        let waiting = spawn(move || lent.borrow_mut().wait());
        yield_now();
        assert_eq!(waiting.kill(), KillOutcome::Ended);
        drop(waiting);
        assert_eq!(held(), before);
        assert_eq!(child.borrow_mut().try_wait().unwrap(), None);
        end(Rc::into_inner(child).unwrap().into_inner());
    });
}

#[test]
fn the_input_of_a_child_can_be_closed_twice() {
    run("the_input_of_a_child_can_be_closed_twice", || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.as_ref().unwrap();
        stdin.close();
        stdin.close();
        assert_eq!((&*stdin).write(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(child.wait().unwrap().success());
        assert!(child.stdin.is_none());
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn many_children_are_waited_for_at_once() {
    run("many_children_are_waited_for_at_once", || {
        let children: Vec<_> = (0..40)
            .map(|n| spawn(move || shell(&format!("sleep 0.0{}; exit {n}", n % 7)).status().unwrap().code()))
            .collect();
        for (n, child) in (0..).zip(children) {
            assert_eq!(child.join().unwrap(), Some(n));
        }
    });
}

/// Flags that query an ended child without reaping it.
fn flags_to_look() -> nix::sys::wait::WaitPidFlag {
    use nix::sys::wait::WaitPidFlag;
    WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT
}

#[test]
fn a_child_whose_last_waiter_is_killed_runs_on() {
    run("a_child_whose_last_waiter_is_killed_runs_on", || {
        let (begun, ended) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let mut command = shell("echo begun >&2; read line; echo $line >&2");
        command.stdin(begun.0).stdout(Stdio::piped()).stderr(ended.1);
        let waiting = spawn(move || command.output());
        let mut lines = BufReader::new(greenhub::io::PipeReader::from(ended.0));
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!((line.as_str(), waiting.kill()), ("begun\n", KillOutcome::Ended));
        let mut input = begun.1;
        input.write_all(b"still there\n").unwrap();
        line.clear();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "still there\n");
    });
}

/// Waits for children in every way, and checks that neither children nor descriptors are left behind.
fn children_are_reaped() {
    // Creates the descriptors that live as long as the hub, before the count.
    sleep(SHORT);
    let before = open_descriptors();
    for _ in 0..3 {
        let (go, gone) = greenhub::sync::mpsc::channel();
        let mut child = child_until(move || gone.recv().unwrap());
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        let waiting: Vec<_> = (0..5).map(|n| spawn(move || shell(&format!("exit {n}")).status().unwrap())).collect();
        go.send(()).unwrap();
        assert!(child.wait().unwrap().success());
        for (n, waiting) in (0..).zip(waiting) {
            assert_eq!(waiting.join().unwrap().code(), Some(n));
        }
        // The timeout drops the handle. The child ends when its input is closed.
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(with_timeout(SHORT, || shell("read line").stdin(reader).status()).is_err());
        end(sleeper());
    }
    // The three children whose waiters timed out are reaped as well.
    until_no_child_is_left();
    assert_eq!(open_descriptors(), before);
}

#[test]
fn children_leave_nothing_behind() {
    let name = "children_leave_nothing_behind";
    alone(name, children_are_reaped);
}

/// Returns whether this process has a child, running or a zombie.
fn has_children() -> bool {
    nix::sys::wait::waitid(nix::sys::wait::Id::All, flags_to_look()) != Err(nix::errno::Errno::ECHILD)
}

/// Waits until no child is left, without spawning another one.
fn until_no_child_is_left() {
    while has_children() {
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_orphan_that_ends_leaves_no_zombie() {
    let name = "an_orphan_that_ends_leaves_no_zombie";
    alone(name, || {
        for _ in 0..3 {
            let (reader, writer) = std::io::pipe().unwrap();
            let other = reader.try_clone().unwrap();
            let waiting = [
                spawn(move || drop(shell("read line").stdin(reader).status())),
                spawn(move || drop(shell("read line").stdin(other).output())),
                spawn(|| {
                    // The kill drops the handle, which is never waited for.
                    let _child = sleeper_until(1);
                    sleep(LONG);
                }),
            ];
            yield_now();
            for waiting in waiting {
                assert_eq!(waiting.kill(), KillOutcome::Ended);
            }
            sleep(SHORT);
            assert!(has_children());
            drop(writer);
            until_no_child_is_left();
        }
    });
}

/// Spawns a child that ends after `tenths` tenths of a second.
fn sleeper_until(tenths: u32) -> Child {
    Command::new("sleep").arg(format!("0.{tenths}")).spawn().unwrap()
}

#[test]
fn a_dropped_child_can_be_waited_for_by_its_pid() {
    run("a_dropped_child_can_be_waited_for_by_its_pid", || {
        let number = nix::unistd::Pid::from_raw(sleeper_until(0).id() as i32);
        sleep(SHORT);
        assert_eq!(nix::sys::wait::waitpid(number, None).unwrap().pid(), Some(number));
    });
}

#[test]
fn kills_at_random_points_leave_no_zombie() {
    let name = "kills_at_random_points_leave_no_zombie";
    alone(name, || {
        let mut random = Rng::with_seed(9);
        for round in 0..150 {
            let waiting: Vec<_> = (0..2)
                .map(|n| {
                    let limit = random.moment() * 20;
                    spawn(move || match (round + n) % 4 {
                        0 => drop(Command::new("true").status()),
                        1 => drop(shell("echo out").output()),
                        2 => drop(with_timeout(limit, || Command::new("true").output())),
                        _ => drop(with_timeout(limit, || Command::new("sleep").arg("0.002").status())),
                    })
                })
                .collect();
            match random.usize(..3) {
                0 => yield_now(),
                1 => sleep(random.moment() * 20),
                _ => {}
            }
            for waiting in waiting {
                waiting.kill();
            }
        }
        until_no_child_is_left();
    });
}

/// Lowers the descriptor limit and takes every free descriptor.
fn exhaust_descriptors() -> Vec<std::fs::File> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

#[test]
fn children_are_waited_for_without_free_descriptors() {
    let name = "children_are_waited_for_without_free_descriptors";
    alone(name, || {
        // Creates the hub.
        sleep(SHORT);
        let ticks = ticker();
        let mut short = child_until(several(&ticks));
        let mut long = sleeper();
        let killed = Command::new("sleep").arg("0.1").spawn().unwrap();
        let piped = shell("echo x; sleep 0.1").stdout(Stdio::piped()).spawn().unwrap();
        let taken = exhaust_descriptors();
        assert!(short.wait().unwrap().success());
        assert_eq!(long.wait_timeout(SHORT).unwrap(), None);
        assert!(with_timeout(SHORT, || long.wait()).is_err());
        assert_eq!(piped.wait_with_output().unwrap().stdout, b"x\n");
        let waiting = spawn(move || killed.wait_with_output());
        yield_now();
        waiting.kill();
        long.kill().unwrap();
        assert_eq!(long.wait().unwrap().signal(), Some(9));
        until_no_child_is_left();
        drop(taken);
    });
}

#[test]
fn children_are_waited_for_with_large_descriptor_numbers() {
    let name = "children_are_waited_for_with_large_descriptor_numbers";
    alone(name, || {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        sleep(SHORT);
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most.min(2048), most).unwrap();
        // The next number is above the limit of select(2).
        let _taken: Vec<_> = (0..1100).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
        let mut child = sleeper();
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        end(child);
        assert!(child_until(|| sleep(SHORT)).wait().unwrap().success());
    });
}

/// Makes a system call fail with ENOSYS in this process, as on an old kernel without it.
#[cfg(target_os = "linux")]
fn forget_call(number: libc::c_long) {
    let filter = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut program = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number as u32),
        filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `program` lives until the second call returns, and the kernel copies it.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(refused, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn children_are_reaped_without_pidfd() {
    let name = "children_are_reaped_without_pidfd";
    alone(name, || {
        forget_call(libc::SYS_pidfd_open);
        children_are_reaped();
        let time = || {
            let mut child = child_until(|| sleep(SHORT));
            let begun = Instant::now();
            assert!(child.wait().unwrap().success());
            begun.elapsed()
        };
        // The wait is ended by SIGCHLD, not by the fallback timer.
        assert!((0..20).map(|_| time()).min().unwrap() < Duration::from_millis(200));
        // Without the signal's handler, the fallback timer ends the wait.
        // SAFETY: `SIG_DFL` installs no handler function.
        unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl) }.unwrap();
        assert!(time() > Duration::from_millis(200));
    });
}

/// Forks while a green thread waits for a child, and checks that both processes continue.
fn fork_during_a_child_wait<T>(prepare: impl FnOnce() -> T) {
    use nix::unistd::Pid;
    let mut child = sleeper();
    let number = Pid::from_raw(child.id().try_into().unwrap());
    let prepared = Cell::new(Some(prepare()));
    let waiting = Cell::new(Some(spawn(move || child.wait())));
    // Lets the wait begin.
    (0..20).for_each(|_| sleep(Duration::from_millis(1)));
    ends_well(forked(|| {
        drop(prepared.take());
        // The child that is waited for belongs to the parent, so the wait fails.
        assert_eq!(waiting.take().unwrap().join().unwrap().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert!(Command::new("sleep").arg("0.05").status().unwrap().success());
        end(sleeper());
    }));
    let waiting = waiting.take().unwrap();
    assert!(!waiting.is_finished());
    nix::sys::signal::kill(number, nix::sys::signal::SIGKILL).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().signal(), Some(9));
    assert!(!has_children());
    drop(prepared.take());
}

#[cfg(target_os = "linux")]
#[test]
fn a_fork_during_a_child_wait_by_signal_disturbs_neither_process() {
    let name = "a_fork_during_a_child_wait_by_signal_disturbs_neither_process";
    alone(name, || fork_during_a_child_wait(|| forget_call(libc::SYS_pidfd_open)));
}

#[test]
fn a_fork_during_a_child_wait_without_descriptors_disturbs_neither_process() {
    let name = "a_fork_during_a_child_wait_without_descriptors_disturbs_neither_process";
    alone(name, || {
        // Creates the hub.
        sleep(SHORT);
        fork_during_a_child_wait(exhaust_descriptors);
    });
}

#[test]
fn waiting_for_a_child_reaped_elsewhere_is_an_error() {
    let name = "waiting_for_a_child_reaped_elsewhere_is_an_error";
    alone(name, || {
        // SAFETY: `SIG_IGN` installs no handler function.
        unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
        let error = Command::new("sleep").arg("0.02").status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    });
}

#[test]
fn a_child_is_ended_and_reaped_while_panicking() {
    run("a_child_is_ended_and_reaped_while_panicking", || {
        /// Waits for, kills and reaps its child in its destructor, and records the signal.
        struct Ends(Child, Rc<Cell<Option<i32>>>);
        impl Drop for Ends {
            fn drop(&mut self) {
                // The wait times out after the grace period.
                assert_eq!(self.0.wait().unwrap_err().kind(), ErrorKind::TimedOut);
                self.0.kill().unwrap();
                let status = std::iter::repeat_with(|| self.0.wait()).find_map(Result::ok);
                self.1.set(status.unwrap().signal());
            }
        }
        let found = Rc::new(Cell::new(None));
        let ends = Ends(sleeper(), Rc::clone(&found));
        let green = spawn(move || {
            let _ends = ends;
            quiet_panic(0)
        });
        assert!(green.join().is_err());
        assert_eq!(found.get(), Some(9));
    });
}

/// Kills and reaps its child in its destructor, where a switch is impossible.
struct EndsInDrop {
    child: Child,
    /// The child ends when this is closed, so none is left if the process aborts.
    _input: ChildStdin,
    /// Takes away the facilities of the wait. Called in the destructor, since the end of an OS thread frees
    /// descriptors.
    prepare: fn() -> Vec<std::fs::File>,
    /// The signal that ended the child.
    signal: Arc<AtomicI32>,
}

impl EndsInDrop {
    fn new(prepare: fn() -> Vec<std::fs::File>, signal: Arc<AtomicI32>) -> EndsInDrop {
        let mut command = Command::new("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        EndsInDrop { _input: child.stdin.take().unwrap(), child, prepare, signal }
    }
}

impl Drop for EndsInDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || greenhub::try_get_hub().is_err(), "the wait could have switched");
        let _prepared = (self.prepare)();
        // The child still runs, so the wait times out after the grace period.
        assert_eq!(self.child.wait().unwrap_err().kind(), ErrorKind::TimedOut);
        self.child.kill().unwrap();
        let status = std::iter::repeat_with(|| self.child.wait()).find_map(Result::ok);
        self.signal.store(status.unwrap().signal().unwrap_or(0), Ordering::SeqCst);
    }
}

/// Drops an `EndsInDrop` while a green thread unwinds and at the end of an OS thread, in a process of its own.
#[track_caller]
fn a_child_is_reaped_in_destructors(name: &str, prepare: fn() -> Vec<std::fs::File>) {
    thread_local!(static ENDS: RefCell<Option<EndsInDrop>> = const { RefCell::new(None) });
    alone(name, move || {
        let signal = Arc::new(AtomicI32::new(0));
        let to = signal.clone();
        let at_end = std::thread::spawn(move || {
            // Initialized before the library's thread-locals, so destroyed after them.
            ENDS.with(|_| ());
            yield_now();
            ENDS.set(Some(EndsInDrop::new(prepare, to)));
        });
        at_end.join().unwrap();
        assert_eq!(signal.swap(0, Ordering::SeqCst), 9, "at the end of an OS thread");

        let ends = EndsInDrop::new(prepare, signal.clone());
        let green = spawn(move || {
            let _ends = ends;
            quiet_panic(0)
        });
        assert!(green.join().is_err());
        assert_eq!(signal.load(Ordering::SeqCst), 9, "while panicking");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_child_is_reaped_in_destructors_without_pidfd() {
    a_child_is_reaped_in_destructors("a_child_is_reaped_in_destructors_without_pidfd", || {
        forget_call(libc::SYS_pidfd_open);
        Vec::new()
    });
}

#[test]
fn a_child_is_reaped_in_destructors_without_free_descriptors() {
    a_child_is_reaped_in_destructors("a_child_is_reaped_in_destructors_without_free_descriptors", exhaust_descriptors);
}

#[test]
fn a_child_of_std_is_waited_for_by_a_green_thread() {
    run("a_child_of_std_is_waited_for_by_a_green_thread", || {
        let mut command = shell("read line; echo $line");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::from_std(command.as_std_mut().spawn().unwrap()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        spawn(move || {
            sleep(SHORT);
            stdin.write_all(b"text\n").unwrap();
        });
        assert_eq!(child.wait_with_output().unwrap().stdout, b"text\n");
    });
}

#[test]
fn a_command_sets_its_process_group_and_arg0() {
    run("a_command_sets_its_process_group_and_arg0", || {
        let mut command = shell("echo $0; read line");
        command.arg0("another").process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let number = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        assert_eq!(nix::unistd::getpgid(Some(number)).unwrap(), number);
        assert_eq!(child.wait_with_output().unwrap().stdout, b"another\n");
    });
}

#[test]
fn exec_replaces_this_program() {
    let name = "exec_replaces_this_program";
    if !is_child() {
        let output = rerun(name, |_| {});
        assert_eq!(output.status.code(), Some(7));
        return;
    }
    run(name, || {
        // `exec` does not unwind the remaining green threads.
        spawn(|| sleep(LONG));
        yield_now();
        panic!("{}", shell("exit 7").exec());
    });
}
