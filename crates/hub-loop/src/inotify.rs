//! inotify(7). A system without it refuses the descriptor.

pub(crate) use self::system::{Inotify, Notice};

/// The numbers of the watches of a file and of its directory.
#[derive(Copy, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) file: Option<i32>,
    pub(crate) directory: Option<i32>,
}

impl Watched {
    pub(crate) fn has(self, watch: i32) -> bool {
        self.file == Some(watch) || self.directory == Some(watch)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::ffi::CStr;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::path::Path;

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

    use super::Watched;

    pub(crate) enum Notice<'a> {
        Of {
            watch: i32,
            name: Option<&'a CStr>,
        },
        /// The system has dropped notices.
        Lost,
    }

    #[derive(Debug)]
    pub(crate) struct Inotify(OwnedFd);

    impl Inotify {
        pub(crate) fn new() -> io::Result<Inotify> {
            Ok(Inotify(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?))
        }

        /// Sets the watches of a file and its directory. May block the OS thread.
        pub(crate) fn watch(&self, path: &Path) -> Watched {
            let directory = match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
                parent => parent,
            };
            let set = |path: &Path| inotify::add_watch(&self.0, path, changes()).ok();
            Watched { directory: directory.and_then(set), file: set(path) }
        }

        pub(crate) fn forget(&self, watch: i32) {
            // It may be gone with its file.
            let _ = inotify::remove_watch(&self.0, watch);
        }

        pub(crate) fn read(&self, mut each: impl FnMut(Notice<'_>)) {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut notices = inotify::Reader::new(&self.0, &mut buffer);
            // An error means that none is left.
            while let Ok(notice) = notices.next() {
                if notice.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    each(Notice::Lost);
                } else {
                    each(Notice::Of { watch: notice.wd(), name: notice.file_name() });
                }
            }
        }
    }

    impl AsFd for Inotify {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    fn changes() -> WatchFlags {
        WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::ffi::CStr;
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::path::Path;

    use super::Watched;

    #[expect(dead_code, reason = "this system has no notices")]
    pub(crate) enum Notice<'a> {
        Of { watch: i32, name: Option<&'a CStr> },
        Lost,
    }

    /// No value of this type exists.
    #[derive(Debug)]
    pub(crate) enum Inotify {}

    impl Inotify {
        pub(crate) fn new() -> io::Result<Inotify> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn watch(&self, _: &Path) -> Watched {
            match *self {}
        }

        pub(crate) fn forget(&self, _: i32) {
            match *self {}
        }

        pub(crate) fn read(&self, _: impl FnMut(Notice<'_>)) {
            match *self {}
        }
    }

    impl AsFd for Inotify {
        fn as_fd(&self) -> BorrowedFd<'_> {
            match *self {}
        }
    }
}
