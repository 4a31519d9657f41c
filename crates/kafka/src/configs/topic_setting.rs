//! The settings of a topic, and what they mean to a stream.
//!
//! A setting is a field of the stream's configuration under Kafka's name, or
//! something that is kept for Kafka's tools, most of it though nothing depends
//! on it, or has one value that is true here and no other. What is none of these is
//! refused by its name.

use std::collections::BTreeSet;

use aquifer_types::{CleanupPolicy, StreamConfig, TimestampType};

use super::Form;

/// The largest time that a stream's configuration knows, in ms.
const MS_MAX: i64 = i64::MAX / 4;
const CHUNK_BYTES: (i64, i64) = (64 << 10, 1 << 30);
const CHUNK_AGE_MS_MIN: i64 = 100;
const LONG_MAX: &str = "9223372036854775807";

/// One setting of a topic.
#[derive(Debug)]
pub(crate) struct TopicSetting {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    /// The broker's setting that gives its default in Kafka.
    pub(crate) of_broker: Option<&'static str>,
    meaning: Meaning,
    pub(crate) documentation: &'static str,
}

#[derive(Debug)]
enum Meaning {
    Field {
        read: fn(&StreamConfig) -> String,
        write: fn(&mut StreamConfig, &str) -> Result<(), String>,
    },
    /// Stored and told again.
    Kept { default: &'static str, rule: Rule },
    /// It has this value and no other.
    Fixed(&'static str),
}

/// What the value of a kept setting has to be.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Boolean,
    /// At least, at most.
    Number(i64, i64),
    Fraction,
    OneOf(&'static [&'static str]),
    /// `partition:broker` pairs, or all of them.
    Replicas,
}

impl TopicSetting {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        TOPIC_SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Its value in a configuration.
    pub(crate) fn value(&self, config: &StreamConfig) -> String {
        match &self.meaning {
            Meaning::Field { read, .. } => read(config),
            Meaning::Kept { default, .. } => {
                config.kafka.get(self.name).map_or_else(|| (*default).to_owned(), Clone::clone)
            }
            Meaning::Fixed(value) => (*value).to_owned(),
        }
    }

    /// Its value where nobody set any.
    pub(crate) fn default_value(&self) -> String {
        self.value(&StreamConfig::default())
    }

    /// Whether a configuration has another value than everybody's, or one that
    /// was set on purpose.
    pub(crate) fn is_set(&self, config: &StreamConfig) -> bool {
        config.kafka.contains_key(self.name) || self.value(config) != self.default_value()
    }

    pub(crate) const fn is_fixed(&self) -> bool {
        matches!(self.meaning, Meaning::Fixed(_))
    }

    /// Sets it; otherwise says what its value has to be.
    pub(crate) fn set(&self, config: &mut StreamConfig, value: &str) -> Result<(), String> {
        let value = value.trim();
        let wrong = |rule: String| {
            let value: String = value.chars().take(80).collect();
            format!("Invalid value {value} for configuration {}: {rule}", self.name)
        };
        match &self.meaning {
            Meaning::Field { write, .. } => write(config, value).map_err(wrong),
            Meaning::Kept { rule, .. } => {
                let value = rule.check(value).map_err(wrong)?;
                config.kafka.insert(self.name.to_owned(), value);
                Ok(())
            }
            Meaning::Fixed(only) if value.eq_ignore_ascii_case(only) => Ok(()),
            Meaning::Fixed(only) => Err(wrong(format!("it is {only} here, always"))),
        }
    }

    /// Gives it the value that everybody has.
    pub(crate) fn reset(&self, config: &mut StreamConfig) {
        config.kafka.remove(self.name);
        if let Meaning::Field { write, .. } = &self.meaning {
            // What the default reads as can be written.
            let _ = write(config, &self.default_value());
        }
    }
}

impl Rule {
    /// The value as it is kept, or what it has to be.
    fn check(self, value: &str) -> Result<String, String> {
        let lower = value.to_ascii_lowercase();
        match self {
            Self::Boolean if matches!(lower.as_str(), "true" | "false") => Ok(lower),
            Self::Boolean => Err("it is true or false".into()),
            Self::Number(low, high) => number(value, low, high).map(|number| number.to_string()),
            Self::Fraction => match value.parse::<f64>() {
                Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(value.to_owned()),
                _ => Err("it lies between 0 and 1".into()),
            },
            Self::OneOf(values) if values.contains(&value) => Ok(value.to_owned()),
            Self::OneOf(values) => Err(format!("it is one of {}", values.join(", "))),
            Self::Replicas => {
                let is_pair = |pair: &str| {
                    let pair = pair.trim().split_once(':');
                    pair.is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok())
                };
                let is_sound = matches!(value, "" | "*" | "none") || value.split(',').all(is_pair);
                let form = "it is *, or a list of the form [partition]:[broker],…";
                if is_sound { Ok(value.to_owned()) } else { Err(form.into()) }
            }
        }
    }
}

fn number(value: &str, low: i64, high: i64) -> Result<i64, String> {
    match value.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        Ok(_) if high == i64::MAX => Err(format!("it is at least {low}")),
        Ok(_) => Err(format!("it lies between {low} and {high}")),
        Err(_) => Err("it is not a whole number".into()),
    }
}

/// A number that only says when a file is cut; outside of what is sensible
/// here, the nearest that is.
fn clamped(value: &str, low: i64, high: i64) -> Result<u64, String> {
    Ok(number(value, 0, i64::MAX)?.clamp(low, high).unsigned_abs())
}

/// A limit, of which −1 is none; a stream's smallest is 1.
fn limit(value: &str) -> Result<Option<u64>, String> {
    let number = number(value, -1, i64::MAX)?;
    Ok((number >= 0).then_some(number.unsigned_abs().max(1)))
}

fn of_limit(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string())
}

fn cleanup_policy(value: &str) -> Result<CleanupPolicy, String> {
    let words: BTreeSet<&str> = value.split(',').map(str::trim).collect();
    match words.into_iter().collect::<Vec<_>>().as_slice() {
        ["delete"] => Ok(CleanupPolicy::Delete),
        ["compact"] => Ok(CleanupPolicy::Compact),
        ["compact", "delete"] => Ok(CleanupPolicy::CompactDelete),
        _ => Err("it is delete, compact, or both".into()),
    }
}

/// Every setting of a topic, by name.
pub(crate) static TOPIC_SETTINGS: &[TopicSetting] = &[
    TopicSetting {
        name: "cleanup.policy",
        form: Form::List,
        of_broker: Some("log.cleanup.policy"),
        meaning: Meaning::Field {
            read: |config| {
                match config.cleanup_policy {
                    CleanupPolicy::Delete => "delete",
                    CleanupPolicy::Compact => "compact",
                    CleanupPolicy::CompactDelete => "compact,delete",
                }
                .to_owned()
            },
            write: |config, value| {
                config.cleanup_policy = cleanup_policy(value)?;
                Ok(())
            },
        },
        documentation: "Whether old records are deleted by age and bytes, or the newest of each \
                        key is kept, or both.",
    },
    kept(
        "compression.gzip.level",
        Form::Int,
        Some("compression.gzip.level"),
        "-1",
        Rule::Number(-1, 9),
    ),
    kept(
        "compression.lz4.level",
        Form::Int,
        Some("compression.lz4.level"),
        "9",
        Rule::Number(1, 17),
    ),
    kept(
        "compression.type",
        Form::String,
        Some("compression.type"),
        "producer",
        Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    kept(
        "compression.zstd.level",
        Form::Int,
        Some("compression.zstd.level"),
        "3",
        Rule::Number(-131_072, 22),
    ),
    obeyed(
        "delete.retention.ms",
        Form::Long,
        Some("log.cleaner.delete.retention.ms"),
        "86400000",
        Rule::Number(0, i64::MAX),
        "How long a record without a value stays behind the records that it \
         deletes, counted from their compaction.",
    ),
    kept(
        "file.delete.delay.ms",
        Form::Long,
        Some("log.segment.delete.delay.ms"),
        "60000",
        Rule::Number(0, i64::MAX),
    ),
    // Every batch is synced before it is acknowledged, whatever these say.
    kept(
        "flush.messages",
        Form::Long,
        Some("log.flush.interval.messages"),
        "1",
        Rule::Number(1, i64::MAX),
    ),
    kept("flush.ms", Form::Long, Some("log.flush.interval.ms"), "0", Rule::Number(0, i64::MAX)),
    kept("follower.replication.throttled.replicas", Form::List, None, "", Rule::Replicas),
    kept(
        "index.interval.bytes",
        Form::Int,
        Some("log.index.interval.bytes"),
        "4096",
        Rule::Number(0, i32::MAX as i64),
    ),
    kept("leader.replication.throttled.replicas", Form::List, None, "", Rule::Replicas),
    kept(
        "local.retention.bytes",
        Form::Long,
        Some("log.local.retention.bytes"),
        "-2",
        Rule::Number(-2, i64::MAX),
    ),
    kept(
        "local.retention.ms",
        Form::Long,
        Some("log.local.retention.ms"),
        "-2",
        Rule::Number(-2, i64::MAX),
    ),
    obeyed(
        "max.compaction.lag.ms",
        Form::Long,
        Some("log.cleaner.max.compaction.lag.ms"),
        LONG_MAX,
        Rule::Number(1, i64::MAX),
        "Records are compacted after about so long, whatever the part of the \
         bytes that is new.",
    ),
    TopicSetting {
        name: "max.message.bytes",
        form: Form::Int,
        of_broker: Some("message.max.bytes"),
        meaning: Meaning::Field {
            read: |config| config.record_bytes_max.to_string(),
            write: |config, value| {
                config.record_bytes_max = number(value, 1, 64 << 20)?.unsigned_abs();
                Ok(())
            },
        },
        documentation: "The largest record: key, headers and value together, uncompressed.",
    },
    TopicSetting {
        name: "message.timestamp.after.max.ms",
        form: Form::Long,
        of_broker: Some("log.message.timestamp.after.max.ms"),
        meaning: Meaning::Fixed(LONG_MAX),
        documentation: "Records may bear any time.",
    },
    TopicSetting {
        name: "message.timestamp.before.max.ms",
        form: Form::Long,
        of_broker: Some("log.message.timestamp.before.max.ms"),
        meaning: Meaning::Fixed(LONG_MAX),
        documentation: "Records may bear any time.",
    },
    TopicSetting {
        name: "message.timestamp.type",
        form: Form::String,
        of_broker: Some("log.message.timestamp.type"),
        meaning: Meaning::Field {
            read: |config| {
                match config.timestamp_type {
                    TimestampType::Create => "CreateTime",
                    TimestampType::Append => "LogAppendTime",
                }
                .to_owned()
            },
            write: |config, value| {
                config.timestamp_type = match value {
                    "CreateTime" => TimestampType::Create,
                    "LogAppendTime" => TimestampType::Append,
                    _ => return Err("it is CreateTime or LogAppendTime".into()),
                };
                Ok(())
            },
        },
        documentation: "Whether records bear their producer's time or that of their append.",
    },
    obeyed(
        "min.cleanable.dirty.ratio",
        Form::Double,
        Some("log.cleaner.min.cleanable.ratio"),
        "0.5",
        Rule::Fraction,
        "The part of a partition's bytes in chunks that has to be new before it \
         is compacted.",
    ),
    obeyed(
        "min.compaction.lag.ms",
        Form::Long,
        Some("log.cleaner.min.compaction.lag.ms"),
        "0",
        Rule::Number(0, i64::MAX),
        "How long records are left alone by compaction, counted from their \
         append.",
    ),
    TopicSetting {
        name: "min.insync.replicas",
        form: Form::Int,
        of_broker: Some("min.insync.replicas"),
        meaning: Meaning::Fixed("1"),
        documentation: "There is one replica; what it acknowledges is synced.",
    },
    kept("preallocate", Form::Boolean, Some("log.preallocate"), "false", Rule::Boolean),
    kept("remote.log.copy.disable", Form::Boolean, None, "false", Rule::Boolean),
    kept("remote.log.delete.on.disable", Form::Boolean, None, "false", Rule::Boolean),
    kept("remote.storage.enable", Form::Boolean, None, "false", Rule::Boolean),
    TopicSetting {
        name: "retention.bytes",
        form: Form::Long,
        of_broker: Some("log.retention.bytes"),
        meaning: Meaning::Field {
            read: |config| of_limit(config.retention_bytes),
            write: |config, value| {
                config.retention_bytes = limit(value)?;
                Ok(())
            },
        },
        documentation: "A partition's oldest records are deleted while it holds more bytes; -1 \
                        keeps them.",
    },
    TopicSetting {
        name: "retention.ms",
        form: Form::Long,
        of_broker: Some("log.retention.ms"),
        meaning: Meaning::Field {
            read: |config| of_limit(config.retention_ms),
            write: |config, value| {
                // Longer than any clock counts is for ever.
                let limit = limit(value)?;
                config.retention_ms = limit.filter(|ms| *ms <= MS_MAX.unsigned_abs());
                Ok(())
            },
        },
        documentation: "Records older than this, counted from their append, are deleted; -1 keeps \
                        them.",
    },
    TopicSetting {
        name: "segment.bytes",
        form: Form::Int,
        of_broker: Some("log.segment.bytes"),
        meaning: Meaning::Field {
            read: |config| config.chunk_target_bytes.to_string(),
            write: |config, value| {
                config.chunk_target_bytes = clamped(value, CHUNK_BYTES.0, CHUNK_BYTES.1)?;
                Ok(())
            },
        },
        documentation: "The bytes of records at which a file of tier 2 is cut: 64 KiB to 1 GiB, \
                        and the nearer of the two for what lies outside.",
    },
    kept(
        "segment.index.bytes",
        Form::Int,
        Some("log.index.size.max.bytes"),
        "10485760",
        Rule::Number(4, i32::MAX as i64),
    ),
    kept(
        "segment.jitter.ms",
        Form::Long,
        Some("log.roll.jitter.ms"),
        "0",
        Rule::Number(0, i64::MAX),
    ),
    TopicSetting {
        name: "segment.ms",
        form: Form::Long,
        of_broker: Some("log.roll.ms"),
        meaning: Meaning::Field {
            read: |config| config.chunk_max_age_ms.to_string(),
            write: |config, value| {
                config.chunk_max_age_ms = clamped(value, CHUNK_AGE_MS_MIN, MS_MAX)?;
                Ok(())
            },
        },
        documentation: "The age of its oldest record at which a smaller file of tier 2 is cut; \
                        what is younger is on this server's disk only.",
    },
    kept(
        "unclean.leader.election.enable",
        Form::Boolean,
        Some("unclean.leader.election.enable"),
        "false",
        Rule::Boolean,
    ),
];

const fn kept(
    name: &'static str,
    form: Form,
    of_broker: Option<&'static str>,
    default: &'static str,
    rule: Rule,
) -> TopicSetting {
    let meaning = Meaning::Kept { default, rule };
    let documentation = "Kept for Kafka's tools; nothing depends on it here.";
    TopicSetting { name, form, of_broker, meaning, documentation }
}

/// Stored as well, and compaction keeps to it.
const fn obeyed(
    name: &'static str,
    form: Form,
    of_broker: Option<&'static str>,
    default: &'static str,
    rule: Rule,
    documentation: &'static str,
) -> TopicSetting {
    let meaning = Meaning::Kept { default, rule };
    TopicSetting { name, form, of_broker, meaning, documentation }
}

#[cfg(test)]
mod tests {
    use aquifer_types::KAFKA_SETTINGS;

    use super::*;

    fn set(name: &str, value: &str) -> Result<(StreamConfig, String), String> {
        let mut config = StreamConfig::default();
        let setting = TopicSetting::find(name).unwrap();
        setting.set(&mut config, value)?;
        config.validate().map_err(|error| error.to_string())?;
        let read = setting.value(&config);
        Ok((config, read))
    }

    #[test]
    fn the_table_is_in_order_and_knows_all_that_is_kept() {
        assert!(TOPIC_SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        let is_kept = |setting: &&TopicSetting| matches!(setting.meaning, Meaning::Kept { .. });
        let kept: Vec<_> = TOPIC_SETTINGS.iter().filter(is_kept).map(|s| s.name).collect();
        assert_eq!(kept, KAFKA_SETTINGS);
    }

    #[test]
    fn defaults_can_be_set_and_a_reset_goes_back_to_them() {
        for setting in TOPIC_SETTINGS {
            let (config, read) = set(setting.name, &setting.default_value()).unwrap();
            assert_eq!(read, setting.default_value(), "{}", setting.name);
            let mut config = config;
            setting.reset(&mut config);
            assert_eq!(config, StreamConfig::default(), "{}", setting.name);
            assert!(!setting.is_set(&config), "{}", setting.name);
        }
    }

    #[test]
    fn fields_are_read_as_they_were_written() {
        let check = |name, value, read: &str, expected: StreamConfig| {
            assert_eq!(set(name, value), Ok((expected, read.to_owned())), "{name}={value}");
        };
        let default = StreamConfig::default;
        let days = |retention_ms| StreamConfig { retention_ms, ..default() };
        check("retention.ms", "86400000", "86400000", days(Some(86_400_000)));
        check("retention.ms", "-1", "-1", days(None));
        check("retention.ms", "0", "1", days(Some(1)));
        check("retention.ms", LONG_MAX, "-1", days(None));
        let bytes = StreamConfig { retention_bytes: Some(5), ..default() };
        check("retention.bytes", " 5 ", "5", bytes);
        let large = StreamConfig { record_bytes_max: 1_048_588, ..default() };
        check("max.message.bytes", "1048588", "1048588", large);
        let policy = |cleanup_policy| StreamConfig { cleanup_policy, ..default() };
        check("cleanup.policy", "compact", "compact", policy(CleanupPolicy::Compact));
        let both = policy(CleanupPolicy::CompactDelete);
        check("cleanup.policy", "delete, compact", "compact,delete", both);
        let small = StreamConfig { chunk_target_bytes: 64 << 10, ..default() };
        check("segment.bytes", "100", "65536", small);
        let week = StreamConfig { chunk_max_age_ms: 604_800_000, ..default() };
        check("segment.ms", "604800000", "604800000", week);
        let append = StreamConfig { timestamp_type: TimestampType::Append, ..default() };
        check("message.timestamp.type", "LogAppendTime", "LogAppendTime", append);
        let kept = |name: &str, value: &str| StreamConfig {
            kafka: [(name.to_owned(), value.to_owned())].into(),
            ..default()
        };
        check("flush.ms", "12345678", "12345678", kept("flush.ms", "12345678"));
        check("preallocate", "TRUE", "true", kept("preallocate", "true"));
        let throttled = "leader.replication.throttled.replicas";
        check(throttled, "0:1,1:1", "0:1,1:1", kept(throttled, "0:1,1:1"));
        check("min.insync.replicas", "1", "1", default());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "a week"),
            ("retention.ms", ""),
            ("max.message.bytes", "0"),
            ("max.message.bytes", "99999999999"),
            ("cleanup.policy", ""),
            ("cleanup.policy", "shred"),
            ("message.timestamp.type", "createtime"),
            ("compression.type", "brotli"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("preallocate", "yes"),
            ("min.insync.replicas", "2"),
            ("leader.replication.throttled.replicas", "0:1,x"),
        ] {
            let why = set(name, value).unwrap_err();
            assert!(why.contains(name), "{why}");
        }
        assert!(TopicSetting::find("no.such.setting").is_none());
    }
}
