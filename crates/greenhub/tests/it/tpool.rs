//! Jobs on the OS threads of a pool.

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::process::Output;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{LONG, Log, SHORT, held};
#[cfg(target_os = "linux")]
use crate::support::open_descriptors;
use crate::support::random::{Moment, Rng};
use crate::support::{is_child, rerun, run};
use greenhub::debug::set_report_stream;
use greenhub::greenthread::KillOutcome;
use greenhub::net::{Resolver, SystemResolver};
use greenhub::thread::yield_now;
use greenhub::tpool::{JobError, Pool, execute, execute_scoped, kill_all, set_num_threads};
use greenhub::{GreenThread, sleep, spawn, with_timeout};

#[test]
fn a_job_runs_on_another_os_thread_and_only_its_caller_waits() {
    run("a_job_runs_on_another_os_thread_and_only_its_caller_waits", || {
        let ticks = Rc::new(Cell::new(0));
        let counted = ticks.clone();
        let ticker = spawn(move || {
            loop {
                counted.set(counted.get() + 1);
                yield_now();
            }
        });
        let (go, gone) = mpsc::channel();
        let waiting = spawn(move || {
            execute(move || {
                gone.recv().unwrap();
                std::thread::current().id()
            })
        });
        while ticks.get() < 100 {
            yield_now();
        }
        assert!(!waiting.is_finished());
        go.send(()).unwrap();
        assert_ne!(waiting.join().unwrap().unwrap(), std::thread::current().id());
        ticker.kill();
    });
}

#[test]
fn each_caller_gets_its_own_result_or_panic() {
    run("each_caller_gets_its_own_result_or_panic", || {
        let callers: Vec<_> = (0..1000_u32)
            .map(|n| {
                spawn(move || {
                    execute(move || if n % 10 == 3 { green::quiet_panic(n) } else { n }).map_err(|error| match error {
                        JobError::Panic(panic) => *panic.into_payload().downcast::<u32>().unwrap(),
                        other => panic!("{other}"),
                    })
                })
            })
            .collect();
        for (n, caller) in (0..).zip(callers) {
            match caller.join().unwrap() {
                Ok(result) => assert_eq!((result, n % 10 == 3), (n, false)),
                Err(payload) => assert_eq!((payload, n % 10), (n, 3)),
            }
        }
        // An `Err` returned by the job is a result.
        let result = execute(|| Err::<u32, _>(io::Error::other("a result"))).unwrap();
        assert_eq!(result.unwrap_err().to_string(), "a result");
    });
}

#[test]
fn a_caller_that_times_out_continues_and_the_job_still_ends() {
    run("a_caller_that_times_out_continues_and_the_job_still_ends", || {
        let before = held();
        let ended = Arc::new(AtomicUsize::new(0));
        let job = |ended: &Arc<AtomicUsize>| {
            let ended = ended.clone();
            let (go, gone) = mpsc::channel::<()>();
            let job = move || {
                let _ = gone.recv();
                ended.fetch_add(1, Ordering::SeqCst);
            };
            (go, job)
        };
        let (go, timed) = job(&ended);
        assert!(with_timeout(SHORT, || execute(timed)).is_err());
        let (go_too, killed) = job(&ended);
        let killed = spawn(move || execute(killed));
        yield_now();
        assert_eq!(killed.kill(), KillOutcome::Ended);
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        drop((go, go_too));
        while ended.load(Ordering::SeqCst) < 2 {
            sleep(SHORT);
        }
        assert_eq!(execute(|| "usable").unwrap(), "usable");
        drop(killed);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_job_started_by_a_job_runs_in_place() {
    run("a_job_started_by_a_job_runs_in_place", || {
        let here = || std::thread::current().id();
        let (outer, inner, borrowed) =
            execute(move || (here(), execute(here).unwrap(), execute_scoped(here).unwrap())).unwrap();
        assert_eq!((outer, outer), (inner, borrowed));
    });
}

#[test]
fn the_error_of_a_job_converts_to_a_boxed_error_and_to_an_io_error() {
    run("the_error_of_a_job_converts_to_a_boxed_error_and_to_an_io_error", || {
        fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            // The payload itself is not `Sync`.
            Ok(execute(|| -> () { green::quiet_panic(std::cell::Cell::new(7_u32)) })?)
        }
        fn io() -> std::io::Result<()> {
            Ok(execute(|| -> () { green::quiet_panic(std::cell::Cell::new(8_u32)) })?)
        }
        let payload = |error: JobError| match error {
            JobError::Panic(panic) => panic.into_payload().downcast::<std::cell::Cell<u32>>().unwrap().get(),
            other => panic!("{other}"),
        };
        let error = std::thread::spawn(|| boxed().unwrap_err()).join().unwrap();
        assert_eq!(error.to_string(), "the job panicked: a payload that is not text");
        assert_eq!(payload(*error.downcast().unwrap()), 7);
        let error = io().unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (std::io::ErrorKind::Other, "the job panicked: a payload that is not text")
        );
        assert_eq!(payload(*error.into_inner().unwrap().downcast().unwrap()), 8);
    });
}

#[test]
fn nothing_of_a_job_is_kept_after_it_is_delivered() {
    run("nothing_of_a_job_is_kept_after_it_is_delivered", || {
        let argument = Arc::new(());
        let kept = argument.clone();
        let result = execute(move || kept).unwrap();
        drop(result);
        let kept = argument.clone();
        let panicked = execute(move || -> () { green::quiet_panic(kept) });
        assert!(matches!(panicked, Err(JobError::Panic(_))));
        drop(panicked);
        let borrowed = &argument;
        execute_scoped(|| drop(Arc::clone(borrowed))).unwrap();
        // The pool drops the closure shortly after it has reported the end of the job.
        let begin = Instant::now();
        while Arc::strong_count(&argument) > 1 {
            assert!(begin.elapsed() < LONG);
            sleep(SHORT);
        }
        assert_eq!(Arc::strong_count(&argument), 1);
    });
}

#[test]
fn results_go_to_the_hub_of_the_caller() {
    run("results_go_to_the_hub_of_the_caller", || {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                std::thread::spawn(move || {
                    let jobs: Vec<_> = (0..100).map(|i| spawn(move || execute(move || (n, i)).unwrap())).collect();
                    for (i, job) in jobs.into_iter().enumerate() {
                        assert_eq!(job.join().unwrap(), (n, i));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn many_results_are_absorbed_by_few_waits() {
    run("many_results_are_absorbed_by_few_waits", || {
        let done = Arc::new(AtomicUsize::new(0));
        let jobs: Vec<_> = (0..1000)
            .map(|n| {
                let done = done.clone();
                spawn(move || {
                    execute(move || {
                        done.fetch_add(1, Ordering::SeqCst);
                        n
                    })
                })
            })
            .collect();
        yield_now();
        // All jobs are done before this hub polls.
        while done.load(Ordering::SeqCst) < 1000 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(SHORT);
        let turns = greenhub::get_hub().stats().turns;
        for (n, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.join().unwrap().unwrap(), n);
        }
        let turns = greenhub::get_hub().stats().turns - turns;
        assert!(turns < 500, "{turns} turns");
    });
}

#[test]
fn a_kill_waits_for_a_borrowing_job() {
    run("a_kill_waits_for_a_borrowing_job", || {
        let (log, before) = (Log::new(), held());
        let (go, gone) = mpsc::channel::<()>();
        let seen = log.clone();
        let green = spawn(move || {
            let _unwound = seen.on_drop("unwound");
            let mut words = vec![String::from("borrowed")];
            let gone = std::sync::Mutex::new(gone);
            let result = execute_scoped(|| {
                let _ = gone.lock().unwrap().recv();
                words.push(String::from("changed"));
            });
            seen.add("went on");
            drop((result, words));
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        sleep(SHORT);
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        log.is(&[]);
        drop(go);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["went on", "unwound"]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_timeout_waits_for_a_borrowing_job() {
    run("a_timeout_waits_for_a_borrowing_job", || {
        let before = held();
        let over = AtomicBool::new(false);
        let (go, gone) = mpsc::channel::<()>();
        let timed = with_timeout(SHORT, || {
            // Due after the timeout, so the loop fires the timeout first, even in a late turn.
            spawn(move || {
                sleep(SHORT * 4);
                drop(go);
            });
            let (gone, over) = (gone, &over);
            let result = execute_scoped(move || {
                let _ = gone.recv();
                over.store(true, Ordering::SeqCst);
            });
            assert!(result.is_ok(), "the result of the job was lost");
            sleep(LONG);
        });
        assert!(timed.is_err());
        assert!(over.load(Ordering::SeqCst));
        let mut numbers = [3, 1, 2];
        let least = execute_scoped(|| {
            numbers.sort_unstable();
            &numbers[0]
        });
        assert_eq!(least.unwrap(), &1);
        let panicked = execute_scoped(|| -> () { green::quiet_panic(numbers.len()) });
        assert!(
            matches!(panicked, Err(JobError::Panic(panic)) if panic.clone().into_payload().downcast_ref() == Some(&3_usize))
        );
        assert_eq!(held(), before);
    });
}

#[test]
fn scoped_jobs_are_right_under_random_kills_and_timeouts() {
    run("scoped_jobs_are_right_under_random_kills_and_timeouts", || {
        for seed in 0..4 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let callers: Vec<_> = (0..60)
                .map(|n| {
                    let mut random = random.fork();
                    spawn(move || {
                        let (mut sum, mut jobs) = (Box::new(n), 0);
                        for _ in 0..6 {
                            let (done, begun, delay) = (Cell::new(false), Cell::new(false), random.moment());
                            let timed = with_timeout(random.moment(), || {
                                let count = || {
                                    std::thread::sleep(delay / 4);
                                    *sum += 1;
                                };
                                begun.set(true);
                                execute_scoped(count).unwrap();
                                done.set(true);
                            });
                            assert_eq!(timed.is_ok(), done.get());
                            // The job has run to its end, even after a timeout, or has not begun.
                            let ran = *sum - n - jobs;
                            assert!(ran == 1 || ran == 0 && timed.is_err() && begun.get(), "{ran}");
                            jobs += ran;
                        }
                    })
                })
                .collect();
            for _ in 0..20 {
                sleep(random.moment());
                callers[random.usize(..60)].kill();
            }
            for caller in callers {
                if let Err(error) = caller.join() {
                    assert!(error.is_kill(), "seed {seed}: {error}");
                }
            }
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

/// The counters of one job.
#[derive(Default)]
struct Job {
    /// The number of times that the job began.
    began: AtomicUsize,
    /// The number of times that the job ran to its end.
    ran: AtomicUsize,
    /// The number of times that its result was dropped.
    dropped: AtomicUsize,
}

struct Outcome(Arc<Job>);

impl Drop for Outcome {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runs a job under kills and timeouts, and checks its result. Returns false if the job panicked.
fn one_job(job: &Arc<Job>, random: &mut Rng) -> bool {
    let (panics, delay) = (random.usize(..4) == 0, random.moment());
    let own = job.clone();
    let work = move || {
        own.began.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(delay);
        own.ran.fetch_add(1, Ordering::SeqCst);
        if panics {
            green::quiet_panic(Outcome(own));
        }
        Outcome(own)
    };
    let outcome = match execute(work) {
        Ok(outcome) => outcome,
        Err(JobError::Panic(panic)) => *panic.into_payload().downcast::<Outcome>().unwrap(),
        Err(error) => panic!("{error}"),
    };
    assert!(Arc::ptr_eq(&outcome.0, job));
    assert_eq!((job.ran.load(Ordering::SeqCst), job.dropped.load(Ordering::SeqCst)), (1, 0));
    !panics
}

#[test]
fn jobs_run_once_and_results_are_dropped_once_under_random_kills_and_timeouts() {
    run("jobs_run_once_and_results_are_dropped_once_under_random_kills_and_timeouts", || {
        for seed in 0..6 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let jobs: Vec<_> = (0..100).map(|_| Arc::new(Job::default())).collect();
            let done = Rc::new(Cell::new(0));
            let callers: Vec<_> = jobs
                .chunks(5)
                .map(|jobs| {
                    let (jobs, mut random, done) = (jobs.to_vec(), random.fork(), done.clone());
                    spawn(move || {
                        for job in &jobs {
                            let limit = Some(random.moment() * 2).filter(|_| random.usize(..2) == 0);
                            if with_timeout(limit, || one_job(job, &mut random)).is_ok() {
                                done.set(done.get() + 1);
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..8 {
                sleep(random.moment());
                callers[random.usize(..20)].kill();
            }
            for caller in callers {
                if let Err(error) = caller.join() {
                    assert!(error.is_kill(), "seed {seed}: {error}");
                }
            }
            // A job without a waiting caller continues.
            let begin = Instant::now();
            while jobs.iter().any(|job| Arc::strong_count(job) > 1) {
                assert!(begin.elapsed() < Duration::from_secs(60), "seed {seed}: a job is kept");
                sleep(SHORT);
            }
            let mut all = 0;
            for job in jobs {
                let job = Arc::into_inner(job).expect("the last reference");
                let (began, ran) = (job.began.into_inner(), job.ran.into_inner());
                assert!(began <= 1, "seed {seed}: it ran {began} times");
                assert_eq!((began, began), (ran, job.dropped.into_inner()), "seed {seed}");
                all += ran;
            }
            assert!((done.get()..=100).contains(&all), "seed {seed}: {all} ran, {} were waited for", done.get());
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

#[test]
fn a_shutdown_waits_for_borrowing_jobs() {
    let (over, unwound) = (AtomicBool::new(false), AtomicBool::new(false));
    let (over, unwound): (&'static AtomicBool, &'static AtomicBool) =
        (Box::leak(over.into()), Box::leak(unwound.into()));
    greenhub::thread::os::spawn(move || {
        let _detached = spawn(move || {
            let _unwound = green::OnDrop(move || {
                assert!(over.load(Ordering::SeqCst));
                unwound.store(true, Ordering::SeqCst);
            });
            let word = String::from("borrowed");
            let _ = execute_scoped(|| {
                std::thread::sleep(SHORT * 4);
                assert_eq!(word, "borrowed");
                over.store(true, Ordering::SeqCst);
            });
            unreachable!("the thread is ending");
        });
        yield_now();
    })
    .join()
    .unwrap();
    assert!(unwound.load(Ordering::SeqCst));
}

/// Runs a test of this program in a new process, with the pool size in the environment.
fn with_size(test: &str, size: &str) -> Output {
    rerun(test, |command| {
        command.env("EVENTLET_THREADPOOL_SIZE", size);
    })
}

/// Returns the highest number of jobs that run at once.
fn most_at_once(jobs: usize) -> usize {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let jobs: Vec<_> = (0..jobs)
        .map(|_| {
            let (now, most) = (now.clone(), most.clone());
            spawn(move || {
                execute(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(SHORT * 4);
                    now.fetch_sub(1, Ordering::SeqCst);
                })
            })
        })
        .collect();
    jobs.into_iter().for_each(|job| job.join().unwrap().unwrap());
    most.load(Ordering::SeqCst)
}

#[test]
fn the_pool_has_twenty_threads_or_the_size_in_the_environment() {
    const NAME: &str = "the_pool_has_twenty_threads_or_the_size_in_the_environment";
    if !is_child() {
        let output = rerun(NAME, |command| {
            command.env_remove("EVENTLET_THREADPOOL_SIZE");
        });
        assert!(output.status.success(), "{output:?}");
        let output = with_size(NAME, "40");
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let size = std::env::var("EVENTLET_THREADPOOL_SIZE").map_or(20, |size| size.parse().unwrap());
    // As many jobs as the pool has OS threads wait for each other.
    let together = Arc::new(Barrier::new(size));
    let jobs: Vec<_> = (0..size)
        .map(|_| {
            let together = together.clone();
            spawn(move || execute(move || together.wait().is_leader()).unwrap())
        })
        .collect();
    assert_eq!(jobs.into_iter().filter_map(|job| job.join().ok().filter(|leader| *leader)).count(), 1);
    assert!(most_at_once(size * 2) <= size);
}

#[test]
fn an_invalid_size_is_an_error_before_any_job_runs() {
    const NAME: &str = "an_invalid_size_is_an_error_before_any_job_runs";
    if !is_child() {
        for wrong in ["-1", "many"] {
            let output = with_size(NAME, wrong);
            assert!(output.status.success(), "{output:?}");
        }
        return;
    }
    for error in [execute(|| unreachable!()).unwrap_err(), execute_scoped(|| unreachable!()).unwrap_err()] {
        assert!(error.to_string().contains("EVENTLET_THREADPOOL_SIZE"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
    // File operations and name lookups have pools of their own.
    use_files_and_names();
    // The refused job has posted no wake-up.
    let begin = Instant::now();
    sleep(SHORT);
    assert!(begin.elapsed() >= SHORT);
    set_num_threads(NonZeroUsize::MIN);
    assert_eq!(execute(|| 1).unwrap(), 1);
}

/// Queries a file and looks up a name.
fn use_files_and_names() {
    let file = with_timeout(LONG, || greenhub::fs::metadata("/").unwrap().is_dir());
    assert!(file.unwrap());
    // The system resolver caches nothing.
    let name = with_timeout(LONG, || SystemResolver.resolve("localhost").unwrap().len());
    assert!(name.unwrap() > 0);
}

/// Collects the reports of this process from now on.
fn reported() -> Arc<Mutex<Vec<String>>> {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let kept = reports.clone();
    set_report_stream(move |report| kept.lock().unwrap().push(report.to_string()));
    reports
}

#[test]
fn a_size_of_zero_runs_jobs_in_place_and_warns_once() {
    const NAME: &str = "a_size_of_zero_runs_jobs_in_place_and_warns_once";
    if !is_child() {
        let output = with_size(NAME, "0");
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let reports = reported();
    let here = std::thread::current().id();
    for _ in 0..3 {
        assert_eq!(execute(|| std::thread::current().id()).unwrap(), here);
        assert_eq!(execute_scoped(|| std::thread::current().id()).unwrap(), here);
    }
    assert!(
        matches!(execute(|| green::quiet_panic(7)), Err(JobError::Panic(panic)) if panic.clone().into_payload().is::<i32>())
    );
    use_files_and_names();
    let reports = reports.lock().unwrap();
    assert!(matches!(&reports[..], [one] if one.contains("EVENTLET_THREADPOOL_SIZE")), "{reports:?}");
}

/// Starts jobs that occupy the default pool until the senders are dropped.
fn fill_the_default_pool() -> (Vec<mpsc::Sender<()>>, Vec<GreenThread<()>>) {
    (0..20)
        .map(|_| {
            let (started, starts) = mpsc::channel();
            let (hold, held) = mpsc::channel::<()>();
            let job = move || {
                started.send(()).unwrap();
                let _ = held.recv();
            };
            let job = spawn(move || execute(job).unwrap());
            yield_now();
            starts.recv().unwrap();
            (hold, job)
        })
        .unzip()
}

#[test]
fn jobs_do_not_block_files_names_and_other_pools() {
    const NAME: &str = "jobs_do_not_block_files_names_and_other_pools";
    if !is_child() {
        let output = rerun(NAME, |command| {
            command.env_remove("EVENTLET_THREADPOOL_SIZE");
        });
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let (hold, jobs) = fill_the_default_pool();
    assert!(with_timeout(SHORT, || execute(|| ())).is_err());
    use_files_and_names();
    let own = Pool::new(1);
    assert_eq!(with_timeout(LONG, || own.execute(|| 1).unwrap()).unwrap(), 1);
    drop(hold);
    jobs.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn jobs_queued_for_a_second_are_reported_once() {
    const NAME: &str = "jobs_queued_for_a_second_are_reported_once";
    if !is_child() {
        let output = rerun(NAME, |_| ());
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let reports = reported();
    let pool = Rc::new(Pool::new(1));
    let (hold, held) = mpsc::channel::<()>();
    let job = |job: Box<dyn FnOnce() + Send>| {
        let pool = pool.clone();
        spawn(move || pool.execute(job).unwrap())
    };
    let begun = Instant::now();
    let busy = job(Box::new(move || _ = held.recv()));
    yield_now();
    let waiting = [job(Box::new(|| ())), job(Box::new(|| ())), job(Box::new(|| ()))];
    let waited = |text: &str| match text.split_once(' ') {
        Some(("a", _)) => 1,
        Some((jobs, _)) => jobs.parse::<usize>().unwrap(),
        None => panic!("{text}"),
    };
    // In one report or in several, but each job once.
    while reports.lock().unwrap().iter().map(|text| waited(text)).sum::<usize>() < 3 {
        sleep(SHORT);
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(reports.lock().unwrap().iter().all(|text| text.contains("one of the 1 OS threads of greenhub-own")));
    sleep(Duration::from_millis(1500));
    assert_eq!(reports.lock().unwrap().iter().map(|text| waited(text)).sum::<usize>(), 3);
    drop(hold);
    busy.join().unwrap();
    waiting.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
#[cfg(target_os = "linux")]
fn an_own_pool_respects_its_size_and_ends_its_threads_on_drop() {
    const NAME: &str = "an_own_pool_respects_its_size_and_ends_its_threads_on_drop";
    if !is_child() {
        let output = rerun(NAME, |_| ());
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let pool = Rc::new(Pool::new(3));
    let jobs: Vec<_> = (0..12)
        .map(|n| {
            let pool = pool.clone();
            spawn(move || {
                let mut doubled = 0;
                pool.execute_scoped(|| doubled = n * 2).unwrap();
                pool.execute(move || std::thread::sleep(SHORT)).unwrap();
                doubled
            })
        })
        .collect();
    let mut most = 0;
    while !jobs.iter().all(GreenThread::is_finished) {
        most = most.max(threads_named("greenhub-own"));
        sleep(Duration::from_millis(1));
    }
    // The fourth OS thread reports late jobs.
    assert!((1..=4).contains(&most), "{most}");
    assert_eq!(jobs.into_iter().map(|job| job.join().unwrap()).sum::<i32>(), (0..12).sum::<i32>() * 2);
    let (hold, held) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    for _ in 0..3 {
        let _ = pool.start(|| ());
    }
    pool.start(move || {
        let _ = held.recv();
        done.send(()).unwrap();
    })
    .unwrap();
    drop(pool);
    // A started job is completed despite the drop of its pool.
    drop(hold);
    is_done.recv().unwrap();
    while threads_named("greenhub-own") > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_new_number_of_threads_applies_to_the_next_job() {
    const NAME: &str = "a_new_number_of_threads_applies_to_the_next_job";
    if !is_child() {
        let output = rerun(NAME, |_| ());
        assert!(output.status.success(), "{output:?}");
        return;
    }
    set_num_threads(NonZeroUsize::new(2).unwrap());
    assert!(most_at_once(6) <= 2);
    let five = 5;
    set_num_threads(NonZeroUsize::new(five).unwrap());
    let together = Arc::new(Barrier::new(five));
    let jobs: Vec<_> = (0..five)
        .map(|_| {
            let together = together.clone();
            spawn(move || execute(move || together.wait().is_leader()).unwrap())
        })
        .collect();
    assert_eq!(jobs.into_iter().filter_map(|job| job.join().ok().filter(|leader| *leader)).count(), 1);
}

/// Returns the number of OS threads in the default pool.
#[cfg(target_os = "linux")]
fn pool_threads() -> usize {
    threads_named("greenhub-pool")
}

/// Returns the number of OS threads whose name begins with `begin`.
#[cfg(target_os = "linux")]
fn threads_named(begin: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(begin)).count()
}

#[test]
#[cfg(target_os = "linux")]
fn kill_all_ends_the_threads_and_the_next_job_restarts_them() {
    const NAME: &str = "kill_all_ends_the_threads_and_the_next_job_restarts_them";
    if !is_child() {
        let output = rerun(NAME, |_| ());
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let begin = Instant::now();
        assert!(most_at_once(4) > 0);
        assert!(pool_threads() > 0);
        // The busy OS thread ends after its job.
        let (go, gone) = mpsc::channel::<()>();
        let busy = spawn(move || execute(move || gone.recv().is_err()).unwrap());
        while pool_threads() > 1 {
            yield_now();
            kill_all();
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(go);
        assert!(busy.join().unwrap());
        while pool_threads() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        shortest = shortest.min(begin.elapsed());
    }
    // The idle timeout of ten seconds would take longer.
    assert!(shortest < Duration::from_secs(9));
}

#[test]
#[cfg(target_os = "linux")]
fn a_pool_thread_ends_with_the_hub_that_a_job_created() {
    const NAME: &str = "a_pool_thread_ends_with_the_hub_that_a_job_created";
    if !is_child() {
        let output = rerun(NAME, |_| ());
        assert!(output.status.success(), "{output:?}");
        return;
    }
    assert!(!execute(greenhub::hub::has_hub).unwrap());
    let before = open_descriptors();
    let with_hub = || {
        sleep(SHORT);
        (greenhub::hub::has_hub(), open_descriptors())
    };
    let (has_hub, meanwhile) = execute(with_hub).unwrap();
    assert!(has_hub && meanwhile > before);
    kill_all();
    while pool_threads() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_descriptors(), before);
}

#[test]
fn the_end_of_the_program_does_not_wait_for_jobs() {
    const NAME: &str = "the_end_of_the_program_does_not_wait_for_jobs";
    if !is_child() {
        let begin = Instant::now();
        let output = rerun(NAME, |_| ());
        assert!(output.status.success(), "{output:?}");
        assert!(begin.elapsed() < LONG);
        return;
    }
    let (started, starts) = mpsc::channel();
    drop(spawn(move || {
        execute(move || {
            started.send(()).unwrap();
            std::thread::sleep(LONG);
        })
    }));
    yield_now();
    starts.recv().unwrap();
    kill_all();
}
