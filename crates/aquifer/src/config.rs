//! The server's configuration: flags over environment over file over defaults.
//!
//! One section a crate. A field `http.listen` is `AQUIFER_HTTP_LISTEN` in the
//! environment and `--set http.listen=…` on the command line; the commonest
//! have flags and short variables of their own. Unknown fields and variables
//! are refused by name. docs/configuration.md has them all.

use aquifer_flight::FlightOptions;
use aquifer_http::{HttpOptions, Token};
use aquifer_kafka::KafkaOptions;
use aquifer_objects::ObjectOptions;
use aquifer_postgres::PostgresOptions;
use aquifer_query::QueryOptions;
use aquifer_tables::TableOptions;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::cli::{ConfigArguments, LogFormat, ServeArguments};
use crate::failure::Failure;
use crate::files::read_text;

/// What the names of all variables begin with.
pub(crate) const PREFIX: &str = "AQUIFER_";
/// The variable with the bearer token itself.
pub(crate) const TOKEN_VARIABLE: &str = "AQUIFER_TOKEN";

/// The whole configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) store: aquifer_stream::Options,
    pub(crate) http: HttpOptions,
    pub(crate) kafka: KafkaOptions,
    pub(crate) postgres: PostgresOptions,
    pub(crate) flight: FlightOptions,
    pub(crate) query: QueryOptions,
    pub(crate) tables: TableOptions,
    pub(crate) objects: ObjectOptions,
    pub(crate) log: LogOptions,
}

/// What is logged to standard error, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogOptions {
    /// `text` or `json`.
    pub(crate) format: LogFormat,
    /// Levels by target, as `tracing` knows them.
    pub(crate) filter: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// The sections, as they are named in variables.
const SECTIONS: [&str; 9] =
    ["store", "http", "kafka", "postgres", "flight", "query", "tables", "objects", "log"];

/// Reads everything that `serve` is given.
pub(crate) fn of_serve(arguments: &ServeArguments) -> Result<Config, Failure> {
    let ServeArguments {
        config,
        listen,
        kafka_listen,
        kafka_advertised,
        postgres_listen,
        flight_listen,
        token_file,
        insecure,
        log_format,
        log_filter,
        access_log,
        journal_bytes_max,
        tail_cache_bytes_max,
        chunk_cache_bytes_max,
        request_bytes_max,
    } = arguments;
    let mut table = of_file_and_environment(config)?;
    let text = |value: &dyn std::fmt::Display| Value::String(value.to_string());
    let number = |value: &u64| Value::Integer(i64::try_from(*value).unwrap_or(i64::MAX));
    let flags = [
        ("http.listen", listen.as_ref().map(|value| text(value))),
        ("kafka.listen", kafka_listen.as_ref().map(|value| text(value))),
        ("kafka.advertised", kafka_advertised.as_ref().map(|value| text(value))),
        ("postgres.listen", postgres_listen.as_ref().map(|value| text(value))),
        ("flight.listen", flight_listen.as_ref().map(|value| text(value))),
        ("http.token_file", token_file.as_ref().map(|path| text(&path.display()))),
        ("http.access_log", access_log.then_some(Value::Boolean(true))),
        ("http.request_bytes_max", request_bytes_max.as_ref().map(number)),
        (
            "log.format",
            log_format.map(|format| match format {
                LogFormat::Text => text(&"text"),
                LogFormat::Json => text(&"json"),
            }),
        ),
        ("log.filter", log_filter.as_ref().map(|value| text(value))),
        ("store.journal_bytes_max", journal_bytes_max.as_ref().map(number)),
        ("store.tail_cache_bytes_max", tail_cache_bytes_max.as_ref().map(number)),
        ("store.chunk_cache_bytes_max", chunk_cache_bytes_max.as_ref().map(number)),
    ];
    for (path, value) in flags {
        if let Some(value) = value {
            set(&mut table, path, value)?;
        }
    }
    let mut config = finish(table, &config.set)?;
    config.http.token = token(&config.http)?;
    if config.http.is_exposed() && config.http.token.is_none() && !insecure {
        return Err(Failure::with_next(
            format!(
                "{} can be reached from other machines, and no token is set",
                config.http.listen
            ),
            "give a token with --token-file or AQUIFER_TOKEN, listen on 127.0.0.1, or say \
             --insecure if anyone may read and write",
        ));
    }
    if config.kafka.is_exposed() && !insecure {
        return Err(Failure::with_next(
            "a Kafka listener that asks for no user can be reached from other machines",
            "let --kafka-listen be on 127.0.0.1, give it kafka.security, switch it off with --set \
             kafka.enabled=false, or say --insecure if anyone may read and write",
        ));
    }
    if config.postgres.is_exposed() && !insecure {
        return Err(Failure::with_next(
            "the PostgreSQL protocol can be reached from other machines and asks for no user",
            "let --postgres-listen be on 127.0.0.1, say --set postgres.security=password, switch \
             it off with --set postgres.enabled=false, or say --insecure if anyone may read",
        ));
    }
    if config.flight.is_exposed() && !insecure {
        return Err(Failure::with_next(
            "Arrow Flight SQL can be reached from other machines and asks for no user",
            "let --flight-listen be on 127.0.0.1, say --set flight.security=password, switch it \
             off with --set flight.enabled=false, or say --insecure if anyone may read",
        ));
    }
    Ok(config)
}

/// Reads the configuration of a command that acts in the server's place.
pub(crate) fn of_arguments(arguments: &ConfigArguments) -> Result<Config, Failure> {
    finish(of_file_and_environment(arguments)?, &arguments.set)
}

fn of_file_and_environment(arguments: &ConfigArguments) -> Result<Table, Failure> {
    let mut table = match &arguments.config {
        Some(path) => {
            let text = read_text(path).map_err(Failure::failed)?;
            text.parse::<Table>()
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?
        }
        None => Table::new(),
    };
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        // Those of others may hold what is no text.
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.into_string();
        let value = value.map_err(|_| Failure::failed(format!("{name} is not UTF-8")))?;
        variables.push((name.to_owned(), value));
    }
    of_variables(&mut table, variables.into_iter())?;
    if let Some(data) = &arguments.data {
        set(&mut table, "store.data", Value::String(data.display().to_string()))?;
    }
    if let Some(tier2) = &arguments.tier2 {
        set(&mut table, "store.tier2", Value::String(tier2.clone()))?;
    }
    Ok(table)
}

/// Takes `AQUIFER_<SECTION>_<FIELD>` over; the short variables are clap's.
fn of_variables(
    table: &mut Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), Failure> {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let rest = rest.to_ascii_lowercase();
        for section in SECTIONS {
            let field = rest.strip_prefix(section).and_then(|field| field.strip_prefix('_'));
            if let Some(field) = field {
                set(table, &format!("{section}.{field}"), parse_value(&value))?;
            }
        }
    }
    Ok(())
}

fn finish(mut table: Table, settings: &[String]) -> Result<Config, Failure> {
    for setting in settings {
        let (path, value) = setting.split_once('=').ok_or_else(|| {
            Failure::failed(format!("--set {setting} is not of the form section.field=value"))
        })?;
        set(&mut table, path.trim(), parse_value(value))?;
    }
    let config: Config = table.try_into().map_err(|error: toml::de::Error| {
        Failure::with_next(
            format!("the configuration is not valid: {}", error.message()),
            "docs/configuration.md has all fields",
        )
    })?;
    config
        .http
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("http.{field}: {why}")))?;
    config
        .kafka
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("kafka.{field}: {why}")))?;
    config
        .postgres
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("postgres.{field}: {why}")))?;
    config
        .flight
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("flight.{field}: {why}")))?;
    config
        .query
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("query.{field}: {why}")))?;
    config
        .tables
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("tables.{field}: {why}")))?;
    config
        .objects
        .validate()
        .map_err(|(field, why)| Failure::failed(format!("objects.{field}: {why}")))?;
    config.store.validate()?;
    Ok(config)
}

/// A value as TOML reads it, else the text itself.
fn parse_value(text: &str) -> Value {
    match format!("value = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => {
            table.remove("value").unwrap_or_else(|| Value::String(text.to_owned()))
        }
        _ => Value::String(text.to_owned()),
    }
}

fn set(table: &mut Table, path: &str, value: Value) -> Result<(), Failure> {
    let Some((section, field)) = path.split_once('.') else {
        return Err(Failure::failed(format!("{path} is not of the form section.field")));
    };
    let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(fields) = entry else {
        return Err(Failure::failed(format!("{section} is not a section")));
    };
    fields.insert(field.to_owned(), value);
    Ok(())
}

/// The token of the server, from its file or from the environment.
fn token(options: &HttpOptions) -> Result<Option<Token>, Failure> {
    let (from, text) = match &options.token_file {
        Some(path) => (path.display().to_string(), Some(read_text(path).map_err(Failure::failed)?)),
        None => (TOKEN_VARIABLE.to_owned(), variable(TOKEN_VARIABLE)),
    };
    match text {
        Some(text) => match Token::new(&text) {
            Ok(token) => Ok(Some(token)),
            Err(why) => Err(Failure::failed(format!("{from}: {why}"))),
        },
        None => Ok(None),
    }
}

/// An environment variable, if it is set and not empty. What is not UTF-8 is
/// still set: a token that was mistyped must not mean that there is none.
pub(crate) fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], settings: &[&str]) -> Result<Config, String> {
        let mut table = Table::new();
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        of_variables(&mut table, variables).and_then(|()| finish(table, &settings)).map_err(
            |failure| match failure {
                Failure::Failed(why, _) => why,
                other => format!("{other:?}"),
            },
        )
    }

    #[test]
    fn flags_go_over_the_environment() {
        let config = of(
            &[
                ("AQUIFER_HTTP_LISTEN", "127.0.0.1:9999"),
                ("AQUIFER_KAFKA_LISTEN", "127.0.0.1:9998"),
                ("AQUIFER_STORE_GROUP_BYTES_MAX", "65536"),
                ("AQUIFER_STORE_TIER2_OPTIONS", "{ aws_region = \"eu\" }"),
                ("AQUIFER_LOG_FILTER", "warn,aquifer_stream=debug"),
                ("AQUIFER_URL", "http://elsewhere"),
                ("OTHER", "x"),
            ],
            &["store.group_bytes_max=131072", "http.access_log=true", "log.format=json"],
        )
        .unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:9999");
        assert_eq!(config.kafka.listen.to_string(), "127.0.0.1:9998");
        assert_eq!(config.store.group_bytes_max, 131_072);
        assert_eq!(config.store.tier2_options["aws_region"], "eu");
        assert_eq!(config.log.filter, "warn,aquifer_stream=debug");
        assert_eq!(config.log.format, LogFormat::Json);
        assert!(config.http.access_log);
    }

    #[test]
    fn what_is_unknown_or_out_of_bounds_is_named() {
        let check = |variables: &[(&str, &str)], settings: &[&str], part: &str| {
            let why = of(variables, settings).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        check(&[("AQUIFER_HTTP_LISTENS", "x")], &[], "listens");
        check(&[], &["store.unknown=1"], "unknown");
        check(&[], &["other.listen=1"], "other");
        check(&[], &["kafka.listens=1"], "listens");
        check(&[], &["kafka.advertised=nowhere"], "kafka.advertised");
        check(&[], &["postgres.portals_max=0"], "postgres.portals_max");
        check(&[], &["flight.calls_max=0"], "flight.calls_max");
        check(&[], &["listen=1"], "section.field");
        check(&[], &["http.listen"], "section.field=value");
        check(&[], &["http.batch_bytes_max=1"], "http.batch_bytes_max");
        check(&[], &["store.chunk_zstd_level=99"], "chunk_zstd_level");
        check(&[], &["query.questions_max=0"], "query.questions_max");
        check(&[("AQUIFER_QUERY_QUESTION_MAX", "1")], &[], "question_max");
    }

    #[test]
    fn every_field_is_documented_with_its_default() {
        let documented = include_str!("../../../docs/configuration.md");
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let mut fields = Vec::new();
        let mut missing = Vec::new();
        for (section, values) in defaults.as_object().unwrap() {
            for (field, value) in values.as_object().unwrap() {
                let value = match value {
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Null => "none".to_owned(),
                    other => other.to_string(),
                };
                let row = format!("| `{section}.{field}` | `{value}` |");
                if !documented.contains(&row) {
                    missing.push(row);
                }
                fields.push(format!("`{section}.{field}`"));
            }
        }
        assert!(
            missing.is_empty(),
            "docs/configuration.md lacks rows or has other defaults:\n{}",
            missing.join("\n")
        );
        for line in documented.lines().filter(|line| line.starts_with("| `")) {
            let field = line.split('|').nth(1).unwrap().trim();
            let known = fields.iter().any(|known| known == field) || field.contains("AQUIFER_");
            assert!(known || field.starts_with("`--"), "docs/configuration.md describes {field}");
        }
    }
}
