//! The examples of std's `os::unix::net`.

use super::{Folder, examples};

examples! {
    fn unix_stream() -> greenhub::io::Result<()> {
        use greenhub::io::prelude::*;
        use greenhub::os::unix::net::{UnixListener, UnixStream};
        use greenhub::thread;

        let folder = Folder::new();
        let listener = UnixListener::bind(folder.entry("socket"))?;
        let server = thread::spawn(move || listener.accept().and_then(|(mut peer, _)| peer.write_all(b"response")));
        let mut stream = UnixStream::connect(folder.entry("socket"))?;
        stream.write_all(b"hello world")?;
        let mut response = String::new();
        let read = stream.read_to_string(&mut response);
        // The server may have closed its end with data unread.
        assert!(read.is_err() || response == "response", "{response}");
        server.join().unwrap()
    }

    fn unix_stream_pair() {
        use greenhub::os::unix::net::UnixStream;

        let (sock1, _sock2) = match UnixStream::pair() {
            Ok((sock1, sock2)) => (sock1, sock2),
            Err(e) => panic!("Couldn't create a pair of sockets: {e:?}"),
        };
        assert!(sock1.local_addr().unwrap().is_unnamed());
    }

    fn unix_stream_options() -> greenhub::io::Result<()> {
        use greenhub::net::Shutdown;
        use greenhub::os::unix::net::{UnixListener, UnixStream};
        use greenhub::time::Duration;

        let folder = Folder::new();
        let listener = UnixListener::bind(folder.entry("socket"))?;
        let socket = UnixStream::connect(folder.entry("socket"))?;
        let _sock_copy = socket.try_clone().expect("Couldn't clone socket");
        assert_eq!(socket.peer_addr()?.as_pathname(), listener.local_addr()?.as_pathname());
        socket.set_read_timeout(Some(Duration::new(1, 0))).expect("Couldn't set read timeout");
        assert_eq!(socket.read_timeout()?, Some(Duration::new(1, 0)));
        socket.set_nonblocking(true).expect("Couldn't set nonblocking");
        assert!(socket.take_error()?.is_none());
        socket.shutdown(Shutdown::Both).expect("shutdown function failed");
        Ok(())
    }

    fn unix_stream_connect_addr() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::{UnixListener, UnixStream};

        let folder = Folder::new();
        let listener = UnixListener::bind(folder.entry("socket"))?;
        let addr = listener.local_addr()?;
        let _sock = match UnixStream::connect_addr(&addr) {
            Ok(sock) => sock,
            Err(e) => return Err(e),
        };
        Ok(())
    }

    fn unix_listener() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::{UnixListener, UnixStream};
        use greenhub::thread;

        fn handle_client(stream: UnixStream) {
            assert!(stream.local_addr().is_ok());
        }
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.entry("socket"))?;
        let _client = UnixStream::connect(folder.entry("socket"))?;
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => {
                    thread::spawn(|| handle_client(stream)).join().unwrap();
                    break; // std's example never ends
                }
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    fn unix_listener_accept() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::{UnixListener, UnixStream};

        let folder = Folder::new();
        let listener = UnixListener::bind(folder.entry("socket"))?;
        let _client = UnixStream::connect(folder.entry("socket"))?;
        match listener.accept() {
            Ok((_socket, addr)) => assert!(addr.is_unnamed()),
            Err(e) => panic!("accept function failed: {e:?}"),
        }
        Ok(())
    }

    fn incoming() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::{Incoming, UnixListener, UnixStream};

        let folder = Folder::new();
        let listener = UnixListener::bind(folder.entry("socket"))?;
        let _client = UnixStream::connect(folder.entry("socket"))?;
        let mut connections: Incoming<'_> = listener.incoming();
        assert!(connections.next().unwrap().is_ok());
        Ok(())
    }

    fn unix_datagram() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::UnixDatagram;

        let folder = Folder::new();
        let other = UnixDatagram::bind(folder.entry("other"))?;
        let socket = UnixDatagram::bind(folder.entry("socket"))?;
        socket.send_to(b"hello world", folder.entry("other"))?;
        other.send_to(b"answer", folder.entry("socket"))?;
        let mut buf = [0; 100];
        let (count, address) = socket.recv_from(&mut buf)?;
        assert_eq!(&buf[..count], b"answer");
        assert_eq!(address.as_pathname(), Some(&*folder.entry("other")));
        Ok(())
    }

    fn unix_datagram_connected() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::UnixDatagram;

        let folder = Folder::new();
        let bound = UnixDatagram::bind(folder.entry("socket"))?;
        let sock = UnixDatagram::unbound()?;
        sock.connect(folder.entry("socket")).expect("Couldn't connect");
        sock.send(b"omelette au fromage").expect("send function failed");
        let mut buf = vec![0; 100];
        assert_eq!(bound.recv(buf.as_mut_slice()).expect("recv function failed"), 19);
        assert_eq!(sock.peer_addr()?.as_pathname(), bound.local_addr()?.as_pathname());
        Ok(())
    }

    fn unix_datagram_pair() {
        use greenhub::os::unix::net::UnixDatagram;

        let (_sock1, _sock2) = match UnixDatagram::pair() {
            Ok((sock1, sock2)) => (sock1, sock2),
            Err(e) => panic!("Couldn't create a pair: {e:?}"),
        };
    }

    fn unix_datagram_addresses() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::UnixDatagram;

        let folder = Folder::new();
        let bound = UnixDatagram::bind(folder.entry("socket"))?;
        let addr = bound.local_addr()?;
        let sock = UnixDatagram::unbound()?;
        sock.send_to_addr(b"bacon egg and cheese", &addr).expect("send_to_addr function failed");
        sock.connect_addr(&addr)?;
        assert!(UnixDatagram::bind_addr(&addr).is_err());
        Ok(())
    }

    fn socket_addr() -> greenhub::io::Result<()> {
        use greenhub::os::unix::net::{SocketAddr, UnixListener};
        use std::path::Path;

        let folder = Folder::new();
        let socket = UnixListener::bind(folder.entry("socket"))?;
        let addr = socket.local_addr().expect("Couldn't get local address");
        assert!(!addr.is_unnamed());
        let address = SocketAddr::from_pathname("/path/to/socket")?;
        assert_eq!(address.as_pathname(), Some(Path::new("/path/to/socket")));
        Ok(())
    }
}
