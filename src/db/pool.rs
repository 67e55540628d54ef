//! The pool: connections for reads and transactions off the hot path. One whose session has turned out to be of no use
//! is opened anew.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diesel::ConnectionError;
use diesel::connection::InstrumentationEvent;
use diesel::result::QueryResult;
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use helve_domain::error::{Error, Result};
use helve_postgres::Database;
use helve_postgres::target::Target;
use tracing::debug;

use super::connect::{self, PATIENCE};
use super::failure::{is_disconnected, is_of_session, map_error};
use super::turns::{Member, Turn};

/// What is said of a connection that is taken from the pool.
const STALE: &str = "its session is of no use any more";

/// Connections for reads and transactions off the hot path. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    connections: bb8::Pool<Manager>,
    size: u32,
    /// For which tenant it asks; `None`: for the engine itself, which waits for nobody's turn.
    member: Option<Member>,
}

/// A connection of the pool.
pub(in crate::db) struct Pooled<'a> {
    connection: bb8::PooledConnection<'a, Manager>,
    _turn: Option<Turn>,
}

impl Deref for Pooled<'_> {
    type Target = AsyncPgConnection;
    fn deref(&self) -> &AsyncPgConnection {
        &self.connection.conn
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection.conn
    }
}

/// Opens what the pool holds.
struct Manager {
    target: Target,
    database: Database,
    /// Counts up when a statement is refused for what its session is. Every session that was opened before goes.
    turn: Arc<AtomicU64>,
}

/// A connection with what is known of its session.
struct Session {
    conn: AsyncPgConnection,
    turn: u64,
    /// It takes no writes. The server or the role may take them again at any time, and a session keeps what it was opened
    /// with: it is used once. An engine that cannot write is not ready, so there is little to read.
    read_only: bool,
}

impl Manager {
    /// Asks memory, not the server: it costs no round trip, and after a restart of the database no caller meets the dead
    /// connections of before.
    fn is_stale(&self, session: &mut Session) -> bool {
        session.conn.is_broken() || session.turn != self.turn.load(Ordering::Acquire)
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Session;
    type Error = ConnectionError;

    async fn connect(&self) -> Result<Session, ConnectionError> {
        let turn = self.turn.load(Ordering::Acquire);
        let opened = connect::open(&self.target, &self.database).await?;
        let (mut conn, counter) = (opened.conn, Arc::clone(&self.turn));
        let read_only = opened.read_only;
        conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::FinishQuery { error: Some(e), .. } = event
                && is_of_session(e)
                && !read_only
            {
                // Of those that meet it at the same time, one is enough.
                let _ = counter.compare_exchange(turn, turn + 1, Ordering::AcqRel, Ordering::Acquire);
            }
        });
        Ok(Session { conn, turn, read_only })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), ConnectionError> {
        if self.is_stale(session) { Err(ConnectionError::BadConnection(STALE.to_owned())) } else { Ok(()) }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        std::thread::panicking() || session.read_only || self.is_stale(session)
    }
}

impl Pool {
    /// A pool on `database`; connects when first used.
    ///
    /// # Errors
    /// `Internal` when the URL or a certificate file cannot be read.
    pub fn new(database: &Database) -> Result<Self> {
        let target = Target::new(database, "pool")?;
        let pool = bb8::Pool::builder()
            .max_size(database.pool_size)
            .connection_timeout(PATIENCE)
            .test_on_check_out(true)
            .error_sink(Box::new(LogErrors { place: target.place(), database: database.clone() }))
            .build_unchecked(Manager { target, database: database.clone(), turn: Arc::default() });
        Ok(Self { connections: pool, size: database.pool_size, member: None })
    }

    /// Connections at once.
    pub(in crate::db) const fn size(&self) -> u32 {
        self.size
    }

    /// The same connections, as a tenant may use them.
    pub(in crate::db) fn for_member(&self, member: Member) -> Self {
        Self { member: Some(member), ..self.clone() }
    }

    /// The same, for a statement of which nobody knows how many rows it looks at.
    pub(in crate::db) fn long(&self) -> Self {
        Self { member: self.member.clone().map(Member::long), ..self.clone() }
    }

    /// The same without turns, and for whom it was.
    pub(in crate::db) fn apart(&self) -> (Self, Option<&Member>) {
        (Self { connections: self.connections.clone(), size: self.size, member: None }, self.member.as_ref())
    }

    /// A connection. Hold it for one statement or one transaction.
    ///
    /// # Errors
    /// `Unavailable` when there is none within 5 s; `Limited` when the tenant has too much underway.
    pub(in crate::db) async fn get(&self) -> Result<Pooled<'_>> {
        let turn = match &self.member {
            Some(member) => Some(member.turn().await?),
            None => None,
        };
        let connection = self.connections.get().await.map_err(|e| match e {
            bb8::RunError::TimedOut => Error::unavailable("no connection to the database came free"),
            bb8::RunError::User(e) => {
                debug!(error = %e, "the database cannot be reached");
                Error::unavailable("the database cannot be reached")
            }
        })?;
        Ok(Pooled { connection, _turn: turn })
    }

    /// Runs a read. One that meets a connection which has just died runs once more on a fresh one, so
    /// `query` must not write.
    pub(in crate::db) async fn run<T, F>(&self, query: F) -> Result<T>
    where
        T: Send,
        F: Send + Sync,
        for<'c> F: AsyncFn(&'c mut AsyncPgConnection) -> QueryResult<T>
            + Repeatable<&'c mut AsyncPgConnection, QueryResult<T>, Once: Send>,
    {
        let first = {
            let mut conn = self.get().await?;
            query(&mut conn).await
        };
        match first {
            Err(e) if is_disconnected(&e) => {
                debug!(error = %e, "connection lost, reading again");
                let mut conn = self.get().await?;
                query(&mut conn).await.map_err(map_error)
            }
            other => other.map_err(map_error),
        }
    }
}

/// An asynchronous closure whose futures can be named, to demand that they are `Send`: the language
/// cannot yet say that of an `AsyncFn`.
pub(in crate::db) trait Repeatable<A, R>: Fn(A) -> <Self as Repeatable<A, R>>::Once {
    /// The future of one call.
    type Once: Future<Output = R>;
}

impl<F, A, R, Once> Repeatable<A, R> for F
where
    F: Fn(A) -> Once,
    Once: Future<Output = R>,
{
    type Once = Once;
}

/// Says why the pool cannot connect.
#[derive(Debug, Clone)]
struct LogErrors {
    place: String,
    database: Database,
}

impl bb8::ErrorSink<ConnectionError> for LogErrors {
    fn sink(&self, error: ConnectionError) {
        match error {
            ConnectionError::BadConnection(e) if e == STALE => debug!("a connection of no use left the pool"),
            e => connect::note_lost(&self.database, &self.place, "pool", &e),
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ConnectionError>> {
        Box::new(self.clone())
    }
}
