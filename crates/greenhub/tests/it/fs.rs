//! Files and directories: the same results as std, and no wait blocks other green threads.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::green::{SHORT, held, ticker};
use crate::support::random::Rng;
use crate::support::{alone, open_descriptors, run};
use greenhub::fs::{File, OpenOptions, read_dir};
use greenhub::greenthread::KillOutcome;
use greenhub::park::trampoline_raw;
use greenhub::thread::yield_now;
use greenhub::{Interest, TrampolineError, get_hub, sleep, spawn, with_timeout};

/// A directory for one test, removed on drop.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("greenhub-fs-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns a named pipe.
    fn fifo(&self) -> PathBuf {
        let path = self.at("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns a file of std with these contents, open for reading and writing.
fn file_of(path: &Path, contents: &[u8]) -> std::fs::File {
    std::fs::write(path, contents).unwrap();
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

same_as_std! {
    fn files_open_in_every_mode() {
        let place = Place::new();
        let path = place.at("file");
        let contents = || String::from_utf8(fs::read(&path).unwrap()).unwrap();
        // r, without the file
        assert_eq!(fs::File::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::OpenOptions::new().write(true).open(&path).unwrap_err().kind(), ErrorKind::NotFound);
        // w
        fs::File::create(&path).unwrap().write_all(b"0123456789").unwrap();
        fs::File::create(&path).unwrap().write_all(b"01234").unwrap();
        assert_eq!(contents(), "01234");
        // a
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(b"5").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"6").unwrap();
        assert!(file.read(&mut [0]).is_err());
        assert_eq!(contents(), "0123456");
        // r+
        let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all(b"ab").unwrap();
        let mut rest = String::from("> ");
        assert_eq!(file.read_to_string(&mut rest).unwrap(), 5);
        assert_eq!((rest.as_str(), contents().as_str()), ("> 23456", "ab23456"));
        // w+
        let mut file = fs::OpenOptions::new().read(true).write(true).truncate(true).open(&path).unwrap();
        assert_eq!(file.read(&mut [0]).unwrap(), 0);
        // a+
        let mut file = fs::OpenOptions::new().read(true).append(true).open(&path).unwrap();
        file.write_all(b"xyz").unwrap();
        file.rewind().unwrap();
        let mut all = vec![0];
        assert_eq!(file.read_to_end(&mut all).unwrap(), 3);
        assert_eq!(all, b"\0xyz");
        // x
        assert_eq!(fs::File::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        fs::File::create_new(place.at("new")).unwrap().write_all(b"x").unwrap();
        // r
        assert!(fs::File::open(&path).unwrap().write(b"x").is_err());
        assert_eq!(fs::OpenOptions::new().open(&path).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn files_seek_and_truncate() {
        let place = Place::new();
        let path = place.at("file");
        let mut file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(file.stream_position().unwrap(), 10);
        assert_eq!(file.seek(SeekFrom::End(-4)).unwrap(), 6);
        assert_eq!(file.seek(SeekFrom::Current(-1)).unwrap(), 5);
        assert_eq!(file.seek(SeekFrom::Current(-6)).unwrap_err().kind(), ErrorKind::InvalidInput);
        let mut two = [0; 2];
        file.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"56");
        file.set_len(3).unwrap();
        assert_eq!(file.read(&mut two).unwrap(), 0);
        file.set_len(5).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"012\0\0");
        assert_eq!(file.metadata().unwrap().len(), 5);
        // Positioned reads and writes keep the position of the file.
        file.write_all_at(b"xy", 1).unwrap();
        file.read_exact_at(&mut two, 2).unwrap();
        assert_eq!((&two, file.stream_position().unwrap()), (b"y\0", 7));
        let mut clone = file.try_clone().unwrap();
        clone.rewind().unwrap();
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "0xy\0\0");
    }

    fn invalid_contents_and_paths_are_errors() {
        let place = Place::new();
        let path = place.at("file");
        fs::write(&path, b"a\xff").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        let mut text = String::from("before");
        let error = fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap_err();
        assert_eq!((error.kind(), text.as_str()), (ErrorKind::InvalidData, "before"));
        let mut directory = fs::File::open(&place.0).unwrap();
        assert_eq!(directory.read(&mut [0]).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(fs::read("a\0b").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn files_are_copied_renamed_linked_and_removed() {
        let place = Place::new();
        let (one, two, three) = (place.at("1"), place.at("2"), place.at("3"));
        fs::write(&one, "contents").unwrap();
        fs::set_permissions(&one, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(fs::copy(&one, &two).unwrap(), 8);
        assert_eq!(fs::metadata(&two).unwrap().permissions().mode() & 0o777, 0o640);
        fs::hard_link(&one, &three).unwrap();
        assert_eq!(fs::metadata(&one).unwrap().nlink(), 2);
        fs::rename(&three, &two).unwrap();
        assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&two).unwrap().ino());
        std::os::unix::fs::symlink("1", &three).unwrap();
        assert_eq!(fs::read_link(&three).unwrap(), Path::new("1"));
        assert!(fs::symlink_metadata(&three).unwrap().is_symlink() && fs::metadata(&three).unwrap().is_file());
        assert_eq!(fs::canonicalize(&three).unwrap(), fs::canonicalize(&one).unwrap());
        for path in [&one, &two, &three] {
            fs::remove_file(path).unwrap();
            assert!(!fs::exists(path).unwrap());
        }
        assert_eq!(fs::remove_file(&one).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::copy(&one, &two).unwrap_err().kind(), ErrorKind::NotFound);
    }

    fn permissions_and_times_of_a_file_are_changed() {
        let place = Place::new();
        let path = place.at("file");
        let file = fs::File::create(&path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_modified(time).unwrap();
        let known = file.metadata().unwrap();
        assert_eq!((known.permissions().mode() & 0o777, known.modified().unwrap()), (0o600, time));
        file.set_times(std::fs::FileTimes::new().set_accessed(time)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), time);
    }

    fn directories_are_made_listed_and_removed() {
        let place = Place::new();
        let deep = place.at("a/b/c");
        assert_eq!(fs::create_dir(&deep).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(fs::create_dir(&deep).unwrap_err().kind(), ErrorKind::AlreadyExists);
        fs::DirBuilder::new().recursive(true).create(place.at("d/e")).unwrap();
        // More entries than one system call returns.
        for n in 0..700 {
            std::fs::write(deep.join(n.to_string()), "").unwrap();
        }
        std::os::unix::fs::symlink("0", deep.join("link")).unwrap();
        let mut seen = Vec::new();
        for entry in fs::read_dir(&deep).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.path(), deep.join(entry.file_name()));
            assert_eq!(entry.file_type().unwrap().is_symlink(), entry.file_name() == "link");
            assert_eq!(entry.metadata().unwrap().is_symlink(), entry.file_name() == "link");
            seen.push(entry.file_name().into_string().unwrap());
        }
        seen.sort_by_key(|name| name.parse().unwrap_or(u32::MAX));
        let expected: Vec<_> = (0..700).map(|n: u32| n.to_string()).chain(["link".to_owned()]).collect();
        assert_eq!(seen, expected);
        assert_eq!(fs::read_dir(place.at("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::read_dir(place.at("d/e")).unwrap().count(), 0);
        assert_eq!(fs::remove_dir(place.at("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        fs::remove_dir_all(place.at("a")).unwrap();
        fs::remove_dir(place.at("d/e")).unwrap();
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    }

    fn a_large_file_goes_through_buffers() {
        let place = Place::new();
        let path = place.at("file");
        let mut writer = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        for n in 0..200_000 {
            writeln!(writer, "line {n}").unwrap();
        }
        writer.into_inner().unwrap().sync_data().unwrap();
        let reader = BufReader::with_capacity(64 * 1024, fs::File::open(&path).unwrap());
        let mut n = 0;
        for line in reader.lines() {
            assert_eq!(line.unwrap(), format!("line {n}"));
            n += 1;
        }
        assert_eq!(n, 200_000);
        let mut large = vec![7; 5 << 20];
        fs::write(&path, &large).unwrap();
        fs::File::open(&path).unwrap().read_exact(&mut large[1..]).unwrap();
        assert!(fs::read(&path).unwrap() == large);
    }

    fn a_named_pipe_waits_for_its_other_side() {
        let place = Place::new();
        let path = place.fifo();
        let there = path.clone();
        let reader = thread::spawn(move || fs::read_to_string(there).unwrap());
        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"some ").unwrap();
        thread::sleep(Duration::from_millis(5));
        writer.write_all(b"text").unwrap();
        assert!(writer.stream_position().is_err());
        drop(writer);
        assert_eq!(reader.join().unwrap(), "some text");
    }
}

#[test]
fn files_that_no_hub_can_wait_for_are_read_and_written() {
    run("files_that_no_hub_can_wait_for_are_read_and_written", || {
        let place = Place::new();
        let data: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        greenhub::fs::write(place.at("file"), &data).unwrap();
        let mut all = Vec::new();
        File::open(place.at("file")).unwrap().read_to_end(&mut all).unwrap();
        assert!(all == data);
        // No hub can wait for these devices either.
        assert_eq!(File::open("/dev/null").unwrap().read(&mut [0]).unwrap(), 0);
        OpenOptions::new().write(true).open("/dev/null").unwrap().write_all(&data).unwrap();
        let mut zeros = vec![1; 300_000];
        File::open("/dev/zero").unwrap().read_exact(&mut zeros).unwrap();
        assert!(zeros.iter().all(|byte| *byte == 0));
    });
}

#[test]
fn only_the_caller_waits_for_a_file() {
    run("only_the_caller_waits_for_a_file", || {
        let place = Place::new();
        let path = place.at("file");
        let ticks = ticker();
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut step = |operation: &str, op: &mut dyn FnMut(&mut File) -> std::io::Result<()>| {
            let before = ticks.get();
            // The caller does not park if its job has already ended, so the loop may need several operations.
            let begun = Instant::now();
            while ticks.get() == before {
                op(&mut file).unwrap();
                assert!(begun.elapsed() < Duration::from_secs(60), "no other green thread has run: {operation}");
            }
        };
        step("write", &mut |file| file.write_all(&[7; 200]));
        step("read", &mut |file| file.rewind().and_then(|()| file.read_exact(&mut [0; 100])));
        step("read at", &mut |file| file.read_exact_at(&mut [0; 100], 7));
        step("read to end", &mut |file| file.read_to_end(&mut Vec::new()).map(drop));
        step("sync", &mut |file| file.sync_all());
        step("metadata", &mut |file| file.metadata().map(drop));
        step("open", &mut |_| File::open(&path).map(drop));
        step("list", &mut |_| read_dir(&place.0).map(drop));
        step("copy", &mut |_| greenhub::fs::copy(&path, place.at("copy")).map(drop));
    });
}

#[test]
fn a_timeout_ends_the_wait_for_a_named_pipe_at_once() {
    run("a_timeout_ends_the_wait_for_a_named_pipe_at_once", || {
        let place = Place::new();
        let path = place.fifo();
        let before = held();
        // The other side is not opened.
        assert!(with_timeout(SHORT, || File::open(&path)).is_err());
        assert!(with_timeout(SHORT, || OpenOptions::new().write(true).open(&path)).is_err());
        let there = path.clone();
        let writer = spawn(move || OpenOptions::new().write(true).open(there).unwrap());
        let mut reader = OpenOptions::new().read(true).open(&path).unwrap();
        let mut writer = writer.join().unwrap();
        // The writer sends nothing.
        assert!(with_timeout(SHORT, || reader.read(&mut [0])).is_err());
        let reader = Rc::new(reader);
        let waiting = Rc::clone(&reader);
        let reading = spawn(move || (&*waiting).read(&mut [0]));
        yield_now();
        assert_eq!(reading.kill(), KillOutcome::Ended);
        drop(reading);
        assert_eq!(held(), before);
        writer.write_all(b"x").unwrap();
        assert_eq!((&*reader).read(&mut [0]).unwrap(), 1);
        assert!(reader.metadata().unwrap().file_type().is_fifo());
    });
}

#[test]
fn a_kill_leaves_a_file_usable() {
    run("a_kill_leaves_a_file_usable", || {
        let place = Place::new();
        let file = Rc::new(File::from(file_of(&place.at("file"), &[7; 100_000])));
        let before = held();
        for n in 0..100 {
            let used = Rc::clone(&file);
            let using = spawn(move || {
                let mut buffer = vec![0; 50_000];
                match n % 4 {
                    0 => used.read_exact_at(&mut buffer, 100),
                    1 => used.write_all_at(&[7; 50_000], 100),
                    2 => (&*used).read_to_end(&mut buffer).map(drop),
                    _ => used.sync_data(),
                }
            });
            for _ in 0..n % 3 {
                yield_now();
            }
            using.kill();
            // Some operations are abandoned at once, others end when their system call returns.
            let _ = using.join();
        }
        let mut all = Vec::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_end(&mut all).unwrap();
        assert!(all == vec![7; 100_000]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_file_made_from_std_owns_its_descriptor() {
    let name = "a_file_made_from_std_owns_its_descriptor";
    alone(name, || {
        let place = Place::new();
        let path = place.at("file");
        // Starts the hub and the pool.
        assert!(!greenhub::fs::exists(&path).unwrap());
        let before = open_descriptors();
        let std = file_of(&path, b"text");
        let number = std.as_raw_fd();
        let mut file = File::from(std);
        assert_eq!((file.as_raw_fd(), open_descriptors()), (number, before + 1));
        file.read_exact(&mut [0; 4]).unwrap();
        let mut std = file.into_std().unwrap();
        assert_eq!((std.as_raw_fd(), std.stream_position().unwrap()), (number, 4));
        drop(File::from(OwnedFd::from(std)));
        assert_eq!(open_descriptors(), before);
        // The end of the scope closes the file once.
        {
            let _file = File::open(&path).unwrap();
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_file_knows_whether_it_is_a_terminal() {
    run("a_file_knows_whether_it_is_a_terminal", || {
        assert!(!File::open("/dev/null").unwrap().is_terminal());
        match File::options().read(true).write(true).open("/dev/ptmx") {
            Ok(terminal) => assert!(terminal.is_terminal()),
            Err(error) => eprintln!("no terminals here: {error}"),
        }
    });
}

#[test]
fn opening_a_file_wakes_stale_waiters_of_its_number() {
    let name = "opening_a_file_wakes_stale_waiters_of_its_number";
    alone(name, || {
        // Starts the pool and opens its descriptors.
        assert!(File::open("/dev/null").is_ok());
        sleep(SHORT);
        let place = Place::new();
        let fifo = place.at("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let number = reader.as_raw_fd();
        // SAFETY: the test closes the number during the wait on purpose. The number is used for the wait only.
        let waiting = spawn(move || unsafe { trampoline_raw(number, Interest::READ, None) });
        yield_now();
        drop((reader, writer));
        // The file has no data that could end the wait.
        let file = File::options().read(true).write(true).open(&fifo).unwrap();
        assert_eq!(file.as_raw_fd(), number);
        // A hub that checks its numbers at each wait may have found the closed number before.
        let ended = waiting.join().unwrap();
        let notified = matches!(ended, Err(TrampolineError::Closed { fd }) if fd == number);
        let found_out = matches!(ended, Err(TrampolineError::InvalidFd { fd }) if fd == number);
        assert!(notified || found_out && get_hub().name() != "epoll", "{ended:?}");
    });
}

#[test]
fn a_listing_ends_after_a_timeout() {
    run("a_listing_ends_after_a_timeout", || {
        let place = Place::new();
        for n in 0..600 {
            std::fs::write(place.at(&n.to_string()), "").unwrap();
        }
        let mut list = read_dir(&place.0).unwrap();
        assert_eq!(list.by_ref().take(256).count(), 256);
        assert!(with_timeout(Duration::ZERO, || list.next()).is_err());
        assert!(list.next().is_none());
    });
}

/// Runs the same random operations on a file of std and on a file of greenhub.
#[test]
fn random_operations_have_the_results_of_std() {
    run("random_operations_have_the_results_of_std", || {
        for seed in 0..20 {
            let mut random = Rng::with_seed(seed);
            let place = Place::new();
            let append = seed % 3 == 0;
            let open = |name: &str| {
                let mut options = std::fs::OpenOptions::new();
                options.read(true).write(!append).append(append).create(true);
                options.open(place.at(name)).unwrap()
            };
            let (mut expected, mut file) = (open("std"), File::from(open("ours")));
            for _ in 0..60 {
                let size = random.usize(..20_000);
                let offset = random.usize(..40_000) as u64;
                match random.usize(..8) {
                    0 => {
                        let (mut one, mut other) = (vec![0; size], vec![0; size]);
                        assert_eq!(expected.read(&mut one).unwrap(), file.read(&mut other).unwrap());
                        assert!(one == other);
                    }
                    1 => {
                        let data: Vec<u8> = (0..size).map(|_| random.usize(..256) as u8).collect();
                        assert_eq!(expected.write(&data).unwrap(), file.write(&data).unwrap());
                    }
                    2 => {
                        let position = [
                            SeekFrom::Start(offset),
                            SeekFrom::Current(offset as i64 - 20_000),
                            SeekFrom::End(-(offset as i64) / 4),
                        ][random.usize(..3)];
                        let sought = expected.seek(position).map_err(|error| error.kind());
                        assert_eq!(sought, file.seek(position).map_err(|error| error.kind()));
                    }
                    3 => {
                        expected.set_len(offset).unwrap();
                        file.set_len(offset).unwrap();
                    }
                    4 => {
                        let (mut one, mut other) = (vec![1], vec![1]);
                        let n = expected.read_to_end(&mut one).unwrap();
                        assert_eq!(n, file.read_to_end(&mut other).unwrap());
                        assert!(one == other);
                    }
                    5 => {
                        let data = vec![size as u8; size];
                        assert_eq!(expected.write_at(&data, offset).unwrap(), file.write_at(&data, offset).unwrap());
                    }
                    6 => {
                        let (mut one, mut other) = (vec![0; size], vec![0; size]);
                        let n = expected.read_at(&mut one, offset).unwrap();
                        assert_eq!(n, file.read_at(&mut other, offset).unwrap());
                        assert!(one == other);
                    }
                    _ => {
                        let position = expected.stream_position().unwrap();
                        assert_eq!(position, file.stream_position().unwrap());
                        assert_eq!(expected.metadata().unwrap().len(), file.metadata().unwrap().len());
                    }
                }
            }
            assert!(std::fs::read(place.at("std")).unwrap() == std::fs::read(place.at("ours")).unwrap());
        }
    });
}
