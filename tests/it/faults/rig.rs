//! An engine process under load, with its ledger: what every fault test has in common.

use std::ops::{Deref, DerefMut};

use helve::db::Pool;
use helve_bench::oracle::rig::{self, Target};
pub use helve_bench::oracle::rig::{GRACE, SILENCE, Size};
use helve_bench::oracle::verdict::Report;
use helve_postgres::Database;
use helve_supervisor::Supervisor;

use crate::support::process::EngineProcess;
use crate::support::provision;

/// An engine, its load and what is known of both.
pub struct Rig {
    /// The engine.
    pub engine: EngineProcess,
    load: rig::Rig,
}

impl Deref for Rig {
    type Target = rig::Rig;
    fn deref(&self) -> &rig::Rig {
        &self.load
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut rig::Rig {
        &mut self.load
    }
}

impl Rig {
    /// Starts an engine on the migrated database at `database`, which it reaches by `through`; workers and clients.
    pub async fn start(optimistic: bool, database: &str, through: &str) -> Self {
        let rig = Self::launch(optimistic, database, through, &Size::default(), ("", "")).await;
        rig.progress(50).await;
        rig
    }

    /// As [`Rig::start`], with another load and one more setting of the engine, if its name is not empty; waits for
    /// no result.
    pub async fn launch(optimistic: bool, database: &str, through: &str, size: &Size, more: (&str, &str)) -> Self {
        let pool = Pool::new(&Database { pool_size: 1, ..Database::at(database) }).unwrap();
        let (_, token) = provision(&pool, "load").await;
        let mut env = rig::settings(optimistic);
        env.extend(Some(more).filter(|(name, _)| !name.is_empty()).map(|(n, v)| (n.to_owned(), v.to_owned())));
        let engine = EngineProcess::start_with(through, env).await;
        let target = Target { url: engine.url.clone(), token, database: database.to_owned() };
        let load = rig::Rig::launch(target, size, &Supervisor::default()).await.unwrap();
        Self { engine, load }
    }

    /// Waits until so many more results were confirmed: the work goes on.
    pub async fn progress(&self, results: usize) {
        self.load.progress(results).await.unwrap();
    }

    /// Ends everything and judges it: nothing may be found, and each fault must have happened so often.
    pub async fn finish(self, faults: &[(&'static str, u32)]) -> Report {
        let report = self.end().await.judge(faults).await;
        println!("{report}");
        report.assert_clean();
        report
    }

    /// Ends the load, waits until everything has ended, fills every slot once, and stops workers and engine.
    pub async fn end(mut self) -> End {
        let end = End(self.load.end().await.unwrap());
        let open = end.0.open().await.unwrap();
        if !open.is_empty() {
            println!("{} runs do not end:\n{}\n{}", open.len(), open.join("\n"), self.engine.log_tail(60));
        }
        self.engine.stop().await;
        self.engine.check_log();
        end
    }
}

/// What is left of a load.
pub struct End(rig::End);

impl Deref for End {
    type Target = rig::End;
    fn deref(&self) -> &rig::End {
        &self.0
    }
}

impl End {
    /// Compares the facts with the store.
    pub async fn judge(&self, faults: &[(&'static str, u32)]) -> Report {
        self.0.judge(faults).await.unwrap()
    }
}
