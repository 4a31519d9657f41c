//! Tickets: what a client shows to get the rows of a statement.
//!
//! A ticket of a statement holds its text, so that the server keeps nothing for
//! rows that nobody fetches. It gives nobody anything: whoever shows one is
//! asked for a proof like everybody, and may ask the same without a ticket.
//!
//! | bytes | |
//! |---|---|
//! | 0 | version, 1 |
//! | 1..17 | the run's id, by which it is cancelled |
//! | 17.. | the statement, UTF-8 |

use arrow_flight::sql::{Any, ProstMessageExt as _, TicketStatementQuery};
use bytes::Bytes;
use prost::Message as _;

use crate::problem::Problem;

const VERSION: u8 = 1;
const ID_BYTES: usize = 16;

/// What cancels refer to: a ticket's run, or a prepared statement's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RunId(pub(crate) [u8; ID_BYTES]);

/// A statement that is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatementTicket {
    pub(crate) run: RunId,
    pub(crate) sql: String,
}

impl RunId {
    /// One that was never used.
    pub(crate) fn new(random: &dyn aquifer_env::Random) -> Self {
        let mut id = [0; ID_BYTES];
        random.fill(&mut id);
        Self(id)
    }

    /// Reads a handle.
    pub(crate) fn of_handle(handle: &[u8]) -> Option<Self> {
        handle.try_into().ok().map(Self)
    }

    /// The id as a handle.
    pub(crate) fn to_handle(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl StatementTicket {
    /// The bytes of a ticket of Flight.
    pub(crate) fn to_ticket(&self) -> Bytes {
        let mut handle = Vec::with_capacity(1 + ID_BYTES + self.sql.len());
        handle.push(VERSION);
        handle.extend_from_slice(&self.run.0);
        handle.extend_from_slice(self.sql.as_bytes());
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        ticket.as_any().encode_to_vec().into()
    }

    /// Reads the handle in a ticket.
    ///
    /// # Errors
    /// What no server of this version has given.
    pub(crate) fn of_handle(handle: &[u8]) -> Result<Self, Problem> {
        let malformed = || {
            let message = "this is no ticket of this server: ask for the statement's flight anew";
            Problem::invalid("ticket-malformed", message)
        };
        let (version, rest) = handle.split_first().ok_or_else(malformed)?;
        let (run, sql) = rest.split_first_chunk::<ID_BYTES>().ok_or_else(malformed)?;
        let sql = std::str::from_utf8(sql).map_err(|_| malformed())?;
        if *version != VERSION {
            return Err(malformed());
        }
        Ok(Self { run: RunId(*run), sql: sql.to_owned() })
    }
}

/// The run that a ticket is about; none where it cannot be cancelled.
pub(crate) fn run_of(ticket: &[u8]) -> Option<RunId> {
    use arrow_flight::sql::Command;
    match Command::try_from(Any::decode(ticket).ok()?).ok()? {
        Command::TicketStatementQuery(ticket) => {
            StatementTicket::of_handle(&ticket.statement_handle).ok().map(|of| of.run)
        }
        Command::CommandPreparedStatementQuery(prepared) => {
            RunId::of_handle(&prepared.prepared_statement_handle)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> StatementTicket {
        StatementTicket { run: RunId(*b"0123456789abcdef"), sql: "SELECT 'ä'".to_owned() }
    }

    fn handle() -> Vec<u8> {
        let any = Any::decode(ticket().to_ticket()).unwrap();
        let ticket: TicketStatementQuery = any.unpack().unwrap().unwrap();
        ticket.statement_handle.to_vec()
    }

    #[test]
    fn a_ticket_comes_back_as_it_was() {
        let handle = handle();
        assert_eq!(&handle[..17], b"\x010123456789abcdef");
        assert_eq!(StatementTicket::of_handle(&handle).unwrap(), ticket());
        assert_eq!(run_of(&ticket().to_ticket()), Some(ticket().run));
        let mut wrong = handle.clone();
        wrong[0] = 2;
        for wrong in [&wrong[..], &handle[..10], b"", b"\x010123456789abcdef\xff"] {
            let problem = StatementTicket::of_handle(wrong).unwrap_err();
            assert_eq!(problem.name, "ticket-malformed", "{wrong:?}");
        }
    }

    #[test]
    fn fuzz_flight_tickets() {
        let corpus = [ticket().to_ticket().to_vec(), handle(), Vec::new()];
        aquifer_testkit::fuzz("flight_tickets", 0.2, &corpus, |bytes| {
            let _ = StatementTicket::of_handle(bytes);
            let _ = run_of(bytes);
        });
    }
}
