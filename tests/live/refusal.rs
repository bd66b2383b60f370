//! What the server says when it refuses a statement.

use postgres::Client;
use postgres::types::ToSql;

#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Refusal {
    /// Of a statement that must be refused; the session must be fit for the next one.
    pub fn of(client: &mut Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Self {
        let error = match client.query(sql, parameters) {
            Ok(rows) => panic!("accepted, with {} rows: {sql} {parameters:?}", rows.len()),
            Err(error) => error,
        };
        let Some(error) = error.as_db_error() else {
            panic!("the session ended or the driver refused: {error:?}: {sql} {parameters:?}")
        };
        // XX000 is what PostgreSQL calls a bug, and what a panic becomes.
        assert_ne!(
            error.code().code(),
            "XX000",
            "{}: {sql} {parameters:?}",
            error.message()
        );
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
        }
    }

    /// Asserts the SQLSTATE, and words that the message must have.
    #[track_caller]
    pub fn says(self, code: &str, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.message.contains(word), "no {word:?} in {self:?}");
        }
        self
    }

    #[track_caller]
    pub fn hints(self) -> Self {
        assert!(self.hint.as_deref().is_some_and(|hint| !hint.is_empty()), "{self:?}");
        self
    }
}
