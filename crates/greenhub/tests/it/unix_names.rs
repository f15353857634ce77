//! Names of Unix domain sockets: no name of a peer loses data or a connection.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::support::run;
use greenhub::net::{StopServe, serve_until};
use greenhub::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use greenhub::{GreenPool, spawn};
use rustix::net::{AddressFamily, SocketType};

/// A directory that is removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("gh-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Returns a path of `length` bytes.
    fn path(&self, letter: &str, length: usize) -> PathBuf {
        let path = self.0.join(letter.repeat(length - self.0.as_os_str().len() - 1));
        assert_eq!(path.as_os_str().len(), length);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The kinds of names that a peer may have.
#[derive(Clone, Debug)]
enum Name {
    None,
    Path(PathBuf),
    #[cfg(target_os = "linux")]
    Abstract(Vec<u8>),
}

impl Name {
    /// Returns names of every kind, with every length that may cause an error.
    fn all(folder: &Folder) -> Vec<Name> {
        let mut all = vec![Name::None];
        let longest = if cfg!(target_os = "linux") { 108 } else { 104 };
        all.extend((longest - 4..=longest).map(|length| Name::Path(folder.path("n", length))));
        all.push(Name::Path(folder.0.join(OsStr::from_bytes(b"\xff\xfe"))));
        #[cfg(target_os = "linux")]
        all.extend([1, 5, 106, 107].map(|length| {
            let mut name = format!("{}", std::process::id()).into_bytes();
            name.resize(length, 0);
            Name::Abstract(name)
        }));
        all
    }

    /// Creates a socket with this name.
    fn socket(&self, kind: SocketType) -> OwnedFd {
        let socket = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
        match self {
            Name::None => {}
            // A path may leave no room for its final zero.
            Name::Path(path) => bind(&socket, path),
            #[cfg(target_os = "linux")]
            Name::Abstract(name) => {
                let address = rustix::net::SocketAddrUnix::new_abstract_name(name).unwrap();
                // A test that runs at the same time may have a name as short as this one for a moment.
                while let Err(errno) = rustix::net::bind(&socket, &address) {
                    assert_eq!(errno, rustix::io::Errno::ADDRINUSE);
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        }
        socket
    }

    /// Returns whether std's type can hold the name.
    fn is_known(&self) -> bool {
        let longest = if cfg!(target_os = "linux") { 107 } else { 103 };
        !matches!(self, Name::Path(path) if path.as_os_str().len() > longest)
    }

    #[track_caller]
    fn assert_is(&self, address: &SocketAddr) {
        match self {
            Name::Path(path) if self.is_known() => assert_eq!(address.as_pathname(), Some(&**path)),
            #[cfg(target_os = "linux")]
            Name::Abstract(name) => {
                use std::os::linux::net::SocketAddrExt;
                assert_eq!(address.as_abstract_name(), Some(&**name));
            }
            _ => assert!(address.is_unnamed(), "{self:?} is {address:?}"),
        }
    }
}

fn bind(socket: &OwnedFd, path: &Path) {
    let address = rustix::net::SocketAddrUnix::new(path).unwrap();
    let _ = std::fs::remove_file(path);
    rustix::net::bind(socket, &address).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn connect(socket: &OwnedFd, path: &Path) {
    rustix::net::connect(socket, &rustix::net::SocketAddrUnix::new(path).unwrap()).unwrap();
}

#[test]
fn no_name_of_a_sender_loses_its_datagram() {
    run("no_name_of_a_sender_loses_its_datagram", || {
        let folder = Folder::new("dgram");
        let to = folder.0.join("to");
        let receiver = UnixDatagram::bind(&to).unwrap();
        for name in Name::all(&folder) {
            let sender = name.socket(SocketType::DGRAM);
            connect(&sender, &to);
            rustix::io::write(&sender, b"x").unwrap();
            let (n, from) = receiver.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(n, 1);
            name.assert_is(&from);
            rustix::io::write(&sender, b"y").unwrap();
            assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1);
        }
    });
}

#[test]
fn no_name_of_a_client_loses_its_connection() {
    run("no_name_of_a_client_loses_its_connection", || {
        let folder = Folder::new("accept");
        let to = folder.0.join("to");
        let listener = UnixListener::bind(&to).unwrap();
        for name in Name::all(&folder) {
            let client = name.socket(SocketType::STREAM);
            connect(&client, &to);
            let (stream, peer) = listener.accept().unwrap();
            name.assert_is(&peer);
            name.assert_is(&stream.peer_addr().unwrap());
            assert_eq!(stream.local_addr().unwrap().as_pathname(), Some(&*to));
            assert!(!format!("{stream:?}").is_empty());
        }
    });
}

#[test]
fn every_name_of_a_listener_is_reported() {
    run("every_name_of_a_listener_is_reported", || {
        let folder = Folder::new("listen");
        for name in Name::all(&folder) {
            if matches!(name, Name::None) {
                continue;
            }
            let socket = name.socket(SocketType::STREAM);
            rustix::net::listen(&socket, 1).unwrap();
            let listener = UnixListener::from(socket);
            name.assert_is(&listener.local_addr().unwrap());
            if let Name::Path(path) = &name
                && name.is_known()
            {
                let client = UnixStream::connect(path).unwrap();
                name.assert_is(&client.peer_addr().unwrap());
            }
        }
    });
}

#[test]
fn no_name_of_a_client_ends_a_server() {
    run("no_name_of_a_client_ends_a_server", || {
        let folder = Folder::new("serve");
        let to = folder.0.join("to");
        let listener = Rc::new(UnixListener::bind(&to).unwrap());
        let (stop, names) = (StopServe::new(), Name::all(&folder));
        let (stopper, path, clients) = (stop.clone(), to.clone(), names.clone());
        let client = spawn(move || {
            for name in clients {
                let socket = name.socket(SocketType::STREAM);
                connect(&socket, &path);
                let mut stream = UnixStream::from(socket);
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                assert_eq!(text, "served");
            }
            stopper.stop();
        });
        let handler = |mut stream: UnixStream, _: SocketAddr| stream.write_all(b"served");
        let served = serve_until(&stop, &*listener, &GreenPool::new(10), handler).unwrap();
        assert_eq!(served.accepted, names.len() as u64);
        client.join().unwrap();
    });
}
