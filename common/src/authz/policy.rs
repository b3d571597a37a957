//! The policy: which role may do what, where. Decided by casbin; answered from a table that casbin fills
//! cell by cell, since casbin itself is linear in its rules.

use std::collections::{HashMap, HashSet};
use std::sync::RwLock;

use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
use serde::{Deserialize, Serialize};

use crate::RegionName;

/// RBAC with regions as domains: a rule holds in one region or (`*`) in all; `g` makes one role include
/// another. The cheap comparisons come first; casbin evaluates left to right for every rule.
pub const MODEL: &str = r#"
[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = (p.dom == "*" || r.dom == p.dom) && (p.obj == "*" || r.obj == p.obj) && (p.act == "*" || r.act == p.act) && g(r.sub, p.sub)
"#;

/// `role` may do `action` on `resource` in `region` (`*` in the last three: any).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[schema(example = "employee")]
    pub role: String,
    #[schema(example = "*")]
    pub region: String,
    #[schema(example = "check_in")]
    pub resource: String,
    #[schema(example = "create")]
    pub action: String,
}

/// Whoever has `role` has `includes` too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Inheritance {
    pub role: String,
    pub includes: String,
}

type ByName<T> = HashMap<String, T>;

/// Role, region, resource, action → decision. Nested, so that a look-up borrows its key and allocates nothing.
#[derive(Default)]
struct Table {
    cells: ByName<ByName<ByName<ByName<bool>>>>,
    len: usize,
}

impl Table {
    fn get(&self, role: &str, region: &str, resource: &str, action: &str) -> Option<bool> {
        self.cells.get(role)?.get(region)?.get(resource)?.get(action).copied()
    }

    fn put(&mut self, role: &str, region: &str, resource: &str, action: &str, decision: bool) {
        // Roles come from signed tokens, so the table cannot be flooded from outside; a bound all the same.
        if self.len >= MAX_CELLS {
            *self = Self::default();
        }
        let actions = self.cells.entry(role.to_owned()).or_default().entry(region.to_owned()).or_default();
        let row = actions.entry(resource.to_owned()).or_default();
        if row.insert(action.to_owned(), decision).is_none() {
            self.len += 1;
        }
    }
}

const MAX_CELLS: usize = 100_000;

/// One version of the policy, ready to answer. Its table begins empty: no decision outlives its version.
pub struct Policy {
    version: i64,
    enforcer: Enforcer,
    decided: RwLock<Table>,
}

impl Policy {
    /// Refused whole when any rule does not parse.
    pub async fn new(version: i64, rules: &[Rule], roles: &[Inheritance]) -> anyhow::Result<Self> {
        anyhow::ensure!(!goes_in_a_circle(roles), "roles include each other in a circle");
        let model = DefaultModel::from_str(MODEL).await?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await?;
        let rules = rules
            .iter()
            .map(|r| vec![r.role.clone(), r.region.clone(), r.resource.clone(), r.action.clone()]);
        let roles = roles.iter().map(|r| vec![r.role.clone(), r.includes.clone()]);
        let (rules, roles): (Vec<_>, Vec<_>) = (rules.collect(), roles.collect());
        anyhow::ensure!(
            rules.iter().chain(&roles).flatten().all(|part| !part.trim().is_empty()),
            "a rule has an empty part"
        );
        enforcer.add_policies(rules).await?;
        enforcer.add_grouping_policies(roles).await?;
        Ok(Self { version, enforcer, decided: RwLock::default() })
    }

    pub fn version(&self) -> i64 {
        self.version
    }

    /// Whether `role`, held in `region`, allows `action` on `resource` there.
    pub fn allows(&self, role: &str, region: &str, resource: &str, action: &str) -> bool {
        if let Some(decision) =
            self.decided.read().expect("never poisoned").get(role, region, resource, action)
        {
            return decision;
        }
        let Some(decision) = self.ask_casbin(role, region, resource, action) else { return false };
        self.decided.write().expect("never poisoned").put(role, region, resource, action, decision);
        decision
    }

    /// casbin's own answer, which is what fills the table; its time grows with the number of rules. None: it
    /// cannot decide, which refuses and is not kept.
    pub fn ask_casbin(&self, role: &str, region: &str, resource: &str, action: &str) -> Option<bool> {
        match self.enforcer.enforce((role, region, resource, action)) {
            Ok(decision) => Some(decision),
            Err(error) => {
                tracing::error!(%error, "casbin cannot decide; refusing");
                None
            }
        }
    }
}

/// Whether some role includes itself by way of others; casbin would follow that only so far.
fn goes_in_a_circle(roles: &[Inheritance]) -> bool {
    let mut left: Vec<&Inheritance> = roles.iter().collect();
    // What nobody (any more) includes cannot be on a circle.
    loop {
        let before = left.len();
        let included: HashSet<&str> = left.iter().map(|i| i.includes.as_str()).collect();
        left.retain(|i| included.contains(i.role.as_str()));
        if left.len() == before {
            return before > 0;
        }
    }
}

/// Where something is done: in a region, or in what belongs to none (accounts, the catalogue).
pub fn domain(region: Option<&RegionName>) -> &str {
    region.map_or("global", RegionName::as_str)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
