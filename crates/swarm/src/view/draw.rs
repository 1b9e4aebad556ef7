//! What the view looks like: a screen from what is known, without touching a terminal.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};

use super::Title;
use crate::{Event, Percentiles, Point, Progress, Wish};

/// Seconds of the little charts.
const PAST_MAX: usize = 240;
/// Events that are listed, the newest first.
const EVENTS_MAX: usize = 32;
/// Rows of the parts whose size does not depend on the terminal.
const LATENCY_ROWS: u16 = 7;
const MIDDLE_ROWS: u16 = 8;

/// What is shown.
#[derive(Debug)]
pub(super) struct Shown {
    title: Title,
    now: Option<Progress>,
    past: VecDeque<Point>,
    events: VecDeque<Event>,
    /// What the person at the terminal has asked for.
    pub(super) wish: Wish,
}

impl Shown {
    pub(super) fn new(title: Title) -> Self {
        Self {
            title,
            now: None,
            past: VecDeque::new(),
            events: VecDeque::new(),
            wish: Wish::GoOn,
        }
    }

    pub(super) fn second(&mut self, (progress, point): (Progress, Point)) {
        self.now = Some(progress);
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(point);
    }

    pub(super) fn chaos(&mut self, event: Event) {
        self.events.truncate(EVENTS_MAX - 1);
        self.events.push_front(event);
    }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Something is wrong; said by colour and by weight, for those who see no colours.
fn alarm(on: bool) -> Style {
    if on {
        bold().fg(Color::Red)
    } else {
        Style::new()
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, shown: &Shown) {
    let [head, rates, latencies, middle, events, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Length(LATENCY_ROWS),
        Constraint::Length(MIDDLE_ROWS),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(shown), head);
    draw_rates(frame, shown, rates);
    draw_latencies(frame, shown, latencies);
    let [server, own] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    draw_server(frame, shown, server);
    draw_own(frame, shown, own);
    draw_events(frame, shown, events);
    frame.render_widget(footline(shown.wish), foot);
}

fn headline(shown: &Shown) -> Paragraph<'static> {
    let title = &shown.title;
    let mut spans = vec![
        Span::styled(format!(" stonechat swarm · {}", title.scenario), bold()),
        Span::raw(format!(" · {} · seed {}", title.server, title.seed)),
    ];
    match &shown.now {
        None => spans.push(Span::raw(" · starting")),
        Some(now) => {
            let (phase, at_s) = (&now.phase, now.at_s);
            spans.push(Span::raw(format!(" · {phase} · {at_s:.0} s")));
        }
    }
    Paragraph::new(Line::from(spans))
}

fn footline(wish: Wish) -> Line<'static> {
    match wish {
        Wish::GoOn => Line::styled(" q or Ctrl-C: end now, drain, verdict", dim()),
        Wish::End => Line::styled(
            " ending: everything that was accepted is still to come · once more: stop without a verdict",
            bold(),
        ),
        Wish::Stop => Line::styled(" stopping", bold()),
    }
}

/// Figures above, how they went below.
fn draw_rates(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    let (online, delivered) = match &shown.now {
        None => ("–".to_owned(), "–".to_owned()),
        Some(now) => (
            format!("{}/{} devices signed in", now.online, now.devices),
            format!(
                "{:.0} sent/s  {:.0} accepted/s  {:.0} delivered/s",
                now.sent_per_s, now.accepted_per_s, now.delivered_per_s
            ),
        ),
    };
    let [left, right] =
        Layout::horizontal([Constraint::Length(34), Constraint::Fill(1)]).areas(area);
    let signed_in = |point: &Point| point.online as f64;
    sparkline(frame, shown, left, &online, signed_in);
    let rate = |point: &Point| point.delivered as f64 / point.span_s.max(1e-3);
    sparkline(frame, shown, right, &delivered, rate);
}

fn sparkline(
    frame: &mut Frame<'_>,
    shown: &Shown,
    area: Rect,
    title: &str,
    of: impl Fn(&Point) -> f64,
) {
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = shown.past.len().saturating_sub(width);
    let values: Vec<u64> = shown
        .past
        .iter()
        .skip(skipped)
        .map(|p| of(p) as u64)
        .collect();
    let sparkline = Sparkline::default()
        .block(Block::bordered().title(format!(" {title} ")))
        .style(Style::new().fg(Color::Cyan))
        .data(values);
    frame.render_widget(sparkline, area);
}

fn draw_latencies(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    let last = shown.past.back();
    let row = |name: &'static str, of: fn(&Point) -> Percentiles| {
        let of = last.map(of).unwrap_or_default();
        let ms = |us: u64| match of.count {
            0 => "–".to_owned(),
            _ => format!("{:.1}", us as f64 / 1000.0),
        };
        let cells = [ms(of.p50_us), ms(of.p90_us), ms(of.p99_us), ms(of.max_us)];
        Row::new(
            [name.to_owned(), of.count.to_string()]
                .into_iter()
                .chain(cells)
                .map(ratatui::text::Text::from),
        )
    };
    let rows = [
        row("connect to welcome", |p| p.latencies.connect_to_welcome),
        row("send to accepted", |p| p.latencies.send_to_accepted),
        row("send to delivered", |p| p.latencies.send_to_delivered),
        row("reconnect to caught up", |p| {
            p.latencies.reconnect_to_caught_up
        }),
    ];
    let widths = [24, 10, 10, 10, 10, 10].map(Constraint::Length);
    let head = Row::new(["ms, this second", "count", "p50", "p90", "p99", "max"]).style(dim());
    let table = Table::new(rows, widths)
        .header(head)
        .block(Block::bordered().title(" latency "));
    frame.render_widget(table, area);
}

fn figures(rows: Vec<(&'static str, String, bool)>, title: &'static str) -> Table<'static> {
    let rows = rows.into_iter().map(|(name, value, wrong)| {
        Row::new([Span::styled(name, dim()), Span::styled(value, alarm(wrong))])
    });
    Table::new(rows, [Constraint::Length(20), Constraint::Fill(1)])
        .block(Block::bordered().title(title))
}

fn draw_server(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    let look = shown.past.back().map(|point| point.server.clone());
    let look = look.unwrap_or_default();
    let count = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), |n| n.to_string());
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
    };
    let cpu = look.cpu_share.map_or_else(|| "–".to_owned(), percent);
    let inbox = match (&look.inbox_deepest, look.inbox_depth_max) {
        (Some(name), Some(depth)) if depth > 0 => format!("{depth} ({name})"),
        (_, depth) => count(depth),
    };
    let rows = vec![
        ("memory", mib(look.rss_bytes), false),
        ("processor", cpu, false),
        (
            "threads, files",
            format!("{}, {}", count(look.threads), count(look.fds)),
            false,
        ),
        ("deepest inbox", inbox, false),
        ("await a commit", count(look.commits_queued), false),
        (
            "in mailboxes",
            format!("{}, {}", count(look.mailbox_messages), mib(look.disk_bytes)),
            false,
        ),
    ];
    frame.render_widget(figures(rows, " server "), area);
}

fn percent(share: f64) -> String {
    format!("{:.0}% of a core", share * 100.0)
}

fn draw_own(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    let (Some(now), Some(last)) = (&shown.now, shown.past.back()) else {
        frame.render_widget(Block::bordered().title(" swarm "), area);
        return;
    };
    let busy = last.swarm_busy_share;
    let late_ms = last.swarm_late_us as f64 / 1000.0;
    let rows = vec![
        ("violations", now.violations.to_string(), now.violations > 0),
        ("refused", now.refused.to_string(), false),
        ("connections lost", now.lost_connections.to_string(), false),
        ("thread busy", percent(busy), busy > 0.85),
        ("timers late", format!("{late_ms:.1} ms"), late_ms > 20.0),
        (
            "memory",
            format!("{} MiB", last.swarm_rss_bytes >> 20),
            false,
        ),
    ];
    frame.render_widget(figures(rows, " swarm "), area);
}

fn draw_events(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    if shown.events.is_empty() || area.height < 3 {
        return;
    }
    let line = |event: &Event| {
        let recovered = match event.recovery_ms {
            Some(ms) => format!("recovered after {:.1} s", ms as f64 / 1000.0),
            None => "not recovered yet".to_owned(),
        };
        let (at_s, kind, detail) = (event.at_ms / 1000, &event.kind, &event.detail);
        Line::from(format!("{at_s:>5} s  {kind:<20} {recovered}  {detail}"))
    };
    let lines: Vec<Line<'_>> = shown.events.iter().map(line).collect();
    let list = Paragraph::new(lines).block(Block::bordered().title(" chaos "));
    frame.render_widget(list, area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::{Second, ServerLook};

    fn screen(shown: &Shown, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, shown)).unwrap();
        terminal.backend().to_string()
    }

    fn running() -> Shown {
        let mut shown = Shown::new(Title {
            scenario: "chatter".to_owned(),
            ..Title::default()
        });
        let mut recorder = crate::Recorder::new(None);
        for n in 1..=250_u64 {
            let mut second = Second {
                at_s: n as f64,
                span_s: 1.0,
                phase: "midnight".to_owned(),
                online: 990,
                devices: 1000,
                delivered: n,
                ..Second::default()
            };
            second.latencies.accepted.record_us(5_200);
            let (progress, mut point) = recorder.take(&second);
            point.server = ServerLook {
                rss_bytes: Some(345 << 20),
                inbox_depth_max: Some(17),
                inbox_deepest: Some("dispatcher-1".to_owned()),
                ..ServerLook::default()
            };
            shown.second((progress, point));
        }
        shown
    }

    #[test]
    fn everything_of_a_second_is_on_the_screen() {
        let mut shown = running();
        shown.chaos(Event {
            kind: "pause".to_owned(),
            at_ms: 12_000,
            for_ms: 1,
            recovery_ms: Some(1500),
            detail: "process 7".to_owned(),
        });
        let screen = screen(&shown, (100, 30));
        for text in [
            "chatter",
            "midnight",
            "250 s",
            "990/1000",
            "250 delivered/s",
            "5.2",
            "345 MiB",
            "17 (dispatcher-1)",
            "pause",
            "recovered after 1.5 s",
            "end now",
        ] {
            assert!(screen.contains(text), "{text} is not on\n{screen}");
        }
        assert!(shown.past.len() <= PAST_MAX);
    }

    /// Before the first second, on a tiny terminal, while ending: it draws all the same.
    #[test]
    fn it_can_be_drawn_at_any_time_and_size() {
        let mut shown = Shown::new(Title::default());
        let running = running();
        for size in [(1, 1), (20, 5), (80, 24), (300, 90)] {
            screen(&shown, size);
            screen(&running, size);
        }
        assert!(screen(&shown, (80, 24)).contains("starting"));
        shown.wish = Wish::End;
        assert!(screen(&shown, (90, 24)).contains("ending"));
        for n in 0..100 {
            shown.chaos(Event {
                kind: "cut".to_owned(),
                at_ms: n,
                for_ms: 0,
                recovery_ms: None,
                detail: String::new(),
            });
        }
        assert_eq!(shown.events.len(), EVENTS_MAX);
    }
}
