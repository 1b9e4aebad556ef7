//! Ending a listener while clients connect: what its log says. A process of its own, for it
//! listens to everybody's log.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../src/stopping.rs"]
mod stopping;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use actix_server::Server;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// No client goes on for ever.
const CONNECTS_MAX: usize = 100_000;

/// The errors that were logged.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{value:?} "));
    }
}

#[test]
fn clients_that_come_at_the_end_cause_no_error() {
    let errors = Errors::default();
    let log = tracing_subscriber::registry().with(errors.clone());
    tracing::subscriber::set_global_default(log).unwrap();
    actix_rt::System::new().block_on(async {
        for round in 0..8 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = Server::build()
                .workers(1)
                .disable_signals()
                .listen("test", listener, || {
                    actix_service::fn_service(|_: actix_rt::net::TcpStream| async {
                        Ok::<(), ()>(())
                    })
                })
                .unwrap()
                .run();
            let handle = server.handle();
            let over = Arc::new(AtomicBool::new(false));
            let clients: Vec<_> = (0..2)
                .map(|_| {
                    let over = Arc::clone(&over);
                    thread::spawn(move || {
                        for _ in 0..CONNECTS_MAX {
                            if over.load(Ordering::Relaxed) {
                                break;
                            }
                            // Turned away, or dropped at once. Not so many that nothing but
                            // accepting them is done.
                            let _ = TcpStream::connect(address);
                            thread::sleep(Duration::from_micros(200));
                        }
                    })
                })
                .collect();
            #[allow(clippy::disallowed_methods, reason = "nothing supervises a test")]
            let serving = actix_rt::spawn(server);
            stopping::stop(&handle, round % 2 == 0).await;
            serving.await.unwrap().unwrap();
            over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().unwrap();
            }
        }
    });
    assert_eq!(*errors.0.lock().unwrap(), Vec::<String>::new());
}
