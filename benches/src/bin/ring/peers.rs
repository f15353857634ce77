//! The peers in C, and how they are built.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program in `peers/`.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    source: &'static str,
    header: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
}

impl Peer {
    /// All peers. The first peer is the base of the ratios.
    pub(crate) const ALL: [Peer; 4] = [
        Peer {
            name: "libevent",
            source: "libevent.c",
            header: "event2/event.h",
            package: "libevent-dev",
            arguments: &["-levent_core"],
        },
        Peer {
            name: "libevent, precise timers",
            source: "libevent.c",
            header: "event2/event.h",
            package: "libevent-dev",
            arguments: &["-DPRECISE_TIMERS", "-levent_core"],
        },
        Peer {
            name: "libevent, an event for each wait",
            source: "libevent.c",
            header: "event2/event.h",
            package: "libevent-dev",
            arguments: &["-DONE_WAIT", "-levent_core"],
        },
        Peer { name: "libev", source: "libev.c", header: "ev.h", package: "libev-dev", arguments: &["-lev"] },
    ];

    /// Compiles the peer into `folder`, and returns the program, or a message that names the missing package.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer does not compile although nothing is missing.
    pub(crate) fn build(&self, folder: &Path) -> io::Result<Result<PathBuf, String>> {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut look = Command::new(&compiler);
        look.args(["-E", "-x", "c", "-include", self.header, "/dev/null"]);
        match look.stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(_) => return Ok(Err(format!("no <{}>: apt-get install {}", self.header, self.package))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Err(format!("no C compiler `{compiler}`: apt-get install gcc libc6-dev")));
            }
            Err(error) => return Err(error),
        }
        fs::create_dir_all(folder)?;
        let program = folder.join(self.name.replace([',', ' '], "-"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(self.source);
        let mut compile = Command::new(&compiler);
        let status = compile.arg("-O2").arg("-o").arg(&program).arg(source).args(self.arguments).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{} does not compile", self.source)));
        }
        Ok(Ok(program))
    }
}
