//! Workers' hellos: a session is opened for a socket, and only as long as that is there.

use std::sync::atomic::Ordering;

use helve_core::{Command, Incoming, NewSession, Transport};
use helve_domain::delivery::Welcome;
use helve_domain::error::{Error, Result};
use helve_domain::id::{SessionId, WorkerId};
use tokio::sync::{mpsc, oneshot};

use super::intake::{fresh_secret, hash, shard_of};
use super::replies::Reply;
use super::{Owner, Socket};
use crate::hub::Outbox;
use crate::sched::lanes::batch::Class;
use crate::sched::{Connection, Hello, Request, Scheduler};

/// A hello on its way. Whoever gives up on it, or is cut off, leaves no session behind.
struct Opening<'s> {
    intake: &'s mpsc::Sender<Request>,
    transport: Option<u64>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(transport) = self.transport {
            // An owner that has no room for it now finds the outbox closed when it sweeps.
            let _ = self.intake.try_send(Request::Gone { transport });
        }
    }
}

impl Scheduler {
    /// Opens or resumes a session: committed when this returns. The socket must write the welcome
    /// before anything of the outbox.
    pub async fn connect(&self, hello: Hello, outbox: Outbox) -> Result<(Welcome, Connection)> {
        let (reply, answer) = oneshot::channel();
        let transport = self.transports.fetch_add(1, Ordering::Relaxed);
        let mut opening = Opening { intake: &self.intake, transport: Some(transport) };
        let opened = self.ask(Request::Connect { hello, transport, outbox, reply }, answer).await??;
        opening.transport = None;
        Ok(opened)
    }
}

impl Owner {
    pub fn connect(
        &mut self,
        hello: Hello,
        transport: Transport,
        outbox: Outbox,
        reply: oneshot::Sender<Result<(Welcome, Connection)>>,
    ) {
        let Ok(secret) = fresh_secret() else {
            let _ = reply.send(Err(Error::Internal("the system gives no random numbers".to_owned())));
            return;
        };
        let now = self.clock.now();
        let shard = shard_of(hello.tenant);
        let session = SessionId::generate(now);
        let resumes = hello.resume.as_ref().map(|r| r.session);
        self.sockets.insert(transport, Socket { shard, session, resumes, outbox });
        let (resume, holding) = match hello.resume {
            Some(r) => (Some((r.session, hash(&r.secret))), r.holding),
            None => (None, Vec::new()),
        };
        let new = NewSession {
            tenant: hello.tenant,
            worker: WorkerId::generate(now),
            session,
            secret,
            transport,
            info: hello.info,
            resume,
            holding,
        };
        let ticket = self.ticket(shard, Reply::Connect { transport, reply });
        self.step(shard, Command::Connect(Box::new(new), ticket), Class::Single);
    }

    /// A socket is gone before its welcome came to it. Nobody knows the secret of a new session: it is over at once,
    /// whether its row is written or not. One that was to go on has lost its socket.
    pub fn gone(&mut self, transport: Transport) {
        let Some(socket) = self.sockets.get(&transport) else { return };
        let (shard, session, resumes) = (socket.shard, socket.session, socket.resumes);
        // Which of the two it is only the core knows: of the other one this is not the socket.
        if resumes != Some(session) {
            self.step(shard, Command::Worker { session, transport, message: Incoming::Goodbye }, Class::Single);
        }
        if let Some(session) = resumes {
            self.step(shard, Command::Worker { session, transport, message: Incoming::Lost }, Class::Single);
        }
        self.sockets.remove(&transport);
    }

    /// Sockets whose end nobody could report.
    pub fn sweep_sockets(&mut self) {
        let closed = self.sockets.iter().filter(|(_, socket)| socket.outbox.is_closed());
        let closed: Vec<_> = closed.map(|(transport, s)| (*transport, s.shard, [Some(s.session), s.resumes])).collect();
        for (transport, shard, sessions) in closed {
            for session in sessions.into_iter().flatten() {
                self.step(shard, Command::Worker { session, transport, message: Incoming::Lost }, Class::Single);
            }
            self.sockets.remove(&transport);
        }
    }
}
