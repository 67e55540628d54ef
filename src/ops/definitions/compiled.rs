//! How much memory compiled input schemas take: each tenant has so much, and all together. Past that the oldest are
//! given up; the next check compiles them again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use helve_domain::id::TenantId;
use helve_domain::schema::InputSchema;

/// Bytes of one tenant's compiled schemas, and of all. One that is larger by itself stays until the next.
const OF_TENANT: usize = 32 << 20;
const OF_ALL: usize = 256 << 20;

/// The schemas that may be compiled, in the order in which they were.
#[derive(Default)]
pub(super) struct Compiled(Mutex<HashMap<TenantId, VecDeque<Weak<InputSchema>>>>);

impl Compiled {
    /// A schema of a tenant was compiled.
    pub(super) fn note(&self, tenant: TenantId, schema: &Arc<InputSchema>) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is gone, or was given up by others, counts no more.
        tenants.retain(|_, schemas| {
            schemas.retain(|schema| schema.upgrade().is_some_and(|schema| schema.compiled_bytes().is_some()));
            !schemas.is_empty()
        });
        let own = tenants.entry(tenant).or_default();
        if !own.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(schema))) {
            own.push_back(Arc::downgrade(schema));
        }
        while bytes(own) > OF_TENANT && own.len() > 1 {
            forget_first(own);
        }
        while tenants.values().map(bytes).sum::<usize>() > OF_ALL {
            // Who has most gives up first.
            let Some(most) = tenants.values_mut().max_by_key(|schemas| bytes(schemas)) else { return };
            forget_first(most);
        }
    }
}

fn bytes(schemas: &VecDeque<Weak<InputSchema>>) -> usize {
    schemas.iter().filter_map(Weak::upgrade).filter_map(|schema| schema.compiled_bytes()).sum()
}

fn forget_first(schemas: &mut VecDeque<Weak<InputSchema>>) {
    if let Some(schema) = schemas.pop_front().and_then(|schema| schema.upgrade()) {
        schema.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use helve_domain::clock::Clock;
    use helve_domain::json::Payload;
    use helve_domain::schema::Input;
    use serde_json::{Value, json};

    use super::*;

    fn compiled(kept: &Compiled, tenant: TenantId, schema: &Value) -> Arc<InputSchema> {
        InputSchema::validate("", schema).unwrap();
        let schema = Arc::new(InputSchema::stored(schema));
        let input = Input { at: "", workflow: "w", payload: &Payload::null() };
        schema.check(input, &Arc::new(AtomicBool::new(false))).unwrap();
        kept.note(tenant, &schema);
        schema
    }

    #[test]
    fn a_tenant_gives_up_its_oldest_and_nobody_elses() {
        let kept = Compiled::default();
        let (attacker, other) = (1, 2);
        let [attacker, other] = [attacker, other].map(|_| TenantId::generate(Clock::system().now()));
        let small = compiled(&kept, other, &json!({"type": "null"}));
        // As heavy as a schema may be for its few bytes.
        let patterns: Vec<_> = (0..100).map(|n| json!({"pattern": format!("x{{900}}{n}")})).collect();
        let heavy = json!({"anyOf": patterns});
        let all: Vec<_> = (0..4).map(|_| compiled(&kept, attacker, &heavy)).collect();
        let left: Vec<_> = all.iter().map(|schema| schema.compiled_bytes().is_some()).collect();
        assert_eq!(left, [false, false, false, true], "{:?}", all[3].compiled_bytes());
        assert!(small.compiled_bytes().is_some());
        small.forget();
        drop(all);
        compiled(&kept, other, &json!({}));
        assert_eq!(kept.0.lock().unwrap().len(), 1, "what is gone is not kept in mind");
    }
}
