//! Finding workflows: in memory, and else in the database, which is asked for no more than is needed.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::error::Result;
use helve_domain::id::TenantId;

use super::catalog::{Catalog, Entry};
use super::{Shared, workflows};

/// How long it counts that the database had no such workflow: another engine may have registered it since.
const REFRESH: Duration = Duration::from_secs(5);
/// Bytes of definitions that are read where they are needed; more of them are a long piece of work.
const QUICK_BYTES: usize = 64 << 10;

impl Shared {
    /// Looks a workflow up by its name. One that is not in memory is asked for alone, unless it is known to be absent: a
    /// tenant may have thousands, and a request that names none must cost nothing.
    pub(super) async fn named<T>(
        &self,
        tenant: TenantId,
        name: &str,
        look: impl Fn(&Catalog) -> Option<T>,
    ) -> Result<Option<T>> {
        if let Some(known) = self.known(tenant, name, &look) {
            return Ok(known);
        }
        let _stripe = self.stripe(tenant).await?;
        // Another caller may have read it while this one waited.
        if let Some(known) = self.known(tenant, name, &look) {
            return Ok(known);
        }
        let before = self.forgotten();
        let rows = workflows::current(&self.pool, tenant, Some(name)).await?;
        let entry = self.entries(tenant, rows).await?.pop();
        let mut catalogs = self.catalogs.write().unwrap_or_else(PoisonError::into_inner);
        let mut passing = Catalog::default();
        // What was forgotten meanwhile may be older than what it was forgotten for.
        let catalog = if self.forgotten() == before { catalogs.entry(tenant).or_default() } else { &mut passing };
        match entry {
            Some(entry) => catalog.insert(entry),
            None => catalog.note_absent(name, self.clock.now()),
        }
        Ok(look(catalog))
    }

    /// `None`: the memory cannot tell, the database must be asked. `Some(None)`: there is none.
    #[expect(clippy::option_option, reason = "known to be absent differs from not known")]
    fn known<T>(&self, tenant: TenantId, name: &str, look: impl Fn(&Catalog) -> Option<T>) -> Option<Option<T>> {
        let catalogs = self.catalogs.read().unwrap_or_else(PoisonError::into_inner);
        let catalog = catalogs.get(&tenant)?;
        let found = look(catalog);
        let absent = || catalog.absent_since(name).is_some_and(|since| self.is_recent(since));
        (found.is_some() || absent()).then_some(found)
    }

    /// The workflows that an event of this key starts; none that matches counts only while what is known is recent.
    pub(super) async fn matching(&self, tenant: TenantId, key: &str) -> Result<Vec<Arc<Spec>>> {
        self.among_all(tenant, |catalog| catalog.matching(key), |specs| !specs.is_empty()).await
    }

    /// Those of these actions that no workflow has; one that is found in memory counts, one that is not only while what
    /// is known is recent.
    pub(super) async fn without_workflow(&self, tenant: TenantId, actions: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        self.among_all(tenant, |catalog| catalog.without_workflow(actions), Vec::is_empty).await
    }

    /// Looks at all of the tenant's workflows. `settled`: what was found counts however old it is.
    async fn among_all<T>(
        &self,
        tenant: TenantId,
        look: impl Fn(&Catalog) -> T,
        settled: impl Fn(&T) -> bool,
    ) -> Result<T> {
        if let Some(found) = self.known_among_all(tenant, &look, &settled) {
            return Ok(found);
        }
        let _stripe = self.stripe(tenant).await?;
        if let Some(found) = self.known_among_all(tenant, &look, &settled) {
            return Ok(found);
        }
        let before = self.forgotten();
        let read_at = self.clock.now();
        let rows = workflows::current(&self.pool, tenant, None).await?;
        let entries = self.entries(tenant, rows).await?;
        let mut catalogs = self.catalogs.write().unwrap_or_else(PoisonError::into_inner);
        let mut passing = Catalog::default();
        let catalog = if self.forgotten() == before { catalogs.entry(tenant).or_default() } else { &mut passing };
        catalog.replace(entries, read_at);
        Ok(look(catalog))
    }

    fn known_among_all<T>(
        &self,
        tenant: TenantId,
        look: impl Fn(&Catalog) -> T,
        settled: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let catalogs = self.catalogs.read().unwrap_or_else(PoisonError::into_inner);
        let catalog = catalogs.get(&tenant)?;
        let since = catalog.complete_since()?;
        Some(look(catalog)).filter(|found| settled(found) || self.is_recent(since))
    }

    /// Reads rows.
    async fn entries(&self, tenant: TenantId, rows: Vec<workflows::Workflow>) -> Result<Vec<Entry>> {
        let limits = Arc::clone(&self.limits);
        let read = move |rows: Vec<workflows::Workflow>| rows.into_iter().map(|row| Entry::of(row, &limits)).collect();
        if rows.iter().map(|row| row.definition.len()).sum::<usize>() <= QUICK_BYTES {
            return read(rows);
        }
        self.checks.run(tenant, move |_| read(rows)).await?
    }

    fn is_recent(&self, since: Timestamp) -> bool {
        self.clock.now().since(since) < REFRESH
    }
}
