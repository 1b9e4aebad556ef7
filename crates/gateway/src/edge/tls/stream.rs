//! A TLS stream that holds no buffer while nothing is under way.
//!
//! Over rustls's unbuffered interface: records are taken apart and made in
//! buffers that belong to the thread. A connection keeps bytes of its own only
//! for a record that has not come whole, for plaintext its reader had no room
//! for, and for what the socket did not take; at rest there is none of these.
//! rustls's own stream keeps 4 KiB to read into for as long as it lives.
//!
//! It decides nothing about certificates, versions or sessions: that is the
//! configuration's.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at a time, in bytes: a whole record of TLS 1.2, which are the larger ones, fits.
/// A handshake message that does not is refused; none of a client without a certificate comes
/// near.
const READ_BYTES: usize = 20 * 1024;

/// What is encrypted for one write to the socket, in bytes; so much may have to be kept when
/// the socket takes none of it.
const WRITE_BYTES: usize = 64 * 1024;

/// Records with their headers, tags and padding, beyond what is in them, in bytes.
const WRITE_SLACK_BYTES: usize = 1024;

/// A write buffer that had to grow beyond this is not kept, in bytes.
const WRITE_KEPT_BYTES: usize = 2 * WRITE_BYTES;

thread_local! {
    static READ: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The server's side of a TLS connection.
pub(crate) struct TlsStream<IO> {
    io: IO,
    tls: Box<UnbufferedServerConnection>,
    /// Received, and not a whole record yet.
    incoming: Vec<u8>,
    /// Decrypted, and not asked for yet.
    plaintext: Vec<u8>,
    /// Records that the socket has not taken.
    outgoing: Vec<u8>,
    sent: usize,
    /// The client has said that nothing more will come.
    finished: bool,
    /// We have said so.
    said_farewell: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// A stream whose handshake is still to be made.
    pub(super) fn new(io: IO, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(breach)?;
        Ok(Self {
            io,
            tls: Box::new(tls),
            incoming: Vec::new(),
            plaintext: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            finished: false,
            said_farewell: false,
        })
    }

    /// How the handshake went, once it is done.
    pub(super) fn handshake_kind(&self) -> Option<rustls::HandshakeKind> {
        self.tls.handshake_kind()
    }

    /// Makes the handshake. Must be ready before anything is read or written.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let drained = self.poll_drain(cx)?;
            if !self.tls.is_handshaking() {
                // In TLS 1.2 the last word is ours. In 1.3 only tickets are still on their way:
                // reading and writing see to them, a client need not take them first.
                if self.tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                    ready!(drained);
                }
                return Poll::Ready(Ok(()));
            }
            // Reading goes on while the client takes nothing: it may have to be heard first.
            if self.finished {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Err(error) = ready!(self.poll_fill(cx, None)) {
                // The client may be told why, if that takes no waiting.
                let _ = self.poll_drain(cx);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Writes out what the socket did not take before.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let unsent = &self.outgoing[self.sent..];
            match ready!(Pin::new(&mut self.io).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        if self.sent > 0 {
            self.outgoing = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the socket once and takes apart what has come. Plaintext goes into `into`
    /// as far as it has room.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        into: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<()>> {
        let held = self.incoming.len();
        if held >= READ_BYTES {
            let problem = "a handshake message that is too large";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        let mut buffer = READ.take().unwrap_or_else(|| vec![0; READ_BYTES].into());
        let mut room = ReadBuf::new(&mut buffer[held..]);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut room);
        let fresh = room.filled().len();
        let outcome = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Without a farewell: somebody may have cut the connection.
            Poll::Ready(Ok(())) if fresh == 0 => {
                Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Ok(())) => {
                buffer[..held].copy_from_slice(&self.incoming);
                self.incoming = Vec::new();
                let filled = &mut buffer[..held + fresh];
                let outcome = self.take_apart(filled, into);
                Poll::Ready(outcome.map(|used| self.incoming = filled[used..].to_vec()))
            }
        };
        READ.set(Some(buffer));
        outcome
    }

    /// Takes records apart; returns how many of the bytes are done with.
    fn take_apart(
        &mut self,
        bytes: &mut [u8],
        mut into: Option<&mut ReadBuf<'_>>,
    ) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut bytes[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(breach)?;
                        discard += record.discard;
                        let mut rest = record.payload;
                        if let Some(into) = &mut into
                            && self.plaintext.is_empty()
                        {
                            let fits = rest.len().min(into.remaining());
                            into.put_slice(&rest[..fits]);
                            rest = &rest[fits..];
                        }
                        self.plaintext.extend_from_slice(rest);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut record)) => {
                    let end = self.outgoing.len();
                    encode(&mut record, &mut self.outgoing, end)?;
                }
                // It is written in its order, before anything that is made later.
                Ok(ConnectionState::TransmitTlsData(record)) => record.done(),
                Ok(ConnectionState::PeerClosed) => self.finished = true,
                Ok(ConnectionState::Closed) => {
                    self.finished = true;
                    return Ok(bytes.len());
                }
                Ok(_) if self.finished => return Ok(bytes.len()),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    return Ok(used + discard);
                }
                // Early data, which is not offered.
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => {
                    self.queue_alert();
                    return Err(breach(error));
                }
            }
            used += discard;
        }
    }

    /// After a breach: what rustls has to say about it is queued.
    fn queue_alert(&mut self) {
        while let Ok(ConnectionState::EncodeTlsData(mut record)) =
            self.tls.process_tls_records(&mut []).state
        {
            let end = self.outgoing.len();
            if encode(&mut record, &mut self.outgoing, end).is_err() {
                return;
            }
        }
    }

    /// Makes records with `make`, in a buffer of the thread, and writes what the socket takes.
    /// Nothing may be queued before.
    fn poll_send(&mut self, cx: &mut Context<'_>, payload: Payload<'_>) -> io::Result<()> {
        let mut buffer = WRITE.take();
        let outcome = self.encrypt(payload, &mut buffer).and_then(|length| {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(sent)) => rest = &rest[sent..],
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => {
                        self.outgoing = rest.to_vec();
                        break;
                    }
                }
            }
            Ok(())
        });
        if buffer.len() <= WRITE_KEPT_BYTES {
            WRITE.set(buffer);
        }
        outcome
    }

    /// Makes records; returns their length.
    fn encrypt(&mut self, payload: Payload<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut needed = WRITE_SLACK_BYTES
            + match payload {
                Payload::Data(data) => data.len(),
                Payload::Farewell => 0,
            };
        let mut length = 0;
        loop {
            if buffer.len() < length + needed {
                buffer.resize(length + needed, 0);
            }
            // The incomplete record is shown again, for nothing to happen to it: rustls
            // remembers how far it has looked.
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut self.incoming);
            match state.map_err(breach)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let room = &mut buffer[length..];
                    let made = match payload {
                        Payload::Data(data) => traffic.encrypt(data, room),
                        Payload::Farewell => traffic.queue_close_notify(room),
                    };
                    match made {
                        Ok(made) => return Ok(length + made),
                        Err(EncryptError::InsufficientSize(size)) => needed = size.required_size,
                        Err(error) => return Err(io::Error::other(error)),
                    }
                }
                ConnectionState::EncodeTlsData(mut record) => {
                    length += encode(&mut record, buffer, length)?;
                }
                ConnectionState::TransmitTlsData(record) => record.done(),
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.incoming.drain(..discard);
        }
    }
}

/// Puts a record of the protocol's own at `at`, where the buffer is made large enough for it;
/// returns its length. One that is not encoded before it is dropped would be lost.
fn encode(
    record: &mut EncodeTlsData<'_, ServerConnectionData>,
    buffer: &mut Vec<u8>,
    at: usize,
) -> io::Result<usize> {
    match record.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => {
            buffer.resize(buffer.len().max(at + size.required_size), 0);
            record.encode(&mut buffer[at..]).map_err(io::Error::other)
        }
        other => other.map_err(io::Error::other),
    }
}

/// What is to be encrypted.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Data(&'a [u8]),
    /// That nothing more will come.
    Farewell,
}

fn breach(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
impl<IO> TlsStream<IO> {
    /// Buffers held at the moment, in bytes.
    fn heap_bytes(&self) -> usize {
        self.incoming.capacity() + self.plaintext.capacity() + self.outgoing.capacity()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if !this.plaintext.is_empty() {
                let fits = this.plaintext.len().min(buf.remaining());
                buf.put_slice(&this.plaintext[..fits]);
                if fits == this.plaintext.len() {
                    this.plaintext = Vec::new();
                } else {
                    this.plaintext.drain(..fits);
                }
                return Poll::Ready(Ok(()));
            }
            if this.finished || buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // A client that asks for answers of the protocol itself (new keys) and does not read
            // them is not read either.
            if this.outgoing.len() - this.sent > WRITE_BYTES {
                ready!(this.poll_drain(cx))?;
            }
            let outcome = this.poll_fill(cx, Some(buf));
            if !this.outgoing.is_empty() {
                // An answer, or an alert: out with it, without waiting. Writing says how it went.
                let _ = this.poll_drain(cx);
            }
            ready!(outcome)?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let data = &buf[..buf.len().min(WRITE_BYTES)];
        if !data.is_empty() {
            this.poll_send(cx, Payload::Data(data))?;
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if !this.said_farewell {
            this.said_farewell = true;
            this.poll_send(cx, Payload::Farewell)?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
