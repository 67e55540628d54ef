//! The two group-commit writers' connections: one statement at a time, fenced by the lane's row.

mod columns;
mod create;
mod finish;
mod open;
mod parts;
mod readback;
mod workers;

use diesel_async::RunQueryDsl;
use uuid::Uuid;

pub use create::{CreateRows, KeyWon};
pub use finish::{FinishOutcome, FinishRows};
pub use open::{LOCK, terminate_backend};
pub use readback::Traces;

use self::parts::{RARE, Rows, Statement};
use crate::db::driven::Driven;
use crate::db::failure;
use crate::db::sqlstate::{LastState, SqlState};

/// Payloads up to this many bytes stand in the run's row; larger ones in a table of their own.
pub const INLINE: usize = 1_024;

/// Which of the two writers a connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneName {
    /// New runs and events.
    Create,
    /// Everything else.
    Finish,
}

impl LaneName {
    /// Its name in the lane's row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Finish => "finish",
        }
    }
}

/// Why a batch has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneError {
    /// The answer is lost: the batch may be committed, or be executing still.
    Unknown(String),
    /// The server refused the contents of the batch; nothing was written.
    Poison(String),
    /// A row belongs to a week that has no table; nothing was written.
    NoWeek(String),
    /// The server could not do it now; nothing was written.
    Aborted(Refusal),
    /// Another process has taken over: this one must not go on.
    Fenced,
}

/// What the server said instead of writing a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its words.
    pub why: String,
    /// Its code; `None` where it is not known: nothing was sent, or the connection is not listened to.
    pub code: Option<SqlState>,
}

impl Refusal {
    /// Of something that never reached the server.
    pub fn unsent(why: impl Into<String>) -> Self {
        Self { why: why.into(), code: None }
    }

    /// Whether the same may go through at once: another transaction was in the way and is over.
    pub fn is_conflict(&self) -> bool {
        self.code.is_some_and(|code| code.class() == *b"40")
    }

    /// Whether somebody holds a lock that the batch needs: on one row, or on a table.
    pub fn is_locked(&self) -> bool {
        self.code == Some(SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether it may be one transition's fault when it lasts. The server as a whole is in trouble when it has no
    /// room (53), is interrupted (57), meets errors of its system (58), refuses connections or writes (08, 25, 28).
    pub fn may_be_of_one(&self) -> bool {
        self.code.is_some_and(|code| !matches!(&code.class(), b"08" | b"25" | b"28" | b"40" | b"53" | b"57" | b"58"))
    }
}

/// The connection of one lane with its epoch.
pub struct LaneConnection {
    driven: Driven,
    node: Uuid,
    epoch: i64,
}

/// Sends the statement of a batch: of the listed contents with a type of its own, of others as a rare one.
macro_rules! send {
    ($lane:ident.$drive:ident, $rows:expr, [$($known:path),+]) => {{
        let (node, epoch, rows) = ($lane.node, $lane.epoch, $rows);
        let Driven { conn, driver, last_error } = &mut $lane.driven;
        match rows.contents() {
            $($known => driver.$drive(Statement::<_, { $known }>::of(node, epoch, rows).load(conn)).await,)+
            _ => driver.$drive(Statement::<_, RARE>::of(node, epoch, rows).load(conn)).await,
        }
        .map_err(|e| classify(e, last_error))
    }};
}

impl LaneConnection {
    /// Writes new runs and events. Gives which create keys were won.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn create(&mut self, rows: &CreateRows<'_>) -> Result<KeyWon, LaneError> {
        let found: Vec<Option<Uuid>> = send!(self.drive, rows, [create::ONE_RUN, create::PLAIN_RUNS])?;
        if found.is_empty() {
            return Err(LaneError::Fenced);
        }
        Ok(KeyWon(found.into_iter().flatten().collect()))
    }

    /// Ends and moves open runs. Gives which of them were as expected.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn finish(&mut self, rows: &FinishRows<'_>) -> Result<FinishOutcome, LaneError> {
        use finish::{BOTH, ONE_END, ONE_MOVE, ONE_OF_BOTH, ONLY_ENDS, ONLY_MOVES};
        let known = send!(self.drive_alone, rows, [ONE_END, ONE_MOVE, ONE_OF_BOTH, ONLY_ENDS, ONLY_MOVES, BOTH])?;
        let mut outcome = FinishOutcome::from_rows(known).ok_or(LaneError::Fenced)?;
        let apart = outcome.without_input(rows);
        if !apart.is_empty() {
            // The statement is committed: whatever goes wrong here, its rows tell what it did.
            let read = finish::Inputs { ids: apart }.load(&mut self.driven.conn);
            let inputs = self.driven.driver.drive(read).await.map_err(|e| LaneError::Unknown(e.to_string()))?;
            outcome.add_inputs(inputs);
        }
        Ok(outcome)
    }

    /// Writes a pause as it is now, or removes it.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn pause(&mut self, row: &helve_domain::change::PauseRow) -> Result<(), LaneError> {
        use crate::db::pauses::{Drop, Fence, Put};
        let (node, epoch, Driven { conn, driver, last_error }) = (self.node, self.epoch, &mut self.driven);
        let found: Vec<Fence> = match &row.pause {
            Some(pause) => driver.drive(Put::of(node, epoch, row, pause).load(conn)).await,
            None => driver.drive(Drop::of(node, epoch, row).load(conn)).await,
        }
        .map_err(|e| classify(e, last_error))?;
        if found.is_empty() { Err(LaneError::Fenced) } else { Ok(()) }
    }

    /// Writes workers as they are now, and removes those that are gone.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn workers(
        &mut self,
        put: &[&helve_domain::change::WorkerRow],
        gone: &[helve_domain::id::WorkerId],
    ) -> Result<(), LaneError> {
        let rows = &workers::WorkerRows::new(put, gone);
        let found: Vec<Option<Uuid>> = send!(self.drive, rows, [workers::WORKERS])?;
        if found.is_empty() { Err(LaneError::Fenced) } else { Ok(()) }
    }
}

/// What an error means for the batch, by its code: classes 21 (a row twice), 22 (data), 23 (constraints) and 54 (limits
/// of the program) are about what the batch contains.
fn classify(e: diesel::result::Error, last: &LastState) -> LaneError {
    use diesel::result::{DatabaseErrorKind as Kind, Error};
    let (why, code) = (e.to_string(), last.take());
    if failure::is_disconnected(&e) {
        return LaneError::Unknown(why);
    }
    // Weeks are cut by ranges, not by constraints: a row without a week violates nothing that has a name.
    if let Error::DatabaseError(Kind::CheckViolation, about) = &e
        && about.constraint_name().is_none()
    {
        return LaneError::NoWeek(why);
    }
    let poison = match &e {
        Error::SerializationError(_) => true,
        // Where the code is unknown, the kinds that Diesel knows are told apart all the same.
        Error::DatabaseError(Kind::UniqueViolation | Kind::NotNullViolation | Kind::ForeignKeyViolation, _) => true,
        _ => code.is_some_and(|code| matches!(&code.class(), b"21" | b"22" | b"23" | b"54")),
    };
    if poison { LaneError::Poison(why) } else { LaneError::Aborted(Refusal { why, code }) }
}
