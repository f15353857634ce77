//! The peers in C and Go, and how they are built.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program in `peers/`.
#[derive(Copy, Clone, Debug)]
pub struct Peer {
    /// The name of the peer in tables.
    pub name: &'static str,
    source: &'static str,
    language: Language,
}

#[derive(Copy, Clone, Debug)]
enum Language {
    C { header: &'static str, package: &'static str, arguments: &'static [&'static str] },
    Go,
}

const fn libevent(name: &'static str, source: &'static str, arguments: &'static [&'static str]) -> Peer {
    Peer { name, source, language: Language::C { header: "event2/event.h", package: "libevent-dev", arguments } }
}

const fn libev(source: &'static str) -> Peer {
    Peer { name: "libev", source, language: Language::C { header: "ev.h", package: "libev-dev", arguments: &["-lev"] } }
}

impl Peer {
    /// The rings in C. The first peer is the base of the ratios.
    pub const RINGS: [Peer; 4] = [
        libevent("libevent", "libevent.c", &["-levent_core"]),
        libevent("libevent, precise timers", "libevent.c", &["-DPRECISE_TIMERS", "-levent_core"]),
        libevent("libevent, an event for each wait", "libevent.c", &["-DONE_WAIT", "-levent_core"]),
        libev("libev.c"),
    ];

    /// The servers in C.
    pub const SERVERS: [Peer; 2] =
        [libevent("libevent", "libevent_server.c", &["-levent_core"]), libev("libev_server.c")];

    /// All workloads in Go.
    pub const GO: Peer = Peer { name: "Go", source: "go.go", language: Language::Go };

    /// Compiles the peer into the folder `peers` beside this program, and returns its program.
    ///
    /// Returns a message that names the missing package if there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer does not compile although nothing is missing.
    pub fn build(&self) -> io::Result<Result<PathBuf, String>> {
        let missing = match self.language {
            Language::C { header, package, .. } => missing_header(header, package)?,
            Language::Go => missing_go()?,
        };
        if let Some(missing) = missing {
            return Ok(Err(missing));
        }
        let folder = std::env::current_exe()?.with_file_name("peers");
        fs::create_dir_all(&folder)?;
        let stem = self.source.split('.').next().unwrap_or_default();
        let program = folder.join(format!("{stem}-{}", self.name.replace([',', ' '], "-")));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(self.source);
        let mut compile = match self.language {
            Language::C { .. } => Command::new(compiler()),
            Language::Go => Command::new("go"),
        };
        match self.language {
            Language::C { arguments, .. } => compile.arg("-O2").arg("-o").arg(&program).arg(source).args(arguments),
            Language::Go => compile.args(["build", "-o"]).arg(&program).arg(source),
        };
        if !compile.status()?.success() {
            return Err(io::Error::other(format!("{} does not compile", self.source)));
        }
        Ok(Ok(program))
    }
}

fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".to_owned())
}

fn missing_header(header: &str, package: &str) -> io::Result<Option<String>> {
    let mut look = Command::new(compiler());
    Ok(match succeeds(look.args(["-E", "-x", "c", "-include", header, "/dev/null"]))? {
        Some(true) => None,
        Some(false) => Some(format!("no <{header}>: apt-get install {package}")),
        None => Some(format!("no C compiler `{}`: apt-get install gcc libc6-dev", compiler())),
    })
}

fn missing_go() -> io::Result<Option<String>> {
    Ok(match succeeds(Command::new("go").arg("version"))? {
        Some(true) => None,
        _ => Some("no `go`: apt-get install golang-go".to_owned()),
    })
}

/// Returns whether a tool succeeds, or `None` if it is not installed.
fn succeeds(command: &mut Command) -> io::Result<Option<bool>> {
    match command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) => Ok(Some(status.success())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether a program is installed: it succeeds, or fails by itself, with `argument`.
///
/// # Errors
///
/// Returns an error of the system other than that there is no such program.
pub fn is_installed(program: &str, argument: &str) -> io::Result<bool> {
    Ok(succeeds(Command::new(program).arg(argument))?.is_some())
}
