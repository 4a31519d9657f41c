//! From the records of one request to the batches of one append: each record
//! finds its partition, each partition gets one batch.
//!
//! A record's partition is, in this order: the one that it or the request
//! names, that of its key, or one that the whole request sticks to.

use std::collections::BTreeMap;

use aquifer_stream::PartitionAppend;
use aquifer_types::{
    BatchBuilder, ErrorKind, NewRecord, Offset, PartitionIndex, Timestamp, TimestampType,
    partition_for_key,
};

use crate::Problem;

/// What a batch needs beyond its records' bytes, at most, for each record.
const RECORD_OVERHEAD_BYTES_MAX: usize = 64;

/// What it needs at least.
const RECORD_BYTES_MIN: usize = 7;

/// What holds for all records of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routing {
    /// The stream's number of partitions.
    pub(crate) partitions: u32,
    /// The partition that the request names.
    pub(crate) explicit: Option<PartitionIndex>,
    /// Where records without a key go.
    pub(crate) sticky: PartitionIndex,
    /// The timestamp of records that have none.
    pub(crate) now: Timestamp,
    /// Whether that is the timestamp of all.
    pub(crate) timestamp_type: TimestampType,
    /// The stream's largest record.
    pub(crate) record_bytes_max: usize,
    /// The largest batch to build.
    pub(crate) batch_bytes_max: usize,
    /// The most records in the request.
    pub(crate) records_max: usize,
    /// The most bytes of all batches together: a long key that all records share
    /// would else multiply the request.
    pub(crate) append_bytes_max: usize,
    /// What all records will take, if they go to one partition: saves moving
    /// them as the batch grows, and memory behind its end.
    pub(crate) bytes_expected: usize,
}

/// Collects the records of a request into batches.
#[derive(Debug)]
pub(crate) struct Batching {
    routing: Routing,
    records: usize,
    bytes: usize,
    /// The batch of each partition that still grows.
    open: BTreeMap<PartitionIndex, BatchBuilder>,
    /// Those that grew to their limit, in order.
    full: Vec<(PartitionIndex, BatchBuilder)>,
    /// The partition of the record before: most requests have one partition.
    current: Option<(PartitionIndex, BatchBuilder)>,
}

impl Batching {
    pub(crate) fn new(routing: Routing) -> Self {
        Self {
            routing,
            records: 0,
            bytes: 0,
            open: BTreeMap::new(),
            full: Vec::new(),
            current: None,
        }
    }

    /// Adds the next record of the request.
    pub(crate) fn push(
        &mut self,
        partition: Option<PartitionIndex>,
        record: &NewRecord,
    ) -> Result<(), Problem> {
        let Routing { partitions, explicit, sticky, now, timestamp_type, record_bytes_max, .. } =
            self.routing;
        let index = self.records;
        if index >= self.routing.records_max {
            return Err(Problem::new(
                ErrorKind::TooLarge,
                format!(
                    "the request has more than {} records (request_records_max)",
                    self.routing.records_max
                ),
            )
            .member("limit", self.routing.records_max)
            .next("Send fewer records at a time; nothing was appended."));
        }
        let bytes = record.payload_bytes();
        if bytes > record_bytes_max {
            return Err(Problem::new(
                ErrorKind::TooLarge,
                format!(
                    "record {index} of the request has {bytes} bytes, \
                     the stream allows {record_bytes_max} (record_bytes_max)"
                ),
            )
            .member("record", index)
            .member("limit", record_bytes_max)
            .next(
                "Send smaller records, or raise the stream's record_bytes_max with \
                 PATCH /v1/streams/{stream}; nothing was appended.",
            ));
        }
        self.bytes += bytes + RECORD_BYTES_MIN;
        if self.bytes > self.routing.append_bytes_max {
            let limit = self.routing.append_bytes_max;
            return Err(Problem::new(
                ErrorKind::TooLarge,
                format!(
                    "the request's records with their keys take more than {limit} bytes \
                     (commit_bytes_max)"
                ),
            )
            .member("limit", limit)
            .next("Send fewer records at a time; nothing was appended."));
        }
        let partition = match (partition.or(explicit), &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            (None, None) => sticky,
        };
        if partition.get() >= partitions {
            return Err(Problem::invalid(format!(
                "record {index} of the request names partition {partition}, \
                 the stream has {partitions} (from 0)"
            ))
            .member("record", index)
            .member("partitions", partitions));
        }
        let batch_bytes_max = self.routing.batch_bytes_max;
        let builder = self.builder(partition);
        if !builder.is_empty()
            && builder.bytes() + bytes + RECORD_OVERHEAD_BYTES_MAX > batch_bytes_max
        {
            let full = std::mem::take(builder);
            self.full.push((partition, full));
        }
        let timestamp = match timestamp_type {
            TimestampType::Create => record.timestamp.unwrap_or(now),
            TimestampType::Append => now,
        };
        self.builder(partition).push(
            timestamp,
            record.key.as_deref(),
            &record.headers,
            record.value.as_deref(),
        );
        self.records += 1;
        Ok(())
    }

    fn builder(&mut self, partition: PartitionIndex) -> &mut BatchBuilder {
        let is_current = self.current.as_ref().is_some_and(|(current, _)| *current == partition);
        if !is_current && let Some((before, builder)) = self.current.take() {
            self.open.insert(before, builder);
        }
        let open = &mut self.open;
        let expected = std::mem::take(&mut self.routing.bytes_expected);
        let (_, builder) = self
            .current
            .get_or_insert_with(|| (partition, open.remove(&partition).unwrap_or_default()));
        if expected > 0 {
            builder.reserve(expected.min(self.routing.batch_bytes_max));
        }
        builder
    }

    /// The appends of all batches, those of a partition in their order. The
    /// expected offset needs all records to go to one partition.
    pub(crate) fn finish(
        mut self,
        expected_offset: Option<Offset>,
    ) -> Result<Vec<PartitionAppend>, Problem> {
        if let Some((partition, builder)) = self.current.take() {
            self.open.insert(partition, builder);
        }
        let mut appends = Vec::with_capacity(self.full.len() + self.open.len());
        let mut expected = expected_offset;
        for (partition, builder) in self.full.into_iter().chain(self.open) {
            if builder.is_empty() {
                continue;
            }
            let batch = match self.routing.timestamp_type {
                TimestampType::Create => builder.finish(),
                TimestampType::Append => builder.append_time().finish(),
            };
            let count = batch.header().record_count;
            appends.push(PartitionAppend { partition, batch, expected_offset: expected });
            expected = expected.map(|offset| offset.plus(count.into()));
        }
        let one_partition = appends
            .iter()
            .all(|append| appends.first().is_some_and(|first| first.partition == append.partition));
        if expected_offset.is_some() && !one_partition {
            return Err(Problem::invalid(
                "expected_offset needs all records of the request to go to one partition",
            )
            .next("Name the partition with the parameter partition, or send one key at a time."));
        }
        if appends.is_empty() {
            return Err(Problem::invalid("the request has no records")
                .next("Send at least one record; empty lines are not records."));
        }
        Ok(appends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: Routing = Routing {
        partitions: 4,
        explicit: None,
        sticky: PartitionIndex(2),
        now: Timestamp(1000),
        timestamp_type: TimestampType::Create,
        record_bytes_max: 100,
        batch_bytes_max: 400,
        records_max: 50,
        append_bytes_max: 10_000,
        bytes_expected: 1000,
    };

    fn keyed(key: &'static str, value: &'static str) -> NewRecord {
        NewRecord { key: Some(key.into()), ..NewRecord::value(value) }
    }

    fn counts(appends: &[PartitionAppend]) -> Vec<(u32, u32)> {
        appends.iter().map(|a| (a.partition.0, a.batch.header().record_count)).collect()
    }

    #[test]
    fn records_find_their_partitions() {
        let mut batching = Batching::new(ROUTING);
        for record in [NewRecord::value("a"), keyed("k", "b"), NewRecord::value("c")] {
            batching.push(None, &record).unwrap();
        }
        batching.push(Some(PartitionIndex(0)), &keyed("k", "d")).unwrap();
        let appends = batching.finish(None).unwrap();
        let of_key = partition_for_key(b"k", 4).0;
        let mut expected = BTreeMap::from([(0, 1), (2, 2)]);
        *expected.entry(of_key).or_insert(0) += 1;
        assert_eq!(counts(&appends), expected.into_iter().collect::<Vec<_>>());
        let sticky = appends.iter().find(|a| a.partition.0 == 2).unwrap();
        let records = sticky.batch.to_records(1 << 20).unwrap();
        assert_eq!(records[0].value.as_deref(), Some(&b"a"[..]));
        assert_eq!(records[0].timestamp, Timestamp(1000));
    }

    #[test]
    fn the_servers_time_goes_before_that_of_the_request() {
        for (timestamp_type, time) in [(TimestampType::Create, 5), (TimestampType::Append, 1000)] {
            let mut batching = Batching::new(Routing { timestamp_type, ..ROUTING });
            let record = NewRecord { timestamp: Some(Timestamp(5)), ..NewRecord::value("a") };
            batching.push(None, &record).unwrap();
            let batch = &batching.finish(None).unwrap()[0].batch;
            assert_eq!(batch.header().is_append_time, timestamp_type == TimestampType::Append);
            assert_eq!(batch.to_records(1 << 20).unwrap()[0].timestamp, Timestamp(time));
        }
    }

    #[test]
    fn large_requests_become_several_batches_in_order() {
        let mut batching = Batching::new(ROUTING);
        let value = "v".repeat(90);
        for _ in 0..7 {
            batching.push(None, &NewRecord::value(value.clone())).unwrap();
        }
        let appends = batching.finish(Some(Offset(10))).unwrap();
        assert_eq!(counts(&appends), [(2, 2), (2, 2), (2, 2), (2, 1)]);
        let expected: Vec<_> = appends.iter().map(|a| a.expected_offset.unwrap().0).collect();
        assert_eq!(expected, [10, 12, 14, 16]);
    }

    #[test]
    fn what_cannot_be_appended_is_refused() {
        let check = |routing, partition, record: NewRecord, times: usize, part: &str| {
            let mut batching = Batching::new(routing);
            let result = (0..times)
                .try_for_each(|_| batching.push(partition, &record))
                .and_then(|()| batching.finish(Some(Offset(0))).map(drop));
            let problem = result.unwrap_err();
            assert!(problem.detail().contains(part), "{}", problem.detail());
        };
        let value = |text: &str| NewRecord::value(text.to_owned());
        check(ROUTING, None, value(&"v".repeat(101)), 1, "allows 100 (record_bytes_max)");
        check(ROUTING, None, value("v"), 51, "more than 50 records");
        let small = Routing { append_bytes_max: 99, ..ROUTING };
        check(small, None, value(&"v".repeat(40)), 3, "commit_bytes_max");
        check(ROUTING, Some(PartitionIndex(4)), value("v"), 1, "the stream has 4");
        check(ROUTING, None, value("v"), 0, "no records");
        let mut batching = Batching::new(ROUTING);
        batching.push(Some(PartitionIndex(0)), &value("a")).unwrap();
        batching.push(Some(PartitionIndex(1)), &value("b")).unwrap();
        assert!(batching.finish(Some(Offset(0))).is_err());
    }
}
