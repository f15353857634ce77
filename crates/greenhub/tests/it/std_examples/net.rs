//! The examples of std's `net`.

use super::examples;

examples! {
    fn tcp_stream() -> greenhub::io::Result<()> {
        use greenhub::io::prelude::*;
        use greenhub::net::{TcpListener, TcpStream};
        use greenhub::thread;

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let peer = thread::spawn(move || listener.accept().and_then(|(mut peer, _)| peer.write_all(b"answer")));
        let mut stream = TcpStream::connect(address)?;
        assert_eq!(stream.write(&[1])?, 1);
        assert_eq!(stream.read(&mut [0; 128])?, 6);
        peer.join().unwrap()
    }

    fn tcp_stream_connect() -> greenhub::io::Result<()> {
        use greenhub::net::{SocketAddr, TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addrs = [SocketAddr::from(([127, 0, 0, 1], listener.local_addr()?.port()))];
        if let Ok(stream) = TcpStream::connect(&addrs[..]) {
            assert_eq!(stream.peer_addr().unwrap(), addrs[0]);
        } else {
            panic!("Couldn't connect to server...");
        }
        Ok(())
    }

    fn tcp_stream_options() -> greenhub::io::Result<()> {
        use greenhub::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
        use greenhub::time::Duration;

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?).expect("Couldn't connect to the server...");
        assert_eq!(stream.local_addr().unwrap().ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)));
        stream.set_read_timeout(None).expect("set_read_timeout call failed");
        assert_eq!(stream.read_timeout().unwrap(), None);
        stream.set_write_timeout(Some(Duration::new(1, 0))).expect("set_write_timeout call failed");
        assert_eq!(stream.write_timeout().unwrap(), Some(Duration::from_secs(1)));
        stream.set_nodelay(true).expect("set_nodelay call failed");
        assert!(stream.nodelay().unwrap_or(false));
        stream.set_ttl(100).expect("set_ttl call failed");
        assert_eq!(stream.ttl().unwrap_or(0), 100);
        stream.take_error().expect("No error was expected...");
        let stream_clone = stream.try_clone().expect("clone failed...");
        stream.shutdown(Shutdown::Both).expect("shutdown call failed");
        assert_eq!(stream_clone.peek(&mut [0; 10]).expect("peek failed"), 0);
        Ok(())
    }

    fn tcp_stream_refuses_a_timeout_of_zero() -> greenhub::io::Result<()> {
        use greenhub::io;
        use greenhub::net::{TcpListener, TcpStream};
        use greenhub::time::Duration;

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let result = stream.set_read_timeout(Some(Duration::new(0, 0)));
        let err = result.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
        Ok(())
    }

    fn tcp_stream_set_nonblocking() -> greenhub::io::Result<()> {
        use greenhub::io::{self, Read};
        use greenhub::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nonblocking(true).expect("set_nonblocking call failed");
        let mut buf = vec![];
        loop {
            match stream.read_to_end(&mut buf) {
                Ok(_) => panic!("the peer is not closed"),
                Err(ref e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => panic!("encountered IO error: {e}"),
            };
        }
        Ok(())
    }

    fn tcp_listener() -> greenhub::io::Result<()> {
        use greenhub::net::{TcpListener, TcpStream};

        fn handle_client(stream: TcpStream) {
            assert!(stream.peer_addr().is_ok());
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let _client = TcpStream::connect(listener.local_addr()?)?;
        for stream in listener.incoming() {
            handle_client(stream?);
            break; // std's example never ends
        }
        Ok(())
    }

    fn tcp_listener_accept() -> greenhub::io::Result<()> {
        use greenhub::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr()?)?;
        match listener.accept() {
            Ok((_socket, addr)) => assert_eq!(addr, client.local_addr()?),
            Err(e) => panic!("couldn't get client: {e:?}"),
        }
        Ok(())
    }

    fn incoming() -> greenhub::io::Result<()> {
        use greenhub::net::{Incoming, TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let listener_clone = listener.try_clone().unwrap();
        let _client = TcpStream::connect(listener_clone.local_addr()?)?;
        let mut connections: Incoming<'_> = listener.incoming();
        assert!(connections.next().unwrap().is_ok());
        listener.set_nonblocking(true).expect("Cannot set non-blocking");
        assert!(connections.next().unwrap().is_err());
        Ok(())
    }

    fn udp_socket() -> greenhub::io::Result<()> {
        use greenhub::net::UdpSocket;

        let client = UdpSocket::bind("127.0.0.1:0")?;
        {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            client.send_to(b"123", socket.local_addr()?)?;
            let mut buf = [0; 10];
            let (amt, src) = socket.recv_from(&mut buf)?;
            let buf = &mut buf[..amt];
            buf.reverse();
            socket.send_to(buf, src)?;
        }
        let mut buf = [0; 10];
        let (number_of_bytes, _src_addr) = client.recv_from(&mut buf).expect("Didn't receive data");
        assert_eq!(&buf[..number_of_bytes], b"321");
        Ok(())
    }

    fn udp_socket_connected() -> greenhub::io::Result<()> {
        use greenhub::net::{SocketAddr, UdpSocket};

        let socket = UdpSocket::bind("127.0.0.1:0").expect("couldn't bind to address");
        let addrs = [SocketAddr::from(([127, 0, 0, 1], socket.local_addr()?.port()))];
        socket.connect(&addrs[..]).expect("connect function failed");
        assert_eq!(socket.peer_addr().unwrap(), addrs[0]);
        socket.send(&[0, 1, 2]).expect("couldn't send message");
        let mut buf = [0; 10];
        assert_eq!(socket.peek(&mut buf).expect("peek function failed"), 3);
        match socket.recv(&mut buf) {
            Ok(received) => assert_eq!(&buf[..received], &[0, 1, 2]),
            Err(e) => panic!("recv function failed: {e:?}"),
        }
        Ok(())
    }

    fn udp_socket_options() {
        use greenhub::net::{Ipv4Addr, UdpSocket};

        let socket = UdpSocket::bind("127.0.0.1:0").expect("couldn't bind to address");
        socket.set_broadcast(false).expect("set_broadcast call failed");
        assert!(!socket.broadcast().unwrap());
        socket.set_multicast_loop_v4(false).expect("set_multicast_loop_v4 call failed");
        assert!(!socket.multicast_loop_v4().unwrap());
        socket.set_multicast_ttl_v4(42).expect("set_multicast_ttl_v4 call failed");
        assert_eq!(socket.multicast_ttl_v4().unwrap(), 42);
        socket.set_ttl(42).expect("set_ttl call failed");
        assert_eq!(socket.ttl().unwrap(), 42);
        socket.set_read_timeout(None).expect("set_read_timeout call failed");
        assert_eq!(socket.read_timeout().unwrap(), None);
        assert!(socket.take_error().unwrap().is_none());
        let _joins = || socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &Ipv4Addr::UNSPECIFIED);
    }

    fn udp_socket_set_nonblocking() {
        use greenhub::io;
        use greenhub::net::UdpSocket;

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut buf = [0; 10];
        match socket.recv_from(&mut buf) {
            Ok(n) => panic!("nothing was sent: {n:?}"),
            Err(ref e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => panic!("encountered IO error: {e}"),
        }
    }

    fn to_socket_addrs() {
        use greenhub::net::{SocketAddr, ToSocketAddrs};

        let addr = SocketAddr::from(([127, 0, 0, 1], 443));
        let mut addrs_iter = addr.to_socket_addrs().unwrap();
        assert_eq!(Some(addr), addrs_iter.next());
        assert!(addrs_iter.next().is_none());
    }

    fn to_socket_addrs_of_a_name() {
        use greenhub::net::{SocketAddr, ToSocketAddrs};

        let mut addrs_iter = "localhost:443".to_socket_addrs().unwrap();
        assert_eq!(addrs_iter.next().map(|addr: SocketAddr| addr.port()), Some(443));
        assert!("127.0.0.1".to_socket_addrs().is_err());
    }

    fn socket_addr() {
        use greenhub::net::{IpAddr, Ipv4Addr, SocketAddr};

        let socket = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), 8080);
        assert_eq!("127.0.0.1:8080".parse(), Ok(socket));
        assert_eq!(socket.port(), 8080);
        assert!(socket.is_ipv4());
    }
}
