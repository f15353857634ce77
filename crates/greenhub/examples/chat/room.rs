//! The room: its members, and a queue of lines for each.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::rc::Rc;

use greenhub::net::TcpStream;
use greenhub::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A line, shared by the queues of its receivers.
pub(crate) type Line = Rc<str>;

/// The members of the chat.
///
/// No method waits, so all members receive the lines in the same order.
pub(crate) struct Room {
    /// The capacity of a member's queue.
    capacity: usize,
    members: RefCell<BTreeMap<String, Member>>,
    next: Cell<u64>,
    lines: Cell<u64>,
    slow: Cell<u64>,
}

struct Member {
    number: u64,
    lines: SyncSender<Line>,
    stream: Rc<TcpStream>,
}

/// The membership of a client. Dropping it removes the client from the room.
pub(crate) struct Seat {
    room: Rc<Room>,
    name: String,
    number: u64,
}

impl Room {
    pub(crate) fn new(capacity: usize) -> Room {
        Room { capacity, members: RefCell::default(), next: Cell::new(0), lines: Cell::new(0), slow: Cell::new(0) }
    }

    /// Returns the number of lines that clients have sent.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.get()
    }

    /// Returns the number of clients that were removed because their queue was full.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.get()
    }

    /// Adds a member, and returns its seat and the receiver of its lines. Returns `None` if the name is taken.
    pub(crate) fn enter(self: &Rc<Room>, name: &str, stream: &Rc<TcpStream>) -> Option<(Seat, Receiver<Line>)> {
        if self.members.borrow().contains_key(name) {
            return None;
        }
        self.send_to_all(&format!("* {name} has joined"), None);
        let (sender, lines) = sync_channel(self.capacity);
        let number = self.next.replace(self.next.get() + 1);
        let member = Member { number, lines: sender, stream: Rc::clone(stream) };
        self.members.borrow_mut().insert(name.to_owned(), member);
        let seat = Seat { room: Rc::clone(self), name: name.to_owned(), number };
        seat.send(&format!("* {}", self.who()));
        Some((seat, lines))
    }

    /// Returns a line with the names of the members.
    pub(crate) fn who(&self) -> String {
        let members = self.members.borrow();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        format!("here: {}", names.join(", "))
    }

    /// Sends a last line to all members, and removes them. Their writers still send the queued lines.
    pub(crate) fn close(&self) {
        self.send_to_all("* the server is closing", None);
        // This drops the senders of the queues, so writers end after the last line.
        self.members.take();
    }

    /// Sends a line to all members except `except`.
    fn send_to_all(&self, text: &str, except: Option<&str>) {
        let line = line(text);
        let members = self.members.borrow();
        let others = members.iter().filter(|(name, _)| except != Some(name.as_str()));
        let slow: Vec<String> = others
            .filter(|(_, member)| member.lines.try_send(Rc::clone(&line)).is_err())
            .map(|(name, _)| name.clone())
            .collect();
        drop(members);
        for name in slow {
            self.remove(&name);
        }
    }

    /// Removes a member whose queue is full.
    fn remove(&self, name: &str) {
        let Some(member) = self.members.borrow_mut().remove(name) else { return };
        self.slow.set(self.slow.get() + 1);
        // Wake its reader and its writer.
        let _ = member.stream.shutdown(Shutdown::Both);
        self.send_to_all(&format!("* {name} was removed: too slow"), None);
    }
}

impl Seat {
    /// Sends a line of this member to all other members.
    pub(crate) fn say(&self, text: &str) {
        self.room.lines.set(self.room.lines.get() + 1);
        self.room.send_to_all(&format!("{}: {text}", self.name), Some(&self.name));
    }

    /// Sends a line to this member.
    pub(crate) fn send(&self, text: &str) {
        let members = self.room.members.borrow();
        let sent = members.get(&self.name).map(|member| member.lines.try_send(line(text)));
        drop(members);
        if sent.is_some_and(|sent| sent.is_err()) {
            self.room.remove(&self.name);
        }
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut members = self.room.members.borrow_mut();
        // A removed member is not in the map any more, and its name may belong to another member.
        if members.get(&self.name).is_some_and(|member| member.number == self.number) {
            let member = members.remove(&self.name);
            drop(members);
            drop(member);
            self.room.send_to_all(&format!("* {} has left", self.name), None);
        }
    }
}

fn line(text: &str) -> Line {
    format!("{text}\n").into()
}
