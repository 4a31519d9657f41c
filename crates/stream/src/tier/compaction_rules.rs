//! When a compacted stream is compacted, as Kafka's settings say it.

use aquifer_types::StreamConfig;

/// What is kept for Kafka's tools and means something to compaction. What is
/// absent or no number is as in Kafka's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CompactionRules {
    /// A record without a value stays this long behind the records that it
    /// deletes.
    pub(super) delete_retention_ms: u64,
    /// Records are left alone for so long.
    pub(super) lag_ms_min: u64,
    /// A record is compacted after so long, whatever the ratio.
    pub(super) lag_ms_max: u64,
    /// The part of the bytes that has to be new before it is worth a pass.
    pub(super) dirty_ratio_min: f64,
}

impl CompactionRules {
    pub(super) fn of(config: &StreamConfig) -> Self {
        let text = |name: &str| config.kafka.get(name).map(|value| value.trim());
        let ms = |name, default| text(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let ratio = text("min.cleanable.dirty.ratio").and_then(|value| value.parse::<f64>().ok());
        Self {
            delete_retention_ms: ms("delete.retention.ms", 24 * 3600 * 1000),
            lag_ms_min: ms("min.compaction.lag.ms", 0),
            lag_ms_max: ms("max.compaction.lag.ms", i64::MAX as u64),
            dirty_ratio_min: ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or(0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_kafkas_settings_or_its_defaults() {
        let check = |name: &str, value: &str, change: fn(&mut CompactionRules)| {
            let kafka = [(name.to_owned(), value.to_owned())].into();
            let mut expected = CompactionRules::of(&StreamConfig::default());
            change(&mut expected);
            let config = StreamConfig { kafka, ..StreamConfig::default() };
            assert_eq!(CompactionRules::of(&config), expected, "{name}={value}");
        };
        check("flush.ms", "1", |_| ());
        check("delete.retention.ms", "0", |rules| rules.delete_retention_ms = 0);
        check("min.compaction.lag.ms", " 7 ", |rules| rules.lag_ms_min = 7);
        check("min.compaction.lag.ms", "-7", |_| ());
        check("max.compaction.lag.ms", "9", |rules| rules.lag_ms_max = 9);
        check("min.cleanable.dirty.ratio", "0", |rules| rules.dirty_ratio_min = 0.0);
        check("min.cleanable.dirty.ratio", "NaN", |rules| rules.dirty_ratio_min = 0.5);
        check("min.cleanable.dirty.ratio", "7", |rules| rules.dirty_ratio_min = 0.5);
    }
}
