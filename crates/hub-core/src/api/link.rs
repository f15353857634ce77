//! Links: callbacks at the end of a green thread, and scopes that end with it.

use super::green_thread::GreenThread;
use super::with_timeout::next_number;
use crate::error::{GreenError, Linked};
use crate::greenlet::control::ControlRef;
use crate::greenlet::exit::{Exit, contained, in_scope};
use crate::greenlet::run;
use crate::greenlet::task::{Task, TaskRef};
use crate::report::{self, Report};

/// Identifies a link of a green thread, for [`unlink`](GreenThread::unlink). Dropping it changes nothing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LinkId(u64);

impl<T: 'static> GreenThread<T> {
    /// Calls `f` with the result when the green thread ends. Eventlet's `link`. Never switches by itself.
    ///
    /// The call is made in the context of the ending green thread, before its waiters resume. If the green thread has
    /// ended, `f` is called at once. Links are called in the order in which they were added. A link that panics is
    /// reported, and the others are still called.
    ///
    /// To receive results in the order of the ends, let each link send to one channel.
    ///
    /// If the result was taken before, as by awaiting a [`Deferred`](crate::future::Deferred), the link is called with
    /// [`GreenError::Taken`].
    ///
    /// A link only borrows the result: a failure is still reported, unless [`join`](GreenThread::join) or
    /// [`wait`](GreenThread::wait) returns it.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// let seen = Rc::new(Cell::new(0));
    /// let green = greenhub::spawn(|| 7);
    /// let sink = Rc::clone(&seen);
    /// green.link(move |result| sink.set(*result.as_ref().unwrap()));
    /// green.wait()?;
    /// assert_eq!(seen.get(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "rawlink")]
    #[doc(alias = "spawn_link")]
    pub fn link(&self, f: impl FnOnce(&Result<T, GreenError>) + 'static) -> LinkId {
        if self.task.is_done() {
            if let Err(error) = contained(|| look_at(&self.task, f)) {
                report::tell(Report::LinkFailed { name: self.task.describe(), error });
            }
            return LinkId(u64::MAX);
        }
        LinkId(self.task.link(|task| look_at(task, f)))
    }

    /// Like [`link`](GreenThread::link), but called with a value only. Never switches by itself.
    ///
    /// Eventlet's `link_value`.
    ///
    /// ```
    /// let green = greenhub::spawn(|| 7);
    /// green.link_value(|value| assert_eq!(*value, 7));
    /// green.link_error(|_| unreachable!());
    /// assert_eq!(green.join()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn link_value(&self, f: impl FnOnce(&T) + 'static) -> LinkId {
        self.link(|result| {
            if let Ok(value) = result {
                f(value);
            }
        })
    }

    /// Like [`link`](GreenThread::link), but called with an error only. Never switches by itself.
    ///
    /// Such an error is, for example, a panic or an exit. Eventlet's `link_exception`.
    ///
    /// ```
    /// let green = greenhub::spawn(|| 7);
    /// green.link_error(|error| assert!(error.is_kill()));
    /// green.link_value(|_| unreachable!());
    /// green.kill();
    /// ```
    #[doc(alias = "link_exception")]
    pub fn link_error(&self, f: impl FnOnce(&GreenError) + 'static) -> LinkId {
        self.link(|result| {
            if let Err(error) = result {
                f(error);
            }
        })
    }

    /// Removes a link. Returns false if it was called or removed before.
    ///
    /// A link can be removed while the links before it are called.
    ///
    /// ```
    /// let green = greenhub::spawn(|| 7);
    /// let link = green.link(|_| panic!("removed before it was called"));
    /// assert!(green.unlink(link));
    /// assert!(!green.unlink(link));
    /// ```
    pub fn unlink(&self, link: LinkId) -> bool {
        self.task.remove_link(link.0)
    }

    /// Runs `f`, and unwinds it when this green thread ends. Switches if `f` does.
    ///
    /// When the green thread ends, the call in which `f` blocks starts to unwind, the destructors of `f` run, and
    /// `with_link` returns an error. If the green thread has ended before, `f` is not run. `with_link` is
    /// Eventlet's `link` without a listener, as a scope.
    ///
    /// The rules are those of [`with_timeout`](crate::with_timeout), also in the main greenlet: a call is interrupted
    /// where it waits or yields, scopes nest, and each catches its own end only. The link is removed when the scope
    /// ends.
    ///
    /// ```
    /// use std::time::Duration;
    /// let peer = greenhub::spawn(|| greenhub::sleep(Duration::from_millis(1)));
    /// let linked = peer.with_link(|| greenhub::sleep(Duration::from_secs(3600))).unwrap_err();
    /// assert!(linked.error().is_none());
    /// assert!(peer.is_finished());
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Linked`] if the green thread ended. With `panic = "abort"` nothing can be interrupted: `f` is not run,
    /// and the error says so ([`is_unsupported`](Linked::is_unsupported)).
    ///
    /// # Panics
    ///
    /// Panics if `f` does.
    pub fn with_link<R>(&self, f: impl FnOnce() -> R) -> Result<R, Linked> {
        self.with_link_if(|_| true, f)
    }

    /// Like [`with_link`](GreenThread::with_link), but unwinds `f` only for a value. Switches if `f` does.
    ///
    /// ```
    /// let quick = greenhub::spawn(|| "value");
    /// assert!(quick.with_link_value(|| greenhub::sleep(std::time::Duration::from_secs(3600))).is_err());
    /// assert_eq!(quick.join()?, "value");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`with_link`](GreenThread::with_link).
    ///
    /// # Panics
    ///
    /// Panics if `f` does.
    pub fn with_link_value<R>(&self, f: impl FnOnce() -> R) -> Result<R, Linked> {
        self.with_link_if(Result::is_ok, f)
    }

    /// Like [`with_link`](GreenThread::with_link), but unwinds `f` only for an error. Switches if `f` does.
    ///
    /// It is for work that is useless once the green thread has failed, but not once it has succeeded.
    ///
    /// ```
    /// let helper = greenhub::spawn(|| ());
    /// assert!(helper.with_link_error(greenhub::thread::yield_now).is_ok());
    /// let helper = greenhub::spawn(|| ());
    /// helper.kill();
    /// assert!(helper.with_link_error(greenhub::thread::yield_now).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`with_link`](GreenThread::with_link).
    ///
    /// # Panics
    ///
    /// Panics if `f` does.
    pub fn with_link_error<R>(&self, f: impl FnOnce() -> R) -> Result<R, Linked> {
        self.with_link_if(Result::is_err, f)
    }

    fn with_link_if<R>(&self, strikes: fn(&Result<T, GreenError>) -> bool, f: impl FnOnce() -> R) -> Result<R, Linked> {
        if cfg!(panic = "abort") {
            return Err(Linked::unsupported());
        }
        let ended = move |task: &Task<T>| {
            look_at(task, |result| strikes(result).then(|| Linked::new(task.describe(), result.as_ref().err())))
        };
        let task = &self.task;
        if task.is_done() {
            return ended(task).map_or_else(|| Ok(f()), Err);
        }
        let (number, greenlet) = (next_number(), run::current());
        let shields = greenlet.shields();
        let strike = move |task: &Task<T>| {
            if let Some(linked) = ended(task) {
                // The greenlet is only woken, never switched to. It is within the scope, which removes this link when
                // it ends.
                run::request_exit(greenlet, Exit::Linked { scope: number, shields, linked }, false);
            }
        };
        let scope = LinkScope { task, link: task.link(strike), greenlet, number };
        in_scope(number, scope, f).map_err(|exit| match exit {
            Exit::Linked { linked, .. } => linked,
            exit => unreachable!("the scope of a link has a number of its own: {exit:?}"),
        })
    }
}

/// Calls `f` with the result of an ended green thread, or with [`GreenError::Taken`] if the result was taken.
fn look_at<T, R>(task: &Task<T>, f: impl FnOnce(&Result<T, GreenError>) -> R) -> R {
    let mut f = Some(f);
    let mut call = |result: &Result<T, GreenError>| f.take().map(|f| f(result));
    match task.look(&mut call).flatten().or_else(|| call(&Err(GreenError::Taken))) {
        Some(returned) => returned,
        None => unreachable!("one of the two calls takes place"),
    }
}

/// An open scope. `Drop` removes its link.
struct LinkScope<'a> {
    task: &'a TaskRef,
    link: u64,
    greenlet: ControlRef,
    number: u64,
}

impl Drop for LinkScope<'_> {
    fn drop(&mut self) {
        if !self.task.remove_link(self.link) {
            self.greenlet.clear_scope(self.number);
        }
    }
}
