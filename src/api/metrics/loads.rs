//! The load of actions: what the owner's memory holds, and what waits only in the database.

use std::collections::HashMap;

use helve_core::ActionLoad;
use helve_domain::error::Result;
use helve_domain::id::TenantId;

use crate::db::{Pool, queues};

/// Queued runs that are counted in the database: of one action, and of all together, but some of each.
const COUNTED: usize = 10_000;
const COUNTED_IN_ALL: usize = 200_000;
const COUNTED_AT_LEAST: usize = 100;
/// Actions that are looked for in the database.
const ACTIONS: usize = 1_000;

/// Completes what memory knows. Memory holds every queued run of most actions; the others are counted. False: there
/// are more actions with queued runs than are looked for.
pub async fn complete(
    pool: &Pool,
    tenant: Option<TenantId>,
    owned: impl Fn(TenantId) -> bool,
    actions: Vec<ActionLoad>,
) -> Result<(Vec<ActionLoad>, bool)> {
    let limit = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut waiting = queues::waiting(pool, tenant, limit(ACTIONS + 1)).await?;
    let all = waiting.len() <= ACTIONS;
    let mut known: HashMap<(TenantId, String), ActionLoad> =
        actions.into_iter().map(|load| ((load.tenant, load.action.to_string()), load)).collect();
    waiting.retain(|key| owned(key.0) && known.get(key).is_none_or(|load| !load.whole));
    let counted = (COUNTED_IN_ALL / waiting.len().max(1)).clamp(COUNTED_AT_LEAST, COUNTED);
    for depth in queues::depths(pool, &waiting, limit(counted)).await? {
        let action = depth.action.as_str().into();
        let load = known.entry((depth.tenant, depth.action)).or_insert_with(|| ActionLoad::idle(depth.tenant, action));
        load.queued = load.queued.max(depth.queued);
        load.oldest = [load.oldest, depth.oldest].into_iter().flatten().min();
    }
    Ok((known.into_values().collect(), all))
}
