//! A statement whose connection is cut while the server executes it: it waits for a lock that we hold.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::{Fate, First, PATIENCE, Session, Stream};
use crate::oracle::store;
use crate::oracle::wire::{Message, message};

impl Session<'_> {
    /// Passes on a statement, which then waits for a lock. Returns the connection that holds the lock; `None`: the
    /// statement never waited.
    pub(super) async fn hold(&mut self, first: Message) -> std::io::Result<Option<tokio_postgres::Client>> {
        let side = store::connect(&self.control.direct, &self.control.supervisor).await.ok();
        let lock = "set lock_timeout = '5s'; begin; lock table open_run in share row exclusive mode";
        let locked = match &side {
            Some(side) => side.batch_execute(lock).await.is_ok(),
            None => false,
        };
        self.forward(first, true).await?;
        let Some(side) = side.filter(|_| locked) else { return Ok(None) };
        Ok(if waits_for_lock(&side, self.pid).await { Some(side) } else { None })
    }

    /// Cuts off the engine from a statement that waits for a lock of `side`, and reports how the statement ended.
    pub(super) async fn cut_while_executing(
        self,
        side: &tokio_postgres::Client,
        order: First,
    ) -> std::io::Result<Fate> {
        self.control.shut.send_replace(order == First::Statement);
        // A reset, as from a machine that is gone: the engine notices at once.
        self.client.set_zero_linger()?;
        drop(self.client);
        let end = ended(self.server, self.from_server);
        let fate = match order {
            First::Statement => {
                let _ = side.batch_execute("rollback").await;
                end.await
            }
            First::Engine => {
                let fate = tokio::time::timeout(PATIENCE, end).await.unwrap_or(Fate::Committed);
                let _ = side.batch_execute("rollback").await;
                fate
            }
        };
        self.control.shut.send_replace(false);
        Ok(fate)
    }
}

/// Reads what nobody listens to any more: a statement that completes was committed, one that is cut off was not.
async fn ended(mut server: Box<dyn Stream>, mut buffer: BytesMut) -> Fate {
    let mut fate = Fate::Committed;
    loop {
        while let Some(message) = message(&mut buffer) {
            match message.kind {
                b'E' => fate = Fate::Aborted,
                b'Z' => return fate,
                _ => {}
            }
        }
        if !matches!(server.read_buf(&mut buffer).await, Ok(n) if n > 0) {
            return Fate::Aborted;
        }
    }
}

/// Whether the backend starts to wait for a lock, which means that its statement is executing.
async fn waits_for_lock(side: &tokio_postgres::Client, pid: i32) -> bool {
    for _ in 0..200 {
        let waiting =
            side.query_one("select exists (select from pg_locks where pid = $1 and not granted)", &[&pid]).await;
        match waiting.map(|row| row.get::<_, bool>(0)) {
            Ok(true) => return true,
            Ok(false) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => return false,
        }
    }
    false
}
