//! `POST /v1/sql`: statements, and their answers in several forms.
//!
//! `request` reads what is asked, `aquifer_query` answers it, `body` and
//! `events` hand the answer on at the client's pace: nothing is queued for a
//! slow one, and a client that goes ends its statement. What goes wrong before
//! the first byte is a problem with a status of its own; afterwards the body
//! breaks off without its end, so that half an answer is never taken for one.
//!
//! It never computes an answer, and never decides what a statement may do.

pub(crate) mod body;
mod cut;
pub(crate) mod events;
mod form;
pub(crate) mod parts;
pub(crate) mod refusal;
mod request;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;

use crate::Problem;
use crate::app::App;
use crate::parameters::Parameters;
use form::Form;

const CUT: HeaderName = HeaderName::from_static("aquifer-query-cut");

pub(crate) async fn ask(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let form = Form::accepted(&head.headers)?;
    Parameters::parse(head.uri.query(), &[])?;
    let body = app.document_body(&head, body).await.map_err(|problem| match problem.status() {
        StatusCode::PAYLOAD_TOO_LARGE => problem.next("Send a shorter statement."),
        _ => problem,
    })?;
    let question = request::question(&body, form)?;
    drop(body);
    let answer = app.queries.ask(question).await.map_err(refusal::problem)?;
    let cut = cut::header(&answer.cut);
    let mut response = match form {
        Form::Rows(form) => body::respond(&app, form, parts::of(answer)).await?,
        Form::Events => events::respond(&app, answer, "rows"),
    };
    if let Some(cut) = cut {
        response.headers_mut().insert(CUT, cut);
    }
    Ok(response)
}
