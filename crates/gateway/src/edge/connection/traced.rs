//! What a connection tells of messages that are followed by a trace: the sender's
//! side from its frame until the answer is written, and the last step of a delivery.
//!
//! A connection without any has one empty pointer for it.

use std::sync::Arc;

use stonechat_broker::Event;
use stonechat_protocol::{MessageId, SendFrame};
use stonechat_trace::{Span, Stage, Tracer};
use tracing::debug;

use super::{About, Core};
use crate::edge::backend::Backend;

/// Sends that are followed and not answered, at a time; more are not told of to their end.
const UNANSWERED_MAX: usize = 64;

/// Spans that end with something that is written.
#[derive(Default)]
pub(super) struct Traced {
    /// Sends waiting for their answer.
    unanswered: Vec<(MessageId, Span)>,
    /// Their answer, or what they deliver, is being written. With why they fail, if they do.
    writing: Vec<(Span, Option<&'static str>)>,
}

impl<B: Backend> Core<B> {
    /// A send was read. If it is to be followed: the span of its way through the session.
    #[inline]
    pub(super) fn follow(&mut self, send: &SendFrame<'_>) -> Option<Box<Span>> {
        let tracer = self.shared.tracer()?;
        begin(&mut self.traced, &self.about, tracer, send)
    }

    /// What was to be written is with the socket.
    #[inline]
    pub(super) fn trace_written(&mut self) {
        if let Some(traced) = &mut self.traced {
            for (span, failure) in traced.writing.drain(..) {
                match failure {
                    None => span.end(),
                    Some(why) => span.fail(why),
                }
            }
            if traced.unanswered.is_empty() {
                self.traced = None;
            }
        }
    }
}

fn begin(
    traced: &mut Option<Box<Traced>>,
    about: &About,
    tracer: &Arc<Tracer>,
    send: &SendFrame<'_>,
) -> Option<Box<Span>> {
    let mut root = tracer
        .begin(send.traceparent.as_deref().copied())?
        .with("messaging.message.id", send.id.to_string())
        .with("messaging.message.body.size", send.body.len())
        .with("stonechat.recipient", send.to.as_str().to_owned());
    if let (Some(user), Some(device)) = (&about.user, &about.device) {
        root.note("stonechat.sender", user.as_str().to_owned());
        root.note("stonechat.sender.device", device.as_str().to_owned());
    }
    root.note("stonechat.session", about.session.to_string());
    if send.ephemeral {
        root.note("stonechat.ephemeral", true);
    }
    debug!(trace = %root.trace().id(), session = %about.session, user = ?about.user,
        id = %send.id, "a send is followed");
    let session = root.trace().open(Stage::Session, root.id());
    let unanswered = &mut traced.get_or_insert_default().unanswered;
    if unanswered.len() >= UNANSWERED_MAX {
        unanswered.remove(0);
    }
    unanswered.push((send.id, root));
    Some(Box::new(session))
}

/// An event goes into what is about to be written.
#[inline]
pub(super) fn encoded(traced: &mut Option<Box<Traced>>, about: &About, event: Event) {
    match event {
        Event::Message {
            span: Some(mut span),
            ..
        } => {
            span.note("stonechat.session", about.session.to_string());
            let writing = &mut traced.get_or_insert_default().writing;
            writing.push((*span, None));
        }
        Event::Accepted(accepted) => {
            if let Some(traced) = traced {
                traced.answered(accepted.id, accepted.duplicate, None);
            }
        }
        Event::Error(error) => {
            if let (Some(traced), Some(id)) = (traced, error.reference) {
                traced.answered(id, false, Some(error.code.as_str()));
            }
        }
        Event::Message { .. } | Event::Receipt(_) => {}
    }
}

impl Traced {
    fn answered(&mut self, id: MessageId, duplicate: bool, failure: Option<&'static str>) {
        // A resend while the first is on its way is answered with it.
        let mut duplicate = duplicate;
        for (_, mut span) in self.unanswered.extract_if(.., |(sent, _)| *sent == id) {
            if std::mem::replace(&mut duplicate, true) {
                span.note("stonechat.duplicate", true);
            }
            self.writing.push((span, failure));
        }
    }
}
