//! The state of the view, which answers and keys change.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::client::{News, Update};
use crate::snapshot::{Greenlet, Snapshot};

/// The number of latencies that are kept for the picture.
const HISTORY: usize = 240;

/// The number of lines of the keys `PageUp` and `PageDown`.
const PAGE: usize = 10;

/// A hub, as its console shows it.
pub(crate) struct Hub {
    pub(crate) path: PathBuf,
    pub(crate) latest: Option<Latest>,
    /// The time of a question that has no answer yet.
    pub(crate) asked: Option<Instant>,
    /// The reason why the console cannot be asked.
    pub(crate) failure: Option<String>,
    /// The times of the last answers, in microseconds, the newest first.
    pub(crate) latencies: VecDeque<u64>,
}

/// The last answer of a console.
pub(crate) struct Latest {
    pub(crate) snapshot: Snapshot,
    pub(crate) at: Instant,
    /// Turns and switches per second since the answer before, if that was of the same hub.
    pub(crate) rates: Option<(f64, f64)>,
}

/// The order of the green threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Id,
    Age,
    State,
    Name,
}

impl Sort {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sort::Id => "id",
            Sort::Age => "age",
            Sort::State => "state",
            Sort::Name => "name",
        }
    }
}

/// The effect of a key beyond the view.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Quit,
}

/// The state of the view.
pub(crate) struct App {
    pub(crate) hubs: Vec<Hub>,
    /// The index of the hub whose green threads are shown.
    pub(crate) shown: usize,
    pub(crate) sort: Sort,
    /// Whether the order is reversed.
    pub(crate) reversed: bool,
    pub(crate) filter: String,
    /// Whether keys go to the filter.
    pub(crate) types_filter: bool,
    /// Whether the details of the selected green thread are shown.
    pub(crate) has_details: bool,
    pub(crate) paused: bool,
    /// The id of the selected green thread. A line may move with each answer.
    selected: Option<u64>,
}

impl App {
    pub(crate) fn new(paths: &[PathBuf]) -> App {
        let hub = |path: &PathBuf| Hub::new(path);
        App {
            hubs: paths.iter().map(hub).collect(),
            shown: 0,
            sort: Sort::Id,
            reversed: false,
            filter: String::new(),
            types_filter: false,
            has_details: false,
            paused: false,
            selected: None,
        }
    }

    /// Takes in news of a console.
    pub(crate) fn update(&mut self, update: Update, now: Instant) {
        let Some(hub) = self.hubs.get_mut(update.hub) else { return };
        match update.news {
            News::Asked(at) => hub.asked = Some(at),
            News::Failed(failure) => (hub.asked, hub.failure) = (None, Some(failure)),
            News::Answered(snapshot, latency) => {
                (hub.asked, hub.failure) = (None, None);
                hub.latencies.push_front(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
                hub.latencies.truncate(HISTORY);
                if !self.paused {
                    hub.take(*snapshot, now);
                }
            }
        }
    }

    /// Takes in a key.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        if self.types_filter {
            self.type_filter(key.code);
            return Effect::None;
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Esc if self.has_details => self.has_details = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.types_filter = true,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('i') => self.sort_by(Sort::Id),
            KeyCode::Char('a') => self.sort_by(Sort::Age),
            KeyCode::Char('s') => self.sort_by(Sort::State),
            KeyCode::Char('n') => self.sort_by(Sort::Name),
            KeyCode::Enter => self.has_details = !self.has_details && self.selected().is_some(),
            KeyCode::Tab | KeyCode::Right => self.show_hub(1),
            KeyCode::BackTab | KeyCode::Left => self.show_hub(self.hubs.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.move_selection(|line, _| line + 1),
            KeyCode::Up | KeyCode::Char('k') => self.move_selection(|line, _| line.saturating_sub(1)),
            KeyCode::PageDown => self.move_selection(|line, _| line + PAGE),
            KeyCode::PageUp => self.move_selection(|line, _| line.saturating_sub(PAGE)),
            KeyCode::Home => self.move_selection(|_, _| 0),
            KeyCode::End => self.move_selection(|_, last| last),
            _ => {}
        }
        Effect::None
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.types_filter = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.types_filter = false;
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(char) => self.filter.push(char),
            _ => {}
        }
    }

    /// Sorts by another value, or the other way round if the order is that already.
    fn sort_by(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
    }

    fn show_hub(&mut self, step: usize) {
        self.shown = (self.shown + step) % self.hubs.len();
        self.selected = None;
        self.has_details = false;
    }

    /// Selects another line: `to` gets the line and the last one.
    fn move_selection(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let lines = self.lines();
        let Some(last) = lines.len().checked_sub(1) else { return };
        let ids: Vec<u64> = lines.iter().map(|greenlet| greenlet.id).collect();
        let line = match self.line() {
            Some(line) => to(line, last).min(last),
            None if to(0, last) == last => last,
            None => 0,
        };
        self.selected = ids.get(line).copied();
    }

    /// Returns the green threads of the shown hub that pass the filter, in order.
    pub(crate) fn lines(&self) -> Vec<&Greenlet> {
        let Some(latest) = self.hubs.get(self.shown).and_then(|hub| hub.latest.as_ref()) else { return Vec::new() };
        let filter = self.filter.to_lowercase();
        let mut lines: Vec<&Greenlet> = latest.snapshot.greenlets.iter().filter(|it| it.contains(&filter)).collect();
        match self.sort {
            Sort::Id => lines.sort_by_key(|greenlet| greenlet.id),
            Sort::Age => lines.sort_by_key(|greenlet| Reverse(greenlet.age_ms)),
            // Without the time that is left, by which lines would move with each answer.
            Sort::State => lines
                .sort_by_key(|greenlet| (state_order(&greenlet.state), greenlet.text.split(", ").next(), greenlet.id)),
            Sort::Name => lines.sort_by_key(|greenlet| greenlet.title()),
        }
        if self.reversed {
            lines.reverse();
        }
        lines
    }

    /// Returns the selected line, unless its green thread has ended or does not pass the filter.
    pub(crate) fn line(&self) -> Option<usize> {
        let selected = self.selected?;
        self.lines().iter().position(|greenlet| greenlet.id == selected)
    }

    pub(crate) fn selected(&self) -> Option<&Greenlet> {
        let selected = self.selected?;
        self.lines().into_iter().find(|greenlet| greenlet.id == selected)
    }
}

/// Returns the place of a state in the order: those that run come first.
fn state_order(state: &str) -> usize {
    let order = ["running", "ready", "unstarted", "switched", "waiting", "delayed"];
    order.iter().position(|it| *it == state).unwrap_or(order.len())
}

impl Hub {
    fn new(path: &Path) -> Hub {
        Hub { path: path.to_owned(), latest: None, asked: None, failure: None, latencies: VecDeque::new() }
    }

    fn take(&mut self, snapshot: Snapshot, now: Instant) {
        let before = self.latest.take().filter(|before| {
            let (before, stats) = (&before.snapshot, &snapshot.stats);
            before.process == snapshot.process && before.stats.turns <= stats.turns
        });
        let rates = before.map(|before| {
            let seconds = now.duration_since(before.at).as_secs_f64().max(0.001);
            let (before, stats) = (&before.snapshot.stats, &snapshot.stats);
            let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
            (rate(before.turns, stats.turns), rate(before.switches, stats.switches))
        });
        self.latest = Some(Latest { snapshot, at: now, rates });
    }

    /// Returns the time for which a question has had no answer, if that is long.
    pub(crate) fn silence(&self, now: Instant) -> Option<Duration> {
        const LONG: Duration = Duration::from_millis(500);
        self.asked.map(|asked| now.saturating_duration_since(asked)).filter(|silence| *silence >= LONG)
    }
}

impl Greenlet {
    /// Returns whether a text of the green thread contains `filter`, which is in lower case.
    fn contains(&self, filter: &str) -> bool {
        let texts = [Some(self.title()), Some(&self.text), Some(&self.state), self.made_at.as_deref()];
        filter.is_empty() || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(filter))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::snapshot::tests::LINE;

    /// Returns a view of one hub whose console has answered.
    pub(crate) fn app() -> App {
        let mut app = App::new(&[PathBuf::from("/run/console")]);
        answer(&mut app, 0, LINE, Instant::now());
        app
    }

    pub(crate) fn answer(app: &mut App, hub: usize, line: &str, at: Instant) {
        let snapshot = Box::new(Snapshot::parse(line).expect("a snapshot"));
        app.update(Update { hub, news: News::Answered(snapshot, Duration::from_micros(800)) }, at);
    }

    pub(crate) fn press(app: &mut App, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                key => KeyCode::Char(key),
            };
            assert_eq!(app.press(KeyEvent::from(code)), Effect::None);
        }
    }

    fn ids(app: &App) -> Vec<u64> {
        app.lines().iter().map(|greenlet| greenlet.id).collect()
    }

    #[test]
    fn a_second_press_reverses_the_order() {
        let mut app = app();
        press(&mut app, "a");
        assert_eq!(ids(&app), [2, 3, 4, 0], "the oldest first");
        press(&mut app, "a");
        assert_eq!(ids(&app), [0, 4, 3, 2]);
        press(&mut app, "s");
        assert_eq!(ids(&app), [4, 3, 2, 0], "those that are ready first, the others by their words");
        press(&mut app, "n");
        assert_eq!(ids(&app), [4, 0, 2, 3]);
        press(&mut app, "i");
        assert_eq!(ids(&app), [0, 2, 3, 4]);
    }

    #[test]
    fn a_filter_looks_in_names_words_and_places() {
        let mut app = app();
        press(&mut app, "/SLEEP");
        assert_eq!(ids(&app), [3]);
        press(&mut app, "\u{1b}/worker.rs\n");
        assert_eq!(ids(&app), [4]);
        assert!(!app.types_filter);
        press(&mut app, "\u{1b}");
        assert_eq!(ids(&app).len(), 4);
        press(&mut app, "/q");
        assert_eq!(app.filter, "q", "`q` does not end the program while a filter is typed");
    }

    #[test]
    fn the_selection_follows_its_green_thread() {
        let mut app = app();
        press(&mut app, "jj");
        assert_eq!((app.selected().map(|it| it.id), app.line()), (Some(2), Some(1)));
        press(&mut app, "a");
        assert_eq!(app.line(), Some(0));
        answer(&mut app, 0, &LINE.replace("\"id\":2,", "\"id\":9,"), Instant::now());
        assert_eq!(app.line(), None, "the green thread has ended");
        press(&mut app, "j");
        assert_eq!(app.line(), Some(0));
    }

    #[test]
    fn the_selection_stays_within_the_lines() {
        let mut app = app();
        app.press(KeyEvent::from(KeyCode::End));
        assert_eq!(app.line(), Some(3));
        app.press(KeyEvent::from(KeyCode::PageDown));
        assert_eq!(app.line(), Some(3));
        app.press(KeyEvent::from(KeyCode::PageUp));
        press(&mut app, "k");
        assert_eq!(app.line(), Some(0));
        press(&mut app, "/nothing\nj");
        assert_eq!(app.line(), None);
    }

    #[test]
    fn rates_come_from_two_answers_of_one_process() {
        let mut app = app();
        let begun = app.hubs[0].latest.as_ref().expect("an answer").at;
        assert!(app.hubs[0].latest.as_ref().expect("an answer").rates.is_none());
        let later = LINE.replace("\"turns\":1000,\"switches\":5000", "\"turns\":1500,\"switches\":9000");
        answer(&mut app, 0, &later, begun + Duration::from_secs(2));
        assert_eq!(app.hubs[0].latest.as_ref().expect("an answer").rates, Some((250.0, 2000.0)));
        answer(&mut app, 0, &later.replace("\"process\":42", "\"process\":43"), begun + Duration::from_secs(3));
        assert_eq!(app.hubs[0].latest.as_ref().expect("an answer").rates, None, "the program was started again");
    }

    #[test]
    fn a_pause_keeps_the_lines() {
        let mut app = app();
        press(&mut app, " ");
        answer(&mut app, 0, &LINE.replace("\"id\":2,", "\"id\":9,"), Instant::now());
        assert_eq!(ids(&app), [0, 2, 3, 4]);
        press(&mut app, " ");
        answer(&mut app, 0, &LINE.replace("\"id\":2,", "\"id\":9,"), Instant::now());
        assert_eq!(ids(&app), [0, 3, 4, 9]);
    }

    #[test]
    fn keys_end_the_program() {
        assert_eq!(app().press(KeyEvent::from(KeyCode::Char('q'))), Effect::Quit);
        let mut typing = app();
        press(&mut typing, "/");
        assert_eq!(typing.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
    }
}
