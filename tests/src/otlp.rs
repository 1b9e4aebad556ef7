//! A trace collector: takes OTLP over HTTP on a port of its own, and keeps what it was told.
//!
//! The messages are decoded by the types OpenTelemetry publishes, not by the server's. Of HTTP it
//! knows what is needed: requests with a length, one after the other on a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::eventually;

/// Largest request taken, in bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A span, with ids in hexadecimal as they stand in a `traceparent`.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its trace.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// Its parent; empty for none.
    pub parent: String,
    /// What it is of.
    pub name: String,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    /// Nanoseconds since the Unix epoch.
    pub end: u64,
    /// The flags.
    pub flags: u32,
    /// The attributes.
    pub attributes: BTreeMap<String, Value>,
    /// What it failed with.
    pub error: Option<String>,
}

#[derive(Default)]
struct Seen {
    spans: Mutex<Vec<Span>>,
    headers: Mutex<Vec<String>>,
    services: Mutex<Vec<String>>,
    requests: AtomicUsize,
    status: AtomicU16,
    stop: AtomicBool,
}

/// A running collector; ends when dropped.
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Seen>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(span: OtlpSpan) -> Span {
    let value = |value: Option<AnyOf>| match value {
        Some(AnyOf::StringValue(text)) => json!(text),
        Some(AnyOf::IntValue(number)) => json!(number),
        Some(AnyOf::BoolValue(flag)) => json!(flag),
        other => panic!("an attribute of a kind that is not documented: {other:?}"),
    };
    let attributes = span.attributes.into_iter();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        flags: span.flags,
        attributes: attributes
            .map(|one| (one.key, value(one.value.and_then(|any| any.value))))
            .collect(),
        error: span
            .status
            .filter(|status| status.code == StatusCode::Error as i32)
            .map(|status| status.message),
    }
}

impl Collector {
    /// Starts one that answers 200.
    ///
    /// # Panics
    /// When there is no port to have.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let seen = Arc::new(Seen::default());
        seen.status.store(200, Ordering::SeqCst);
        let held = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if held.stop.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    let held = Arc::clone(&held);
                    std::thread::spawn(move || serve(&held, stream));
                }
            }
        });
        Self { address, seen }
    }

    /// For `traces.endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers from now on. What it does not answer with 200 it does not keep.
    pub fn answer(&self, status: u16) {
        self.seen.status.store(status, Ordering::SeqCst);
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.seen.headers).clone()
    }

    /// Names of the services that exported.
    pub fn services(&self) -> Vec<String> {
        lock(&self.seen.services).clone()
    }

    /// All spans so far, by when they began.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = lock(&self.seen.spans).clone();
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
        spans
    }

    /// The spans of a trace, once there are as many.
    #[track_caller]
    pub fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans of the trace {trace}"), || {
            let of = self.spans().into_iter().filter(|span| span.trace == trace);
            let spans: Vec<Span> = of.collect();
            (spans.len() >= count).then_some(spans)
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; gone already is as good.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until the other side closes, or nothing comes for long.
fn serve(seen: &Seen, stream: TcpStream) {
    let patience = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let (Ok(()), Ok(mut writer)) = (patience, stream.try_clone()) else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(body) = request(seen, &mut reader) {
        seen.requests.fetch_add(1, Ordering::SeqCst);
        let status = seen.status.load(Ordering::SeqCst);
        if status == 200 {
            keep(seen, &body);
        }
        let answer = format!("HTTP/1.1 {status} As told\r\ncontent-length: 0\r\n\r\n");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn request(seen: &Seen, reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    let length: usize = length.expect("an export tells its length");
    assert!(length <= REQUEST_BYTES_MAX, "{length} bytes in one export");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    lock(&seen.headers).push(head);
    Some(body)
}

fn keep(seen: &Seen, body: &[u8]) {
    let request = ExportTraceServiceRequest::decode(body).expect("an export is OTLP");
    for resource in request.resource_spans {
        let attributes = resource.resource.into_iter().flat_map(|of| of.attributes);
        for attribute in attributes.filter(|attribute| attribute.key == "service.name") {
            if let Some(AnyOf::StringValue(name)) = attribute.value.and_then(|any| any.value) {
                lock(&seen.services).push(name);
            }
        }
        for scope in resource.scope_spans {
            lock(&seen.spans).extend(scope.spans.into_iter().map(read));
        }
    }
}
