//! What Python's greenlets would do, without any switching: who runs next, with what, and who is dead.

/// What arrives at a switch, or begins a body.
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
    /// Switched away without a handle: ends when the run queue gets to it.
    Doomed,
    Dead,
}

#[derive(Debug)]
pub(crate) struct One {
    pub(crate) status: Status,
    parent: Option<usize>,
    /// Handles in the table and in frames, and children.
    handles: usize,
    pub(crate) in_table: bool,
    /// Whose handle the frame of its pending switch holds.
    holds: Option<usize>,
    waits_in_drop: bool,
}

/// Number 0 is the main greenlet.
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

    /// A new greenlet, with a handle in the table.
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

    /// The running one switches to `target`, or throws into it. Who goes on, with what.
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

    /// The running one has come back from its switch: its frame drops the handle of the target.
    pub(crate) fn back(&mut self) {
        if let Some(held) = self.all[self.current].holds.take() {
            self.release(held);
        }
    }

    /// The body of the running one is over. Who goes on, with what.
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
                (Status::Doomed, _) => panic!("somebody leads to {target}, which nobody holds"),
            }
            if message == Message::Exit {
                message = Message::Exited;
            }
            target = self.all[target].parent.expect("the main greenlet lives");
        }
    }

    /// False if that would be a cycle.
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

    /// The table gives up its handle.
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

    /// The run queue gets to those that nobody holds.
    pub(crate) fn end_doomed(&mut self) {
        while let Some(doomed) = self.all.iter().position(|one| one.status == Status::Doomed) {
            self.unwind(doomed);
        }
    }
}
