//! The examples of std's `os::unix::fs` and of `os::fd`.

use super::{Folder, examples};

examples! {
    fn file_ext() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::os::unix::fs::FileExt;

        let folder = Folder::new();
        let mut buf = [0u8; 8];
        let file = File::options().read(true).write(true).open(folder.file("foo.txt", "0123456789abcdef"))?;
        let num_bytes_read = file.read_at(&mut buf, 10)?;
        assert_eq!(&buf[..num_bytes_read], b"abcdef");
        file.write_all_at(b"sushi", 10)?;
        file.read_exact_at(&mut buf, 8)?;
        assert_eq!(&buf, b"89sushif");
        Ok(())
    }

    fn prelude() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::os::unix::prelude::*;

        let folder = Folder::new();
        let file = File::options().read(true).write(true).mode(0o600).create(true).open(folder.entry("foo.txt"))?;
        file.write_at(b"sushi", 0)?;
        assert_eq!(file.metadata()?.mode() & 0o777, 0o600);
        let raw: RawFd = file.as_raw_fd();
        assert_eq!(file.as_fd().as_raw_fd(), raw);
        Ok(())
    }

    fn permissions_ext() -> greenhub::io::Result<()> {
        use greenhub::fs::{File, Permissions};
        use greenhub::os::unix::fs::PermissionsExt;

        let folder = Folder::new();
        let f = File::create(folder.entry("foo.txt"))?;
        f.set_permissions(Permissions::from_mode(0o600))?;
        let mut permissions = f.metadata()?.permissions();
        permissions.set_mode(0o644);
        assert_eq!(permissions.mode(), 0o644);
        Ok(())
    }

    fn open_options_ext() {
        use greenhub::fs::OpenOptions;
        use greenhub::os::unix::fs::OpenOptionsExt;

        let folder = Folder::new();
        let mut options = OpenOptions::new();
        options.mode(0o644).write(true).create(true);
        let file = options.open(folder.entry("foo.txt"));
        assert!(file.is_ok());
        let mut options = OpenOptions::new();
        options.write(true);
        options.custom_flags(libc::O_NOFOLLOW);
        let file = options.open(folder.entry("foo.txt"));
        assert!(file.is_ok());
    }

    fn metadata_ext() -> greenhub::io::Result<()> {
        use greenhub::fs;
        use greenhub::os::unix::fs::MetadataExt;

        let folder = Folder::new();
        let meta = fs::metadata(folder.file("foo.txt", "text"))?;
        assert_ne!((meta.dev(), meta.ino()), (0, 0));
        assert_eq!((meta.nlink(), meta.size()), (1, 4));
        assert!(meta.mtime() > 0 && meta.blksize() > 0);
        Ok(())
    }

    fn file_type_ext() -> greenhub::io::Result<()> {
        use greenhub::fs;
        use greenhub::os::unix::fs::FileTypeExt;

        let meta = fs::metadata("/dev/null")?;
        let file_type = meta.file_type();
        assert!(file_type.is_char_device() && !file_type.is_block_device());
        assert!(!file_type.is_fifo() && !file_type.is_socket());
        Ok(())
    }

    fn dir_entry_ext() -> greenhub::io::Result<()> {
        use greenhub::fs;
        use greenhub::os::unix::fs::{DirEntryExt, MetadataExt};

        let folder = Folder::new();
        let file = folder.file("foo.txt", "");
        if let Ok(entries) = fs::read_dir(&folder.0) {
            for entry in entries.flatten() {
                assert_eq!(entry.ino(), fs::metadata(&file)?.ino());
            }
        }
        Ok(())
    }

    fn dir_builder_ext() -> greenhub::io::Result<()> {
        use greenhub::fs::{self, DirBuilder};
        use greenhub::os::unix::fs::{DirBuilderExt, PermissionsExt};

        let folder = Folder::new();
        let mut builder = DirBuilder::new();
        builder.mode(0o755);
        builder.create(folder.entry("inner"))?;
        assert_eq!(fs::metadata(folder.entry("inner"))?.permissions().mode() & 0o700, 0o700);
        Ok(())
    }

    fn symlink() -> greenhub::io::Result<()> {
        use greenhub::os::unix::fs;

        let folder = Folder::new();
        fs::symlink("a.txt", folder.entry("b.txt"))?;
        assert_eq!(greenhub::fs::read_link(folder.entry("b.txt"))?, std::path::Path::new("a.txt"));
        Ok(())
    }

    fn chown_and_lchown() -> greenhub::io::Result<()> {
        use greenhub::os::unix::fs;

        let folder = Folder::new();
        let path = folder.file("foo.txt", "");
        fs::chown(&path, None, None)?;
        fs::lchown(&path, None, None)?;
        Ok(())
    }

    fn as_fd_and_into_raw_fd() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

        let folder = Folder::new();
        let f = File::open(folder.file("foo.txt", ""))?;
        let borrowed_fd: BorrowedFd<'_> = f.as_fd();
        assert_eq!(borrowed_fd.as_raw_fd(), f.as_raw_fd());
        let owned = OwnedFd::from(f);
        let f = File::from(owned);
        assert!(f.as_raw_fd() > 2);
        // Compiled only: the number would stay open.
        let _into_raw_fd = |f: File| f.into_raw_fd();
        Ok(())
    }
}
