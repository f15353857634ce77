//! A model of Python's greenlets without any switching: the next greenlet to run, its message, and the dead ones.

/// The message that a switch returns, or that starts a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Value(u64),
    Error(u64),
    Panic(u64),
    /// An exit that was returned.
    Exited,
    /// An exit that is thrown.
    Exit,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Unstarted,
    Running,
    Suspended,
    /// Suspended without a handle: unwound when its turn in the run queue comes.
    Doomed,
    Dead,
}

#[derive(Debug)]
pub(crate) struct One {
    pub(crate) status: Status,
    parent: Option<usize>,
    /// The number of handles in the table and in frames, plus the number of children.
    handles: usize,
    pub(crate) in_table: bool,
    /// The greenlet whose handle the frame of the pending switch holds.
    holds: Option<usize>,
    waits_in_drop: bool,
}

/// All greenlets. Number 0 is the main greenlet.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) all: Vec<One>,
    pub(crate) current: usize,
}

impl Model {
    pub(crate) fn new() -> Model {
        let main = One {
            status: Status::Running,
            parent: None,
            handles: 1,
            in_table: true,
            holds: None,
            waits_in_drop: false,
        };
        Model { all: vec![main], current: 0 }
    }

    /// Adds a greenlet with a handle in the table.
    pub(crate) fn make(&mut self, parent: usize) -> usize {
        self.all[parent].handles += 1;
        self.all.push(One {
            status: Status::Unstarted,
            parent: Some(parent),
            handles: 1,
            in_table: true,
            holds: None,
            waits_in_drop: false,
        });
        self.all.len() - 1
    }

    /// Switches from the running greenlet to `target`, or throws into it. Returns the next greenlet and its message.
    pub(crate) fn switch(&mut self, target: usize, message: Message) -> (usize, Message) {
        let me = self.current;
        self.all[target].handles += 1;
        self.all[me].holds = Some(target);
        let (next, message) = self.route(target, message);
        if next != me {
            let lost = me != 0 && self.all[me].handles == 0;
            self.all[me].status = if lost { Status::Doomed } else { Status::Suspended };
            self.enter(next);
        }
        if message == Message::Exit && next != 0 { self.finish(Message::Exited) } else { (next, message) }
    }

    /// Returns from the pending switch of the running greenlet, whose frame drops the handle of the target.
    pub(crate) fn back(&mut self) {
        if let Some(held) = self.all[self.current].holds.take() {
            self.release(held);
        }
    }

    /// Ends the body of the running greenlet. Returns the next greenlet and its message.
    pub(crate) fn finish(&mut self, message: Message) -> (usize, Message) {
        self.back();
        let me = self.current;
        let parent = self.all[me].parent.expect("not main");
        let (next, message) = self.route(parent, message);
        self.enter(next);
        self.bury(me);
        (next, message)
    }

    fn enter(&mut self, next: usize) {
        self.all[next].status = Status::Running;
        self.current = next;
    }

    fn route(&mut self, mut target: usize, mut message: Message) -> (usize, Message) {
        loop {
            let one = &mut self.all[target];
            match (one.status, &message) {
                (Status::Running | Status::Suspended, _) => return (target, message),
                (Status::Unstarted, Message::Value(_) | Message::Exited) => return (target, message),
                (Status::Unstarted, _) => one.status = Status::Dead,
                (Status::Dead, _) => {}
                (Status::Doomed, _) => panic!("greenlet {target} is reachable without a handle"),
            }
            if message == Message::Exit {
                message = Message::Exited;
            }
            target = self.all[target].parent.expect("the main greenlet lives");
        }
    }

    /// Returns false if the new parent would close a cycle.
    pub(crate) fn set_parent(&mut self, child: usize, parent: usize) -> bool {
        let mut ancestor = Some(parent);
        while let Some(one) = ancestor {
            if one == child {
                return false;
            }
            ancestor = self.all[one].parent;
        }
        self.all[parent].handles += 1;
        if let Some(former) = self.all[child].parent.replace(parent) {
            self.release(former);
        }
        true
    }

    /// Drops the handle in the table.
    pub(crate) fn drop_handle(&mut self, of: usize) {
        self.all[of].in_table = false;
        self.release(of);
    }

    fn release(&mut self, of: usize) {
        let one = &mut self.all[of];
        one.handles -= 1;
        if one.handles != 0 || of == 0 {
            return;
        }
        match one.status {
            Status::Suspended => self.unwind(of),
            Status::Unstarted | Status::Dead => self.bury(of),
            Status::Running | Status::Doomed => {}
        }
    }

    fn unwind(&mut self, of: usize) {
        let dropper = self.current;
        if self.all[of].waits_in_drop {
            return;
        }
        self.all[dropper].waits_in_drop = true;
        self.all[dropper].status = Status::Suspended;
        self.enter(of);
        self.back();
        self.bury(of);
        self.enter(dropper);
        self.all[dropper].waits_in_drop = false;
    }

    fn bury(&mut self, of: usize) {
        if self.all[of].handles == 0
            && let Some(parent) = self.all[of].parent.take()
        {
            self.release(parent);
        }
        self.all[of].status = Status::Dead;
    }

    /// Unwinds the greenlets without handles, as the run queue does.
    pub(crate) fn end_doomed(&mut self) {
        while let Some(doomed) = self.all.iter().position(|one| one.status == Status::Doomed) {
            self.unwind(doomed);
        }
    }
}
