//! `AddPartitionsToTxn`: partitions that a transaction is going to write to.
//!
//! From version 4 on one request is for many transactions, and may ask only
//! whether they include the partitions. Kafka's brokers ask each other so;
//! clients stay below.

use std::collections::BTreeSet;

use aquifer_types::{Partition, PartitionIndex};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::offsets::{partition, topic};
use crate::transactions::{Writer, versioned_code};

/// The first version for many transactions.
const BATCHED: i16 = 4;
/// The first version whose askers know what can be mended by an abort (KIP-890).
const ABORTABLE_MIN: i16 = 5;

pub(crate) async fn add(
    call: &Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let response = AddPartitionsToTxnResponse::default();
    if call.version < BATCHED {
        let asked = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let results = add_to_one(call, &asked).await;
        return response.with_results_by_topic_v3_and_below(results);
    }
    if !call.allows(Action::Alter, Resource::Cluster) {
        return response.with_error_code(ResponseError::ClusterAuthorizationFailed.code());
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for asked in request.transactions {
        let topics = add_to_one(call, &asked).await;
        results.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(asked.transactional_id)
                .with_topic_results(topics),
        );
    }
    response.with_results_by_transaction(results)
}

/// All partitions are added or none; what was wrong with one says itself, and
/// the others that they were not tried.
async fn add_to_one(
    call: &Call,
    asked: &AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let (producer, epoch) = (asked.producer_id.0, asked.producer_epoch);
    let writer = match Writer::allowed(call, &asked.transactional_id, producer, epoch) {
        Ok(writer) => writer,
        Err(error) => return results(&asked.topics, |_, _| Err(error)),
    };
    if asked.verify_only {
        return verify(call, &writer, &asked.topics);
    }
    let mut partitions = BTreeSet::new();
    let mut is_complete = true;
    let checked: Vec<Vec<Result<(), ResponseError>>> = asked
        .topics
        .iter()
        .map(|of| {
            let found = topic(call, Action::Write, &of.name);
            let checked = of.partitions.iter().map(|index| {
                let at = partition(&found, *index);
                is_complete &= at.is_ok();
                at.map(|at| partitions.extend([at]))
            });
            checked.collect()
        })
        .collect();
    if !is_complete {
        let of = |topic: usize, at: usize| checked.get(topic).and_then(|of| of.get(at)).copied();
        let not_tried = Err(ResponseError::OperationNotAttempted);
        return results(&asked.topics, |topic, at| match of(topic, at) {
            Some(Err(error)) => Err(error),
            _ => not_tried,
        });
    }
    let added = add_all(call, &writer, partitions).await;
    results(&asked.topics, |_, _| added)
}

async fn add_all(
    call: &Call,
    writer: &Writer,
    partitions: BTreeSet<Partition>,
) -> Result<(), ResponseError> {
    let tenant = &call.principal.tenant;
    let partitions = partitions.into_iter().collect();
    let store = call.store();
    let added = store.add_partitions(tenant, &writer.id, writer.producer, partitions).await;
    added.map_err(|error| versioned_code(call.version, &error))
}

/// Whether the open transaction includes the partitions.
fn verify(
    call: &Call,
    writer: &Writer,
    topics: &[AddPartitionsToTxnTopic],
) -> Vec<AddPartitionsToTxnTopicResult> {
    let described = call.store().describe_transaction(&call.principal.tenant, &writer.id);
    let described = match described {
        Err(error) => {
            let code = versioned_code(call.version, &error);
            return results(topics, |_, _| Err(code));
        }
        Ok(described) if described.producer.0 != writer.producer.0 => {
            return results(topics, |_, _| Err(ResponseError::InvalidProducerIdMapping));
        }
        Ok(described) if described.producer.1 != writer.producer.1 => {
            return results(topics, |_, _| Err(ResponseError::ProducerFenced));
        }
        Ok(described) => described,
    };
    let missing = match call.version {
        ABORTABLE_MIN.. => ResponseError::TransactionAbortable,
        _ => ResponseError::InvalidTxnState,
    };
    let included: BTreeSet<(&str, PartitionIndex)> =
        described.partitions.iter().map(|(path, at)| (path.name.as_str(), *at)).collect();
    results(topics, |topic, at| {
        let asked = topics.get(topic).and_then(|of| {
            let index = u32::try_from(*of.partitions.get(at)?).ok()?;
            Some((of.name.as_str(), PartitionIndex(index)))
        });
        let is_included = asked.is_some_and(|asked| included.contains(&asked));
        if is_included { Ok(()) } else { Err(missing) }
    })
}

/// The answers in the order of the request; `of` gives that of a topic's and a
/// partition's place in it.
fn results(
    topics: &[AddPartitionsToTxnTopic],
    of: impl Fn(usize, usize) -> Result<(), ResponseError>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = topics.iter().enumerate().map(|(topic, asked)| {
        let partitions = asked.partitions.iter().enumerate().map(|(at, index)| {
            let code = of(topic, at).err().map_or(0, |error| error.code());
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(asked.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    topics.collect()
}
