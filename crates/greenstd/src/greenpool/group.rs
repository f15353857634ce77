//! Sets of running green threads.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use hub_core::{
    BiasedMutex, BiasedMutexGuard, Deadline, GreenError, GreenThread, GreenletId, LinkId, LoopError, WaitReason,
};

use crate::killed::wait_for_killed;
use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};

/// A set of running green threads, to be waited for or killed together. gevent's `Group`, Eventlet's `RunningProcSet`.
///
/// A member leaves the group when it ends. Clones are handles of the same group, which belongs to its OS thread.
/// Dropping them ends no green thread.
///
/// ```
/// use greenhub::greenpool::Group;
/// use std::time::Duration;
/// let group = Group::new();
/// let quick = group.spawn(|| 6 * 7)?;
/// let slow = greenhub::thread::spawn(|| greenhub::thread::sleep(Duration::from_secs(3600)));
/// group.add(&slow);
/// assert_eq!(quick.join()?, 42);
/// assert_eq!(group.len(), 1);
/// group.kill_all();
/// group.wait_all()?;
/// assert!(slow.is_finished() && group.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[doc(alias = "RunningProcSet")]
pub struct Group {
    shared: Rc<BiasedMutex<State>>,
}

#[derive(Default)]
struct State {
    /// By the id of the greenlet, which stays unique until the member has ended.
    members: HashMap<GreenletId, Member>,
    next_serial: u64,
    all: WaitQueue,
    /// Waiters that also end at the first failure.
    all_or_failed: WaitQueue<FailureSlot>,
}

struct Member {
    /// The position in the order of adding.
    serial: u64,
    /// `None` only for a moment at the beginning.
    link: Option<LinkId>,
}

/// The failure that the waiter gets, if there is one.
type FailureSlot = Rc<Cell<Option<GreenError>>>;

impl State {
    /// Removes a member, and wakes the waiters if it was the last one.
    fn remove(&mut self, greenlet: GreenletId) -> Option<Member> {
        let member = self.members.remove(&greenlet)?;
        if self.members.is_empty() {
            self.all.grant_all();
            while self.all_or_failed.grant_payload().is_some() {}
        }
        Some(member)
    }
}

/// The wait until all members have ended.
struct GroupJoinWait;

impl Wait for GroupJoinWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Join;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.all
    }

    fn regrant(_: &mut State) {}
}

/// The wait until all members have ended, or one has failed.
struct JoinOrFailureWait;

impl Wait for JoinOrFailureWait {
    type State = State;
    type Payload = FailureSlot;

    const REASON: WaitReason = WaitReason::Join;

    fn queue(state: &mut State) -> &mut WaitQueue<FailureSlot> {
        &mut state.all_or_failed
    }

    fn regrant(_: &mut State) {}
}

impl Group {
    /// Creates a group without members. Does not switch.
    #[must_use]
    pub fn new() -> Group {
        Group::default()
    }

    /// Runs `f` in a new green thread, which is a member. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns no error so far: a group is a pool without a bound. The type is that of
    /// [`GreenPool::spawn`](super::GreenPool::spawn), so that one can take the place of the other.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<GreenThread<T>, LoopError>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let green = hub_core::spawn(f);
        self.add(&green);
        Ok(green)
    }

    /// Like [`spawn`](Group::spawn), without a handle: a failure is reported. Does not switch.
    ///
    /// ```
    /// let group = greenhub::greenpool::Group::new();
    /// group.spawn_n(|| ())?;
    /// group.wait_all()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`spawn`](Group::spawn).
    #[track_caller]
    pub fn spawn_n<F, T>(&self, f: F) -> Result<(), LoopError>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.spawn(f).map(drop)
    }

    /// Adds a green thread, which stays a member until it ends. Does not switch.
    ///
    /// It may have begun or not, and may belong to any number of groups. Returns false if it is a member already, or
    /// has ended.
    pub fn add<T: 'static>(&self, green: &GreenThread<T>) -> bool {
        let Some(greenlet) = green.id() else { return false };
        let mut state = self.lock();
        if state.members.contains_key(&greenlet) {
            return false;
        }
        let serial = state.next_serial;
        state.next_serial += 1;
        state.members.insert(greenlet, Member { serial, link: None });
        drop(state);
        let own = self.clone();
        let link = green.link(move |result| own.member_ended(greenlet, result.as_ref().err()));
        if let Some(member) = self.lock().members.get_mut(&greenlet) {
            member.link = Some(link);
        }
        true
    }

    /// Removes a member, which runs on. Returns false if it is no member. Does not switch.
    ///
    /// ```
    /// let group = greenhub::greenpool::Group::new();
    /// let green = group.spawn(|| "runs on")?;
    /// assert!(group.discard(&green) && !group.contains(&green));
    /// group.kill_all();
    /// assert_eq!(green.join()?, "runs on");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discard<T: 'static>(&self, green: &GreenThread<T>) -> bool {
        let Some(greenlet) = green.id() else { return false };
        let Some(member) = self.lock().remove(greenlet) else { return false };
        if let Some(link) = member.link {
            green.unlink(link);
        }
        true
    }

    /// Waits until the group has no members. Switches, unless it has none.
    ///
    /// Eventlet's `waitall`, gevent's `join`. It returns when the group was empty once, even if members were added
    /// since.
    ///
    /// # Errors
    ///
    /// Returns [`GreenError::Deadlock`] in a member, which would wait for its own end. Returns [`GreenError::Loop`] if
    /// the caller cannot wait.
    #[doc(alias = "join")]
    #[doc(alias = "joinall")]
    #[doc(alias = "waitall")]
    pub fn wait_all(&self) -> Result<(), GreenError> {
        self.wait_for::<GroupJoinWait>((), &mut Deadline::none()).map(drop)
    }

    /// Like [`wait_all`](Group::wait_all), but returns at the first failure of a member. Switches, unless there are no
    /// members.
    ///
    /// gevent's `join(raise_error=True)`. A failure is any end without a result except a plain kill: a panic, for
    /// example, or a kill with a custom error. The other members run on. Earlier failures do not count. An `Err` that a
    /// member returns is an ordinary result. The failure is still reported, unless the member is
    /// [joined](GreenThread::join).
    ///
    /// ```
    /// let group = greenhub::greenpool::Group::new();
    /// let failing = group.spawn(|| -> () { panic!("on purpose") })?;
    /// group.spawn(|| greenhub::thread::sleep(std::time::Duration::from_secs(3600)))?;
    /// let error = group.try_wait_all().unwrap_err();
    /// assert_eq!(error.to_string(), "the green thread panicked: on purpose");
    /// assert!(failing.join().is_err());
    /// group.kill_all();
    /// group.wait_all()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of that member, or an error of [`wait_all`](Group::wait_all).
    #[doc(alias = "joinall")]
    #[doc(alias = "raise_error")]
    pub fn try_wait_all(&self) -> Result<(), GreenError> {
        let failure = FailureSlot::default();
        self.wait_for::<JoinOrFailureWait>(failure.clone(), &mut Deadline::none())?;
        failure.take().map_or(Ok(()), Err)
    }

    /// Waits. Returns false at the deadline.
    fn wait_for<W: Wait<State = State>>(
        &self,
        payload: W::Payload,
        deadline: &mut Deadline,
    ) -> Result<bool, GreenError> {
        let me = hub_core::current_id();
        let waited = W::wait(&self.shared, deadline, payload, |state, ungranted| match ungranted {
            Some(_) if state.members.contains_key(&me) => Ok(Err(GreenError::Deadlock)),
            Some(payload) if !state.members.is_empty() => Err(payload),
            _ => Ok(Ok(())),
        });
        match waited {
            Ok(waited) => waited.map(|()| true),
            Err(Unserved::TimedOut(_)) => Ok(false),
            Err(Unserved::Failed(error, _)) => Err(error.into()),
        }
    }

    /// Kills every member: each exits when it runs next. Never switches by itself.
    ///
    /// Eventlet's `killall`, gevent's `kill`. A member that has not begun never begins. Each member is killed once,
    /// however often this is called. Members that have begun stay members until they have run, and
    /// [`wait_all`](Group::wait_all) waits for that. A member that calls this exits too, at its next wait.
    #[doc(alias = "killall")]
    pub fn kill_all(&self) {
        self.kill_all_with(GreenError::Kill);
    }

    /// Like [`kill_all`](Group::kill_all), with a custom error for the joiners of a member. Never switches by itself.
    ///
    /// ```
    /// let group = greenhub::greenpool::Group::new();
    /// let green = group.spawn(|| ())?;
    /// group.kill_all_with(greenhub::GreenError::custom("shutting down"));
    /// assert_eq!(green.join().unwrap_err().to_string(), "shutting down");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill_all_with(&self, error: GreenError) {
        let mut members: Vec<_> =
            self.lock().members.iter().map(|(greenlet, member)| (member.serial, *greenlet)).collect();
        members.sort_unstable();
        for (serial, greenlet) in members {
            // The values that an earlier kill dropped may have run other green threads, so this member may be gone.
            let still = self.lock().members.get(&greenlet).is_some_and(|member| member.serial == serial);
            if still {
                // The first kill stands. After the end of the body a kill has no effect.
                hub_core::internal::request_exit_with(greenlet, error.clone());
            }
        }
    }

    /// Kills all like [`kill_all`](Group::kill_all), and waits for at most `timeout`. Returns how many are left.
    /// Switches, unless there are no members.
    ///
    /// gevent's `kill(timeout=…)`. A limit that was reached is no error here: the result says how many are left. It
    /// returns early if all that are left [refuse](hub_core::KillOutcome::Refused) the kill: those live on. Others that
    /// are left end later: they are in a [`shield`](hub_core::shield()), or in a wait that must not be left early.
    ///
    /// ```
    /// use greenhub::greenpool::Group;
    /// use std::time::Duration;
    /// let (group, hour) = (Group::new(), Duration::from_secs(3600));
    /// group.spawn(move || greenhub::thread::sleep(hour))?;
    /// group.spawn(move || greenhub::shield(|| greenhub::thread::sleep(hour)))?;
    /// greenhub::thread::yield_now();
    /// assert_eq!(group.kill_all_timeout(Duration::from_millis(5))?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`wait_all`](Group::wait_all).
    pub fn kill_all_timeout(&self, timeout: Duration) -> Result<usize, GreenError> {
        self.kill_all();
        let left = || self.lock().members.keys().copied().collect();
        wait_for_killed(timeout, left, |deadline| self.wait_for::<GroupJoinWait>((), deadline))
    }

    /// Returns true if that green thread is a member.
    #[must_use]
    pub fn contains<T>(&self, green: &GreenThread<T>) -> bool {
        green.id().is_some_and(|greenlet| self.lock().members.contains_key(&greenlet))
    }

    /// Returns true if the running green thread is a member.
    #[must_use]
    pub fn contains_current(&self) -> bool {
        self.lock().members.contains_key(&hub_core::current_id())
    }

    /// Returns the number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().members.len()
    }

    /// Returns true if there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().members.is_empty()
    }

    /// Removes a member that has ended, and reports its failure to the waiters.
    fn member_ended(&self, greenlet: GreenletId, error: Option<&GreenError>) {
        let mut state = self.lock();
        if let Some(error) = error.filter(|error| !error.is_kill()) {
            while let Some(failure) = state.all_or_failed.grant_payload() {
                failure.set(Some(error.clone()));
            }
        }
        state.remove(greenlet);
    }

    fn lock(&self) -> BiasedMutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members: Vec<_> = self.lock().members.keys().copied().collect();
        members.sort_unstable();
        f.debug_struct("Group").field("members", &members).finish_non_exhaustive()
    }
}
