// Asks through Arrow's JDBC driver: FlightJdbc URL RECORDS USER PASSWORD. The
// stream `audit` holds RECORDS records whose values are JSON with a number `n`
// from 0 on. Prints a line for what was shown; fails at the first thing that is
// not as it should be.

import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;

public final class FlightJdbc {
    public static void main(String[] arguments) throws Exception {
        int records = Integer.parseInt(arguments[1]);
        try (Connection connection =
                DriverManager.getConnection(arguments[0], arguments[2], arguments[3])) {
            queries(connection, records);
            prepared(connection, records);
            views(connection);
            metadata(connection);
            errors(connection);
        }
        logins(arguments[0], arguments[2]);
    }

    static void check(boolean holds, Object found) {
        if (!holds) {
            throw new AssertionError(String.valueOf(found));
        }
    }

    static void queries(Connection connection, int records) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            try (ResultSet rows = statement.executeQuery("SELECT count(*) FROM audit")) {
                check(rows.next() && rows.getLong(1) == records, "a count");
            }
            String large = "SELECT a._offset, a._timestamp, a._value->>'verb' AS verb FROM audit a "
                    + "CROSS JOIN (SELECT 1 FROM audit WHERE _offset < 100) b";
            int count = 0;
            try (ResultSet rows = statement.executeQuery(large)) {
                while (rows.next()) {
                    check("get".equals(rows.getString("verb")), rows.getString("verb"));
                    check(rows.getTimestamp(2).getTime() > 1_600_000_000_000L, rows.getTimestamp(2));
                    count++;
                }
            }
            check(count == records * 100, count);
        }
        System.out.println("queries, and a result of many batches");
    }

    static void prepared(Connection connection, int records) throws SQLException {
        String sql = "SELECT count(*) FROM audit WHERE _offset < $1 AND _value->>'verb' = $2";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int round = 0; round < 4; round++) {
                statement.setLong(1, round);
                statement.setString(2, "get");
                try (ResultSet rows = statement.executeQuery()) {
                    check(rows.next() && rows.getLong(1) == round, round);
                }
            }
        }
        System.out.println("prepared statements");
    }

    static void views(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            check(statement.executeUpdate("CREATE VIEW few AS SELECT _offset AS o FROM audit LIMIT 3") == 0, "a view");
            try (ResultSet rows = statement.executeQuery("SELECT count(*) FROM few")) {
                check(rows.next() && rows.getLong(1) == 3, "a view's rows");
            }
        }
        System.out.println("a view");
    }

    static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData metadata = connection.getMetaData();
        check("Aquifer".equals(metadata.getDatabaseProductName()), metadata.getDatabaseProductName());
        check(metadata.isReadOnly(), "it is read only");
        List<String> found = new ArrayList<>();
        try (ResultSet rows = metadata.getTables("default", "public", "%", new String[] {"TABLE", "VIEW"})) {
            while (rows.next()) {
                found.add(rows.getString("TABLE_NAME") + " " + rows.getString("TABLE_TYPE"));
            }
        }
        check(found.equals(List.of("audit TABLE", "few VIEW")), found);
        found.clear();
        // The driver looks for names itself, and knows no escaped characters.
        try (ResultSet rows = metadata.getColumns("default", "public", "audit", "_off%")) {
            while (rows.next()) {
                found.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME"));
            }
        }
        check(found.size() == 1 && found.get(0).startsWith("_offset"), found);
        try (ResultSet rows = metadata.getPrimaryKeys("default", "public", "audit")) {
            check(!rows.next(), "there are no keys");
        }
        try (ResultSet rows = metadata.getSchemas()) {
            check(rows.next() && rows.next() && !rows.next(), "there are two schemas");
        }
        System.out.println("metadata");
    }

    static void errors(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT * FROM audti");
            throw new AssertionError("a table that is not there was read");
        } catch (SQLException error) {
            check(error.getMessage().contains("unknown-table"), error.getMessage());
        }
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("SELECT 1")) {
            check(rows.next() && rows.getLong(1) == 1, "the connection goes on");
        }
        System.out.println("an error");
    }

    static void logins(String url, String user) {
        try (Connection connection = DriverManager.getConnection(url, user, "wrong")) {
            throw new AssertionError("a wrong password was let in");
        } catch (SQLException error) {
            String message = error.toString() + error.getCause();
            check(message.contains("password") || message.contains("UNAUTHENTICATED"), message);
        }
        System.out.println("a wrong password");
    }
}
