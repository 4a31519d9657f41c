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

pub(crate) async fn list(
    call: &Call,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
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
