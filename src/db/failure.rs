//! What the database's errors mean for the caller: the one place that maps them.

use diesel::result::DatabaseErrorKind as Kind;
use diesel::result::Error as Query;
use helve_domain::error::Error;
use tracing::{debug, error, warn};

/// Messages, in the language C, of a server that goes down, comes up, or has no room. The driver's error
/// reaches us without its SQLSTATE.
const AWAY: [&str; 14] = [
    "terminating connection",
    "the database system is",
    "remaining connection slots are reserved",
    "sorry, too many clients already",
    "canceling statement due to statement timeout",
    "canceling statement due to lock timeout",
    // The disk is full, or the memory.
    "could not extend file",
    "could not write to file",
    "out of memory",
    "out of shared memory",
    // It protects itself: its transaction ids run out.
    "database is not accepting commands",
    // A pooler has given the session to somebody else meanwhile.
    "prepared statement \"",
    "connection closed",
    "error communicating with the server",
];

fn message(e: &Query) -> &str {
    match e {
        Query::DatabaseError(_, info) => info.message(),
        _ => "",
    }
}

/// The connection died: what was sent may or may not have been executed.
pub(in crate::db) fn is_disconnected(e: &Query) -> bool {
    match e {
        Query::DatabaseError(Kind::ClosedConnection | Kind::UnableToSendCommand, _)
        | Query::BrokenTransactionManager => true,
        Query::DatabaseError(..) => message(e).starts_with("terminating connection"),
        _ => false,
    }
}

/// The session takes no writes: its server is a standby, or its role or database says so. Nothing was done.
fn is_read_only(e: &Query) -> bool {
    matches!(e, Query::DatabaseError(Kind::ReadOnlyTransaction, _))
}

/// The statement was refused for what its session is: another one may do it.
pub(in crate::db) fn is_of_session(e: &Query) -> bool {
    is_read_only(e) || message(e).starts_with("prepared statement \"")
}

/// Nothing was done, and the same statement may succeed at once.
fn is_retryable(e: &Query) -> bool {
    matches!(e, Query::DatabaseError(Kind::SerializationFailure, _)) || message(e) == "deadlock detected"
}

/// The statement ran longer than the session's `statement_timeout`, and was undone.
pub(in crate::db) fn is_statement_timeout(e: &Query) -> bool {
    message(e).starts_with("canceling statement due to statement timeout")
}

/// The error of a read, or of one statement that was certainly not executed. Unique violations are the
/// caller's to look at before.
pub(in crate::db) fn map_error(e: Query) -> Error {
    if is_read_only(&e) {
        warn!(error = %e, "the database takes no writes: it is a standby, or default_transaction_read_only is on");
        return Error::unavailable("the database takes no writes at present: it is read-only");
    }
    let away = is_retryable(&e) || AWAY.iter().any(|text| message(&e).starts_with(text));
    if is_disconnected(&e) {
        // Who opens the next connection says whether there is an outage.
        debug!(error = %e, "a connection of the database ended");
        return Error::unavailable("the database did not answer");
    }
    if away {
        warn!(error = %e, "the database did not answer");
        return Error::unavailable("the database did not answer");
    }
    error!(error = %e, "a statement failed");
    Error::Internal(format!("database: {e}"))
}

/// The error of a write: a connection that was lost leaves it open whether it happened.
pub(in crate::db) fn map_write_error(e: Query) -> Error {
    if is_disconnected(&e) {
        warn!(error = %e, "connection lost during a write");
        return Error::OutcomeUnknown;
    }
    map_error(e)
}

#[cfg(test)]
mod tests {
    use helve_domain::error::Code;

    use super::*;

    fn failed(kind: Kind, text: &str) -> Query {
        Query::DatabaseError(kind, Box::new(text.to_owned()))
    }

    #[test]
    fn a_lost_connection_is_unavailable_for_reads_and_unknown_for_writes() {
        let shutdown = || failed(Kind::Unknown, "terminating connection due to administrator command");
        let cut = || failed(Kind::UnableToSendCommand, "connection closed");
        for lost in [shutdown, cut] {
            assert_eq!(map_error(lost()).code(), Code::Unavailable);
            assert_eq!(map_write_error(lost()).code(), Code::OutcomeUnknown);
        }
        let starting = failed(Kind::Unknown, "the database system is starting up");
        assert_eq!(map_write_error(starting).code(), Code::Unavailable);
    }

    #[test]
    fn what_the_server_s_state_refuses_is_unavailable_and_the_session_goes() {
        let standby = || failed(Kind::ReadOnlyTransaction, "cannot execute INSERT in a read-only transaction");
        let forgotten = || failed(Kind::Unknown, "prepared statement \"s1\" does not exist");
        let full = || failed(Kind::Unknown, "could not extend file \"base/5/16384\": No space left on device");
        for (refused, of_session) in [(standby(), true), (forgotten(), true), (full(), false)] {
            assert_eq!(is_of_session(&refused), of_session);
            assert_eq!(map_write_error(refused).code(), Code::Unavailable);
        }
    }

    #[test]
    fn only_what_was_rolled_back_runs_again() {
        assert!(is_retryable(&failed(Kind::Unknown, "deadlock detected")));
        assert!(is_retryable(&failed(Kind::SerializationFailure, "could not serialize access")));
        assert!(!is_retryable(&failed(Kind::UnableToSendCommand, "connection closed")));
        assert_eq!(map_error(failed(Kind::Unknown, "division by zero")).code(), Code::Internal);
    }
}
