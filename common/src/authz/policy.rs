//! The policy: which role may do what, where. Decided by casbin; answered from a table that casbin fills
//! cell by cell, since casbin itself is linear in its rules.

use std::collections::HashMap;
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

type Cell = (String, String, String, String);

/// One version of the policy, ready to answer.
pub struct Policy {
    version: i64,
    enforcer: Enforcer,
    decided: RwLock<HashMap<Cell, bool>>,
}

impl Policy {
    /// Refused whole when any rule does not parse.
    pub async fn new(version: i64, rules: &[Rule], roles: &[Inheritance]) -> anyhow::Result<Self> {
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
        let cell = (role.to_owned(), region.to_owned(), resource.to_owned(), action.to_owned());
        if let Some(decision) = self.decided.read().expect("never poisoned").get(&cell) {
            return *decision;
        }
        let decision = match self.enforcer.enforce((role, region, resource, action)) {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(%error, "casbin cannot decide; refusing");
                return false;
            }
        };
        let mut decided = self.decided.write().expect("never poisoned");
        // Roles come from signed tokens, so the table cannot be flooded from outside; a bound all the same.
        if decided.len() >= 100_000 {
            decided.clear();
        }
        decided.insert(cell, decision);
        decision
    }
}

/// Where something is done: in a region, or in what belongs to none (accounts, the catalogue).
pub fn domain(region: Option<&RegionName>) -> &str {
    region.map_or("global", RegionName::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(line: &str) -> Rule {
        let mut parts = line.split_whitespace().map(str::to_owned);
        let mut next = || parts.next().unwrap();
        Rule { role: next(), region: next(), resource: next(), action: next() }
    }

    #[tokio::test]
    async fn roles_regions_and_inheritance_decide() {
        let rules = [rule("employee * check_in create"), rule("manager eu show *"), rule("admin * * *")];
        let roles = [Inheritance { role: "manager".into(), includes: "employee".into() }];
        let policy = Policy::new(1, &rules, &roles).await.unwrap();
        assert!(policy.allows("employee", "us", "check_in", "create"));
        assert!(!policy.allows("employee", "us", "show", "create"));
        assert!(policy.allows("manager", "us", "check_in", "create"));
        assert!(policy.allows("manager", "eu", "show", "create"));
        assert!(!policy.allows("manager", "us", "show", "create"));
        assert!(policy.allows("admin", "global", "user", "disable"));
        assert!(!policy.allows("nobody", "eu", "show", "create"));
        // The second answer comes from the table.
        assert!(policy.allows("manager", "eu", "show", "create"));
    }

    #[tokio::test]
    async fn a_policy_with_an_empty_part_is_refused_whole() {
        let bad = Rule { role: "x".into(), region: " ".into(), resource: "y".into(), action: "z".into() };
        assert!(Policy::new(1, &[bad], &[]).await.is_err());
    }
}
