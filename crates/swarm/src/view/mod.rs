//! The live view of a run in a terminal.
//!
//! It has a thread of its own, which draws and reads keys, so that a slow terminal does not hold up the
//! users. It shows what it is given and judges nothing. The terminal is put back as it was when the view
//! is dropped, and also by a hook when any thread panics.

mod draw;
mod requests;

use std::io::{self, Stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};

pub use requests::Requests;

use crate::{Event, Point, Progress};
use draw::Shown;

/// Keys are looked for so often.
const KEYS_EVERY: Duration = Duration::from_millis(80);

/// What is known before the run begins.
#[derive(Debug, Clone, Default)]
pub struct Title {
    /// The scenario.
    pub scenario: String,
    /// How long it lasts, seconds.
    pub duration_s: f64,
    /// Seed of its choices.
    pub seed: u64,
    /// Where the server listens.
    pub server: String,
}

enum News {
    Second(Box<(Progress, Point)>),
    Chaos(Event),
}

/// A view of a run, until it is dropped.
#[derive(Debug)]
pub struct View {
    news: Option<Sender<News>>,
    thread: Option<JoinHandle<()>>,
}

impl View {
    /// Takes the terminal over, which has to be on standard error; keys come from standard input.
    ///
    /// # Errors
    /// When the terminal cannot do it.
    pub fn start(title: Title, requests: Requests) -> io::Result<Self> {
        restore_on_panic();
        let screen = Screen::take()?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stderr()))?;
        let (news, inbox) = channel();
        let shown = Shown::new(title);
        let watching = move || watch(terminal, shown, &inbox, &requests, screen);
        let thread = thread::Builder::new().name("view".to_owned());
        Ok(Self {
            news: Some(news),
            thread: Some(thread.spawn(watching)?),
        })
    }

    /// Shows a second.
    pub fn second(&self, progress: Progress, point: Point) {
        self.tell(News::Second(Box::new((progress, point))));
    }

    /// Shows what was done to the server.
    pub fn chaos(&self, event: Event) {
        self.tell(News::Chaos(event));
    }

    fn tell(&self, news: News) {
        if let Some(sender) = &self.news {
            // A view that has failed is no reason to end the run.
            let _ = sender.send(news);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // The thread ends when there can be no more news.
        self.news = None;
        // In a panic the hook has given the terminal back, and the thread may wait there for a whole
        // line instead of a key: nothing that is worth waiting for.
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            // What it had to say in a panic the hook has said.
            let _ = thread.join();
        }
    }
}

/// The terminal as it is while the view has it; given back when dropped.
struct Screen;

impl Screen {
    fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on there is something to give back.
        let screen = Self;
        execute!(io::stderr(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nothing is left to be done about a terminal that cannot be put back.
fn give_back() {
    let _ = execute!(io::stderr(), terminal::LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

/// A panic's message would be lost on the other screen, and the shell would be left without echo.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before: Arc<dyn Fn(&std::panic::PanicHookInfo<'_>) + Send + Sync> =
            Arc::from(std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| {
            if terminal::is_raw_mode_enabled().unwrap_or(false) {
                give_back();
            }
            before(info);
        }));
    });
}

fn watch(
    mut terminal: Terminal<CrosstermBackend<Stderr>>,
    mut shown: Shown,
    inbox: &Receiver<News>,
    requests: &Requests,
    screen: Screen,
) {
    let mut dirty = true;
    loop {
        if dirty && terminal.draw(|frame| draw::draw(frame, &shown)).is_err() {
            // Nobody can see it any more; the run goes on.
            break;
        }
        dirty = keys(requests).unwrap_or(false);
        shown.wish = requests.wish();
        match inbox.recv_timeout(KEYS_EVERY) {
            Ok(News::Second(second)) => {
                shown.second(*second);
                dirty = true;
            }
            Ok(News::Chaos(event)) => {
                shown.chaos(event);
                dirty = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    drop(screen);
}

/// Whether there was a key or another size, so that it has to be drawn anew.
fn keys(requests: &Requests) -> io::Result<bool> {
    let mut any = false;
    while event::poll(Duration::ZERO)? {
        any = true;
        if let Input::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') => requests.ask(),
                KeyCode::Char('c') if control => requests.ask(),
                _ => {}
            }
        }
    }
    Ok(any)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    /// Panics under a view when it is told to; by itself it does nothing.
    #[test]
    fn panics_when_told() {
        if std::env::var_os("PANIC_UNDER_A_VIEW").is_some() {
            let _view = View::start(Title::default(), Requests::default()).unwrap();
            panic!("here is why");
        }
    }

    /// In a terminal of its own: the message of a panic is on the screen that stays, and keys echo again.
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let line = format!("'{own}' --exact view::tests::panics_when_told --nocapture; stty -a");
        let output = Command::new("script")
            .args(["-q", "-c", &line, "/dev/null"])
            .env("PANIC_UNDER_A_VIEW", "1")
            .env("TERM", "xterm")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let (before, after) = said.split_once("\u{1b}[?1049l").unwrap();
        assert!(
            before.contains("\u{1b}[?1049h"),
            "it was taken over: {said:?}"
        );
        assert!(after.contains("here is why"), "{said:?}");
        let (_, modes) = after.split_once("speed").unwrap();
        assert!(
            modes.contains(" icanon") && modes.contains(" echo "),
            "{modes}"
        );
    }
}
