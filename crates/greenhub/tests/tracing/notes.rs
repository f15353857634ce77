//! A subscriber that records spans and checks the order of calls that `tracing` requires. It knows OS threads only.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

/// The record of one test, which runs on one OS thread.
#[derive(Clone, Default, Debug)]
pub(crate) struct Notes(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    spans: Vec<Noted>,
    /// The entered spans, from the outermost inwards.
    stack: Vec<usize>,
    /// The stack at the last event.
    at_event: Vec<String>,
    wrong: Vec<String>,
}

impl State {
    fn labels(&self) -> Vec<String> {
        self.stack.iter().map(|&index| self.spans[index].label.clone()).collect()
    }
}

/// The record of a span.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The field `name` or `label`, else the span's own name.
    pub(crate) label: String,
    pub(crate) fields: Vec<String>,
    pub(crate) parent: Option<String>,
    pub(crate) entered: usize,
    pub(crate) exited: usize,
    pub(crate) closed: usize,
    handles: usize,
}

impl Visit for Noted {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push(format!("{}={value}", field.name()));
        if matches!(field.name(), "name" | "label") {
            value.clone_into(&mut self.label);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push(format!("{}={value:?}", field.name()));
    }
}

/// A hook of the test for calls to the subscriber: `new`, `enter`, `exit` or `close`, and the label of the span.
type Meanwhile = Rc<dyn Fn(&str, &str)>;

thread_local! {
    static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
}

/// Sets the hook that the subscriber of this OS thread calls for every span.
pub(crate) fn meanwhile(callback: impl Fn(&str, &str) + 'static) {
    MEANWHILE.set(Some(Rc::new(callback)));
}

/// Removes the hook.
pub(crate) fn nothing_meanwhile() {
    MEANWHILE.set(None);
}

impl Notes {
    pub(crate) fn listen() -> (Notes, DefaultGuard) {
        let notes = Notes::default();
        (notes.clone(), tracing::subscriber::set_default(notes))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Emits an event, and returns the spans in which it is.
    pub(crate) fn here(&self) -> Vec<String> {
        tracing::info!(target: "test", "here");
        self.state().at_event.clone()
    }

    /// Returns the entered spans, without an event.
    pub(crate) fn entered(&self) -> Vec<String> {
        self.state().labels()
    }

    /// Returns the last span with that label.
    #[track_caller]
    pub(crate) fn of(&self, label: &str) -> Noted {
        let found = self.state().spans.iter().rfind(|span| span.label == label).cloned();
        found.unwrap_or_else(|| panic!("no span {label}"))
    }

    pub(crate) fn last(&self) -> Option<Noted> {
        self.state().spans.last().cloned()
    }

    pub(crate) fn all(&self) -> Vec<Noted> {
        self.state().spans.clone()
    }

    /// Checks that the order of calls was valid, that no span is entered, and that every span was closed once.
    #[track_caller]
    pub(crate) fn are_settled(&self) {
        let state = self.state();
        assert_eq!(state.wrong, [""; 0]);
        assert_eq!(state.stack, [0; 0]);
        for span in &state.spans {
            assert_eq!((span.entered, span.closed, span.handles), (span.exited, 1, 0), "{span:?}");
        }
    }

    fn tell(&self, event: &str, id: &Id, note: impl FnOnce(&mut State, usize)) {
        let index = id.into_u64() as usize - 1;
        let label = {
            let mut state = self.state();
            if state.spans[index].closed > 0 {
                let wrong = format!("{event} of {}, which is closed", state.spans[index].label);
                state.wrong.push(wrong);
            }
            note(&mut state, index);
            state.spans[index].label.clone()
        };
        if let Some(does) = MEANWHILE.try_with(|does| does.borrow().clone()).ok().flatten() {
            does(event, &label);
        }
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() || metadata.target() == "test"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut noted = Noted { label: attributes.metadata().name().to_owned(), handles: 1, ..Noted::default() };
        attributes.record(&mut noted);
        let id = {
            let mut state = self.state();
            let parent = match attributes.parent() {
                Some(parent) => Some(parent.into_u64() as usize - 1),
                None if attributes.is_contextual() => state.stack.last().copied(),
                None => None,
            };
            noted.parent = parent.map(|parent| state.spans[parent].label.clone());
            state.spans.push(noted);
            Id::from_u64(state.spans.len() as u64)
        };
        self.tell("new", &id, |_, _| ());
        id
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "test" {
            let mut state = self.state();
            state.at_event = state.labels();
        }
    }

    fn enter(&self, id: &Id) {
        self.tell("enter", id, |state, index| {
            if state.stack.contains(&index) {
                state.wrong.push(format!("{} is entered twice", state.spans[index].label));
            }
            state.stack.push(index);
            state.spans[index].entered += 1;
        });
    }

    fn exit(&self, id: &Id) {
        self.tell("exit", id, |state, index| {
            if state.stack.pop() != Some(index) {
                state.wrong.push(format!("{} is exited out of order", state.spans[index].label));
            }
            state.spans[index].exited += 1;
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.state().spans[id.into_u64() as usize - 1].handles += 1;
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let closes = {
            let mut state = self.state();
            let span = &mut state.spans[id.into_u64() as usize - 1];
            span.handles -= 1;
            span.handles == 0
        };
        if closes {
            self.tell("close", &id, |state, index| state.spans[index].closed += 1);
        }
        closes
    }
}
