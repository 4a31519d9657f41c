//! `DescribeTransactions` and `ListTransactions`: how transactional ids stand
//! (KIP-664).

use std::collections::{BTreeMap, HashSet};

use aquifer_stream::{TransactionDescription, TransactionState};
use aquifer_types::{Timestamp, TransactionalId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{self, TopicData};
use kafka_protocol::messages::list_transactions_response;
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, TransactionalId as ClientsId,
};
use kafka_protocol::protocol::StrBytes;
use regex::{Regex, RegexBuilder};

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;
use crate::topic::topic_name;

/// Kafka's states of transactions; the ledger ends one at once, so there are
/// none in preparation here.
const STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// The longest pattern of transactional ids.
const PATTERN_BYTES_MAX: usize = 1024;
/// What a compiled one may take.
const PATTERN_COMPILED_BYTES_MAX: usize = 256 << 10;

const fn name(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Empty => "Empty",
        TransactionState::Ongoing => "Ongoing",
        TransactionState::Committed => "CompleteCommit",
        TransactionState::Aborted => "CompleteAbort",
    }
}

pub(crate) async fn describe(
    call: &Call,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    // A large transaction that is named often is described once.
    let mut seen = HashSet::new();
    let asked = request.transactional_ids.into_iter().filter(|id| seen.insert(id.clone()));
    let states = asked.map(|id| {
        let answer = match describe_one(call, &id) {
            Ok(described) => state(call, &described),
            Err(error) => describe_transactions_response::TransactionState::default()
                .with_error_code(error.code()),
        };
        answer.with_transactional_id(id)
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn describe_one(call: &Call, id: &str) -> Result<TransactionDescription, ResponseError> {
    if !call.allows(Action::Describe, Resource::TransactionalId(id)) {
        return Err(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let id = TransactionalId::new(id).map_err(|_| ResponseError::InvalidRequest)?;
    let described = call.store().describe_transaction(&call.principal.tenant, &id);
    described.map_err(|error| error_code(&error))
}

fn state(
    call: &Call,
    described: &TransactionDescription,
) -> describe_transactions_response::TransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (path, index) in &described.partitions {
        if let Ok(index) = i32::try_from(index.get()) {
            topics.entry(path.name.as_str()).or_default().push(index);
        }
    }
    let topics = topics
        .into_iter()
        .filter(|(topic, _)| call.allows(Action::Describe, Resource::Stream(topic)))
        .map(|(topic, partitions)| {
            TopicData::default().with_topic(topic_name(topic)).with_partitions(partitions)
        });
    let (producer, epoch) = described.producer;
    describe_transactions_response::TransactionState::default()
        .with_transaction_state(StrBytes::from_static_str(name(described.state)))
        .with_transaction_timeout_ms(i32::try_from(described.timeout_ms).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(described.started.map_or(-1, Timestamp::get))
        .with_producer_id(producer.get().into())
        .with_producer_epoch(epoch.get())
        .with_topics(topics.collect())
}

/// What ids have to be from end to end (KIP-1152); any without a pattern.
fn pattern(text: Option<&str>) -> Result<Option<Regex>, ResponseError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let invalid = ResponseError::InvalidRegularExpression;
    if text.len() > PATTERN_BYTES_MAX {
        return Err(invalid);
    }
    // Alone first: what closes a parenthesis more than it opens is no pattern.
    let compile = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(PATTERN_COMPILED_BYTES_MAX).dfa_size_limit(PATTERN_COMPILED_BYTES_MAX);
        builder.build().map_err(|_| invalid)
    };
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z")).map(Some)
}

pub(crate) async fn list(
    call: &Call,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let pattern = match pattern(request.transactional_id_pattern.as_deref()) {
        Ok(pattern) => pattern,
        Err(error) => {
            return ListTransactionsResponse::default().with_error_code(error.code());
        }
    };
    let unknown = request.state_filters.iter().filter(|of| !STATES.contains(&of.as_str()));
    let unknown = unknown.cloned().collect();
    let now_ms = call.broker.clock.now_ms();
    // Sets: there may be as many filters as transactions.
    let states: HashSet<&str> = request.state_filters.iter().map(StrBytes::as_str).collect();
    let producers: HashSet<i64> = request.producer_id_filters.iter().map(|id| id.0).collect();
    let is_listed = |of: &TransactionDescription| {
        let is_long =
            |started: Timestamp| now_ms.saturating_sub(started.get()) > request.duration_filter;
        (states.is_empty() || states.contains(name(of.state)))
            && (producers.is_empty() || producers.contains(&of.producer.0.get()))
            && pattern.as_ref().is_none_or(|of_id| of_id.is_match(of.transactional.as_str()))
            && (request.duration_filter < 0 || of.started.is_some_and(is_long))
            && call.allows(Action::Describe, Resource::TransactionalId(of.transactional.as_str()))
    };
    let listed = call.store().list_transactions(&call.principal.tenant);
    let states = listed.iter().filter(|of| is_listed(of)).map(|of| {
        list_transactions_response::TransactionState::default()
            .with_transactional_id(ClientsId(StrBytes::from_string(of.transactional.to_string())))
            .with_producer_id(of.producer.0.get().into())
            .with_transaction_state(StrBytes::from_static_str(name(of.state)))
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown)
        .with_transaction_states(states.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_hold_for_whole_ids() {
        let check = |text: &str, id: &str, expected| {
            let found = pattern(Some(text)).map(|of| of.is_none_or(|of| of.is_match(id)));
            assert_eq!(found, expected, "{text} {id}");
        };
        check("", "sink-1", Ok(true));
        check("sink-.*", "sink-1", Ok(true));
        check("sink", "sink-1", Ok(false));
        check("ink-1", "sink-1", Ok(false));
        check("a|sink-1", "sink-1", Ok(true));
        check("a|sink", "sink-1", Ok(false));
        check(".*", "sink\n1", Ok(false));
        check("(?s).*", "sink\n1", Ok(true));
        check("[0-9]{3}", "123", Ok(true));
        check("\\Qa.b\\E", "a.b", Err(ResponseError::InvalidRegularExpression));
        check("(", "a", Err(ResponseError::InvalidRegularExpression));
        check("a)|(b", "a", Err(ResponseError::InvalidRegularExpression));
        check(&"a".repeat(1025), "a", Err(ResponseError::InvalidRegularExpression));
        check("(a{100}){100}{100}", "a", Err(ResponseError::InvalidRegularExpression));
        assert!(pattern(None).unwrap().is_none());
    }
}
