// Asks through PostgreSQL's JDBC driver: Jdbc URL RECORDS. The stream `audit`
// holds RECORDS records whose values are JSON with a number `n` from 0 on.
// Prints a line for what was shown; fails at the first thing that is not as it
// should be.

import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.List;
import java.util.Timer;
import java.util.TimerTask;

public final class Jdbc {
    public static void main(String[] arguments) throws Exception {
        int records = Integer.parseInt(arguments[1]);
        try (Connection connection = DriverManager.getConnection(arguments[0], "me", "")) {
            prepared(connection, records);
            fetchSize(connection, records);
            metadata(connection);
            errors(connection);
            cancel(connection);
        }
    }

    static void check(boolean holds, Object found) {
        if (!holds) {
            throw new AssertionError(String.valueOf(found));
        }
    }

    static void prepared(Connection connection, int records) throws SQLException {
        String sql = "SELECT count(*) FROM audit WHERE (_value->>'n')::bigint < ? AND _timestamp > ?";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            // From the fifth time on the driver prepares it on the server.
            for (int round = 0; round < 8; round++) {
                statement.setLong(1, round);
                statement.setTimestamp(2, new Timestamp(0));
                try (ResultSet rows = statement.executeQuery()) {
                    check(rows.next() && rows.getLong(1) == Math.min(round, records), round);
                }
            }
        }
        try (PreparedStatement statement =
                connection.prepareStatement("SELECT _offset, _timestamp, _value, _key FROM audit WHERE _offset = ?")) {
            for (int round = 0; round < 8; round++) {
                statement.setInt(1, 3);
                try (ResultSet rows = statement.executeQuery()) {
                    check(rows.next() && rows.getLong("_offset") == 3, "no row");
                    check(rows.getTimestamp("_timestamp").getTime() > 1_700_000_000_000L, rows.getTimestamp(2));
                    check(rows.getString("_value").contains("\"n\""), rows.getString(3));
                    check(rows.getString("_key") == null && rows.wasNull(), rows.getString(4));
                }
            }
        }
        System.out.println("prepared statements, in both formats");
    }

    static void fetchSize(Connection connection, int records) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(100);
            try (ResultSet rows = statement.executeQuery("SELECT _offset FROM audit ORDER BY _offset")) {
                for (int expected = 0; expected < records; expected++) {
                    check(rows.next() && rows.getLong(1) == expected, expected);
                }
                check(!rows.next(), "too many rows");
            }
        }
        connection.commit();
        connection.setAutoCommit(true);
        System.out.println("a large result, a hundred rows at a time");
    }

    static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData metadata = connection.getMetaData();
        List<String> tables = new ArrayList<>();
        try (ResultSet rows = metadata.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"})) {
            while (rows.next()) {
                tables.add(rows.getString("TABLE_NAME"));
            }
        }
        check(tables.contains("audit"), tables);
        List<String> columns = new ArrayList<>();
        try (ResultSet rows = metadata.getColumns(null, "public", "audit", "%")) {
            while (rows.next()) {
                columns.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME"));
            }
        }
        check(columns.contains("_offset int8") && columns.contains("_timestamp timestamptz"), columns);
        List<String> schemas = new ArrayList<>();
        try (ResultSet rows = metadata.getSchemas()) {
            while (rows.next()) {
                schemas.add(rows.getString(1));
            }
        }
        check(schemas.contains("public"), schemas);
        try (ResultSet rows = metadata.getPrimaryKeys(null, "public", "audit")) {
            check(!rows.next(), "a key");
        }
        try (ResultSet rows = metadata.getIndexInfo(null, "public", "audit", false, false)) {
            check(!rows.next(), "an index");
        }
        try (ResultSet rows = metadata.getImportedKeys(null, "public", "audit")) {
            check(!rows.next(), "a foreign key");
        }
        try (ResultSet rows = metadata.getTypeInfo()) {
            check(rows.next(), "no types");
        }
        // The driver leaves out those that standard SQL has too.
        String keywords = metadata.getSQLKeywords();
        check(keywords != null && keywords.contains("limit") && !keywords.contains("select"), keywords);
        System.out.println("tables, columns, schemas, keys, types");
    }

    static void errors(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT * FROM aduit");
            throw new AssertionError("there is no such stream");
        } catch (SQLException error) {
            check("42P01".equals(error.getSQLState()), error);
        }
        System.out.println("errors with their states");
    }

    static void cancel(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            Timer timer = new Timer(true);
            timer.schedule(new TimerTask() {
                @Override
                public void run() {
                    try {
                        statement.cancel();
                    } catch (SQLException error) {
                        throw new IllegalStateException(error);
                    }
                }
            }, 1000);
            statement.executeQuery("SELECT sum(x) FROM generate_series(1, 1000000000000) AS a(x)");
            throw new AssertionError("it was not cancelled");
        } catch (SQLException error) {
            check("57014".equals(error.getSQLState()), error);
        }
        System.out.println("a statement is cancelled");
    }
}
