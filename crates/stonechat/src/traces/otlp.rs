//! Spans in OpenTelemetry's words. Data only.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use stonechat_trace::{Attribute, Finished, Stage, Value};

/// Bits of a span's flags: it is sampled, it is known whether its parent is remote, it is.
const SAMPLED: u32 = 1;
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// Who exports.
pub(super) struct Resource(Vec<KeyValue>);

impl Resource {
    /// This process: another one after a restart.
    pub(super) fn of_this_process() -> Self {
        let instance = format!("{:032x}", rand::random::<u128>());
        Self(vec![
            attribute("service.name", "stonechat".into()),
            attribute("service.version", env!("CARGO_PKG_VERSION").into()),
            attribute("service.instance.id", instance.into()),
        ])
    }
}

/// One request, encoded.
pub(super) fn request(resource: &Resource, spans: &[Finished]) -> Vec<u8> {
    let spans = ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "stonechat".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        spans: spans.iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(OtlpResource {
                attributes: resource.0.clone(),
                ..OtlpResource::default()
            }),
            scope_spans: vec![spans],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn span(finished: &Finished) -> Span {
    let remote = if finished.parent_is_remote { REMOTE } else { 0 };
    let parent = finished.parent.map(|parent| parent.to_bytes().to_vec());
    Span {
        trace_id: finished.trace.to_bytes().to_vec(),
        span_id: finished.id.to_bytes().to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        flags: SAMPLED | REMOTE_KNOWN | remote,
        name: finished.stage.name().to_owned(),
        kind: kind(finished.stage).into(),
        start_time_unix_nano: finished.start_unix_ns,
        end_time_unix_nano: finished.end_unix_ns,
        attributes: finished.attributes.iter().map(noted).collect(),
        status: finished.failure.map(|why| Status {
            code: StatusCode::Error.into(),
            message: why.to_owned(),
        }),
        ..Span::default()
    }
}

/// The sender's side serves a client; a delivery hands a message to another one.
fn kind(stage: Stage) -> SpanKind {
    match stage {
        Stage::Send => SpanKind::Server,
        Stage::Deliver => SpanKind::Producer,
        Stage::Session | Stage::Commit | Stage::Journal | Stage::Route | Stage::Ack => {
            SpanKind::Internal
        }
    }
}

fn noted((name, value): &Attribute) -> KeyValue {
    attribute(name, value.clone())
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => AnyOf::StringValue(text.into_owned()),
        Value::Number(number) => AnyOf::IntValue(i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Flag(flag) => AnyOf::BoolValue(flag),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
