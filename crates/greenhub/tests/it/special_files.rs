//! Pollable files of any type: opens of named pipes, and descriptors that the system provides.

use std::fs;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use crate::support::green::{LONG, SHORT, held};
use crate::support::run;
use greenhub::fs::{File, OpenOptions};
use greenhub::greenthread::KillOutcome;
use greenhub::os::unix::fs::OpenOptionsExt;
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, with_timeout};

/// More than the number of OS threads in any pool of the library.
const MANY: usize = 70;

/// A directory that is removed on drop.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("greenhub-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

/// Checks that the pool for file operations has a free OS thread.
fn files_are_served() {
    assert!(with_timeout(LONG, || greenhub::fs::metadata("/").unwrap().is_dir()).unwrap());
    let read = with_timeout(LONG, || greenhub::fs::read("/proc/self/cmdline").unwrap().len());
    assert!(read.unwrap() > 0);
}

#[test]
fn opens_of_named_pipes_do_not_block_file_operations() {
    run("opens_of_named_pipes_do_not_block_file_operations", || {
        let place = Place::new("opens");
        let path = place.fifo("fifo");
        let before = held();
        let opening: Vec<_> = (0..MANY)
            .map(|n| {
                let path = place.fifo(&n.to_string());
                let open = move || if n % 2 == 0 { File::open(path) } else { writing().open(path) };
                spawn(move || open().map(drop))
            })
            .collect();
        for _ in 0..MANY {
            assert!(with_timeout(SHORT / 10, || greenhub::fs::read(&path)).is_err());
        }
        files_are_served();
        for opening in opening {
            assert_eq!(opening.kill(), KillOutcome::Ended);
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn readers_and_then_writers_of_many_named_pipes_meet() {
    run("readers_and_then_writers_of_many_named_pipes_meet", || {
        let place = Place::new("many");
        let paths: Vec<_> = (0..MANY).map(|n| place.fifo(&n.to_string())).collect();
        let read = |path: PathBuf| spawn(move || greenhub::fs::read_to_string(path).unwrap());
        let write = |path: PathBuf| spawn(move || greenhub::fs::write(path, "hello").unwrap());
        let readers: Vec<_> = paths.iter().cloned().map(read).collect();
        sleep(SHORT);
        paths.iter().cloned().for_each(|path| drop(write(path)));
        readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), "hello"));
        // The writers first.
        let writers: Vec<_> = paths.iter().cloned().map(write).collect();
        sleep(SHORT);
        let readers: Vec<_> = paths.iter().cloned().map(read).collect();
        readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), "hello"));
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

/// Opens both ends of a named pipe, one green and one with std; `green_first` is the order.
fn open_with_std(place: &Place, green: OpenOptions, std: fs::OpenOptions, green_first: bool) -> (File, fs::File) {
    let path = place.fifo(&format!("{green_first}-{:?}", std::time::Instant::now()));
    let there = path.clone();
    let (go, gone) = mpsc::channel();
    let std = thread::spawn(move || {
        gone.recv().unwrap();
        std.open(there).unwrap()
    });
    if !green_first {
        go.send(()).unwrap();
        thread::sleep(SHORT);
    }
    let opening = spawn(move || green.open(path).unwrap());
    if green_first {
        for _ in 0..5 {
            sleep(SHORT);
            assert!(!opening.is_finished());
        }
        go.send(()).unwrap();
    }
    (opening.join().unwrap(), std.join().unwrap())
}

#[test]
fn opening_a_reader_ends_when_a_silent_writer_opens() {
    run("opening_a_reader_ends_when_a_silent_writer_opens", || {
        let place = Place::new("silent");
        for green_first in [true, false] {
            let (reading, writing) =
                (File::options().read(true).to_owned(), fs::File::options().write(true).to_owned());
            let (mut reader, mut writer) = open_with_std(&place, reading, writing, green_first);
            assert!(with_timeout(SHORT, || reader.read(&mut [0])).is_err());
            writer.write_all(b"x").unwrap();
            drop(writer);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"x");
        }
    });
}

#[test]
fn opening_a_writer_ends_when_a_reader_opens() {
    run("opening_a_writer_ends_when_a_reader_opens", || {
        let place = Place::new("writer");
        for green_first in [true, false] {
            let (writing, reading) = (writing(), fs::File::options().read(true).to_owned());
            let (mut writer, mut reader) = open_with_std(&place, writing, reading, green_first);
            writer.write_all(b"x").unwrap();
            drop(writer);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, b"x");
        }
    });
}

#[test]
fn opening_a_reader_ends_when_a_writer_has_opened_and_closed() {
    run("opening_a_reader_ends_when_a_writer_has_opened_and_closed", || {
        let place = Place::new("gone");
        let path = place.fifo("fifo");
        let opening = {
            let path = path.clone();
            spawn(move || File::open(path).unwrap())
        };
        // The green open counts as a reader for the system, so std's open of a writer waits for it only.
        thread::scope(|scope| {
            let writer = scope.spawn(|| drop(fs::File::options().write(true).open(&path).unwrap()));
            while !writer.is_finished() {
                sleep(SHORT / 10);
            }
        });
        assert_eq!(opening.join().unwrap().read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_nonblocking_open_of_a_named_pipe_behaves_as_in_std() {
    run("a_nonblocking_open_of_a_named_pipe_behaves_as_in_std", || {
        let place = Place::new("nonblocking");
        let path = place.fifo("fifo");
        let refused = writing().custom_flags(libc::O_NONBLOCK).open(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENXIO));
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        assert!(reader.metadata().unwrap().file_type().is_fifo());
        // Opening both directions does not wait; the other options are checked as in std.
        let mut both = File::options().read(true).write(true).open(&path).unwrap();
        both.write_all(b"x").unwrap();
        both.read_exact(&mut [0]).unwrap();
        assert_eq!(File::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(writing().create_new(true).open(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(File::options().read(true).truncate(true).open(&path).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_file_is_copied_to_a_named_pipe_and_not_from_it() {
    run("a_file_is_copied_to_a_named_pipe_and_not_from_it", || {
        let place = Place::new("copy");
        let (path, file) = (place.fifo("fifo"), place.0.join("file"));
        let data: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        fs::write(&file, &data).unwrap();
        let there = path.clone();
        let reading = spawn(move || greenhub::fs::read(there).unwrap());
        assert_eq!(greenhub::fs::copy(&file, &path).unwrap(), 300_000);
        assert!(reading.join().unwrap() == data);
        let there = path.clone();
        let writing = spawn(move || writing().open(there).map(drop));
        assert_eq!(greenhub::fs::copy(&path, &file).unwrap_err().kind(), ErrorKind::InvalidInput);
        writing.join().unwrap().unwrap();
    });
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    fn owned(fd: libc::c_int) -> OwnedFd {
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the callers have just received the descriptor from the system.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    fn eventfd() -> OwnedFd {
        // SAFETY: `eventfd` takes no pointers.
        owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
    }

    fn timerfd() -> OwnedFd {
        // SAFETY: `timerfd_create` takes no pointers.
        owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) })
    }

    fn inotify() -> OwnedFd {
        // SAFETY: `inotify_init1` takes no pointers.
        owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })
    }

    fn signalfd() -> OwnedFd {
        // SAFETY: `sigemptyset` initializes the set before the other calls read it.
        owned(unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGUSR2);
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
        })
    }

    #[test]
    fn idle_reads_of_special_files_end_at_once_on_an_exit() {
        run("linux::idle_reads_of_special_files_end_at_once_on_an_exit", || {
            for make in [eventfd, timerfd, inotify, signalfd] {
                let before = held();
                let file = Rc::new(File::from(make()));
                assert!(with_timeout(SHORT, || (&*file).read(&mut [0; 512])).is_err());
                let read = file.clone();
                let reading = spawn(move || (&*read).read(&mut [0; 512]));
                sleep(SHORT);
                assert_eq!(reading.kill(), KillOutcome::Ended);
                drop(reading);
                drop(file);
                assert_eq!(held(), before);
            }
        });
    }

    #[test]
    fn idle_reads_of_special_files_do_not_block_file_operations() {
        run("linux::idle_reads_of_special_files_do_not_block_file_operations", || {
            let reading: Vec<_> = (0..MANY)
                .map(|n| {
                    let mut file = File::from([eventfd, timerfd, inotify, signalfd][n % 4]());
                    spawn(move || file.read(&mut [0; 512]))
                })
                .collect();
            sleep(SHORT);
            files_are_served();
            for reading in reading {
                assert_eq!(reading.kill(), KillOutcome::Ended);
            }
        });
    }

    #[test]
    fn large_writes_to_eventfds_do_not_block_file_operations() {
        run("linux::large_writes_to_eventfds_do_not_block_file_operations", || {
            let counters: Vec<_> = (0..MANY).map(|_| File::from(eventfd())).collect();
            // A small write first, before any counter has an OS thread of its own.
            for mut counter in &counters {
                counter.write_all(&1_u64.to_ne_bytes()).unwrap();
            }
            let write = |counter: &File| {
                let mut counter = counter.try_clone().unwrap();
                spawn(move || counter.write(&(u64::MAX - 1).to_ne_bytes()))
            };
            let writing: Vec<_> = counters.iter().map(write).collect();
            sleep(SHORT);
            files_are_served();
            // Reads every counter before the joins: a write that waits for an OS thread proceeds only after others have
            // ended.
            for mut counter in &counters {
                counter.read_exact(&mut [0; 8]).unwrap();
            }
            for writing in writing {
                assert_eq!(writing.join().unwrap().unwrap(), 8);
            }
        });
    }

    #[test]
    fn special_files_report_their_events() {
        run("linux::special_files_report_their_events", || {
            let counter = File::from(eventfd());
            let (mut other, mut number) = (counter.try_clone().unwrap(), [0; 8]);
            let adding = spawn(move || other.write(&7_u64.to_ne_bytes()));
            (&counter).read_exact(&mut number).unwrap();
            assert_eq!(u64::from_ne_bytes(number), 7);
            adding.join().unwrap().unwrap();

            let timer = timerfd();
            let once = libc::itimerspec {
                it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 },
            };
            // SAFETY: the descriptor is open, the new setting is valid, and a null pointer asks for no old setting.
            assert_eq!(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &once, std::ptr::null_mut()) }, 0);
            File::from(timer).read_exact(&mut number).unwrap();
            assert_eq!(u64::from_ne_bytes(number), 1);

            let place = Place::new("watched");
            let watch = inotify();
            let path = std::ffi::CString::new(place.0.to_str().unwrap()).unwrap();
            // SAFETY: the descriptor is open, and the path ends with a zero.
            assert!(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) } >= 0);
            let mut watch = File::from(watch);
            let reading = spawn(move || watch.read(&mut [0; 512]).unwrap());
            yield_now();
            greenhub::fs::write(place.0.join("new"), "x").unwrap();
            assert!(reading.join().unwrap() > 0);
        });
    }

    #[test]
    fn files_of_proc_support_positions() {
        run("linux::files_of_proc_support_positions", || {
            // A pollable file that has positions as well.
            for path in ["/proc/self/mounts", "/proc/sys/kernel/hostname", "/proc/self/status"] {
                let mut file = File::open(path).unwrap();
                let mut first = String::new();
                file.read_to_string(&mut first).unwrap();
                file.rewind().unwrap();
                let mut again = String::new();
                file.read_to_string(&mut again).unwrap();
                assert!(!first.is_empty() && first.lines().next() == again.lines().next());
                let mut byte = [0];
                assert_eq!(file.read_at(&mut byte, 1).unwrap(), 1);
                assert_eq!(byte[0], first.as_bytes()[1]);
            }
        });
    }

    #[test]
    fn devices_are_read_and_written() {
        run("linux::devices_are_read_and_written", || {
            let full = File::options().write(true).open("/dev/full").unwrap().write(b"x").unwrap_err();
            assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
            let mut random = [0; 64];
            File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
            assert_ne!(random, [0; 64]);
            // A file made from a descriptor, as standard input may be.
            let mut zero = File::from(fs::File::open("/dev/zero").unwrap());
            zero.read_exact(&mut random).unwrap();
            assert_eq!(random, [0; 64]);
            let terminal = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
            assert!(with_timeout(SHORT, || (&terminal).read(&mut [0])).is_err());
        });
    }
}
