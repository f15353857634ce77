//! The examples of std's `fs`.

use super::{Folder, examples};

examples! {
    fn file() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::io::prelude::*;

        let folder = Folder::new();
        let mut file = File::create(folder.entry("foo.txt"))?;
        file.write_all(b"Hello, world!")?;
        let mut file = File::open(folder.entry("foo.txt"))?;
        let mut contents = String::new();
        file.read_to_string(&mut contents)?;
        assert_eq!(contents, "Hello, world!");
        Ok(())
    }

    fn file_through_a_reference() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::io::prelude::*;

        let folder = Folder::new();
        let file = File::open(folder.file("foo.txt", "Hello, world!"))?;
        let mut buf_reader = greenhub::io::BufReader::new(&file);
        let mut contents = String::new();
        buf_reader.read_to_string(&mut contents)?;
        assert_eq!(contents, "Hello, world!");
        Ok(())
    }

    fn file_constructors() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::io::{Read, Seek, Write};

        let folder = Folder::new();
        let mut f = File::create_new(folder.entry("foo.txt"))?;
        f.write_all("Hello, world!".as_bytes())?;
        assert!(File::create_new(folder.entry("foo.txt")).is_err());
        let mut f = File::options().read(true).append(true).open(folder.entry("foo.txt"))?;
        writeln!(&mut f, "New line!")?;
        f.rewind()?;
        let mut data = vec![];
        f.read_to_end(&mut data)?;
        assert_eq!(data, b"Hello, world!New line!\n");
        Ok(())
    }

    fn file_methods() -> greenhub::io::Result<()> {
        use greenhub::fs::{self, File};
        use greenhub::io::prelude::*;
        use greenhub::time::SystemTime;

        let folder = Folder::new();
        let mut f = File::create(folder.entry("foo.txt"))?;
        f.write_all(b"Hello, world!")?;
        f.sync_all()?;
        f.sync_data()?;
        f.set_len(10)?;
        assert_eq!(f.metadata()?.len(), 10);
        let mut file_copy = f.try_clone()?;
        file_copy.seek(greenhub::io::SeekFrom::Start(3))?;
        assert_eq!(f.stream_position()?, 3);
        let times = fs::FileTimes::new().set_accessed(SystemTime::now()).set_modified(SystemTime::UNIX_EPOCH);
        f.set_times(times)?;
        f.set_modified(SystemTime::UNIX_EPOCH)?;
        let mut perms = f.metadata()?.permissions();
        perms.set_readonly(true);
        f.set_permissions(perms)?;
        Ok(())
    }

    fn open_options() -> greenhub::io::Result<()> {
        use greenhub::fs::OpenOptions;

        let folder = Folder::new();
        let path = folder.file("foo.txt", "");
        let _file = OpenOptions::new().read(true).open(&path)?;
        let _file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        assert!(file.is_err());
        Ok(())
    }

    fn metadata() -> greenhub::io::Result<()> {
        use greenhub::fs;

        let folder = Folder::new();
        let attr = fs::metadata(folder.file("foo.txt", "text"))?;
        assert!(attr.is_file() && !attr.is_dir() && !attr.is_symlink());
        assert!(attr.file_type().is_file());
        assert_eq!(attr.len(), 4);
        assert!(!attr.permissions().readonly());
        let time = attr.modified()?;
        assert!(time > greenhub::time::SystemTime::UNIX_EPOCH);
        Ok(())
    }

    fn symlink_metadata() -> greenhub::io::Result<()> {
        use greenhub::fs;
        use greenhub::os::unix::fs::symlink;

        let folder = Folder::new();
        symlink(folder.file("a.txt", ""), folder.entry("b.txt"))?;
        let attr = fs::symlink_metadata(folder.entry("b.txt"))?;
        assert!(attr.file_type().is_symlink());
        assert_eq!(fs::read_link(folder.entry("b.txt"))?, folder.entry("a.txt"));
        assert_eq!(fs::canonicalize(folder.entry("b.txt"))?, fs::canonicalize(folder.entry("a.txt"))?);
        Ok(())
    }

    fn permissions() -> greenhub::io::Result<()> {
        use greenhub::fs;

        let folder = Folder::new();
        let path = folder.file("foo.txt", "");
        let mut perms = fs::metadata(&path)?.permissions();
        perms.set_readonly(true);
        fs::set_permissions(&path, perms)?;
        assert!(fs::metadata(&path)?.permissions().readonly());
        Ok(())
    }

    fn read_dir() -> greenhub::io::Result<()> {
        use greenhub::fs::{self, DirEntry};
        use std::path::Path;

        fn visit_dirs(dir: &Path, cb: &mut dyn FnMut(&DirEntry)) -> greenhub::io::Result<()> {
            if dir.is_dir() {
                for entry in fs::read_dir(dir)? {
                    let entry = entry?;
                    let path = entry.path();
                    if path.is_dir() {
                        visit_dirs(&path, cb)?;
                    } else {
                        cb(&entry);
                    }
                }
            }
            Ok(())
        }
        let folder = Folder::new();
        fs::create_dir(folder.entry("inner"))?;
        folder.file("inner/foo.txt", "");
        let mut names = Vec::new();
        visit_dirs(&folder.0, &mut |entry| names.push(entry.file_name()))?;
        assert_eq!(names, ["foo.txt"]);
        Ok(())
    }

    fn read_dir_collected() -> greenhub::io::Result<()> {
        use greenhub::{fs, io};

        let folder = Folder::new();
        folder.file("foo.txt", "");
        let mut entries =
            fs::read_dir(&folder.0)?.map(|res| res.map(|e| e.path())).collect::<Result<Vec<_>, io::Error>>()?;
        entries.sort();
        assert_eq!(entries, [folder.entry("foo.txt")]);
        Ok(())
    }

    fn dir_entry() -> greenhub::io::Result<()> {
        use greenhub::fs;

        let folder = Folder::new();
        folder.file("foo.txt", "text");
        if let Ok(entries) = fs::read_dir(&folder.0) {
            for entry in entries.flatten() {
                assert_eq!(entry.file_name(), "foo.txt");
                assert!(entry.file_type()?.is_file());
                assert_eq!(entry.metadata()?.len(), 4);
            }
        }
        Ok(())
    }

    fn dir_builder() -> greenhub::io::Result<()> {
        use greenhub::fs::{self, DirBuilder};

        let folder = Folder::new();
        let path = folder.entry("foo/bar/baz");
        DirBuilder::new().recursive(true).create(&path).unwrap();
        assert!(fs::metadata(&path).unwrap().is_dir());
        Ok(())
    }

    fn read_and_write() -> Result<(), Box<dyn std::error::Error>> {
        use greenhub::fs;

        let folder = Folder::new();
        fs::write(folder.entry("foo.txt"), b"Lorem ipsum")?;
        fs::write(folder.entry("bar.txt"), "dolor sit")?;
        let data: Vec<u8> = fs::read(folder.entry("foo.txt"))?;
        assert_eq!(data, b"Lorem ipsum");
        let message: String = fs::read_to_string(folder.entry("bar.txt"))?;
        assert_eq!(message, "dolor sit");
        Ok(())
    }

    fn copy_rename_and_hard_link() -> greenhub::io::Result<()> {
        use greenhub::fs;

        let folder = Folder::new();
        fs::copy(folder.file("foo.txt", "text"), folder.entry("bar.txt"))?;
        fs::rename(folder.entry("foo.txt"), folder.entry("moved.txt"))?;
        fs::hard_link(folder.entry("moved.txt"), folder.entry("link.txt"))?;
        fs::remove_file(folder.entry("moved.txt"))?;
        assert_eq!(fs::read_to_string(folder.entry("link.txt"))?, "text");
        assert!(!fs::exists(folder.entry("foo.txt")).expect("Can't check existence of file"));
        Ok(())
    }

    fn directories() -> greenhub::io::Result<()> {
        use greenhub::fs;

        let folder = Folder::new();
        fs::create_dir(folder.entry("some"))?;
        fs::create_dir_all(folder.entry("some/other/dir"))?;
        fs::remove_dir(folder.entry("some/other/dir"))?;
        fs::remove_dir_all(folder.entry("some"))?;
        Ok(())
    }
}
