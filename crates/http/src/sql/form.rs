//! The forms of an answer.

use aquifer_query::AnswerForm;
use axum::http::HeaderMap;

use crate::Problem;
use crate::accept::accepted;

/// What a client asked for in `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The rows, and nothing else.
    Rows(AnswerForm),
    /// Server-sent events: rows, and how far it is.
    Events,
}

impl Form {
    pub(super) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        accepted(headers, Self::Rows(AnswerForm::Ndjson), |name| match name {
            "*/*"
            | "application/*"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl" => Some(Self::Rows(AnswerForm::Ndjson)),
            "application/json" => Some(Self::Rows(AnswerForm::Json)),
            "text/csv" | "text/*" => Some(Self::Rows(AnswerForm::Csv)),
            "application/vnd.apache.arrow.stream" => Some(Self::Rows(AnswerForm::Arrow)),
            "text/event-stream" => Some(Self::Events),
            _ => None,
        })
    }

    /// How the engine is to write the rows.
    pub(super) const fn answer_form(self) -> AnswerForm {
        match self {
            Self::Rows(form) => form,
            Self::Events => AnswerForm::Rows,
        }
    }
}

/// The media type of rows.
pub(super) const fn media_type(form: AnswerForm) -> &'static str {
    match form {
        AnswerForm::Ndjson | AnswerForm::Rows => "application/x-ndjson",
        AnswerForm::Json => "application/json",
        AnswerForm::Csv => "text/csv; charset=utf-8; header=present",
        AnswerForm::Arrow => "application/vnd.apache.arrow.stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};

    use super::*;

    #[test]
    fn forms_are_accepted() {
        let check = |accept: &str, expected: Option<Form>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            assert_eq!(Form::accepted(&headers).ok(), expected, "{accept}");
        };
        check("*/*", Some(Form::Rows(AnswerForm::Ndjson)));
        check("application/json", Some(Form::Rows(AnswerForm::Json)));
        check("text/csv", Some(Form::Rows(AnswerForm::Csv)));
        check("text/event-stream, */*;q=0.1", Some(Form::Events));
        check(
            "application/vnd.apache.arrow.stream;q=0.9, text/html",
            Some(Form::Rows(AnswerForm::Arrow)),
        );
        check("text/html", None);
        assert_eq!(Form::accepted(&HeaderMap::new()).ok(), Some(Form::Rows(AnswerForm::Ndjson)));
    }
}
