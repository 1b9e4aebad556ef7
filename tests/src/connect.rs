//! How a connection is made, and how it may be refused.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::{DEADLINE, Node, WsClient};

/// Name of the subprotocol.
pub const SUBPROTOCOL: &str = "stonechat.v1.json";

/// A WebSocket.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How to connect.
#[derive(Clone)]
pub struct Connect {
    address: String,
    path: String,
    protocols: Option<String>,
    headers: Vec<(&'static str, String)>,
    tls: Option<Arc<rustls::ClientConfig>>,
    receive_buffer_bytes: Option<u32>,
}

/// The server answered the upgrade with something else.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status; 0 when the connection broke without an answer.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Box<HeaderMap>,
    /// What went wrong, for failure messages.
    pub detail: String,
}

impl Connect {
    /// To a node, offering the subprotocol.
    pub fn to(node: &Node) -> Self {
        Self::address(node.endpoint().listen)
    }

    /// To an address.
    pub fn address(address: String) -> Self {
        Self {
            address,
            path: "/v1/ws".to_owned(),
            protocols: Some(SUBPROTOCOL.to_owned()),
            headers: Vec::new(),
            tls: None,
            receive_buffer_bytes: None,
        }
    }

    /// Path and query.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Subprotocols to offer; none with `None`.
    #[must_use]
    pub fn protocols(mut self, protocols: Option<&str>) -> Self {
        self.protocols = protocols.map(str::to_owned);
        self
    }

    /// A further header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Over TLS, to the name `localhost`.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Size of the kernel's receive buffer, small for a reader that is to fall behind.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: u32) -> Self {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Refused`] when the server does not upgrade.
    pub async fn open(&self) -> Result<WsClient, Refused> {
        tokio::time::timeout(DEADLINE, self.open_unbounded())
            .await
            .unwrap_or_else(|_| Err(Refused::broken("no answer within the deadline")))
    }

    async fn open_unbounded(&self) -> Result<WsClient, Refused> {
        let (socket, headers) = self.socket().await?;
        Ok(WsClient::new(socket, headers))
    }

    /// The bare WebSocket and the headers of the 101, for what has no use for a [`WsClient`].
    ///
    /// # Errors
    /// [`Refused`] when the server does not upgrade.
    pub async fn socket(&self) -> Result<(Socket, HeaderMap), Refused> {
        let broken = |error: &dyn std::fmt::Display| Refused::broken(&error.to_string());
        let address = self.address.parse().map_err(|error| broken(&error))?;
        let socket = TcpSocket::new_v4().map_err(|error| broken(&error))?;
        if let Some(bytes) = self.receive_buffer_bytes {
            socket
                .set_recv_buffer_size(bytes)
                .map_err(|error| broken(&error))?;
        }
        let stream = socket
            .connect(address)
            .await
            .map_err(|error| broken(&error))?;
        stream.set_nodelay(true).map_err(|error| broken(&error))?;
        let url = if self.tls.is_some() {
            format!(
                "wss://localhost:{}{}",
                address_port(&self.address),
                self.path
            )
        } else {
            format!("ws://{}{}", self.address, self.path)
        };
        let mut request = url.into_client_request().expect("a valid request");
        if let Some(protocols) = &self.protocols {
            let value = HeaderValue::from_str(protocols).expect("a valid header");
            request
                .headers_mut()
                .insert("sec-websocket-protocol", value);
        }
        for (name, value) in &self.headers {
            request.headers_mut().insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a valid header"),
            );
        }
        let connector = self.tls.clone().map_or(Connector::Plain, Connector::Rustls);
        match client_async_tls_with_config(request, stream, None, Some(connector)).await {
            Ok((socket, response)) => Ok((socket, response.headers().clone())),
            Err(tungstenite::Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                headers: Box::new(response.headers().clone()),
                detail: response
                    .body()
                    .as_ref()
                    .map(|body| String::from_utf8_lossy(body).into_owned())
                    .unwrap_or_default(),
            }),
            Err(error) => Err(broken(&error)),
        }
    }

    /// Connects, says hello and waits for the welcome, which is returned beside the connection.
    ///
    /// # Panics
    /// When the server does not welcome.
    pub async fn sign_in(&self, token: &str, device: &str) -> (WsClient, Value) {
        self.hello(json!({"type": "hello", "token": token, "device": device}))
            .await
    }

    /// [`Connect::sign_in`] with a hello of one's own.
    ///
    /// # Panics
    /// When the server does not welcome.
    pub async fn hello(&self, hello: Value) -> (WsClient, Value) {
        let mut client = match self.open().await {
            Ok(client) => client,
            Err(refused) => panic!("not upgraded: {refused:?}"),
        };
        client.send_json(&hello).await;
        let welcome = client.take("welcome").await;
        client.label(&welcome);
        (client, welcome)
    }
}

fn address_port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or(address)
}

impl Refused {
    fn broken(detail: &str) -> Self {
        Self {
            status: 0,
            headers: Box::default(),
            detail: detail.to_owned(),
        }
    }
}
