//! How a database spells what the catalog's SQL says.
//!
//! Templates name types as `{uuid}`, `{bigint}` and end a table with `{table}`
//! or `{clustered}`; parameters are `?1`, `?2`, … . Everything else is the
//! subset that SQLite and PostgreSQL share.

use std::borrow::Cow;

/// A database that can hold the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The embedded one.
    Sqlite,
    /// The shared one.
    Postgres,
}

impl Dialect {
    /// What each token of a template stands for.
    fn words(self) -> [(&'static str, &'static str); 4] {
        match self {
            Dialect::Sqlite => [
                ("{uuid}", "BLOB"),
                ("{bigint}", "INTEGER"),
                // Strict tables refuse values of a wrong type instead of keeping them.
                ("{table}", " STRICT"),
                ("{clustered}", " STRICT, WITHOUT ROWID"),
            ],
            Dialect::Postgres => {
                [("{uuid}", "UUID"), ("{bigint}", "BIGINT"), ("{table}", ""), ("{clustered}", "")]
            }
        }
    }

    /// Spells a template out. Templates hold no string literal with `?` or `{`.
    pub(crate) fn render(self, template: &'static str) -> Cow<'static, str> {
        let mut text = Cow::Borrowed(template);
        for (token, word) in self.words() {
            if text.contains(token) {
                text = Cow::Owned(text.replace(token, word));
            }
        }
        if self == Dialect::Postgres && text.contains('?') {
            text = Cow::Owned(text.replace('?', "$"));
        }
        text
    }
}
