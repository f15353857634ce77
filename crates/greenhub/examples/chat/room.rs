//! Who is here, and what each of them is to be sent.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::rc::Rc;

use greenhub::net::TcpStream;
use greenhub::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A line for several.
pub(crate) type Line = Rc<str>;

/// Nothing in here waits, so that all hear the same in the same order.
pub(crate) struct Room {
    /// How many lines may wait for one.
    behind: usize,
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

/// One's place in the room, which is left when this is dropped.
pub(crate) struct Seat {
    room: Rc<Room>,
    name: String,
    number: u64,
}

impl Room {
    pub(crate) fn new(behind: usize) -> Room {
        Room { behind, members: RefCell::default(), next: Cell::new(0), lines: Cell::new(0), slow: Cell::new(0) }
    }

    /// How many lines were said.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.get()
    }

    /// How many clients were put out because they did not read.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.get()
    }

    /// Takes a place under a name, and gives what is to be sent there. `None` if somebody has that name.
    pub(crate) fn enter(self: &Rc<Room>, name: &str, stream: &Rc<TcpStream>) -> Option<(Seat, Receiver<Line>)> {
        if self.members.borrow().contains_key(name) {
            return None;
        }
        self.tell_all(&format!("* {name} has come"), None);
        let (sender, lines) = sync_channel(self.behind);
        let number = self.next.replace(self.next.get() + 1);
        let member = Member { number, lines: sender, stream: Rc::clone(stream) };
        self.members.borrow_mut().insert(name.to_owned(), member);
        let seat = Seat { room: Rc::clone(self), name: name.to_owned(), number };
        seat.hear(&format!("* {}", self.who()));
        Some((seat, lines))
    }

    pub(crate) fn who(&self) -> String {
        let members = self.members.borrow();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        format!("here: {}", names.join(", "))
    }

    /// Says goodbye. What is on its way is sent still.
    pub(crate) fn close(&self) {
        self.tell_all("* the server is closing", None);
        // Writers end when they have sent what they have.
        self.members.take();
    }

    /// Sends a line to all, but for one.
    fn tell_all(&self, text: &str, but: Option<&str>) {
        let line = line(text);
        let members = self.members.borrow();
        let others = members.iter().filter(|(name, _)| but != Some(name.as_str()));
        let slow: Vec<String> = others
            .filter(|(_, member)| member.lines.try_send(Rc::clone(&line)).is_err())
            .map(|(name, _)| name.clone())
            .collect();
        drop(members);
        for name in slow {
            self.put_out(&name);
        }
    }

    /// Those who do not read what they are sent would cost ever more memory.
    fn put_out(&self, name: &str) {
        let Some(member) = self.members.borrow_mut().remove(name) else { return };
        self.slow.set(self.slow.get() + 1);
        // Wakes those who read and write for it.
        let _ = member.stream.shutdown(Shutdown::Both);
        self.tell_all(&format!("* {name} was too slow and is gone"), None);
    }
}

impl Seat {
    /// Says something to all others.
    pub(crate) fn say(&self, text: &str) {
        self.room.lines.set(self.room.lines.get() + 1);
        self.room.tell_all(&format!("{}: {text}", self.name), Some(&self.name));
    }

    /// Says something to this one.
    pub(crate) fn hear(&self, text: &str) {
        let members = self.room.members.borrow();
        let sent = members.get(&self.name).map(|member| member.lines.try_send(line(text)));
        drop(members);
        if sent.is_some_and(|sent| sent.is_err()) {
            self.room.put_out(&self.name);
        }
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut members = self.room.members.borrow_mut();
        // Who was put out has none, and somebody else may have the name.
        if members.get(&self.name).is_some_and(|member| member.number == self.number) {
            let member = members.remove(&self.name);
            drop(members);
            drop(member);
            self.room.tell_all(&format!("* {} has left", self.name), None);
        }
    }
}

fn line(text: &str) -> Line {
    format!("{text}\n").into()
}
