//! Unhandled results: detects an `Err` in a result, and makes the message of its report.
//!
//! A green thread may return any type, so neither `Debug` nor `Display` is available for its error. The name of the
//! result's type shows that it is a `Result`, and its discriminant that it is an `Err`; both exist for every type. The
//! message is found by the type's identity, for the errors of [`KNOWN`] and those of [`set_error_message`]. This is all
//! safe code: a misleading type name gives a wrong report and nothing worse.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, PoisonError, RwLock};

use super::exit::{contained, drop_contained};
use crate::error::{GreenError, HubError, HubGone, JobError, LoopError, Timeout, TrampolineError};

/// The beginning of [`type_name`] for every `Result`.
const RESULT: &str = "core::result::Result<";

/// An unhandled `Err`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct LostError {
    /// `None` if no message is known for the type.
    pub(crate) message: Option<String>,
    /// The type of the whole result.
    pub(crate) result: &'static str,
}

impl LostError {
    pub(crate) fn text(&self) -> String {
        self.message
            .clone()
            .unwrap_or_else(|| "its message is not known; `debug::set_error_message` makes it known".to_owned())
    }
}

/// Calls `find`, which may panic. After a panic, returns an error without its message.
#[inline]
pub(crate) fn contained_in<T>(result: &T, find: fn(&T) -> Option<LostError>) -> Option<LostError> {
    let found = contained(|| find(result));
    found.unwrap_or_else(|failed| Some(LostError { message: Some(no_text(failed)), result: type_name::<T>() }))
}

/// Returns the text in place of a message that could not be made.
pub(crate) fn no_text(failed: GreenError) -> String {
    match failed {
        GreenError::Panic(panic) => format!("an error whose text cannot be made: {panic}"),
        // An exit unwound the code that makes the text. The error of the exit may be foreign too.
        failed => {
            drop_contained(failed);
            "an error whose text cannot be made".to_owned()
        }
    }
}

/// Finds the error in `result`, which may borrow, without a message. Returns `None` if it is no `Result`, or `Ok`.
#[inline]
pub(crate) fn error_in<T>(result: &T) -> Option<LostError> {
    is_err(result).then(|| LostError { message: None, result: type_name::<T>() })
}

/// Finds the error in `result`, with its message. Returns `None` if it is no `Result`, or `Ok`, or to be ignored.
///
/// Foreign code makes the message, and may panic.
#[inline]
pub(crate) fn error_with_message_in<T: 'static>(result: &T) -> Option<LostError> {
    if is_err(result) { describe(result, type_name::<T>()) } else { None }
}

/// Like [`error_with_message_in`], for an error whose message is known for every type of value.
pub(crate) fn io_error_in<T: 'static>(result: &io::Result<T>) -> Option<LostError> {
    let found = error_with_message_in(result)?;
    Some(LostError { message: found.message.or_else(|| result.as_ref().err().map(ToString::to_string)), ..found })
}

/// Returns whether the value is an `Err`. The check is resolved at compile time for a `T` that is no `Result`.
#[inline]
fn is_err<T>(value: &T) -> bool {
    type_name::<T>().starts_with(RESULT) && number(discriminant(value)) == number(discriminant(&Err::<(), ()>(())))
}

/// Returns a number for a variant, of which only the hash is public. It is the same for every `Err`.
#[inline]
fn number<T>(variant: Discriminant<T>) -> u64 {
    struct Bytes(u64);
    impl Hasher for Bytes {
        #[inline]
        fn write(&mut self, bytes: &[u8]) {
            self.0 = bytes.iter().fold(self.0, |all, &byte| (all << 8) | u64::from(byte));
        }
        #[inline]
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut bytes = Bytes(0);
    variant.hash(&mut bytes);
    bytes.finish()
}

#[cold]
fn describe(result: &dyn Any, type_name: &'static str) -> Option<LostError> {
    let set = MESSAGES.read().unwrap_or_else(PoisonError::into_inner).get(&result.type_id()).cloned();
    let message = match set {
        Some(message) => Some(message(result)?),
        None => KNOWN.iter().find_map(|message| message(result)),
    };
    Some(LostError { message, result: type_name })
}

type Message = dyn Fn(&dyn Any) -> Option<String> + Send + Sync;

/// The messages, by the type of the result.
static MESSAGES: RwLock<BTreeMap<TypeId, Arc<Message>>> = RwLock::new(BTreeMap::new());

/// Sets the report's message for the unhandled `Err` of a `Result<T, E>`. Does not switch.
///
/// Applies to the whole process. An `Err` that a green thread returns and that is never taken is reported: see
/// [`spawn`](crate::spawn). The report has a message for the common errors of std and of this crate, combined with the
/// common values. For every other pair of types it only names the type, unless a message is set. An error for which
/// `message` returns `None` is not reported. A later call for the same types replaces the earlier one. `message` must
/// not block. It cannot be read back, because another OS thread may replace it.
///
/// ```
/// enum Failure {
///     Refused(u16),
///     PeerLeft,
/// }
/// greenhub::debug::set_error_message::<(), Failure>(|failure| match failure {
///     Failure::Refused(port) => Some(format!("port {port} is refused")),
///     Failure::PeerLeft => None, // expected, not reported
/// });
/// let (sender, receiver) = std::sync::mpsc::channel();
/// greenhub::debug::set_report_stream(move |report| sender.send(report.to_string()).unwrap());
/// greenhub::spawn_n(|| Err::<(), _>(Failure::PeerLeft));
/// greenhub::spawn_n(|| Err::<(), _>(Failure::Refused(80)));
/// greenhub::thread::yield_now();
/// assert!(receiver.try_recv().unwrap().contains("port 80 is refused"));
/// ```
pub fn set_error_message<T: 'static, E: 'static>(message: impl Fn(&E) -> Option<String> + Send + Sync + 'static) {
    let message = move |result: &dyn Any| message(result.downcast_ref::<Result<T, E>>()?.as_ref().err()?);
    let former = MESSAGES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(TypeId::of::<Result<T, E>>(), Arc::new(message));
    // Its destructor is foreign code.
    drop(former);
}

fn known<T: 'static, E: Display + 'static>(result: &dyn Any) -> Option<String> {
    result.downcast_ref::<Result<T, E>>()?.as_ref().err().map(ToString::to_string)
}

macro_rules! known {
    ($($error:ty),* $(,)?) => {
        &[$(
            known::<(), $error>,
            known::<bool, $error>,
            known::<i32, $error>,
            known::<u32, $error>,
            known::<u64, $error>,
            known::<usize, $error>,
            known::<String, $error>,
            known::<Vec<u8>, $error>,
        )*]
    };
}

/// The built-in messages.
const KNOWN: &[fn(&dyn Any) -> Option<String>] = known![
    io::Error,
    Box<dyn Error>,
    Box<dyn Error + Send>,
    Box<dyn Error + Send + Sync>,
    String,
    &'static str,
    std::fmt::Error,
    std::net::AddrParseError,
    std::num::ParseFloatError,
    std::num::ParseIntError,
    std::num::TryFromIntError,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::sync::mpsc::RecvError,
    GreenError,
    HubError,
    HubGone,
    JobError,
    LoopError,
    TrampolineError,
    Timeout,
];

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::num::NonZeroU8;

    struct Own;

    #[test]
    fn an_err_is_distinguished_from_an_ok_in_every_layout() {
        assert!(is_err(&Err::<(), ()>(())) && !is_err(&Ok::<(), ()>(())));
        assert!(is_err(&Err::<Vec<u8>, Own>(Own)) && !is_err(&Ok::<Vec<u8>, Own>(Vec::new())));
        assert!(is_err(&Err::<(), Box<u8>>(Box::new(0))) && !is_err(&Ok::<(), Box<u8>>(())));
        assert!(is_err(&Err::<Box<u8>, ()>(())) && !is_err(&Ok::<Box<u8>, ()>(Box::new(0))));
        assert!(is_err(&Err::<bool, Own>(Own)) && !is_err(&Ok::<bool, Own>(true)) && !is_err(&Ok::<bool, Own>(false)));
        assert!(is_err(&Err::<NonZeroU8, ()>(())) && !is_err(&Ok::<NonZeroU8, ()>(NonZeroU8::MAX)));
        assert!(is_err(&Err::<Infallible, u8>(0)) && !is_err(&Ok::<u8, Infallible>(1)));
        assert!(is_err(&Err::<u8, Option<Option<bool>>>(None)));
        let text = String::from("borrowed");
        assert!(is_err(&Err::<&str, &str>(&text)) && !is_err(&Ok::<&str, &str>(&text)));
    }

    #[test]
    fn a_value_of_another_type_is_not_an_err() {
        enum Result {
            Second,
        }
        assert!(!is_err(&()) && !is_err(&1_isize) && !is_err(&"core::result::Result<") && !is_err(&Result::Second));
        assert!(!is_err(&Some(Err::<(), ()>(()))) && !is_err(&Box::new(Err::<(), ()>(()))));
        assert!(!is_err(&std::ops::ControlFlow::Break::<(), ()>(())));
    }

    #[test]
    fn the_type_name_of_a_result_begins_with_its_path_in_core() {
        assert!(type_name::<std::result::Result<u8, Own>>().starts_with(RESULT));
    }
}
