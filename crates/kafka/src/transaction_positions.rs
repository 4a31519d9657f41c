//! `TxnOffsetCommit`: a group's positions that count when, and if, the
//! transaction is committed.

use aquifer_stream::{Error, Operation};
use aquifer_types::Partition;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::call::Call;
use crate::groups::CommitBy;
use crate::membership::{asker, readable};
use crate::offsets::{Asked, Committed, check_positions};
use crate::transactions::{Writer, transaction_code};

/// The first version whose clients know what can be mended by an abort
/// (KIP-890).
const ABORTABLE_MIN: i16 = 4;
/// The first version whose clients do not add the group beforehand (KIP-890).
const ADDS_GROUP: i16 = 5;

pub(crate) async fn commit(
    call: &Call,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let mut positions = Vec::new();
    let mut topics: Vec<TxnOffsetCommitResponseTopic> = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let of_topic = asked.partitions.iter().map(|of| Asked {
            index: of.partition_index,
            offset: of.committed_offset,
            leader_epoch: of.committed_leader_epoch,
            metadata: of.committed_metadata.as_ref(),
        });
        let codes = check_positions(call, &asked.name, of_topic, &mut positions);
        let partitions = codes.into_iter().map(|(index, code)| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        topics.push(
            TxnOffsetCommitResponseTopic::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions),
        );
    }
    if let Err(error) = pend(call, &request, positions).await {
        let all = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        // What was wrong with a partition itself says more.
        all.filter(|of| of.error_code == 0).for_each(|of| of.error_code = error.code());
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

async fn pend(
    call: &Call,
    request: &TxnOffsetCommitRequest,
    positions: Vec<Committed>,
) -> Result<(), ResponseError> {
    let (producer, epoch) = (request.producer_id.0, request.producer_epoch);
    let Writer { id, producer } =
        Writer::allowed(call, &request.transactional_id, producer, epoch)?;
    let key = readable(call, &request.group_id)?;
    let member = asker(&request.member_id, request.group_instance_id.as_ref());
    let partitions: Vec<Partition> = positions.iter().map(|(at, ..)| *at).collect();
    // Versions before 3 say nothing of the group's generation, and are let in.
    let by = CommitBy {
        asker: &member,
        generation: request.generation_id,
        in_transaction: true,
        version: call.version,
        partitions: &partitions,
    };
    let (tenant, group) = (key.tenant.clone(), key.group.clone());
    let add = (call.version >= ADDS_GROUP).then(|| Operation::AddGroup {
        tenant: tenant.clone(),
        transactional: id.clone(),
        producer,
        group: group.clone(),
    });
    let pend = Operation::CommitPositionsInTransaction {
        tenant,
        transactional: id,
        producer,
        group,
        positions,
    };
    let commit = call.store().commit(add.into_iter().chain([pend]).collect());
    let groups = &call.broker.groups;
    let done = groups.commit(&key, by, commit).await?;
    done.map(|_| ()).map_err(|error| match &error {
        Error::InvalidTransactionState(_) if call.version >= ABORTABLE_MIN => {
            ResponseError::TransactionAbortable
        }
        error => transaction_code(error),
    })
}
