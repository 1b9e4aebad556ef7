//! Setting up a client.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use stonechat_protocol::{DeviceId, MessageId};

use crate::client::{AckMode, Client, Events};
use crate::driver::Driver;
use crate::engine::{Engine, Setup};
use crate::error::BuildError;
use crate::resume::ResumeState;
use crate::shared::Shared;
use crate::transport::Target;
use crate::tuning::Tuning;

/// What a source of tokens may fail with.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type TokenSource =
    Arc<dyn Fn() -> BoxFuture<'static, Result<String, TokenError>> + Send + Sync>;

/// Sets up a [`Client`]. Made by [`Client::builder`].
#[must_use = "nothing happens until connect is called"]
pub struct ClientBuilder {
    url: String,
    device: String,
    tokens: Option<TokenSource>,
    fresh_tokens: bool,
    client_name: String,
    ca_file: Option<PathBuf>,
    tls: Option<Arc<rustls::ClientConfig>>,
    resume: ResumeState,
    ack_mode: AckMode,
    tuning: Tuning,
    seed: Option<u64>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("ClientBuilder")
            .field("url", &self.url)
            .field("device", &self.device)
            .field("client_name", &self.client_name)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(crate) fn new(url: impl Into<String>, device: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            device: device.into(),
            tokens: None,
            fresh_tokens: false,
            client_name: concat!("stonechat-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_file: None,
            tls: None,
            resume: ResumeState::default(),
            ack_mode: AckMode::OnNext,
            tuning: Tuning::default(),
            seed: None,
        }
    }

    /// The token to sign in with. It travels in the first frame, never in the address.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        let token: String = token.into();
        self.tokens = Some(Arc::new(move || {
            std::future::ready(Ok(token.clone())).boxed()
        }));
        self.fresh_tokens = false;
        self
    }

    /// Asks for a token before each attempt to connect. When the server refuses one, the
    /// source is asked once more before the client ends.
    pub fn token_source<F, Fut>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.tokens = Some(Arc::new(move || source().boxed()));
        self.fresh_tokens = true;
        self
    }

    /// What the server sees in its logs as name and version; at most 128 bytes are kept.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// A PEM file with the certificates to trust, in place of those of the system.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Full control over TLS; takes precedence over [`ClientBuilder::ca_file`].
    pub fn tls_config(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Continues where an earlier process stood: its unanswered sends go out first, under
    /// their old ids, and their answers come as [`Event::Settled`](crate::Event::Settled).
    pub fn resume(mut self, state: ResumeState) -> Self {
        self.resume = state;
        self
    }

    /// Makes ids start above this one. Contained in [`ResumeState`]; for applications that
    /// keep nothing else.
    ///
    /// Without it ids start at the present time, which is above what was used before unless
    /// the clock was set back; the server then refuses with `id_too_old`.
    pub fn last_id(mut self, id: MessageId) -> Self {
        self.resume.last_id = self.resume.last_id.max(Some(id));
        self
    }

    /// When messages are acknowledged; [`AckMode::OnNext`] unless told otherwise.
    pub fn ack_mode(mut self, mode: AckMode) -> Self {
        self.ack_mode = mode;
        self
    }

    /// Changes limits and times.
    pub fn tune(mut self, change: impl FnOnce(&mut Tuning)) -> Self {
        change(&mut self.tuning);
        self
    }

    /// Fixes the randomness of back-off and ids, for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks everything and starts connecting in the background; it keeps connecting until
    /// the client is closed or a reason comes up that does not pass. To wait for the first
    /// sign-in use [`Client::ready`].
    ///
    /// # Errors
    /// [`BuildError`] when something given cannot be used. An unreachable server is none: it
    /// is told by events.
    pub fn connect(self) -> Result<(Client, Events), BuildError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let tokens = self.tokens.ok_or(BuildError::NoToken)?;
        let device = DeviceId::new(&self.device)?;
        self.resume.check()?;
        let target = Target::new(&self.url, self.ca_file.as_deref(), self.tls)?;
        let setup = Setup {
            device,
            client_name: self.client_name,
            tuning: self.tuning.clone(),
            fresh_tokens: self.fresh_tokens,
        };
        let unanswered = self.resume.unanswered.len();
        let seed = self.seed.unwrap_or_else(rand::random);
        let engine = Engine::new(setup, self.resume, seed);
        let shared = Arc::new(Shared::new(engine, unanswered));
        let driver = Driver {
            shared: Arc::clone(&shared),
            target,
            tokens,
            tuning: self.tuning,
        };
        runtime.spawn(driver.run());
        Ok(Client::new(shared, self.ack_mode))
    }
}
