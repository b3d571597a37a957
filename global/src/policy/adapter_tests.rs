//! The adapter under casbin's own enforcer, on a real Postgres.

use std::sync::Arc;

use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, Filter, MgmtApi, Model};
use common::authz::policy::MODEL;
use migrations::Schema;
use migrations::testing::{Options, TestPostgres};

use super::adapter::PgAdapter;

fn rule(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn casbin_keeps_its_policy_in_postgres() {
    let postgres = TestPostgres::start_with(Options { fsync: false });
    let pool = migrations::pool(&postgres.migrated("global", Schema::Global).await, 2).unwrap();
    let db = Arc::new(pool.get().await.unwrap());
    let model = async || DefaultModel::from_str(MODEL).await.unwrap();
    let adapter = || PgAdapter::new(db.clone());

    let mut enforcer = Enforcer::new(model().await, adapter()).await.unwrap();
    assert!(enforcer.add_policy(rule("employee eu show block")).await.unwrap());
    assert!(enforcer.add_policies(vec![rule("admin * * *"), rule("boss us show write")]).await.unwrap());
    assert!(enforcer.add_grouping_policy(rule("manager employee")).await.unwrap());

    // Another process finds it so.
    let mut other = Enforcer::new(model().await, adapter()).await.unwrap();
    for (who, region, expected) in
        [("manager", "eu", true), ("manager", "us", false), ("admin", "us", true), ("boss", "us", false)]
    {
        assert_eq!(other.enforce((who, region, "show", "block")).unwrap(), expected, "{who} {region}");
    }
    assert!(other.remove_policy(rule("admin * * *")).await.unwrap());
    assert!(other.remove_filtered_policy(1, vec!["us".into()]).await.unwrap());
    enforcer.load_policy().await.unwrap();
    assert_eq!(enforcer.get_policy(), [rule("employee eu show block")]);
    assert_eq!(enforcer.get_grouping_policy(), [rule("manager employee")]);

    // A repeat is no news, and saving replaces.
    let mut raw = adapter();
    assert!(!raw.add_policy("p", "p", rule("employee eu show block")).await.unwrap());
    assert!(!raw.remove_policies("p", "p", vec![rule("nobody * * *")]).await.unwrap());
    raw.add_policy("p", "p", rule("left over x y")).await.unwrap();
    raw.save_policy(enforcer.get_mut_model()).await.unwrap();
    let mut loaded = model().await;
    raw.load_policy(&mut loaded).await.unwrap();
    assert_eq!(loaded.get_policy("p", "p"), [rule("employee eu show block")]);
    assert!(!raw.is_filtered());

    raw.add_policy("p", "p", rule("employee us show block")).await.unwrap();
    let mut filtered = model().await;
    raw.load_filtered_policy(&mut filtered, Filter { p: vec!["", "us"], g: vec![] }).await.unwrap();
    assert_eq!(filtered.get_policy("p", "p"), [rule("employee us show block")]);
    assert!(raw.is_filtered());
    raw.clear_policy().await.unwrap();
    let mut empty = model().await;
    raw.load_policy(&mut empty).await.unwrap();
    assert!(empty.get_policy("p", "p").is_empty() && empty.get_policy("g", "g").is_empty());
    let long = (0..7).map(|i| i.to_string()).collect();
    assert!(raw.add_policy("p", "p", long).await.is_err(), "a rule wider than the table is refused");
}
