//! Server programs for the recipes, each in a process and a folder of its own.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::web::AnyError;

/// The time in which a server must be ready.
const LIMIT: Duration = Duration::from_secs(60);

/// The user `nobody`, which runs the servers if this program is run by root: some servers refuse to be run by root.
const NOBODY: u32 = 65534;

/// A running server program. The process is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    folder: Folder,
    socket: PathBuf,
}

impl Server {
    /// Starts `program` with the arguments that `configure` adds, and waits until `is_ready` returns true. Blocks the
    /// OS thread.
    ///
    /// `socket` is the name of the Unix socket in the folder of the server.
    ///
    /// # Errors
    ///
    /// Returns an error if the program is not installed, ends early, or is not ready within a minute.
    pub fn start(
        program: &str,
        socket: &str,
        configure: impl FnOnce(&mut Command, &Path),
        is_ready: impl Fn(&Server) -> bool,
    ) -> Result<Server, AnyError> {
        let folder = Folder::new()?;
        let mut command = command(program, &folder.0);
        configure(&mut command, &folder.0);
        let process = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        let mut server = Server { process, socket: folder.0.join(socket), folder };
        let begun = Instant::now();
        while !is_ready(&server) {
            let ended = server.process.try_wait()?;
            if ended.is_some() || begun.elapsed() > LIMIT {
                return Err(format!("{program} is not ready: {ended:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Returns the folder in which the server runs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Returns the path of the Unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a command that runs `program` in `folder` without input and output. Root runs it as `nobody`.
#[must_use]
pub fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder for a server. It is removed when this is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short, since the path of a Unix socket has at most about 100 bytes.
        let path = std::env::temp_dir().join(format!("recipes-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let folder = Folder(path);
        if is_root() {
            chown(&folder.0, Some(NOBODY), Some(NOBODY))?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
