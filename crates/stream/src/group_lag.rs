//! How far groups are behind, for Prometheus: computed when it is scraped.
//!
//! It holds no position longer than a scrape takes, and keeps no store alive.

use std::fmt;
use std::sync::Weak;

use aquifer_types::{GroupName, Offset, Partition, TenantName};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::index::Index;

/// The collector of `group_lag`.
pub(crate) struct GroupLag {
    index: Weak<Index>,
    series_max: usize,
}

/// One position that is shown.
struct Shown {
    tenant: TenantName,
    group: GroupName,
    at: Partition,
    offset: Offset,
}

/// How many records are between a position and the end of its partition; a
/// position beyond the end, which a client may commit, is not behind.
pub(crate) fn lag(end: Offset, position: Offset) -> u64 {
    u64::try_from(end.get().saturating_sub(position.get())).unwrap_or(0)
}

/// A value of a label; the encoder writes it as it is. Names have no line ends.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

impl GroupLag {
    pub(crate) const fn new(index: Weak<Index>, series_max: usize) -> Self {
        Self { index, series_max }
    }

    /// The first positions by tenant, group and partition, and how many there
    /// are beyond them.
    fn shown(&self, index: &Index) -> (Vec<Shown>, usize) {
        let groups = index.groups.read();
        let count: usize = groups.0.values().map(std::collections::BTreeMap::len).sum();
        let positions = groups.0.iter().flat_map(|((tenant, group), positions)| {
            positions.iter().map(move |(at, position)| Shown {
                tenant: tenant.clone(),
                group: group.clone(),
                at: *at,
                offset: position.offset,
            })
        });
        let shown: Vec<Shown> = positions.take(self.series_max).collect();
        let left_out = count - shown.len();
        (shown, left_out)
    }
}

impl Collector for GroupLag {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(index) = self.index.upgrade() else { return Ok(()) };
        let (shown, left_out) = self.shown(&index);
        let help = "Records between a group's position and the end of the partition";
        let mut family = encoder.encode_descriptor("group_lag", help, None, MetricType::Gauge)?;
        for of in &shown {
            // Clients take it for no position.
            if of.offset < Offset::ZERO {
                continue;
            }
            // What was deleted meanwhile has no end.
            let Some(stream) = index.stream_by_id(of.at.stream) else { continue };
            let Ok(log) = stream.partition(of.at.index) else { continue };
            let labels = [
                ("tenant", of.tenant.as_str().to_owned()),
                ("group", escaped(of.group.as_str())),
                ("stream", stream.path.name.as_str().to_owned()),
                ("partition", of.at.index.to_string()),
            ];
            let gauge = ConstGauge::new(lag(log.with(|state| state.end), of.offset));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        let help = "Positions whose lag is not shown, beyond group_lag_series_max";
        let gauge = ConstGauge::new(left_out as u64);
        let metric =
            encoder.encode_descriptor("group_lag_left_out", help, None, MetricType::Gauge)?;
        gauge.encode(metric)
    }
}

impl fmt::Debug for GroupLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupLag(at most {} series)", self.series_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_never_negative() {
        for (end, position, expected) in
            [(0, 0, 0), (10, 4, 6), (10, 10, 0), (4, 10, 0), (i64::MAX, 0, i64::MAX as u64)]
        {
            assert_eq!(lag(Offset(end), Offset(position)), expected, "{end} {position}");
        }
    }
}
