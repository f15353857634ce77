//! The connection of one client: a reader passes its lines to the room, a writer sends it the lines of the room.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use greenhub::net::TcpStream;
use greenhub::sync::mpsc::Receiver;

use crate::room::{Line, Room, Seat};

/// The maximum length of a line with its end, in bytes.
const LONGEST: usize = 1000;

/// Serves a client until it leaves or is removed. Switches.
pub(crate) fn serve(room: &Rc<Room>, stream: TcpStream, timeout: Duration) -> io::Result<()> {
    let stream = Rc::new(stream);
    let mut lines = Lines { stream: BufReader::new(&stream) };
    stream.set_write_timeout(Some(timeout))?;
    stream.set_read_timeout(Some(timeout))?;
    let Some((seat, others)) = introduce(room, &stream, &mut lines)? else { return Ok(()) };
    stream.set_read_timeout(None)?;
    greenhub::scope(|scope| {
        scope.spawn(|| write(&stream, others));
        let result = listen(&seat, &mut lines);
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::InvalidData
        {
            seat.send(&format!("* {error}"));
        }
        // Without its seat the queue has no sender: the writer sends the remaining lines and ends.
        drop(seat);
        result
    })
}

/// Asks for a name until it is valid and free. Returns `None` if the client leaves.
fn introduce(
    room: &Rc<Room>,
    stream: &Rc<TcpStream>,
    lines: &mut Lines<'_>,
) -> io::Result<Option<(Seat, Receiver<Line>)>> {
    let mut peer = &**stream;
    loop {
        peer.write_all(b"* your name?\n")?;
        let Some(name) = lines.next()? else { return Ok(None) };
        let known = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_';
        if !(1..=20).contains(&name.chars().count()) || !name.chars().all(known) {
            peer.write_all(b"* a name has 1 to 20 letters, digits, - or _\n")?;
        } else if let Some(place) = room.enter(&name, stream) {
            return Ok(Some(place));
        } else {
            peer.write_all(format!("* the name {name} is taken\n").as_bytes())?;
        }
    }
}

/// Passes the lines of the client to the room, until the client leaves.
fn listen(seat: &Seat, lines: &mut Lines<'_>) -> io::Result<()> {
    while let Some(line) = lines.next()? {
        match line.as_str() {
            "" => {}
            "/quit" => break,
            "/who" => seat.send(&format!("* {}", seat.room().who())),
            command if command.starts_with('/') => seat.send("* unknown command; use /who or /quit"),
            text => seat.say(text),
        }
    }
    Ok(())
}

/// Sends the queued lines until the queue has no sender or a write fails, and then shuts down the connection.
fn write(mut stream: &TcpStream, lines: Receiver<Line>) {
    for line in &lines {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// A reader of the lines of a client.
struct Lines<'a> {
    stream: BufReader<&'a TcpStream>,
}

impl Lines<'_> {
    /// Reads the next line, without control characters, which could confuse a terminal. Returns `None` at the end.
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let length = (&mut self.stream).take(LONGEST as u64 + 1).read_until(b'\n', &mut line)?;
        if length > LONGEST {
            let text = format!("a line has up to {LONGEST} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
        Ok((length > 0).then(|| text.trim().to_owned()))
    }
}
