//! The table of routes: the router and the API's description are both held
//! against it.

use axum::Router;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodRouter, delete, get, head, patch, post};

use crate::app::App;
use crate::problem::HttpProblem;
use crate::{
    Problem, append, chunks, groups, guard, iceberg, objects, operation, read, schema, search, sql,
    streams, tail, users,
};

type Route = (Method, &'static str, MethodRouter<App>);

fn routes() -> Vec<Route> {
    let get_route = |path, route| (Method::GET, path, route);
    let post_route = |path, route| (Method::POST, path, route);
    let delete_route = |path, route| (Method::DELETE, path, route);
    vec![
        get_route("/", get(operation::console)),
        get_route("/healthz", get(operation::healthz)),
        get_route("/readyz", get(operation::readyz)),
        get_route("/metrics", get(operation::metrics)),
        get_route("/openapi.json", get(operation::openapi)),
        get_route("/v1/streams", get(streams::list)),
        post_route("/v1/streams", post(streams::create)),
        get_route("/v1/streams/{stream}", get(streams::describe)),
        (Method::PATCH, "/v1/streams/{stream}", patch(streams::update)),
        delete_route("/v1/streams/{stream}", delete(streams::delete)),
        post_route("/v1/streams/{stream}/truncate", post(streams::truncate)),
        get_route(SCHEMA, get(schema::describe)),
        (Method::PATCH, SCHEMA, patch(schema::declare)),
        post_route("/v1/streams/{stream}/records", post(append::append)),
        get_route("/v1/streams/{stream}/records", get(read::read)),
        get_route("/v1/streams/{stream}/tail", get(tail::tail)),
        get_route("/v1/streams/{stream}/search", get(search::search)),
        get_route("/v1/streams/{stream}/histogram", get(search::histogram)),
        get_route("/v1/streams/{stream}/chunks", get(chunks::list)),
        post_route("/v1/sql", post(sql::ask)),
        get_route("/v1/groups", get(groups::list)),
        get_route("/v1/groups/{group}", get(groups::describe)),
        delete_route("/v1/groups/{group}", delete(groups::delete)),
        post_route("/v1/groups/{group}/positions", post(groups::commit)),
        post_route("/v1/groups/{group}/reset", post(groups::reset)),
        get_route("/v1/users", get(users::list)),
        post_route("/v1/users", post(users::create)),
        get_route("/v1/users/{user}", get(users::describe)),
        delete_route("/v1/users/{user}", delete(users::delete)),
        post_route("/v1/streams/{stream}/import", post(objects::upload)),
        get_route("/v1/imports", get(objects::list_imports)),
        post_route("/v1/imports", post(objects::create_import)),
        get_route("/v1/imports/{id}", get(objects::get_import)),
        delete_route("/v1/imports/{id}", delete(objects::delete_import)),
        get_route("/v1/watches", get(objects::list_watches)),
        post_route("/v1/watches", post(objects::create_watch)),
        get_route("/v1/watches/{id}", get(objects::get_watch)),
        (Method::PATCH, "/v1/watches/{id}", patch(objects::change_watch)),
        delete_route("/v1/watches/{id}", delete(objects::delete_watch)),
        get_route("/v1/exports", get(objects::list_exports)),
        post_route("/v1/exports", post(objects::create_export)),
        get_route("/v1/exports/{id}", get(objects::get_export)),
        delete_route("/v1/exports/{id}", delete(objects::delete_export)),
        get_route("/iceberg/v1/config", get(iceberg::config)),
        get_route("/iceberg/v1/namespaces", get(iceberg::namespaces)),
        get_route(NAMESPACE, get(iceberg::describe_namespace)),
        (Method::HEAD, NAMESPACE, head(iceberg::has_namespace)),
        get_route("/iceberg/v1/namespaces/{namespace}/tables", get(iceberg::list)),
        get_route(TABLE, get(iceberg::load)),
        (Method::HEAD, TABLE, head(iceberg::has_table)),
    ]
}

const SCHEMA: &str = "/v1/streams/{stream}/schema";
const NAMESPACE: &str = "/iceberg/v1/namespaces/{namespace}";
const TABLE: &str = "/iceberg/v1/namespaces/{namespace}/tables/{table}";

/// The paths of all routes, as labels of metrics.
const PATHS: [&str; 34] = [
    "/v1/streams/{stream}/records",
    "/v1/streams/{stream}/tail",
    "/v1/streams/{stream}/search",
    "/v1/streams/{stream}/histogram",
    "/v1/streams",
    "/v1/streams/{stream}",
    "/v1/streams/{stream}/truncate",
    "/v1/streams/{stream}/chunks",
    SCHEMA,
    "/v1/sql",
    "/v1/groups",
    "/v1/groups/{group}",
    "/v1/groups/{group}/positions",
    "/v1/groups/{group}/reset",
    "/v1/users",
    "/v1/users/{user}",
    "/v1/streams/{stream}/import",
    "/v1/imports",
    "/v1/imports/{id}",
    "/v1/watches",
    "/v1/watches/{id}",
    "/v1/exports",
    "/v1/exports/{id}",
    "/iceberg/v1/config",
    "/iceberg/v1/namespaces",
    NAMESPACE,
    "/iceberg/v1/namespaces/{namespace}/tables",
    TABLE,
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    UNKNOWN_PATH,
];
const UNKNOWN_PATH: &str = "unknown";

/// A route's path without a copy of it.
pub(crate) fn known_path(path: &str) -> &'static str {
    PATHS.into_iter().find(|known| *known == path).unwrap_or(UNKNOWN_PATH)
}

/// The router over all routes.
pub(crate) fn router(app: App) -> Router {
    let mut router = Router::new();
    for (_, path, route) in routes() {
        router = router.route(path, route);
    }
    router
        .fallback(|| async {
            Problem::new(aquifer_types::ErrorKind::NotFound, "no such path")
                .next("See /openapi.json for the paths.")
        })
        .method_not_allowed_fallback(|| async {
            Problem::http(HttpProblem::MethodNotAllowed, "the path has no such method")
        })
        .layer(middleware::from_fn_with_state(app.clone(), guard::observe))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(operation::OPENAPI).unwrap();
        let mut found = BTreeSet::new();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                found.insert(format!("{} {path}", method.to_uppercase()));
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(operation["responses"].is_object(), "{method} {path} has no responses");
            }
        }
        let expected: BTreeSet<_> =
            routes().into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_path_is_a_label() {
        for (_, path, _) in routes() {
            assert_eq!(known_path(path), path);
        }
        assert_eq!(known_path("/favicon.ico"), UNKNOWN_PATH);
    }

    #[test]
    fn every_route_and_problem_is_in_the_manual() {
        let manual = include_str!("../../../docs/http.md");
        for (method, path, _) in routes() {
            let row = format!("| `{method} {path}` |");
            assert!(manual.contains(&row), "docs/http.md has no row {row}");
        }
        for name in crate::problem::NAMES {
            assert!(manual.contains(&format!("`{name}`")), "docs/http.md does not name {name}");
        }
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let described: serde_json::Value = serde_json::from_str(operation::OPENAPI).unwrap();
        fn visit(root: &serde_json::Value, value: &serde_json::Value, found: &mut usize) {
            match value {
                serde_json::Value::Object(fields) => {
                    if let Some(serde_json::Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.trim_start_matches('#');
                        assert!(root.pointer(pointer).is_some(), "{reference}");
                        *found += 1;
                    }
                    fields.values().for_each(|value| visit(root, value, found));
                }
                serde_json::Value::Array(values) => {
                    values.iter().for_each(|value| visit(root, value, found));
                }
                _ => {}
            }
        }
        let mut found = 0;
        visit(&described, &described, &mut found);
        assert!(found > 10);
    }
}
