//! The picture of the state on the terminal.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use crate::app::{App, Hub};
use crate::snapshot::Greenlet;
use crate::text::{bytes, count, time};

/// The smallest terminal that has room for a table.
const SMALLEST: (u16, u16) = (30, 6);

/// The height from which the picture of latencies is shown.
const WITH_LATENCIES: u16 = 16;

const LATENCIES: u16 = 3;

/// The most hubs that are shown at once. Further ones are reached by `Tab`.
const MOST_HUBS: usize = 6;

/// Draws the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App, now: Instant) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let message = Paragraph::new("the terminal is too small; q quits").wrap(Wrap { trim: true });
        return frame.render_widget(message, area);
    }
    let hubs = app.hubs.len().min(MOST_HUBS) as u16 + 1;
    let latencies = if area.height >= WITH_LATENCIES { LATENCIES } else { 0 };
    // A small terminal keeps the shown hub, and gives the rest to the green threads.
    let hubs = if area.height < hubs + latencies + 6 { 2 } else { hubs };
    let parts = [
        Constraint::Length(1),
        Constraint::Length(hubs),
        Constraint::Length(latencies),
        Constraint::Min(2),
        Constraint::Length(1),
    ];
    let [title, hubs, latencies, threads, keys] = Layout::vertical(parts).areas(area);
    draw_title(frame, app, title, now);
    draw_hubs(frame, app, hubs, now);
    draw_latencies(frame, app, latencies);
    draw_threads(frame, app, threads);
    draw_keys(frame, app, keys);
    if app.has_details {
        draw_details(frame, app, threads);
    }
}

fn draw_title(frame: &mut Frame<'_>, app: &App, area: Rect, now: Instant) {
    let hub = &app.hubs[app.shown];
    let mut line = vec![Span::from("greenhub-top").bold(), Span::from("  ")];
    if let Some(failure) = &hub.failure {
        line.push(Span::from(failure.clone()).red());
    } else if let Some(silence) = hub.silence(now) {
        line.push(Span::from(format!("no answer for {}: the loop is blocked", time(silence))).red());
    } else if let Some(latest) = &hub.latest {
        let thread = latest.snapshot.thread.as_deref().unwrap_or("without a name");
        line.push(Span::from(format!("process {}, thread {thread}", latest.snapshot.process)));
    } else {
        line.push(Span::from("waiting for the first answer"));
    }
    if app.paused {
        line.push(Span::from("  paused").yellow());
    }
    frame.render_widget(Line::from(line), area);
}

fn draw_hubs(frame: &mut Frame<'_>, app: &App, area: Rect, now: Instant) {
    let names =
        ["HUB", "TURNS/S", "SWITCH/S", "READY", "PARKED", "GREEN", "TIMERS", "FDS", "STACKS", "JOBS", "LATENCY"];
    let widths = [
        Constraint::Min(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(8),
    ];
    let rows = app.hubs.iter().enumerate().map(|(index, hub)| {
        let style = match (index == app.shown, hub.failure.is_some() || hub.silence(now).is_some()) {
            (_, true) => Style::new().fg(Color::Red),
            (true, false) => Style::new().add_modifier(Modifier::BOLD),
            (false, false) => Style::new(),
        };
        Row::new(hub_cells(hub, index == app.shown, now)).style(style)
    });
    let table = Table::new(rows, widths).header(Row::new(names).style(Style::new().add_modifier(Modifier::REVERSED)));
    let mut state = TableState::new().with_selected(Some(app.shown));
    frame.render_stateful_widget(table, area, &mut state);
}

fn hub_cells(hub: &Hub, is_shown: bool, now: Instant) -> Vec<Cell<'static>> {
    let mark = if is_shown { "▸" } else { " " };
    let Some(latest) = &hub.latest else { return vec![Cell::from(format!("{mark}{}", hub.path.display()))] };
    let (snapshot, stats) = (&latest.snapshot, &latest.snapshot.stats);
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), count);
    let latency = hub.silence(now).or_else(|| hub.latencies.front().map(|micros| Duration::from_micros(*micros)));
    let jobs = format!("{}/{}", stats.pool_queued, stats.pool_jobs);
    let cells = [
        format!("{mark}{}", snapshot.title()),
        rate(latest.rates.map(|(turns, _)| turns)),
        rate(latest.rates.map(|(_, switches)| switches)),
        count(stats.ready as f64),
        count(stats.parked as f64),
        count(stats.green_threads as f64),
        count(stats.timers as f64),
        count((stats.readers + stats.writers) as f64),
        bytes(stats.stack_bytes_resident),
        jobs,
        latency.map(time).unwrap_or_default(),
    ];
    cells.into_iter().map(Cell::from).collect()
}

fn draw_latencies(frame: &mut Frame<'_>, app: &App, area: Rect) {
    if area.is_empty() {
        return;
    }
    let latencies: Vec<u64> = app.hubs[app.shown].latencies.iter().copied().take(area.width.into()).collect();
    let longest = Duration::from_micros(latencies.iter().copied().max().unwrap_or_default());
    let title = format!("latency, the newest left, at most {}", time(longest));
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Sparkline::default().data(&latencies).block(block).fg(Color::Green), area);
}

fn draw_threads(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let hub = &app.hubs[app.shown];
    let lines = app.lines();
    let (all, omitted) = hub.latest.as_ref().map_or((0, 0), |it| (it.snapshot.greenlets.len(), it.snapshot.omitted));
    let mut title = format!("greenlets {} of {}, by {}", lines.len(), all + omitted, app.sort.name());
    if app.reversed {
        title.push_str(" reversed");
    }
    if !app.filter.is_empty() {
        title.push_str(&format!(", with {:?}", app.filter));
    }
    if omitted > 0 {
        title.push_str(&format!(", {omitted} not sent"));
    }
    let header = Row::new(["ID", "AGE", "STATE", "NAME", "WAITS FOR", "SPAWNED AT"]);
    let widths = [
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Fill(2),
        Constraint::Fill(4),
        Constraint::Fill(2),
    ];
    let rows = lines.iter().map(|greenlet| thread_row(greenlet));
    let table = Table::new(rows, widths)
        .header(header.style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(Style::new().bg(Color::Blue).fg(Color::White))
        .block(Block::new().borders(Borders::TOP).title(title));
    let mut state = TableState::new().with_selected(app.line());
    frame.render_stateful_widget(table, area, &mut state);
}

fn thread_row(greenlet: &Greenlet) -> Row<'static> {
    let style = match greenlet.state.as_str() {
        "running" | "ready" | "unstarted" => Style::new().fg(Color::Green),
        _ => Style::new(),
    };
    // The state in words repeats the state unless the greenlet waits.
    let text = if matches!(greenlet.state.as_str(), "waiting" | "delayed") { greenlet.text.as_str() } else { "" };
    Row::new([
        greenlet.id.to_string(),
        greenlet.age().map_or_else(|| "-".to_owned(), time),
        greenlet.state.clone(),
        greenlet.title().to_owned(),
        text.to_owned(),
        greenlet.made_at.as_deref().map_or("", short_place).to_owned(),
    ])
    .style(style)
}

/// Returns the folder, the file and the line of a place. The beginning is the same for most greenlets.
fn short_place(place: &str) -> &str {
    let place = place.rsplit_once(':').map_or(place, |(line, _column)| line);
    let mut slashes = place.rmatch_indices('/').map(|(at, _)| at);
    slashes.nth(1).map_or(place, |at| &place[at + 1..])
}

fn draw_keys(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let text = if app.types_filter {
        format!("filter: {}▏  Enter keeps it, Esc clears it", app.filter)
    } else {
        let hubs = if app.hubs.len() > 1 { "Tab hub  " } else { "" };
        format!("q quit  ↑↓ select  Enter details  {hubs}a age  s state  n name  i id  / filter  Space pause")
    };
    frame.render_widget(Line::from(text).style(Style::new().fg(Color::DarkGray)), area);
}

fn draw_details(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let Some(greenlet) = app.selected() else { return };
    let lines = [
        ("name", greenlet.name.clone().unwrap_or_else(|| "-".to_owned())),
        ("kind", greenlet.kind.clone()),
        ("state", greenlet.state.clone()),
        ("", greenlet.text.clone()),
        ("age", greenlet.age().map_or_else(|| "-".to_owned(), time)),
        ("spawned at", greenlet.made_at.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let lines = lines.map(|(name, value)| Line::from(vec![Span::from(format!("{name:<11}")).bold(), value.into()]));
    let height = (lines.len() as u16 + 2).min(area.height);
    let place = Rect { y: area.bottom() - height, height, ..area };
    let block = Block::bordered().title(format!("greenlet {}; Esc closes", greenlet.id));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(Vec::from(lines)).wrap(Wrap { trim: false }).block(block), place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::{answer, app, press};
    use crate::client::{News, Update};
    use crate::snapshot::tests::LINE;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::path::PathBuf;

    /// Returns the lines of the screen, without the blanks at their ends.
    fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
        screen_at(app, width, height, Instant::now())
    }

    fn screen_at(app: &mut App, width: u16, height: u16, now: Instant) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, app, now)).expect("a frame");
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    #[test]
    fn a_screen_shows_the_hub_its_latency_and_its_green_threads() {
        let mut app = app();
        let later = LINE.replace("\"turns\":1000", "\"turns\":1200");
        let at = app.hubs[0].latest.as_ref().expect("an answer").at + Duration::from_secs(1);
        answer(&mut app, 0, &later, at);
        let lines = screen(&mut app, 120, 18);
        assert_eq!(lines[0], "greenhub-top  process 42, thread main");
        assert!(lines[1].starts_with("HUB ") && lines[1].ends_with("LATENCY"), "{}", lines[1]);
        let hub: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(hub, ["▸epoll", "#1", "200", "0", "1", "2", "3", "1", "2", "16.0K", "0/0", "800us"]);
        assert!(lines[3].starts_with("latency, the newest left, at most 800us─"), "{}", lines[3]);
        assert!(lines[4].starts_with("██"), "two answers: {:?}", lines[4]);
        assert!(lines[6].starts_with("greenlets 4 of 4, by id─"), "{}", lines[6]);
        let words: Vec<&str> = lines[9].split_whitespace().collect();
        assert_eq!(words[..4], ["2", "1m01s", "waiting", "reader"]);
        assert!(lines[9].contains("waiting for a descriptor (reading from 7)"), "{}", lines[9]);
        assert!(lines[9].ends_with("src/server.rs:20"), "{}", lines[9]);
        assert!(lines[17].starts_with("q quit  ↑↓ select"), "{}", lines[17]);
    }

    #[test]
    fn the_details_of_the_selected_green_thread_are_shown() {
        let mut app = app();
        press(&mut app, "jjj\n");
        let text = screen(&mut app, 100, 24).join("\n");
        assert!(text.contains("greenlet 3; Esc closes"), "{text}");
        assert!(text.contains("spawned at src/server.rs:30:5"), "{text}");
        press(&mut app, "\u{1b}");
        assert!(!screen(&mut app, 100, 24).join("\n").contains("Esc closes"));
    }

    #[test]
    fn a_filter_is_shown_while_it_is_typed() {
        let mut app = app();
        press(&mut app, "/rea");
        let lines = screen(&mut app, 100, 12);
        assert!(lines[11].starts_with("filter: rea▏"), "{}", lines[11]);
        assert!(lines.join("\n").contains("greenlets 3 of 4, by id, with \"rea\""), "{lines:#?}");
    }

    #[test]
    fn a_silent_console_and_a_lost_program_are_named() {
        let mut app = app();
        let now = Instant::now();
        app.update(Update { hub: 0, news: News::Asked(now) }, now);
        assert_eq!(screen_at(&mut app, 100, 12, now)[0], "greenhub-top  process 42, thread main");
        let lines = screen_at(&mut app, 100, 12, now + Duration::from_secs(3));
        assert_eq!(lines[0], "greenhub-top  no answer for 3.0s: the loop is blocked");
        app.update(Update { hub: 0, news: News::Failed("the program has closed the connection".into()) }, now);
        let lines = screen_at(&mut app, 100, 12, now + Duration::from_secs(9));
        assert_eq!(lines[0], "greenhub-top  the program has closed the connection");
        assert!(lines.join("\n").contains("sleeper"), "the last answer stays: {lines:#?}");
    }

    #[test]
    fn each_hub_has_a_line_and_tab_shows_another() {
        let mut app = App::new(&[PathBuf::from("/run/one"), PathBuf::from("/run/two")]);
        answer(&mut app, 1, &LINE.replace("\"label\":\"\"", "\"label\":\"workers\""), Instant::now());
        let lines = screen(&mut app, 120, 20);
        assert_eq!(lines[0], "greenhub-top  waiting for the first answer");
        assert!(lines[2].starts_with("▸/run/one"), "{}", lines[2]);
        assert!(lines[3].starts_with(" workers"), "{}", lines[3]);
        press(&mut app, "\t");
        let lines = screen(&mut app, 120, 20);
        assert!(lines[3].starts_with("▸workers"), "{}", lines[3]);
        assert!(lines.join("\n").contains("sleeper"), "{lines:#?}");
    }

    #[test]
    fn the_selected_line_of_many_is_in_view() {
        let mut app = App::new(&[PathBuf::from("/run/console")]);
        let one = |id| format!(r#"{{"id":{id},"kind":"green thread","name":"n{id}","state":"ready","text":"ready"}}"#);
        let all: Vec<String> = (0..1000).map(one).collect();
        let line = format!(
            r#"{{"format":1,"process":1,"thread":null,"hub":"poll","hub_id":1,"stats":{{}},"omitted":5,"greenlets":[{}]}}"#,
            all.join(",")
        );
        answer(&mut app, 0, &line, Instant::now());
        (0..500).for_each(|_| press(&mut app, "j"));
        let text = screen(&mut app, 100, 20).join("\n");
        assert!(text.contains("n499"), "{text}");
        assert!(text.contains("greenlets 1000 of 1005, by id, 5 not sent"), "{text}");
    }

    #[test]
    fn a_place_is_shortened_to_its_folder_and_file() {
        assert_eq!(short_place("/a/crate-1.0/src/net/server.rs:20:5"), "net/server.rs:20");
        assert_eq!(short_place("src/main.rs:1:1"), "src/main.rs:1");
        assert_eq!(short_place("main.rs:1:1"), "main.rs:1");
    }

    #[test]
    fn every_size_of_a_terminal_is_drawn() {
        let mut app = app();
        press(&mut app, "j\n");
        for width in [1, 2, 10, 29, 30, 31, 60, 200] {
            for height in [1, 2, 3, 5, 6, 7, 8, 12, 15, 16, 17, 30] {
                let lines = screen(&mut app, width, height);
                if width >= 30 && height >= 6 {
                    assert!(lines[0].starts_with("greenhub-top"), "{width}×{height}: {lines:#?}");
                }
            }
        }
        assert_eq!(screen(&mut app, 40, 3)[0], "the terminal is too small; q quits");
    }
}
