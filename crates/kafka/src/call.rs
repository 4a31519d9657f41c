//! One request under way: who asks, and what a handler may need to answer.

use std::sync::Arc;

use aquifer_stream::StreamStore;
use aquifer_types::{GroupName, StreamName, StreamPath};
use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

use crate::api::codec_version;
use crate::authorizer::{Action, Decision, Principal, Resource};
use crate::broker::Broker;
use crate::frame::FrameError;
use crate::metrics::QuotaLabels;
use crate::quotas::Quota;
use crate::session::Session;

/// A decoded request's surroundings.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) broker: Arc<Broker>,
    pub(crate) session: Arc<Session>,
    /// Who asks; anonymous for the requests that come before a login.
    pub(crate) principal: Arc<Principal>,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: Option<StrBytes>,
    /// The size of the request as it came.
    pub(crate) request_bytes: usize,
}

impl Call {
    pub(crate) fn store(&self) -> &StreamStore {
        &self.broker.store
    }

    pub(crate) fn allows(&self, action: Action, resource: Resource<'_>) -> bool {
        self.broker.authorizer.decide(&self.principal, action, resource) == Decision::Allow
    }

    /// Counts what the client took of a quota. Where that was too much, its
    /// connection is not read from for as many ms as are returned, which it is
    /// told.
    pub(crate) fn throttle(&self, quota: Quota, amount: usize) -> i32 {
        let client = self.client_id.as_deref().unwrap_or_default();
        let pause = self.broker.quotas.charge(&self.principal, client, quota, amount);
        if pause.is_zero() {
            return 0;
        }
        let now = self.broker.monotonic();
        self.session.pause_until(now.saturating_add(pause));
        let labels = QuotaLabels { quota: quota.as_str() };
        self.broker.metrics.throttles.get_or_create(&labels).inc();
        self.broker.metrics.throttled.get_or_create(&labels).inc_by(pause.as_secs_f64());
        // A pause of less than a millisecond is one.
        i32::try_from(pause.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }

    /// The stream that a topic's name means to this principal.
    pub(crate) fn path(&self, topic: &str) -> Result<StreamPath, ResponseError> {
        let name = StreamName::new(topic).map_err(|_| ResponseError::InvalidTopicException)?;
        Ok(StreamPath::new(self.principal.tenant.clone(), name))
    }

    /// A group's name, as the store takes it.
    pub(crate) fn group(&self, group: &str) -> Result<GroupName, ResponseError> {
        GroupName::new(group).map_err(|_| ResponseError::InvalidGroupId)
    }
}

/// What goes back for a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing: the client asked for no acknowledgement.
    Nothing,
    /// A whole frame, its length included, in pieces that are written one
    /// behind the other.
    Frame(Vec<Bytes>),
    /// Nothing, and the connection is closed.
    Close,
}

/// What handlers return.
pub(crate) trait IntoAnswer {
    fn into_answer(self, call: &Call) -> Result<Answer, FrameError>;
}

impl<R: Encodable + HeaderVersion> IntoAnswer for R {
    fn into_answer(self, call: &Call) -> Result<Answer, FrameError> {
        let header_version = R::header_version(call.version);
        encode(&self, call, header_version, codec_version(call.api, call.version))
    }
}

/// Encodes a response with its header and length.
pub(crate) fn encode<R: Encodable>(
    response: &R,
    call: &Call,
    header_version: i16,
    version: i16,
) -> Result<Answer, FrameError> {
    let internal = |error: &dyn std::fmt::Display| FrameError::Encoding {
        api: call.api,
        version,
        why: error.to_string(),
    };
    let size = response.compute_size(version).map_err(|error| internal(&error))?;
    let mut bytes = BytesMut::with_capacity(size + 16);
    bytes.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(call.correlation)
        .encode(&mut bytes, header_version)
        .map_err(|error| internal(&error))?;
    response.encode(&mut bytes, version).map_err(|error| internal(&error))?;
    let length = i32::try_from(bytes.len() - 4).map_err(|error| internal(&error))?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Answer::Frame(vec![bytes.freeze()]))
}
