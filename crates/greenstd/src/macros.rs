//! The code that all kinds of sockets and pipes repeat.

/// Descriptor traits, `close`, and everything else that depends neither on the address family nor on timeouts.
macro_rules! socket_common {
    ($name:ident, $std:ty) => {
        impl $name {
            /// Creates a new independently owned handle to the underlying socket. Does not switch.
            ///
            /// Each handle is watched on its own, so the original and the clone may wait at the same time. Timeouts and
            /// the non-blocking mode are shared.
            ///
            /// # Errors
            ///
            /// Returns an error if no descriptor is free, or the socket was closed.
            pub fn try_clone(&self) -> io::Result<$name> {
                Ok($name(self.0.try_clone()?))
            }

            /// Gets the value of the `SO_ERROR` option on this socket, and clears it. Does not switch.
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.0.configure(|socket| socket.take_error())
            }

            /// Moves this socket into or out of nonblocking mode. Does not switch.
            ///
            /// In that mode operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting, and do not
            /// switch. One exception switches: an accept on a listener that another process shares waits while an OS
            /// thread takes the connection. Off by default: waiting parks only the green thread.
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed.
            pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
                self.0.set_nonblocking(nonblocking)
            }

            /// Closes the socket now and wakes its waiters on all OS threads. Does not switch.
            ///
            /// The waits and every later operation fail with [`NotConnected`](io::ErrorKind::NotConnected). The number
            /// of the descriptor is free when the last operation under way has ended. Clones stay open.
            pub fn close(&self) {
                self.0.close();
            }

            /// Converts a std socket, with its timeouts and its mode. Does not switch.
            ///
            /// The open file description becomes non-blocking, also for clones of the std socket.
            ///
            /// # Errors
            ///
            /// Returns an error if the system refuses the change of the mode.
            pub fn from_std(socket: $std) -> io::Result<$name> {
                Ok($name(Socket::from_fd(socket.into())?))
            }

            /// Converts into a std socket, with its timeouts. Does not switch.
            ///
            /// The descriptor blocks again, unless [`set_nonblocking`](Self::set_nonblocking) was called. Clones share
            /// that mode and stay green: from then on a clone of a listener accepts on another OS thread.
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed.
            pub fn into_std(self) -> io::Result<$std> {
                Ok(self.0.into_fd()?.into())
            }
        }

        impl From<$std> for $name {
            /// Calls [`from_std`](Self::from_std).
            ///
            /// # Panics
            ///
            /// Panics if the system refuses to make the socket non-blocking, which it does for no open socket.
            #[track_caller]
            fn from(socket: $std) -> $name {
                $name::from(OwnedFd::from(socket))
            }
        }

        impl From<OwnedFd> for $name {
            /// Takes ownership of a descriptor, which has to be a socket of this kind.
            ///
            /// # Panics
            ///
            /// Panics if the system refuses to make it non-blocking, which it does for no open socket.
            #[track_caller]
            fn from(fd: OwnedFd) -> $name {
                match Socket::from_fd(fd) {
                    Ok(socket) => $name(socket),
                    Err(error) => panic!("{}: cannot make the descriptor non-blocking: {error}", stringify!($name)),
                }
            }
        }

        impl From<$name> for OwnedFd {
            /// Returns the descriptor, as [`into_std`](
            #[doc = concat!(stringify!($name), "::into_std")]
            /// ) does.
            ///
            /// # Panics
            ///
            /// Panics if the socket was closed.
            #[track_caller]
            fn from(socket: $name) -> OwnedFd {
                match socket.0.into_fd() {
                    Ok(fd) => fd,
                    Err(error) => panic!("{}: cannot give the descriptor away: {error}", stringify!($name)),
                }
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        impl AsFd for $name {
            #[track_caller]
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }
    };
}

/// Read and write timeouts.
macro_rules! socket_timeouts {
    ($name:ident) => {
        impl $name {
            /// Sets the read timeout. Does not switch.
            ///
            /// It limits each single read; `None`, the default, is no limit. A read that waits longer fails with
            /// [`TimedOut`](io::ErrorKind::TimedOut) on every system; std's fails with `WouldBlock` on Unix, so
            /// portable code handles both kinds. Shared with clones.
            ///
            /// # Errors
            ///
            /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero, or an error if the socket
            /// was closed.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.0.set_timeout(Direction::Read, timeout)
            }

            /// Sets the write timeout. Does not switch.
            ///
            /// It limits each single write; `None`, the default, is no limit. A write that waits longer fails with
            /// [`TimedOut`](io::ErrorKind::TimedOut) on every system; std's fails with `WouldBlock` on Unix, so
            /// portable code handles both kinds. Shared with clones.
            ///
            /// # Errors
            ///
            /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero, or an error if the socket
            /// was closed.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.0.set_timeout(Direction::Write, timeout)
            }

            /// Returns the read timeout of this socket.
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                self.0.timeout(Direction::Read)
            }

            /// Returns the write timeout of this socket.
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                self.0.timeout(Direction::Write)
            }
        }
    };
}

/// `Read` and `Write` for a stream and for a reference to it.
macro_rules! socket_stream {
    ($name:ident) => {
        impl Read for &$name {
            #[inline]
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.recv(buffer)
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.recv_vectored(buffers)
            }
        }

        impl Write for &$name {
            #[inline]
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.0.send(data)
            }

            fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.send_vectored(pieces)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Read for $name {
            #[inline]
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.recv(buffer)
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.recv_vectored(buffers)
            }
        }

        impl Write for $name {
            #[inline]
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.0.send(data)
            }

            fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.send_vectored(pieces)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

/// Polls of a stream by futures.
macro_rules! socket_poll {
    ($name:ident) => {
        impl crate::future::PollIo for $name {
            fn cancel_poll(&self, directions: hub_core::hub::Interest) {
                self.0.cancel_poll(directions);
            }
        }

        impl crate::future::PollRead for $name {
            fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
                self.0.poll_recv(cx, buffer)
            }

            fn poll_read_vectored(
                &self,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                self.0.poll_recv_vectored(cx, buffers)
            }
        }

        impl crate::future::PollWrite for $name {
            fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                self.0.poll_send(cx, data)
            }

            fn poll_write_vectored(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
                self.0.poll_send_vectored(cx, pieces)
            }

            fn end_write(&self) -> io::Result<()> {
                self.0.shutdown(Shutdown::Write)
            }
        }
    };
}

/// The iterator over the connections of a listener, and the implementation of `Accept`. `$address` converts a peer's
/// address, and `$text` returns it as a text.
macro_rules! socket_incoming {
    ($listener:ident, $stream:ident, $address:path, $text:path) => {
        /// An iterator that infinitely accepts connections on a listener, std's `Incoming`.
        ///
        /// Waiting for the next connection parks the green thread. Unlike std's, it ends when the listener is [closed](
        #[doc = concat!(stringify!($listener), "::close")]
        /// ).
        #[must_use = "connections are accepted by iterating"]
        #[derive(Debug)]
        pub struct Incoming<'a> {
            listener: &'a $listener,
        }

        impl Iterator for Incoming<'_> {
            type Item = io::Result<$stream>;

            fn next(&mut self) -> Option<io::Result<$stream>> {
                match self.listener.accept() {
                    Ok((stream, _)) => Some(Ok(stream)),
                    Err(_) if self.listener.0.is_closed() => None,
                    Err(error) => Some(Err(error)),
                }
            }
        }

        impl std::iter::FusedIterator for Incoming<'_> {}

        impl crate::future::PollIo for $listener {
            fn cancel_poll(&self, directions: hub_core::hub::Interest) {
                self.0.cancel_poll(directions);
            }
        }

        impl crate::future::PollAccept for $listener {
            type Stream = $stream;
            type Address = SocketAddr;

            fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<($stream, SocketAddr)>> {
                let (socket, address) = std::task::ready!(self.0.poll_accept(cx))?;
                Poll::Ready($address(address).map(|address| ($stream(socket), address)))
            }
        }

        impl crate::net::Accept for $listener {
            type Stream = $stream;
            type Address = SocketAddr;

            fn accept_if<T>(
                &self,
                admit: impl FnMut() -> Option<T>,
            ) -> io::Result<Option<crate::net::Accepted<$listener, T>>> {
                let Some((socket, address, ticket)) = self.0.accept_if(admit)? else { return Ok(None) };
                Ok(Some(($stream(socket), $address(address)?, ticket)))
            }

            fn is_closed(&self) -> bool {
                self.0.is_closed()
            }

            fn peer_name(address: &SocketAddr) -> Option<String> {
                $text(address)
            }
        }
    };
}

/// One end of a pipe: descriptor traits, conversions, `close`.
macro_rules! pipe_common {
    ($name:ident, $std:ty) => {
        impl $name {
            /// Closes the pipe end now and wakes its waiters on all OS threads. Does not switch.
            ///
            /// The waits and every later operation fail with [`NotConnected`](io::ErrorKind::NotConnected). The number
            /// of the descriptor is free when the last operation under way has ended. A second call does nothing.
            pub fn close(&self) {
                self.0.close();
            }
        }

        impl From<$std> for $name {
            /// Converts std's pipe end. Does not switch.
            ///
            /// The open file description stays blocking for other handles of it.
            fn from(pipe: $std) -> $name {
                $name::from(OwnedFd::from(pipe))
            }
        }

        impl From<OwnedFd> for $name {
            /// Takes ownership of a descriptor. Does not switch.
            ///
            /// The open file description stays blocking for other handles of it; yet no operation here blocks the OS
            /// thread.
            #[track_caller]
            fn from(fd: OwnedFd) -> $name {
                $name(Stream::shared(fd))
            }
        }

        impl From<$name> for OwnedFd {
            /// Returns the descriptor, which blocks from now on. Clones stay green. Does not switch.
            ///
            /// # Panics
            ///
            /// Panics if the pipe was closed.
            #[track_caller]
            fn from(pipe: $name) -> OwnedFd {
                match pipe.0.into_fd() {
                    Ok(fd) => fd,
                    Err(error) => panic!("{}: cannot give the descriptor away: {error}", stringify!($name)),
                }
            }
        }

        impl From<$name> for std::process::Stdio {
            /// Converts the pipe for a child, for which it blocks. Clones stay green.
            ///
            /// # Panics
            ///
            /// Panics if the pipe was closed.
            #[track_caller]
            fn from(pipe: $name) -> std::process::Stdio {
                OwnedFd::from(pipe).into()
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        impl AsFd for $name {
            #[track_caller]
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("fd", &self.as_raw_fd()).finish()
            }
        }
    };
}

/// `Read` for the end of a pipe and for a reference to it.
macro_rules! pipe_read {
    ($($name:ty),*) => {$(
        impl Read for $name {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.read_vectored(buffers)
            }
        }
    )*};
}

/// Polls of the read end of a pipe by futures.
macro_rules! pipe_poll_read {
    ($($name:ty),*) => {$(
        impl crate::future::PollIo for $name {
            fn cancel_poll(&self, directions: hub_core::hub::Interest) {
                self.0.cancel_poll(directions);
            }
        }

        impl crate::future::PollRead for $name {
            fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
                self.0.poll_read_vectored(cx, &mut [IoSliceMut::new(buffer)])
            }

            fn poll_read_vectored(
                &self,
                cx: &mut Context<'_>,
                buffers: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                self.0.poll_read_vectored(cx, buffers)
            }
        }
    )*};
}

/// Polls of the write end of a pipe by futures.
macro_rules! pipe_poll_write {
    ($name:ty) => {
        impl crate::future::PollIo for $name {
            fn cancel_poll(&self, directions: hub_core::hub::Interest) {
                self.0.cancel_poll(directions);
            }
        }

        impl crate::future::PollWrite for $name {
            fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                self.0.poll_write_vectored(cx, &[IoSlice::new(data)])
            }

            fn poll_write_vectored(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
                self.0.poll_write_vectored(cx, pieces)
            }

            /// Closes this handle: the reader finds the end of the data once no clone is left.
            fn end_write(&self) -> io::Result<()> {
                self.0.close();
                Ok(())
            }
        }
    };
}

/// `Write` for the end of a pipe and for a reference to it.
macro_rules! pipe_write {
    ($($name:ty),*) => {$(
        impl Write for $name {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.0.write(data)
            }

            fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.write_vectored(pieces)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    )*};
}
