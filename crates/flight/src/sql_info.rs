//! What the server says of itself (`GetSqlInfo`).

use std::collections::BTreeSet;
use std::sync::LazyLock;

use arrow_array::RecordBatch;
use arrow_flight::sql::SqlInfo;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_schema::SchemaRef;

use crate::batches::failed;
use crate::problem::Problem;

/// The version of Arrow's format.
const ARROW_FORMAT: &str = "1.4";

static DATA: LazyLock<Result<SqlInfoData, String>> = LazyLock::new(|| {
    let mut builder = SqlInfoDataBuilder::new();
    texts(&mut builder);
    yes_and_no(&mut builder);
    numbers(&mut builder);
    builder.build().map_err(|error| error.to_string())
});

fn texts(builder: &mut SqlInfoDataBuilder) {
    for (name, value) in [
        (SqlInfo::FlightSqlServerName, "Aquifer"),
        (SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION")),
        (SqlInfo::FlightSqlServerArrowVersion, ARROW_FORMAT),
        (SqlInfo::SqlIdentifierQuoteChar, "\""),
        (SqlInfo::SqlSearchStringEscape, "\\"),
        (SqlInfo::SqlExtraNameCharacters, "-."),
        (SqlInfo::SqlSchemaTerm, "schema"),
        (SqlInfo::SqlCatalogTerm, "tenant"),
        (SqlInfo::SqlProcedureTerm, "procedure"),
    ] {
        builder.append(name, value);
    }
    let none: &[&str] = &[];
    for name in [
        SqlInfo::SqlKeywords,
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlSystemFunctions,
        SqlInfo::SqlDatetimeFunctions,
    ] {
        builder.append(name, none);
    }
}

fn yes_and_no(builder: &mut SqlInfoDataBuilder) {
    for (name, value) in [
        // Views can be created, records not.
        (SqlInfo::FlightSqlServerReadOnly, true),
        (SqlInfo::FlightSqlServerSql, true),
        (SqlInfo::FlightSqlServerSubstrait, false),
        (SqlInfo::FlightSqlServerCancel, true),
        (SqlInfo::FlightSqlServerBulkIngestion, false),
        (SqlInfo::FlightSqlServerIngestTransactionsSupported, false),
        (SqlInfo::SqlDdlCatalog, false),
        (SqlInfo::SqlDdlSchema, false),
        (SqlInfo::SqlDdlTable, false),
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, true),
        (SqlInfo::SqlSupportsNonNullableColumns, true),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlCatalogAtStart, true),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
        (SqlInfo::SqlMaxRowSizeIncludesBlobs, true),
        (SqlInfo::SqlTransactionsSupported, false),
        (SqlInfo::SqlDataDefinitionCausesTransactionCommit, false),
        (SqlInfo::SqlDataDefinitionsInTransactionsIgnored, true),
        (SqlInfo::SqlBatchUpdatesSupported, false),
        (SqlInfo::SqlSavepointsSupported, false),
        (SqlInfo::SqlNamedParametersSupported, false),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false),
    ] {
        builder.append(name, value);
    }
}

fn numbers(builder: &mut SqlInfoDataBuilder) {
    for (name, value) in [
        // `SQL_SUPPORTED_TRANSACTION_NONE`.
        (SqlInfo::FlightSqlServerTransaction, 0),
        // No time but the one that the client sets and the server's own.
        (SqlInfo::FlightSqlServerStatementTimeout, 0),
        (SqlInfo::FlightSqlServerTransactionTimeout, 0),
        // Exactly, then by any case that is unique.
        (SqlInfo::SqlIdentifierCase, 1),
        (SqlInfo::SqlQuotedIdentifierCase, 1),
        // As in PostgreSQL: nulls are larger than everything.
        (SqlInfo::SqlNullOrdering, 0),
        // `SQL_GROUP_BY_UNRELATED`, `SQL_GROUP_BY_BEYOND_SELECT`.
        (SqlInfo::SqlSupportedGroupBy, 0b11),
        // Minimum, core and extended.
        (SqlInfo::SqlSupportedGrammar, 0b111),
        // `SQL_FULL_OUTER_JOINS`.
        (SqlInfo::SqlOuterJoinsSupportLevel, 2),
        (SqlInfo::SqlSchemasSupportedActions, 0),
        (SqlInfo::SqlCatalogsSupportedActions, 0),
        (SqlInfo::SqlSupportedPositionedCommands, 0),
        // In comparisons, EXISTS, IN and quantified.
        (SqlInfo::SqlSupportedSubqueries, 0b1111),
        // UNION and UNION ALL.
        (SqlInfo::SqlSupportedUnions, 0b11),
        (SqlInfo::SqlDefaultTransactionIsolation, 0),
        (SqlInfo::SqlSupportedTransactionsIsolationLevels, 0),
        // Forward only.
        (SqlInfo::SqlSupportedResultSetTypes, 0b10),
    ] {
        builder.append(name, value);
    }
    // Zero is no limit, or one that nobody counts.
    for name in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        builder.append(name, 0_i64);
    }
}

/// The columns of every answer.
pub(crate) fn schema() -> SchemaRef {
    SqlInfoDataBuilder::schema().clone().into()
}

/// What is asked for; everything where nothing is named.
///
/// # Errors
/// What Arrow says of it, which is a fault of ours.
pub(crate) fn batch(asked: &[u32]) -> Result<RecordBatch, Problem> {
    let data = DATA.as_ref().map_err(|error| failed(error))?;
    // Whoever asks for the same a million times is answered once.
    let names_max = SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported as u32;
    let wanted: BTreeSet<u32> = asked.iter().copied().filter(|name| *name <= names_max).collect();
    if wanted.is_empty() && !asked.is_empty() {
        return Ok(RecordBatch::new_empty(data.schema()));
    }
    data.record_batch(wanted).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_answered_once() {
        let rows = |asked: &[u32]| batch(asked).unwrap().num_rows();
        assert!(rows(&[]) > 70);
        assert_eq!(rows(&[0, 1, 1, 1]), 2);
        assert_eq!(rows(&[90, u32::MAX]), 0);
        assert_eq!(rows(&[576, 4_000_000]), 1);
        assert_eq!(batch(&[]).unwrap().schema(), schema());
    }
}
