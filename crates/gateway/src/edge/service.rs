//! The HTTP services of the public listener: the upgrade, and a few words for
//! whoever comes without one.
//!
//! The upgrade service answers and lets go: the connection becomes a task of
//! its own, so that the HTTP dispatcher with its buffers is dropped.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::{Encoder, Framed};
use actix_http::body::{BodySize, BoxBody};
use actix_http::error::DispatchError;
use actix_http::h1::{self, H1Service};
use actix_http::{HttpService, KeepAlive, Method, Request, Response, StatusCode, header};
use actix_rt::net::TcpStream;
use actix_service::{Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service};
use bytes::BytesMut;
use futures_util::future::{Either, ready};
use stonechat_actors::Tree;
use stonechat_protocol::SUBPROTOCOL;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tracing::debug;

use super::backend::Backend;
use super::connection::{Connection, Opened};
use super::figures::Figures;
use super::handshake::{PATH, Refusal, Upgrade, negotiate};
use super::peers::Crowded;
use super::shared::Shared;
use super::tls::{Acceptor, TlsStream};
use crate::events::What;

/// Longest time for getting a refusal across, in milliseconds.
const REFUSAL_MS_MAX: u64 = 5_000;

/// Time for closing a connection that was not upgraded, in milliseconds.
const DISCONNECT_MS: u64 = 1_000;

/// What an HTTP service of one worker is made of.
pub(crate) struct Parts<B> {
    pub(crate) shared: Arc<Shared<B>>,
    pub(crate) tree: Tree,
}

impl<B> Clone for Parts<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            tree: self.tree.clone(),
        }
    }
}

/// The service of a plain TCP listener.
pub(crate) fn plain<B: Backend>(
    parts: Parts<B>,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (),
    Error = impl std::fmt::Debug,
    InitError = (),
> {
    let http = http::<TcpStream, B>(parts.clone());
    apply_fn_factory(http, move |io: TcpStream, http| {
        prompt(&io);
        let peer = io.peer_addr().ok();
        match parts.shared.peers.enter(peer.map(|peer| peer.ip())) {
            Ok(counted) => {
                let served = http.call((io, peer));
                Either::Left(async move {
                    let outcome = served.await;
                    // Until here; a connection counts itself.
                    drop(counted);
                    outcome
                })
            }
            Err(Crowded) => {
                crowded(&parts, peer);
                turn_away(&parts, io);
                Either::Right(ready(Ok(())))
            }
        }
    })
}

/// Refusals that are being told at a time. What comes on top is merely closed: whoever floods
/// the node is not to hold its descriptors with that.
const COURTESIES_MAX: usize = 64;

/// Counts and tells that a peer has too many connections.
fn crowded<B: Backend>(parts: &Parts<B>, peer: Option<SocketAddr>) {
    Figures::turned_away(StatusCode::TOO_MANY_REQUESTS.as_u16());
    parts.shared.tell(|| What::Limit {
        limit: "unauthenticated_per_peer",
        detail: "one address has too many connections that have not signed in".to_owned(),
        peer,
    });
}

/// Tells a peer that it has too many connections, without holding up the listener.
fn turn_away<B: Backend>(parts: &Parts<B>, mut io: TcpStream) {
    let Some(courtesy) = parts.shared.peers.courtesy(COURTESIES_MAX) else {
        return;
    };
    parts.tree.spawn_task("refusal", async move {
        let told = async {
            io.write_all(CROWDED.as_bytes()).await?;
            io.shutdown().await?;
            // Closing with the request unread would take the answer with it.
            let mut request = [0; 1_024];
            for _ in 0..COURTESY_READS_MAX {
                if io.read(&mut request).await? == 0 {
                    break;
                }
            }
            Ok::<_, io::Error>(())
        };
        // A peer that does not listen has nobody to be told.
        let _ = timeout(Duration::from_millis(COURTESY_MS_MAX), told).await;
        drop(courtesy);
    });
}

/// Longest time for telling, in milliseconds.
const COURTESY_MS_MAX: u64 = 1_000;
/// Parts of a request that are read and thrown away meanwhile.
const COURTESY_READS_MAX: usize = 16;
/// What is told, whatever was asked.
const CROWDED: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 65\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
    too many connections of your address that have not signed in yet\n";

/// The service of a TLS listener.
pub(crate) fn encrypted<B: Backend>(
    parts: Parts<B>,
    acceptor: Acceptor,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (),
    Error = impl std::fmt::Debug,
    InitError = (),
> {
    let http = http::<TlsStream<TcpStream>, B>(parts.clone());
    let served = fn_service(move |(io, peer): (TcpStream, Option<SocketAddr>)| {
        let acceptor = acceptor.clone();
        async move {
            let io = acceptor.accept(io).await.map_err(DispatchError::Io)?;
            Ok::<_, DispatchError>((io, peer))
        }
    })
    .and_then(http);
    apply_fn_factory(served, move |io: TcpStream, served| {
        prompt(&io);
        let peer = io.peer_addr().ok();
        match parts.shared.peers.enter(peer.map(|peer| peer.ip())) {
            Ok(counted) => {
                let outcome = served.call((io, peer));
                Either::Left(async move {
                    let outcome = outcome.await;
                    drop(counted);
                    outcome
                })
            }
            Err(Crowded) => {
                // There is no word for it before the handshake, and a handshake is what is
                // to be spared.
                crowded(&parts, peer);
                Either::Right(ready(Ok(())))
            }
        }
    })
}

/// Frames are gathered before they are written: the kernel need not wait for more.
fn prompt(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "nodelay could not be set");
    }
}

#[allow(
    clippy::type_complexity,
    reason = "actix-http's service is generic over what has no name"
)]
fn http<S, B>(
    parts: Parts<B>,
) -> H1Service<
    S,
    impl ServiceFactory<
        Request,
        Config = (),
        Response = Response<BoxBody>,
        Error = Infallible,
        InitError = (),
        Service: Service<Request, Future: 'static>,
        Future: 'static,
    >,
    BoxBody,
    h1::ExpectHandler,
    impl ServiceFactory<
        (Request, Framed<S, h1::Codec>),
        Config = (),
        Response = (),
        Error = Infallible,
        InitError = (),
        Future: 'static,
        Service: Service<(Request, Framed<S, h1::Codec>), Future: 'static>,
    >,
>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Backend,
{
    let deadline = Duration::from_millis(parts.shared.config.request_deadline_ms);
    HttpService::<S, _, BoxBody>::build()
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(deadline)
        .client_disconnect_timeout(Duration::from_millis(DISCONNECT_MS))
        .upgrade(fn_service(move |(request, framed)| {
            upgrade(parts.clone(), request, framed)
        }))
        .h1(fn_service(|request: Request| async move {
            Ok::<_, Infallible>(answer(&request))
        }))
}

/// Without an upgrade there is little to say.
fn answer(request: &Request) -> Response<BoxBody> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let refusal = match request.path() {
        "/" if is_get => {
            let text = format!(
                "This is a Stonechat server. Connect a WebSocket to {PATH}, subprotocol {SUBPROTOCOL}.\n"
            );
            return Response::build(StatusCode::OK)
                .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
                .body(text)
                .map_into_boxed_body();
        }
        "/" => Refusal::Method,
        PATH if is_get => Refusal::NotAnUpgrade,
        PATH => Refusal::Method,
        _ => Refusal::NotFound,
    };
    refusal
        .response()
        .set_body(BoxBody::new(format!("{refusal}\n")))
}

/// Answers a request with an `Upgrade` header, and starts the connection if it may be.
async fn upgrade<S, B>(
    parts: Parts<B>,
    request: Request,
    framed: Framed<S, h1::Codec>,
) -> Result<(), Infallible>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Backend,
{
    let shared = &parts.shared;
    let peer = request.head().peer_addr;
    let framed = framed.into_parts();
    let (io, mut codec) = (framed.io, framed.codec);
    let mut out = framed.write_buf;
    let admitted = negotiate(request.head(), &shared.config.origins_allowed).and_then(|upgrade| {
        if shared.is_draining() {
            let retry_after_ms = shared.config.drain_retry_after_ms;
            return Err(Refusal::Draining { retry_after_ms });
        }
        let place = shared.admit().ok_or(Refusal::Full)?;
        Ok((upgrade, place))
    });
    drop(request);
    let (Upgrade { response, token }, place) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            debug!(?peer, %refusal, "upgrade refused");
            if matches!(refusal, Refusal::Full) {
                shared.tell(|| What::Limit {
                    limit: "connections",
                    detail: "limits.connections_max is reached: upgrades are refused".to_owned(),
                    peer,
                });
            }
            Figures::turned_away(refusal.status().as_u16());
            refuse(io, codec, out, refusal).await;
            return Ok(());
        }
    };
    if let Err(error) = encode(&mut codec, response, BodySize::None, &mut out) {
        debug!(?peer, %error, "upgrade response could not be encoded");
        return Ok(());
    }
    let opened = Opened {
        io,
        peer,
        // Copies: what these came in is far larger, and would stay as long as they do.
        response: out.to_vec(),
        already_read: framed.read_buf.to_vec(),
        token,
        counted: shared.peers.stay(peer.map(|peer| peer.ip())),
    };
    let connection = Connection::new(opened, place);
    parts.tree.spawn_task("connection", connection);
    Ok(())
}

fn encode(
    codec: &mut h1::Codec,
    response: Response<()>,
    size: BodySize,
    out: &mut BytesMut,
) -> io::Result<()> {
    codec.encode(h1::Message::Item((response, size)), out)
}

async fn refuse<S: AsyncWrite + Unpin>(
    mut io: S,
    mut codec: h1::Codec,
    mut out: BytesMut,
    refusal: Refusal,
) {
    let text = format!("{refusal}\n");
    let size = BodySize::Sized(text.len() as u64);
    let encoded = encode(&mut codec, refusal.response(), size, &mut out);
    let write = async {
        encoded?;
        out.extend_from_slice(text.as_bytes());
        io.write_all(&out).await?;
        io.flush().await?;
        io.shutdown().await
    };
    // A client that is gone or does not read has nobody to be told.
    let _ = timeout(Duration::from_millis(REFUSAL_MS_MAX), write).await;
}
