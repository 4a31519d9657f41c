//! Why a question has no answer, in words and codes that a caller can use.
//!
//! What DataFusion says is mapped here and nowhere else. A message names
//! columns, functions and SQL's types; never a file, a path or a backtrace.

use std::io;

use aquifer_query::wire::Refusal;
use aquifer_types::ErrorKind;
use datafusion::arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use crate::near;

/// The longest message in bytes; a statement may be part of one.
const MESSAGE_BYTES_MAX: usize = 2000;

/// Makes a refusal.
pub(crate) fn refusal(
    kind: ErrorKind,
    code: &str,
    sqlstate: &str,
    message: impl Into<String>,
) -> Refusal {
    let mut message = message.into();
    if message.len() > MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        message.truncate(end);
        message.push('…');
    }
    Refusal { kind, code: code.to_owned(), sqlstate: sqlstate.to_owned(), message, position: None }
}

/// The request is to be changed.
pub(crate) fn invalid(code: &str, sqlstate: &str, message: impl Into<String>) -> Refusal {
    refusal(ErrorKind::InvalidRequest, code, sqlstate, message)
}

/// The statement is none of those that are allowed.
pub(crate) fn statement_refused(what: &str) -> Refusal {
    refusal(
        ErrorKind::Unsupported,
        "statement-refused",
        "0A000",
        format!(
            "{what} cannot be asked here; SELECT, WITH, VALUES, EXPLAIN, SHOW, DESCRIBE, \
             CREATE VIEW and DROP VIEW can"
        ),
    )
}

/// A limit on the statement itself.
pub(crate) fn too_complex(message: impl Into<String>) -> Refusal {
    refusal(ErrorKind::TooLarge, "statement-too-complex", "54001", message)
}

/// Something that the engine itself got wrong.
pub(crate) fn internal(message: impl Into<String>) -> Refusal {
    refusal(ErrorKind::Internal, "internal", "XX000", message)
}

/// A refusal on its way through DataFusion.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct Refused(pub(crate) Refusal);

impl From<Refused> for DataFusionError {
    fn from(refused: Refused) -> Self {
        Self::External(Box::new(refused))
    }
}

/// Wraps a refusal, so that it comes back whole from [`of`].
pub(crate) fn external(refusal: Refusal) -> DataFusionError {
    Refused(refusal).into()
}

/// What a parser's error means for the statement `sql`.
pub(crate) fn of_parser(error: &ParserError, sql: &str) -> Refusal {
    match error {
        ParserError::RecursionLimitExceeded => {
            too_complex("the statement is nested too deeply; take it apart, with WITH or a view")
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, place) = split_place(message);
            let message = message.trim_start_matches("sql parser error: ").trim_end_matches(" at");
            let mut refusal = invalid("sql-syntax", "42601", format!("syntax error: {message}"));
            refusal.position = place.map(|(line, column)| position(sql, line, column));
            refusal
        }
    }
}

/// Where a line and column, both from 1, lie in `sql`, in characters from 1.
pub(crate) fn position(sql: &str, line: u64, column: u64) -> u64 {
    let before: usize = sql
        .split_inclusive('\n')
        .take(usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX))
        .map(|line| line.chars().count())
        .sum();
    before as u64 + column.max(1)
}

/// Splits ` at Line: 1, Column: 8` off.
fn split_place(message: &str) -> (&str, Option<(u64, u64)>) {
    let parse = |at: usize| {
        let rest = message.get(at..)?.strip_prefix("Line: ")?;
        let (line, rest) = rest.split_once(", Column: ")?;
        let column: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((line.parse().ok()?, column.parse().ok()?))
    };
    match message.rfind("Line: ") {
        Some(at) => match parse(at) {
            Some(place) => (message.get(..at).unwrap_or("").trim_end(), Some(place)),
            None => (message, None),
        },
        None => (message, None),
    }
}

/// What DataFusion's error means for the statement `sql`.
pub(crate) fn of(error: &DataFusionError, sql: &str) -> Refusal {
    match error {
        DataFusionError::Context(_, inner) => of(inner, sql),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mut refusal = of(inner, sql);
            let place = diagnostic.span.map(|span| span.start);
            refusal.position =
                refusal.position.or(place.map(|place| position(sql, place.line, place.column)));
            refusal
        }
        DataFusionError::Shared(inner) => of(inner, sql),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => of(first, sql),
            None => internal("the statement failed without a reason"),
        },
        DataFusionError::SQL(error, _) => of_parser(error, sql),
        DataFusionError::SchemaError(error, _) => of_schema(error, sql),
        DataFusionError::Plan(message) => of_plan(message),
        DataFusionError::NotImplemented(message) => refusal(
            ErrorKind::Unsupported,
            "sql-unsupported",
            "0A000",
            format!("not supported: {}", plain(message)),
        ),
        DataFusionError::ResourcesExhausted(_) => exhausted(),
        DataFusionError::ArrowError(error, _) => of_arrow(error, sql),
        DataFusionError::External(error) => of_external(error.as_ref(), sql),
        DataFusionError::Execution(message) => of_execution(message),
        DataFusionError::Configuration(message) => {
            invalid("sql-setting", "42704", format!("not a setting: {}", plain(message)))
        }
        DataFusionError::ParquetError(_) => {
            crate::Error::beneath(error).map_or_else(unreadable, of_reading)
        }
        DataFusionError::IoError(error) => of_io(error),
        DataFusionError::ObjectStore(_) => storage_unavailable(),
        DataFusionError::ExecutionJoin(_) => {
            internal("a part of the statement's work ended early; the server's log says why")
        }
        other => unknown(&other.message()),
    }
}

/// What no other rule is about.
fn unknown(message: &str) -> Refusal {
    // A join that has no memory for even one batch of its left side says so.
    if message.contains("produced no data to spill") {
        return exhausted();
    }
    // DataFusion looks at a window's range when it runs, and calls it a fault of its own.
    if message.contains("Cannot run range queries on datatype") {
        return refusal(
            ErrorKind::Unsupported,
            "sql-unsupported",
            "0A000",
            "a window over rows in the order of bytes has no range; order it by text(…), or say \
             ROWS BETWEEN … in its OVER (…)",
        );
    }
    of_regex(message).unwrap_or_else(|| internal(format!("the engine failed: {}", plain(message))))
}

/// Chunks or the tail could not be read. Which chunk it was is in the log.
fn of_reading(error: &crate::Error) -> Refusal {
    if let crate::Error::Refused(refusal) = error {
        return refusal.clone();
    }
    tracing::warn!(%error, "a question could not read its records");
    match error.kind() {
        ErrorKind::Damaged => unreadable(),
        kind if kind.is_retriable() => refusal(
            kind,
            "storage-unavailable",
            "58030",
            "the records could not be read from tier 2 or the journal; try again",
        ),
        ErrorKind::Internal => internal("the records could not be read; the log says why"),
        kind => refusal(kind, "read-failed", "58030", plain(&error.to_string())),
    }
}

/// A chunk that is not as it was written.
fn unreadable() -> Refusal {
    refusal(
        ErrorKind::Damaged,
        "chunk-unreadable",
        "XX001",
        "a chunk of tier 2 is not as it was written; `aquifer verify` names it",
    )
}

/// Files that operators spill to, or tier 2.
fn of_io(error: &io::Error) -> Refusal {
    if let Some(Refused(refusal)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return refusal.clone();
    }
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return refusal(
            ErrorKind::Unavailable,
            "query-spill",
            "53100",
            "the disk of the directory for spilled data (`query.spill_directory`) is full; make \
             room, or read less (a time range, fewer columns)",
        );
    }
    tracing::warn!(%error, "a question could not read or write a file");
    storage_unavailable()
}

fn storage_unavailable() -> Refusal {
    refusal(
        ErrorKind::Unavailable,
        "storage-unavailable",
        "58030",
        "tier 2 or the directory for spilled data could not be read or written; try again",
    )
}

fn of_external(error: &(dyn std::error::Error + Send + Sync + 'static), sql: &str) -> Refusal {
    if let Some(Refused(refusal)) = error.downcast_ref() {
        return refusal.clone();
    }
    if let Some(error) = error.downcast_ref::<crate::Error>() {
        return of_reading(error);
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return of(error, sql);
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return of_arrow(error, sql);
    }
    unknown(&error.to_string())
}

fn of_arrow(error: &ArrowError, sql: &str) -> Refusal {
    match error {
        ArrowError::ExternalError(error) => of_external(error.as_ref(), sql),
        ArrowError::DivideByZero => invalid("division-by-zero", "22012", "division by zero"),
        ArrowError::ArithmeticOverflow(message) => invalid(
            "out-of-range",
            "22003",
            format!("a number is out of its type's range: {}", plain(message)),
        ),
        ArrowError::CastError(message) | ArrowError::ParseError(message) => invalid(
            "invalid-value",
            "22P02",
            format!("{}; TRY_CAST gives null for what cannot be read", plain(message)),
        ),
        ArrowError::InvalidArgumentError(message) | ArrowError::ComputeError(message) => {
            match of_regex(message) {
                Some(refusal) => refusal,
                None => invalid("invalid-value", "22023", plain(message)),
            }
        }
        ArrowError::NotYetImplemented(message) => refusal(
            ErrorKind::Unsupported,
            "sql-unsupported",
            "0A000",
            format!("not supported: {}", plain(message)),
        ),
        ArrowError::MemoryError(_) => exhausted(),
        ArrowError::ParquetError(_) => unreadable(),
        ArrowError::IoError(_, error) => of_io(error),
        other => internal(format!("the engine failed: {}", plain(&other.to_string()))),
    }
}

/// A pattern that cannot be compiled, or would be too large.
fn of_regex(message: &str) -> Option<Refusal> {
    let is_regex = message.contains("egular expression") || message.contains("regex");
    is_regex.then(|| {
        invalid("invalid-regex", "2201B", format!("not a regular expression: {}", plain(message)))
    })
}

/// The space for what does not fit into memory.
pub(crate) fn spill_exhausted() -> Refusal {
    refusal(
        ErrorKind::TooLarge,
        "query-spill",
        "53100",
        "the statement needs more space for spilled data than `query.spill_bytes_max` gives; read \
         less (a time range, fewer columns) or raise it",
    )
}

/// Memory.
fn exhausted() -> Refusal {
    refusal(
        ErrorKind::TooLarge,
        "query-memory",
        "53200",
        "the statement needs more memory than it may hold (`limits.memory_bytes_max`, at most \
         `query.memory_bytes_max`); read less (a time range, fewer columns, fewer groups) or raise \
         them",
    )
}

fn of_schema(error: &SchemaError, sql: &str) -> Refusal {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut refusal = unknown_column(field, valid_fields);
            refusal.position =
                field.spans.first().map(|span| position(sql, span.start.line, span.start.column));
            refusal
        }
        SchemaError::AmbiguousReference { field } => invalid(
            "ambiguous-column",
            "42702",
            format!("more than one table has a column {}; write table.column", named(field)),
        ),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => invalid(
            "duplicate-column",
            "42701",
            format!("two columns are named {name}; give one another name with AS"),
        ),
    }
}

fn unknown_column(field: &Column, valid: &[Column]) -> Refusal {
    let name = field.name();
    let near = near::names(name, valid.iter().map(Column::name));
    let mut message = format!("there is no column {}", named(field));
    if !near.is_empty() {
        message.push_str(&format!("; near it: {}", near.join(", ")));
    } else if valid.iter().any(|column| column.name() == "_value") {
        message.push_str(&format!("; a field of JSON values is read with _value->>'{name}'"));
    } else if !valid.is_empty() {
        let mut names: Vec<&str> = valid.iter().map(Column::name).collect();
        names.dedup();
        names.truncate(12);
        message.push_str(&format!("; there are: {}", names.join(", ")));
    }
    refusal(ErrorKind::InvalidRequest, "unknown-column", "42703", message)
}

fn named(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{}.{}", relation.table(), column.name()),
        None => column.name().to_owned(),
    }
}

fn of_plan(message: &str) -> Refusal {
    let text = plain(message);
    let has = |part: &str| message.contains(part);
    if has("Invalid function") || has("is not a known function") {
        return invalid(
            "unknown-function",
            "42883",
            text.replacen("Invalid function", "there is no function", 1),
        );
    }
    if (has("table '") || has("table function '")) && has("not found") {
        return refusal(ErrorKind::NotFound, "unknown-table", "42P01", text);
    }
    if has("Ambiguous reference") || has("ambiguous") {
        return invalid("ambiguous-column", "42702", text);
    }
    if has("must be in the GROUP BY clause")
        || has("must appear in the GROUP BY")
        || has("could not be resolved from available columns")
    {
        return invalid("grouping", "42803", text);
    }
    if has("No function matches") || has("does not support") || has("Failed to coerce") {
        return invalid("type-mismatch", "42883", text);
    }
    if has("coerce") || has("Cannot infer") || has("Unexpected argument type") || has("type") {
        return invalid("type-mismatch", "42804", text);
    }
    if has("No field named") {
        return invalid("unknown-column", "42703", text);
    }
    invalid("sql-invalid", "42000", text)
}

fn of_execution(message: &str) -> Refusal {
    let text = plain(message);
    if message.contains("more than one row") {
        return invalid("too-many-rows", "21000", text);
    }
    if let Some(refusal) = of_regex(message) {
        return refusal;
    }
    if message.contains("ivide by zero") {
        return invalid("division-by-zero", "22012", "division by zero");
    }
    invalid("invalid-value", "22000", text)
}

/// A message in SQL's words: without what follows a backtrace's head, and
/// without Arrow's names of types.
fn plain(message: &str) -> String {
    let end = [
        "\n\nbacktrace",
        "\nBacktrace",
        "This was likely caused by a bug",
        "This issue was likely caused by a bug",
        "\nstack backtrace",
    ]
    .iter()
    .filter_map(|mark| message.find(mark))
    .min()
    .unwrap_or(message.len());
    let message = message.get(..end).unwrap_or(message).trim();
    let message = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Invalid argument error: ",
        "Compute error: ",
        "This feature is not implemented: ",
        "External error: ",
        "Internal error: ",
    ]
    .iter()
    .fold(message.to_owned(), |message, head| message.replace(head, ""));
    sql_words(&message)
}

/// Arrow's names of types, and SQL's.
const TYPE_WORDS: &[(&str, &str)] = &[
    ("Utf8View", "text"),
    ("LargeUtf8", "text"),
    ("Utf8", "text"),
    ("BinaryView", "binary"),
    ("LargeBinary", "binary"),
    ("Binary", "binary"),
    ("Boolean", "boolean"),
    ("Int8", "smallint"),
    ("Int16", "smallint"),
    ("Int32", "integer"),
    ("Int64", "bigint"),
    ("UInt8", "smallint"),
    ("UInt16", "integer"),
    ("UInt32", "bigint"),
    ("UInt64", "numeric"),
    ("Float32", "real"),
    ("Float64", "double precision"),
    ("Decimal128", "numeric"),
    ("Decimal256", "numeric"),
    ("Date32", "date"),
    ("Date64", "date"),
];

fn sql_words(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut word = String::new();
    for character in message.chars().chain(std::iter::once('\0')) {
        if character.is_ascii_alphanumeric() || character == '_' {
            word.push(character);
            continue;
        }
        let known = TYPE_WORDS.iter().find(|(arrow, _)| *arrow == word);
        out.push_str(known.map_or(word.as_str(), |(_, sql)| sql));
        word.clear();
        if character != '\0' {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_codes_places_and_plain_words() {
        let check = |error: DataFusionError, code: &str, sqlstate: &str, message: &str| {
            let refusal = of(&error, "select\n  x");
            assert_eq!(refusal.code, code, "{refusal:?}");
            assert_eq!(refusal.sqlstate, sqlstate, "{refusal:?}");
            assert!(refusal.message.contains(message), "{refusal:?}");
        };
        check(
            DataFusionError::Plan(
                "Cannot coerce arithmetic expression Utf8View + Int64 to valid types".into(),
            ),
            "type-mismatch",
            "42804",
            "text + bigint",
        );
        check(
            DataFusionError::ResourcesExhausted("Failed to allocate additional 1 MB".into()),
            "query-memory",
            "53200",
            "memory_bytes_max",
        );
        check(
            DataFusionError::Internal("Left side produced no data to spill.\nThis is".into()),
            "query-memory",
            "53200",
            "memory_bytes_max",
        );
        check(
            DataFusionError::ArrowError(
                Box::new(ArrowError::DivideByZero),
                Some("\nBacktrace: x".into()),
            ),
            "division-by-zero",
            "22012",
            "division",
        );
        let inner = external(too_complex("too deep"));
        check(
            DataFusionError::Context("while".into(), Box::new(inner)),
            "statement-too-complex",
            "54001",
            "too deep",
        );
    }

    #[test]
    fn places_are_counted_in_characters_of_the_whole_statement() {
        let error = ParserError::ParserError("Expected: x, found: y at Line: 2, Column: 3".into());
        let refusal = of_parser(&error, "ää\n  y");
        assert_eq!((refusal.position, refusal.sqlstate.as_str()), (Some(6), "42601"));
        assert!(refusal.message.ends_with("found: y"), "{}", refusal.message);
    }
}
