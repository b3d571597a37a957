//! The policy as a whole: reading it, seeding it, and whether it leaves a way to administer.

use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, Model, StringAdapter};
use common::Problem;
use common::authz::{Inheritance, Policy, Rule, policy::MODEL};
use common::proto::feed as proto;
use deadpool_postgres::{GenericClient, Pool};

use super::adapter::PgAdapter;
use crate::db;
use crate::fault::{Fault, Result};
use crate::feed::store::{self, Whole};

/// The readable file with which a new platform starts.
pub const DEFAULT: &str = include_str!("../../policy/default.csv");

/// All rules, in the order of their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub rules: Vec<Rule>,
    pub roles: Vec<Inheritance>,
}

impl Rules {
    fn from_model(model: &dyn Model) -> Self {
        let part = |parts: &[String], i: usize| parts.get(i).cloned().unwrap_or_default();
        let rule = |p: &Vec<String>| Rule {
            role: part(p, 0),
            region: part(p, 1),
            resource: part(p, 2),
            action: part(p, 3),
        };
        let role = |g: &Vec<String>| Inheritance { role: part(g, 0), includes: part(g, 1) };
        let mut all = Self {
            rules: model.get_policy("p", "p").iter().map(rule).collect(),
            roles: model.get_policy("g", "g").iter().map(role).collect(),
        };
        all.rules.sort();
        all.roles.sort();
        all
    }

    pub fn into_feed(self, version: i64) -> proto::Policy {
        let rule =
            |r: Rule| proto::Rule { role: r.role, region: r.region, resource: r.resource, action: r.action };
        let role = |i: Inheritance| proto::Inheritance { role: i.role, includes: i.includes };
        proto::Policy {
            version,
            rules: self.rules.into_iter().map(rule).collect(),
            roles: self.roles.into_iter().map(role).collect(),
        }
    }

    /// Ready to decide; refused whole when any rule does not parse.
    pub async fn compile(&self, version: i64) -> Result<Policy> {
        Policy::new(version, &self.rules, &self.roles).await.map_err(|e| {
            Problem::unprocessable("invalid-policy", format!("the policy does not hold: {e}")).into()
        })
    }

    /// Every role that a rule speaks of.
    pub fn knows_role(&self, role: &str) -> bool {
        self.rules.iter().any(|r| r.role == role)
            || self.roles.iter().any(|i| i.role == role || i.includes == role)
    }
}

pub async fn load<C: GenericClient>(db: &C) -> Result<Rules> {
    let mut model = empty_model().await?;
    PgAdapter::new(db).load_policy(&mut model).await.map_err(unreadable)?;
    Ok(Rules::from_model(&model))
}

async fn empty_model() -> Result<DefaultModel> {
    DefaultModel::from_str(MODEL).await.map_err(unreadable)
}

pub fn unreadable(error: casbin::Error) -> Fault {
    Problem::internal(format!("casbin: {error}")).into()
}

/// Loads the default policy into an empty database; answers the feed's position if it did.
pub async fn seed(pool: &Pool) -> Result<Option<i64>> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    store::lock(&tx).await?;
    if store::version(&tx, Whole::Policy).await?.is_some() {
        return Ok(None);
    }
    let mut enforcer =
        Enforcer::new(empty_model().await?, StringAdapter::new(DEFAULT)).await.map_err(unreadable)?;
    Rules::from_model(enforcer.get_model()).compile(1).await?;
    PgAdapter::new(&tx).save_policy(enforcer.get_mut_model()).await.map_err(unreadable)?;
    let (_, position) = store::changed(&tx, Whole::Policy).await?;
    tx.commit().await?;
    tracing::info!("the default policy was loaded");
    Ok(Some(position))
}

/// Whether somebody can still administer: an account in use whose role, held everywhere, may give roles and
/// change the policy.
pub async fn has_admin(db: &impl GenericClient, policy: &Policy) -> Result<bool> {
    let sql = "SELECT DISTINCT r.role FROM user_roles r JOIN users u ON u.id = r.user_id
               WHERE r.region = '' AND NOT u.disabled AND u.deleted_at IS NULL";
    let rows = db::rows(db, sql, &[]).await?;
    Ok(rows.iter().any(|row| {
        let role: &str = row.get(0);
        policy.allows(role, "global", "user", "roles") && policy.allows(role, "global", "policy", "write")
    }))
}

/// 409: a change would leave nobody who can administer.
pub fn last_admin() -> Problem {
    Problem::conflict("last-admin", "this would leave nobody who can administer the platform")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_default_policy_says_what_each_role_may() {
        let enforcer =
            Enforcer::new(empty_model().await.unwrap(), StringAdapter::new(DEFAULT)).await.unwrap();
        let rules = Rules::from_model(enforcer.get_model());
        assert_eq!((rules.rules.len(), rules.roles.len()), (21, 1));
        let policy = rules.compile(1).await.unwrap();
        for (role, region, resource, action, expected) in [
            ("customer", "eu", "reservation", "create", true),
            ("customer", "eu", "reservation", "read", false),
            ("employee", "eu", "check_in", "create", true),
            ("employee", "eu", "cinema", "write", false),
            ("manager", "eu", "check_in", "create", true),
            ("manager", "eu", "cinema", "write", true),
            ("manager", "global", "movie", "write", false),
            ("operator", "eu", "region", "drain", true),
            ("operator", "eu", "reservation", "read", false),
            ("admin", "global", "policy", "write", true),
            ("admin", "ap", "show", "cancel", true),
        ] {
            assert_eq!(policy.allows(role, region, resource, action), expected, "{role} {resource} {action}");
        }
    }
}
