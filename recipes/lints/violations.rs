//! Each entry of `clippy.toml` is violated once here. `tests/it/lints.rs` runs clippy over this file.

pub struct Types(
    pub Option<std::net::TcpListener>,
    pub Option<std::net::TcpStream>,
    pub Option<std::net::UdpSocket>,
    pub Option<std::os::unix::net::UnixDatagram>,
    pub Option<std::os::unix::net::UnixListener>,
    pub Option<std::os::unix::net::UnixStream>,
    pub Option<std::fs::File>,
    pub Option<std::fs::OpenOptions>,
    pub Option<std::process::Child>,
    pub Option<std::process::Command>,
    pub Option<std::sync::Barrier>,
    pub Option<std::sync::Condvar>,
    pub Option<std::sync::LazyLock<()>>,
    pub Option<std::sync::Mutex<()>>,
    pub Option<std::sync::Once>,
    pub Option<std::sync::OnceLock<()>>,
    pub Option<std::sync::RwLock<()>>,
    pub Option<std::sync::mpsc::Receiver<()>>,
    pub Option<std::sync::mpsc::SyncSender<()>>,
    pub Option<parking_lot::Condvar>,
    pub Option<parking_lot::Mutex<()>>,
    pub Option<parking_lot::RwLock<()>>,
    pub Option<crossbeam_channel::Receiver<()>>,
    pub Option<crossbeam_channel::Sender<()>>,
);

pub fn methods() -> std::io::Result<()> {
    std::thread::park();
    std::thread::park_timeout(std::time::Duration::ZERO);
    std::thread::scope(|_| ());
    std::thread::sleep(std::time::Duration::ZERO);
    let thread = std::thread::spawn(|| ());
    std::thread::yield_now();
    let _ = thread.join();
    let _ = std::net::ToSocketAddrs::to_socket_addrs("localhost:1")?;
    let _ = std::io::pipe()?;
    let _ = std::io::stdin();
    std::fs::copy("a", "b")?;
    std::fs::create_dir_all("a")?;
    std::fs::metadata("a")?;
    std::fs::read("a")?;
    std::fs::read_dir("a")?;
    std::fs::read_to_string("a")?;
    std::fs::remove_dir_all("a")?;
    std::fs::remove_file("a")?;
    std::fs::rename("a", "b")?;
    std::fs::write("a", "b")
}
