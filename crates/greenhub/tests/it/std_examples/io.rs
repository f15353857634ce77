//! The examples of std's `io` that use its pipes and standard streams.

use super::{Folder, examples};

examples! {
    fn module() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::io;
        use greenhub::io::prelude::*;

        let folder = Folder::new();
        let mut f = File::open(folder.file("foo.txt", "some text"))?;
        let mut buffer = [0; 10];
        let n: usize = f.read(&mut buffer)?;
        assert_eq!(&buffer[..n], b"some text");
        f.seek(io::SeekFrom::Start(5))?;
        let mut rest = String::new();
        f.read_to_string(&mut rest)?;
        assert_eq!(rest, "text");
        Ok(())
    }

    fn module_buffered() -> greenhub::io::Result<()> {
        use greenhub::fs::File;
        use greenhub::io::prelude::*;
        use greenhub::io::{BufReader, BufWriter};

        let folder = Folder::new();
        {
            let f = File::create(folder.entry("foo.txt"))?;
            let mut writer = BufWriter::new(f);
            writer.write_all(b"first\nsecond\n")?;
        }
        let f = File::open(folder.entry("foo.txt"))?;
        let mut reader = BufReader::new(f);
        let mut buffer = String::new();
        reader.read_line(&mut buffer)?;
        assert_eq!(buffer, "first\n");
        assert_eq!(reader.lines().next().unwrap()?, "second");
        Ok(())
    }

    fn pipe() -> greenhub::io::Result<()> {
        use greenhub::io::{Read, Write, pipe};
        use greenhub::process::Command;

        let (ping_reader, mut ping_writer) = pipe()?;
        let (mut pong_reader, pong_writer) = pipe()?;
        let mut echo_command = Command::new("cat");
        echo_command.stdin(ping_reader);
        echo_command.stdout(pong_writer);
        let mut echo_child = echo_command.spawn()?;
        ping_writer.write_all(b"hello")?;
        drop(ping_writer);
        drop(echo_command);
        let mut buf = String::new();
        pong_reader.read_to_string(&mut buf)?;
        assert_eq!(&buf, "hello");
        echo_child.wait()?;
        Ok(())
    }

    fn pipe_reader_and_pipe_writer() -> greenhub::io::Result<()> {
        use greenhub::io::{PipeReader, PipeWriter, Read, Write, pipe};

        let (mut reader, writer): (PipeReader, PipeWriter) = pipe()?;
        let mut writer_clone = writer.try_clone()?;
        drop(writer);
        writer_clone.write_all(b"x")?;
        let reader_clone = reader.try_clone()?;
        drop(writer_clone);
        let mut buf = Vec::new();
        reader.read_to_end(&mut buf)?;
        assert_eq!(buf, b"x");
        drop(reader_clone);
        Ok(())
    }

    fn stdin() {
        use greenhub::io::{self, BufRead};

        // Compiled only, as the tests share one standard input.
        let _read_line = || -> io::Result<String> {
            let mut buffer = String::new();
            io::stdin().read_line(&mut buffer)?;
            let stdin = io::stdin();
            {
                let mut handle = stdin.lock();
                handle.read_line(&mut buffer)?;
            }
            Ok(buffer)
        };
        let _lines = || {
            let lines = io::stdin().lines();
            for line in lines {
                assert!(!line.unwrap().is_empty());
            }
        };
        let stdin: io::Stdin = io::stdin();
        let _handle: io::StdinLock<'static> = stdin.lock();
        let _ = stdin.is_terminal();
    }

    fn stdout() -> greenhub::io::Result<()> {
        use greenhub::io::{self, Write};

        io::stdout().write_all(b"")?;
        let mut stdout: io::StdoutLock<'static> = io::stdout().lock();
        stdout.write_all(b"")?;
        Ok(())
    }

    fn stderr() -> greenhub::io::Result<()> {
        use greenhub::io::{self, Write};

        io::stderr().write_all(b"")?;
        let stderr = io::stderr();
        let mut handle: io::StderrLock<'static> = stderr.lock();
        handle.write_all(b"")?;
        Ok(())
    }
}
