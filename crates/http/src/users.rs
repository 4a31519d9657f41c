//! Users: create, list, describe and delete those who may log in.
//!
//! A password comes in and never goes out: not in an answer, not in a problem,
//! not in the log.

use aquifer_users::{Creation, Password, User, UserName};
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::app::{App, json, segment, tenant};
use crate::parameters::Parameters;

/// The segment `{user}` of the path.
pub(crate) struct UserAt(UserName);

impl<S: Send + Sync> FromRequestParts<S> for UserAt {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(UserName::new(&segment(parts, state).await?)?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    password: String,
    #[serde(default)]
    iterations: Option<u32>,
    #[serde(default)]
    replace: bool,
}

#[derive(Serialize)]
struct UsersJson {
    users: Vec<UserJson>,
}

#[derive(Serialize)]
struct UserJson {
    name: String,
    created: i64,
    mechanisms: Vec<MechanismJson>,
}

#[derive(Serialize)]
struct MechanismJson {
    name: &'static str,
    iterations: u32,
}

impl UserJson {
    fn new(user: &User) -> Self {
        let mechanisms = user.verifiers.iter().map(|(hash, verifier)| MechanismJson {
            name: hash.as_str(),
            iterations: verifier.iterations(),
        });
        Self {
            name: user.name.to_string(),
            created: user.created.get(),
            mechanisms: mechanisms.collect(),
        }
    }
}

pub(crate) async fn list(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let users = app.users.list(&tenant())?;
    json(StatusCode::OK, &UsersJson { users: users.iter().map(UserJson::new).collect() })
}

pub(crate) async fn describe(
    State(app): State<App>,
    UserAt(user): UserAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    json(StatusCode::OK, &UserJson::new(&app.users.get(&tenant(), &user)?))
}

pub(crate) async fn create(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    // The parser's own words could show a piece of the password.
    let new: New = serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(format!(
            "the body is not {{\"name\", \"password\", \"iterations\"?, \"replace\"?}} (line {}, \
             column {})",
            error.line(),
            error.column()
        ))
    })?;
    let name = UserName::new(&new.name)?;
    let password = Password::new(new.password)?;
    let creation = if new.replace { Creation::Replace } else { Creation::New };
    let user = app.users.create(&tenant(), &name, password, new.iterations, creation).await?;
    json(StatusCode::CREATED, &UserJson::new(&user))
}

pub(crate) async fn delete(
    State(app): State<App>,
    UserAt(user): UserAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    app.users.delete(&tenant(), &user).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl From<aquifer_users::Error> for Problem {
    fn from(error: aquifer_users::Error) -> Self {
        use aquifer_users::Error as E;
        match error {
            E::Store(error) => error.into(),
            error => {
                let problem = Self::new(error.kind(), error.to_string());
                match error {
                    E::NotFound(_) => problem.next("GET /v1/users lists the users."),
                    E::Exists(_) => {
                        problem.next("Say \"replace\": true to give the user a new password.")
                    }
                    _ => problem,
                }
            }
        }
    }
}
