//! Views: stored, expanded, listed, dropped.

use std::sync::atomic::Ordering;

use super::Fixture;

#[tokio::test]
async fn views_stand_for_their_statements() {
    let fixture = Fixture::new();
    let run = async |sql: &str| fixture.ask(sql).await;
    let made = run(
        "CREATE VIEW deletes AS SELECT _offset, _value->>'verb' AS verb FROM EVENTS WHERE _value->>'verb' = 'delete'",
    );
    assert_eq!(made.await.expect("a view").command, "CREATE VIEW");
    run("CREATE VIEW public.by_user AS SELECT d._offset, e._value->'user'->>'username' AS name FROM deletes d JOIN events e ON e._offset = d._offset")
        .await
        .expect("a view on a view");
    let cuts = fixture.server.cuts.load(Ordering::Relaxed);
    let found =
        run("SELECT NAME FROM by_user b JOIN events e ON e._offset = b._offset ORDER BY b._offset");
    assert_eq!(found.await.expect("rows").text(), "{\"name\":\"ann\"}\n{\"name\":null}\n");
    assert_eq!(fixture.server.cuts.load(Ordering::Relaxed), cuts + 1, "one cut a statement");
    let listed = run("SHOW TABLES LIKE '%d%'").await.expect("views").text();
    assert!(listed.contains("{\"name\":\"deletes\",\"type\":\"view\"}"), "{listed}");
    let columns = run("DESCRIBE by_user").await.expect("columns").text();
    assert!(columns.contains("\"name\",\"data_type\":\"text\""), "{columns}");
    let sql =
        run("SELECT view_definition FROM information_schema.views WHERE table_name = 'deletes'");
    assert!(sql.await.expect("SQL").text().contains("->> 'verb'"));
    assert_eq!(run("DROP VIEW Deletes").await.expect("it goes").command, "DROP VIEW");
    let broken = run("SELECT * FROM by_user").await.expect_err("it stands on nothing");
    assert!(broken.message.contains("in the view by_user"), "{broken:?}");
    let described =
        run("SELECT count(*) AS c FROM information_schema.columns WHERE table_name = 'by_user'");
    assert_eq!(described.await.expect("a count").text(), "{\"c\":0}\n");
}

#[tokio::test]
async fn what_cannot_be_a_view_is_refused() {
    let fixture = Fixture::new();
    let check = async |sql: &str, code: &str| {
        let refusal = fixture.ask(sql).await.expect_err(sql);
        assert_eq!(refusal.code, code, "{sql}: {refusal:?}");
    };
    check("CREATE VIEW events AS SELECT 1", "name-taken").await;
    check("CREATE VIEW EVENTS AS SELECT 1", "name-taken").await;
    check("CREATE VIEW \"a b\" AS SELECT 1", "view-name").await;
    check("CREATE VIEW v AS SELECT * FROM nothing", "unknown-table").await;
    check("CREATE VIEW v AS SELECT nothing FROM events", "unknown-column").await;
    check("CREATE VIEW v AS SELECT $1 AS x", "view-invalid").await;
    check("CREATE VIEW v (a) AS SELECT 1", "sql-syntax").await;
    check("CREATE VIEW v AS SELECT * FROM v", "view-cycle").await;
    check("DROP VIEW nothing", "unknown-table").await;
    check("DROP VIEW events", "not-a-view").await;
    fixture.ask("DROP VIEW IF EXISTS nothing").await.expect("nothing is gone");
    fixture.ask("CREATE VIEW a AS SELECT 1 AS x").await.expect("a view");
    check("CREATE VIEW a AS SELECT 2 AS x", "name-taken").await;
    fixture.ask("CREATE VIEW b AS SELECT * FROM a").await.expect("a view");
    check("CREATE OR REPLACE VIEW a AS SELECT * FROM b", "view-cycle").await;
    fixture.ask("CREATE OR REPLACE VIEW a AS SELECT 3 AS x").await.expect("it is replaced");
    assert_eq!(fixture.ask("SELECT x FROM b").await.expect("rows").text(), "{\"x\":3}\n");
}

#[tokio::test]
async fn views_that_multiply_are_refused() {
    let fixture = Fixture::new();
    {
        let mut views = fixture.server.views.lock();
        views.push(("v0".to_owned(), "SELECT _offset FROM events".to_owned()));
        for at in 1..30 {
            let below = at - 1;
            let sql = format!(
                "SELECT a._offset FROM v{below} a JOIN v{below} b ON a._offset = b._offset"
            );
            views.push((format!("v{at}"), sql));
        }
        views.push(("c1".to_owned(), "SELECT * FROM c2".to_owned()));
        views.push(("c2".to_owned(), "SELECT * FROM c1".to_owned()));
    }
    let check = async |sql: &str, code: &str| {
        let refusal = fixture.ask(sql).await.expect_err(sql);
        assert_eq!(refusal.code, code, "{refusal:?}");
    };
    check("SELECT * FROM v10", "statement-too-complex").await;
    check("SELECT * FROM v29", "statement-too-complex").await;
    check("SELECT * FROM c1", "view-cycle").await;
    let found = fixture.ask("SELECT count(*) AS c FROM v2").await.expect("rows");
    assert_eq!(found.text(), "{\"c\":8}\n");
}
