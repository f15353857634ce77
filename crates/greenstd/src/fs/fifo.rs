//! Opening named pipes, which waits for the other side.
//!
//! open(2) waits inside the system, where no exit ends it. So on Linux the pipe is opened in non-blocking mode, and the
//! green thread waits:
//!
//! - A reader is open at once, and counts as a reader for writers, like a reader that waits in open(2). It then waits
//!   for a writer. The hub reports data, and a writer that has come and gone. It does not report a writer that has
//!   written nothing. So the reader checks for a writer in growing pauses, by tee(2), which takes nothing out of the
//!   pipe.
//! - A writer is refused as long as there is no reader. It tries again in growing pauses, and misses a reader that
//!   comes and goes within a pause.
//!
//! On other systems a pool thread waits in open(2).

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::time::Duration;

    use hub_core::hub::Interest;
    use hub_core::internal::PiecewiseWait;
    use hub_core::{TrampolineError, trampoline};
    use rustix::event::{PollFd, PollFlags, Timespec};
    use rustix::fs::{FileType, Mode, OFlags};
    use rustix::io::Errno;
    use rustix::pipe::{PipeFlags, SpliceFlags};

    use super::super::OpenOptions;

    const FIRST_PAUSE: Duration = Duration::from_millis(1);
    const LONGEST_PAUSE: Duration = Duration::from_millis(32);

    /// A named pipe that was found, but is not open for reading or writing.
    pub(in super::super) struct Unopened {
        /// Refers to the pipe, even if its path is replaced.
        path: OwnedFd,
    }

    /// Returns the named pipe at a path, if there is one for which open(2) would wait.
    pub(in super::super) fn find(path: &Path, options: &OpenOptions) -> io::Result<Option<Unopened>> {
        let flags = OFlags::from_bits_retain(options.flags as u32);
        // With `O_NONBLOCK` the program chose not to wait, with `O_PATH` not to open. A pipe opened in both directions
        // does not wait.
        let waits = !flags.intersects(OFlags::NONBLOCK | OFlags::PATH) && options.read != options.writes();
        let is_fifo = |mode| FileType::from_raw_mode(mode) == FileType::Fifo;
        if !waits || !rustix::fs::stat(path).is_ok_and(|stat| is_fifo(stat.st_mode)) {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC | (flags & OFlags::NOFOLLOW);
        let path = rustix::fs::open(path, flags, Mode::empty())?;
        let name = name(&path);
        // Without `/proc` the pipe is opened as std does.
        let found = is_fifo(rustix::fs::fstat(&path)?.st_mode) && rustix::fs::stat(&name).is_ok();
        Ok(found.then_some(Unopened { path }))
    }

    fn name(path: &OwnedFd) -> String {
        format!("/proc/self/fd/{}", path.as_raw_fd())
    }

    impl Unopened {
        /// Opens the pipe when its other side is open. Switches.
        pub(in super::super) fn open(self, options: &OpenOptions) -> io::Result<std::fs::File> {
            // A green thread may still wait for an earlier descriptor of the same number.
            hub_core::notify_opened(self.path.as_raw_fd());
            let mut file = options.std().clone();
            // The name itself is a symbolic link.
            let flags = OFlags::from_bits_retain(options.flags as u32).difference(OFlags::NOFOLLOW);
            file.custom_flags(flags.union(OFlags::NONBLOCK).bits() as i32);
            let name = name(&self.path);
            let (wait, mut pause) = (PiecewiseWait::begin(), FIRST_PAUSE);
            let file = loop {
                match file.open(&name) {
                    Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                        wait.check()?;
                        hub_core::try_sleep(pause)?;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    result => break result?,
                }
            };
            if !options.writes() {
                wait_for_writer(&file, &wait)?;
            }
            Ok(file)
        }
    }

    fn wait_for_writer(reader: &std::fs::File, wait: &PiecewiseWait) -> io::Result<()> {
        if has_event(reader)? {
            return Ok(());
        }
        let (_kept, scratch) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let mut pause = FIRST_PAUSE;
        loop {
            // `tee` returns 0 without a writer, and "would block" for a writer that has written nothing.
            if rustix::pipe::tee(reader, &scratch, 1, SpliceFlags::NONBLOCK) != Ok(0) {
                return Ok(());
            }
            match trampoline(reader, Interest::READ, Some(pause)) {
                Ok(_) => return Ok(()),
                Err(TrampolineError::TimedOut { .. }) => {
                    wait.check()?;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns true if there is data, or a writer has come and gone.
    fn has_event(reader: &std::fs::File) -> io::Result<bool> {
        let mut asked = [PollFd::new(reader, PollFlags::IN)];
        Ok(rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::os::unix::fs::FileTypeExt;
    use std::path::{Path, PathBuf};

    use hub_core::ThreadPool;

    use super::super::OpenOptions;

    /// A pool of its own, because each open may wait forever.
    static OPENS: ThreadPool = ThreadPool::named("greenhub-fifos", 64);

    pub(in super::super) struct Unopened {
        path: PathBuf,
    }

    /// Returns the named pipe at a path, if there is one for which open(2) would wait.
    pub(in super::super) fn find(path: &Path, options: &OpenOptions) -> io::Result<Option<Unopened>> {
        let waits = options.read != options.writes();
        let is_fifo = waits && std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        Ok(is_fifo.then(|| Unopened { path: path.to_owned() }))
    }

    impl Unopened {
        /// Opens the pipe when its other side is open. Switches.
        pub(in super::super) fn open(self, options: &OpenOptions) -> io::Result<std::fs::File> {
            let options = options.std().clone();
            OPENS.execute_io(move || options.open(&self.path))
        }
    }
}

pub(super) use system::{Unopened, find};
