//! A proxy between the engine and PostgreSQL that cuts a lane's connection at a chosen point of its commit.

mod executing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use helve_domain::error::Result;
use helve_supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio_postgres::config::Host;

use super::failure;
use super::wire::{Lane, Message, Opening, Statements, backend_pid, message, opening};
use crate::lock::lock;

/// How long a statement waits for the engine to end it. After that it is released, and commits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where in a lane's statement the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// The server sees nothing of the statement.
    Before,
    /// The server executed the statement and is never told to commit: it rolls back.
    Uncommitted,
    /// The server committed; its answer is lost.
    After,
    /// The server executes the statement while the engine's side is already gone.
    While(First),
}

/// Which comes first when a statement continues without its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum First {
    /// The statement: the engine returns when it is committed.
    Statement,
    /// The engine: the statement waits for a lock until the engine's recovery ends it.
    Engine,
}

/// What happened to the statement that was cut, as the proxy saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the database.
    Committed,
    /// It is not.
    Aborted,
}

/// How the proxy treats all of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Holds connections open, passes nothing on, and accepts no new ones beyond the socket.
    BlackHole,
    /// Waits before passing anything on.
    Slow(Duration),
}

struct Armed {
    lane: Lane,
    way: Way,
    skip: u32,
    fired: oneshot::Sender<Fate>,
}

/// What the connections share.
struct Control {
    upstream: Upstream,
    /// The database behind the proxy, for the side connection that holds a lock.
    direct: String,
    supervisor: Supervisor,
    armed: Mutex<Option<Armed>>,
    mode: watch::Sender<Mode>,
    /// New connections wait.
    shut: watch::Sender<bool>,
    statements: Mutex<BTreeMap<Lane, u64>>,
}

#[derive(Debug, Clone)]
enum Upstream {
    Tcp(String),
    Unix(PathBuf),
}

/// A running proxy. Ends with its supervisor.
pub struct Proxy {
    /// The database URL to give to the engine.
    pub url: String,
    control: Arc<Control>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Proxy {
    /// A proxy in front of the database at `direct`.
    ///
    /// # Errors
    /// `Internal` when the URL names no host and database, or there is no port to listen on.
    pub async fn start(direct: &str, supervisor: &Supervisor) -> Result<Self> {
        let wrong = |err: &dyn std::fmt::Display| failure(format!("the fault proxy: {err}"));
        let config: tokio_postgres::Config = direct.parse().map_err(|err: tokio_postgres::Error| wrong(&err))?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let upstream = match config.get_hosts().first().ok_or_else(|| wrong(&"the URL names no host"))? {
            Host::Tcp(host) => Upstream::Tcp(format!("{host}:{port}")),
            Host::Unix(folder) => Upstream::Unix(folder.join(format!(".s.PGSQL.{port}"))),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|err| wrong(&err))?;
        let url = format!(
            "postgres://{}@{}/{}?sslmode=disable",
            config.get_user().unwrap_or("postgres"),
            listener.local_addr().map_err(|err| wrong(&err))?,
            config.get_dbname().ok_or_else(|| wrong(&"the URL names no database"))?,
        );
        let control = Arc::new(Control {
            upstream,
            direct: direct.to_owned(),
            supervisor: supervisor.clone(),
            armed: Mutex::new(None),
            mode: watch::Sender::new(Mode::Pass),
            shut: watch::Sender::new(false),
            statements: Mutex::default(),
        });
        let shared = Arc::clone(&control);
        super::start(supervisor, "fault proxy", async move {
            while let Ok((client, _)) = listener.accept().await {
                let control = Arc::clone(&shared);
                super::start(&shared.supervisor, "fault proxy session", async move {
                    // A broken connection is left to its two sides.
                    let _ = Session::serve(client, &control).await;
                });
            }
        });
        Ok(Self { url, control })
    }

    /// Cuts the lane's connection on the statement after the next `skip`, and reports what happened to it. A statement
    /// that failed by itself, or never waited, does not count: the next one is cut. `None`: it did not happen within
    /// `limit`.
    pub async fn cut(&self, lane: Lane, way: Way, mut skip: u32, limit: Duration) -> Option<Fate> {
        let cutting = async {
            loop {
                let (fired, outcome) = oneshot::channel();
                *lock(&self.control.armed) = Some(Armed { lane, way, skip, fired });
                if let Ok(fate) = outcome.await {
                    return fate;
                }
                skip = 0;
            }
        };
        let outcome = tokio::time::timeout(limit, cutting).await;
        *lock(&self.control.armed) = None;
        outcome.ok()
    }

    /// Changes the treatment of all connections, from now on.
    pub fn mode(&self, mode: Mode) {
        self.control.mode.send_replace(mode);
    }

    /// The number of a lane's statements so far.
    pub fn statements(&self, lane: Lane) -> u64 {
        lock(&self.control.statements).get(&lane).copied().unwrap_or(0)
    }
}

impl Control {
    /// Counts a lane's statement; returns the armed cut if this is the statement that it waits for.
    fn take(&self, lane: Lane) -> Option<Armed> {
        *lock(&self.statements).entry(lane).or_default() += 1;
        let mut slot = lock(&self.armed);
        let armed = slot.as_mut().filter(|a| a.lane == lane)?;
        if armed.skip > 0 {
            armed.skip -= 1;
            return None;
        }
        slot.take()
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match &self.upstream {
            Upstream::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Upstream::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// One connection of the engine, with its counterpart to the server.
struct Session<'a> {
    control: &'a Control,
    client: TcpStream,
    from_client: BytesMut,
    server: Box<dyn Stream>,
    from_server: BytesMut,
    statements: Statements,
    pid: i32,
}

impl<'a> Session<'a> {
    async fn serve(mut client: TcpStream, control: &'a Control) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let mut shut = control.shut.subscribe();
        if shut.wait_for(|shut| !shut).await.is_err() {
            return Ok(());
        }
        let mut buffer = BytesMut::new();
        let startup = loop {
            match opening(&mut buffer) {
                Some(Opening::Encryption) => client.write_all(b"N").await?,
                Some(Opening::Cancel(bytes)) => return control.connect().await?.write_all(&bytes).await,
                Some(Opening::Startup(bytes)) => break bytes,
                None if client.read_buf(&mut buffer).await? == 0 => return Ok(()),
                None => {}
            }
        };
        let mut server = control.connect().await?;
        server.write_all(&startup).await?;
        let from_server = BytesMut::new();
        let statements = Statements::default();
        Self { control, client, from_client: buffer, server, from_server, statements, pid: 0 }.pass().await
    }

    /// Passes messages on until a side ends or an armed cut applies.
    async fn pass(mut self) -> std::io::Result<()> {
        let mut mode = self.control.mode.subscribe();
        loop {
            let now = *mode.borrow_and_update();
            match now {
                Mode::BlackHole => {
                    if mode.changed().await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Mode::Slow(pause) => tokio::time::sleep(pause).await,
                Mode::Pass => {}
            }
            while let Some(message) = message(&mut self.from_client) {
                let lane = self.statements.starts(&message);
                if let Some(armed) = lane.and_then(|lane| self.control.take(lane)) {
                    return self.cut(armed, message).await;
                }
                self.server.write_all(&message.bytes).await?;
            }
            while let Some(message) = message(&mut self.from_server) {
                if let Some(pid) = backend_pid(&message) {
                    self.pid = pid;
                }
                self.client.write_all(&message.bytes).await?;
            }
            let ended = tokio::select! {
                read = self.client.read_buf(&mut self.from_client) => read? == 0,
                read = self.server.read_buf(&mut self.from_server) => read? == 0,
                changed = mode.changed() => changed.is_err(),
            };
            if ended {
                return Ok(());
            }
        }
    }

    /// Ends the session at the chosen point of the statement that begins with `first`.
    async fn cut(mut self, armed: Armed, first: Message) -> std::io::Result<()> {
        let fate = match armed.way {
            Way::Before => Fate::Aborted,
            Way::Uncommitted => {
                self.forward(first, false).await?;
                // A flush makes the server report that it has executed; a sync would report only after the commit.
                self.server.write_all(&[b'H', 0, 0, 0, 4]).await?;
                match self.answer(b"CE").await? {
                    Some(Fate::Committed) => Fate::Aborted,
                    // The statement failed by itself: this cut proves nothing.
                    Some(Fate::Aborted) | None => return Ok(()),
                }
            }
            Way::After => {
                self.forward(first, true).await?;
                match self.answer(b"Z").await? {
                    Some(Fate::Committed) => Fate::Committed,
                    Some(Fate::Aborted) | None => return Ok(()),
                }
            }
            Way::While(order) => match self.hold(first).await? {
                Some(side) => self.cut_while_executing(&side, order).await?,
                // A statement that needs no lock, about workers or a pause, is left alone: the lane would only send it
                // again and again.
                None => {
                    drop(armed);
                    return Box::pin(self.pass()).await;
                }
            },
        };
        let _ = armed.fired.send(fate);
        Ok(())
    }

    /// Passes on the rest of the statement, with or without its sync.
    async fn forward(&mut self, first: Message, sync: bool) -> std::io::Result<()> {
        let mut next = Some(first);
        loop {
            match next.take().or_else(|| message(&mut self.from_client)) {
                Some(m) if m.kind == b'S' && !sync => return Ok(()),
                Some(m) => {
                    self.server.write_all(&m.bytes).await?;
                    if matches!(m.kind, b'S' | b'Q') {
                        return Ok(());
                    }
                }
                None => {
                    if self.client.read_buf(&mut self.from_client).await? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    /// Swallows the server's answer up to a message of one of these kinds. `None`: the server ended the connection.
    async fn answer(&mut self, last: &[u8]) -> std::io::Result<Option<Fate>> {
        let mut fate = Fate::Committed;
        loop {
            while let Some(message) = message(&mut self.from_server) {
                if message.kind == b'E' {
                    fate = Fate::Aborted;
                }
                if last.contains(&message.kind) {
                    return Ok(Some(fate));
                }
            }
            if self.server.read_buf(&mut self.from_server).await? == 0 {
                return Ok(None);
            }
        }
    }
}
