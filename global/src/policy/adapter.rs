//! casbin's rules in Postgres, over whatever deadpool gives: a pooled connection, or a transaction, so that
//! an edit, its new version and its audit line commit as one.

use std::ops::Deref;

use async_trait::async_trait;
use casbin::error::AdapterError;
use casbin::{Adapter, Filter, Model};
use deadpool_postgres::GenericClient;

use crate::db;
use crate::fault::Fault;

/// Columns v0 to v5.
const WIDTH: usize = 6;

pub struct PgAdapter<D> {
    db: D,
    is_filtered: bool,
}

impl<D> PgAdapter<D> {
    pub fn new(db: D) -> Self {
        Self { db, is_filtered: false }
    }
}

/// A rule as the row's columns; what a short rule lacks is empty.
fn columns(rule: &[String]) -> casbin::Result<[String; WIDTH]> {
    if rule.len() > WIDTH {
        return Err(AdapterError(format!("a rule has more than {WIDTH} parts").into()).into());
    }
    Ok(std::array::from_fn(|i| rule.get(i).cloned().unwrap_or_default()))
}

fn failed(fault: impl Into<Fault>) -> casbin::Error {
    AdapterError(fault.into().into_problem().detail.into()).into()
}

/// The section (`p`, `g`) is the first letter of the policy type (`p`, `p2`, `g`).
fn section(ptype: &str) -> &str {
    ptype.get(..1).unwrap_or_default()
}

impl<D> PgAdapter<D>
where
    D: Deref + Send + Sync,
    D::Target: GenericClient + Sized,
{
    async fn read(&self) -> casbin::Result<Vec<(String, Vec<String>)>> {
        let sql = "SELECT ptype, ARRAY[v0, v1, v2, v3, v4, v5] FROM casbin_rules
                   ORDER BY ptype, v0, v1, v2, v3, v4, v5";
        let rows = db::rows(&*self.db, sql, &[]).await.map_err(failed)?;
        let rule = |row: &tokio_postgres::Row| {
            let mut parts: Vec<String> = row.get(1);
            // casbin wants exactly as many parts as the definition has.
            while parts.last().is_some_and(String::is_empty) {
                parts.pop();
            }
            (row.get(0), parts)
        };
        Ok(rows.iter().map(rule).collect())
    }

    async fn insert(&self, ptype: &str, rule: &[String]) -> casbin::Result<bool> {
        let [v0, v1, v2, v3, v4, v5] = columns(rule)?;
        let sql = "INSERT INTO casbin_rules (ptype, v0, v1, v2, v3, v4, v5)
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
        let params: &db::Params<'_> = &[&ptype, &v0, &v1, &v2, &v3, &v4, &v5];
        Ok(db::run(&*self.db, sql, params).await.map_err(failed)? > 0)
    }

    async fn delete(&self, ptype: &str, rule: &[String]) -> casbin::Result<bool> {
        let [v0, v1, v2, v3, v4, v5] = columns(rule)?;
        let sql = "DELETE FROM casbin_rules WHERE ptype = $1
                   AND v0 = $2 AND v1 = $3 AND v2 = $4 AND v3 = $5 AND v4 = $6 AND v5 = $7";
        let params: &db::Params<'_> = &[&ptype, &v0, &v1, &v2, &v3, &v4, &v5];
        Ok(db::run(&*self.db, sql, params).await.map_err(failed)? > 0)
    }
}

fn matches(rule: &[String], wanted: &[&str]) -> bool {
    wanted.iter().enumerate().all(|(i, w)| w.is_empty() || rule.get(i).is_some_and(|part| part == w))
}

#[async_trait]
impl<D> Adapter for PgAdapter<D>
where
    D: Deref + Send + Sync,
    D::Target: GenericClient + Sized,
{
    async fn load_policy(&mut self, model: &mut dyn Model) -> casbin::Result<()> {
        self.is_filtered = false;
        for (ptype, rule) in self.read().await? {
            model.add_policy(section(&ptype), &ptype, rule);
        }
        Ok(())
    }

    async fn load_filtered_policy<'a>(
        &mut self,
        model: &mut dyn Model,
        filter: Filter<'a>,
    ) -> casbin::Result<()> {
        self.is_filtered = false;
        for (ptype, rule) in self.read().await? {
            let wanted = if section(&ptype) == "p" { &filter.p } else { &filter.g };
            if matches(&rule, wanted) {
                model.add_policy(section(&ptype), &ptype, rule);
            } else {
                self.is_filtered = true;
            }
        }
        Ok(())
    }

    async fn save_policy(&mut self, model: &mut dyn Model) -> casbin::Result<()> {
        let mut rules = Vec::new();
        for sec in ["p", "g"] {
            for (ptype, assertion) in model.get_model().get(sec).into_iter().flatten() {
                rules.extend(assertion.get_policy().iter().map(|rule| (ptype.clone(), rule.clone())));
            }
        }
        self.clear_policy().await?;
        for (ptype, rule) in rules {
            self.insert(&ptype, &rule).await?;
        }
        Ok(())
    }

    async fn clear_policy(&mut self) -> casbin::Result<()> {
        db::run(&*self.db, "DELETE FROM casbin_rules", &[]).await.map_err(failed)?;
        Ok(())
    }

    fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    async fn add_policy(&mut self, _sec: &str, ptype: &str, rule: Vec<String>) -> casbin::Result<bool> {
        self.insert(ptype, &rule).await
    }

    /// True when all were new.
    async fn add_policies(
        &mut self,
        _sec: &str,
        ptype: &str,
        rules: Vec<Vec<String>>,
    ) -> casbin::Result<bool> {
        let mut all = true;
        for rule in rules {
            all &= self.insert(ptype, &rule).await?;
        }
        Ok(all)
    }

    async fn remove_policy(&mut self, _sec: &str, ptype: &str, rule: Vec<String>) -> casbin::Result<bool> {
        self.delete(ptype, &rule).await
    }

    /// True when all were there.
    async fn remove_policies(
        &mut self,
        _sec: &str,
        ptype: &str,
        rules: Vec<Vec<String>>,
    ) -> casbin::Result<bool> {
        let mut all = true;
        for rule in rules {
            all &= self.delete(ptype, &rule).await?;
        }
        Ok(all)
    }

    async fn remove_filtered_policy(
        &mut self,
        _sec: &str,
        ptype: &str,
        field_index: usize,
        field_values: Vec<String>,
    ) -> casbin::Result<bool> {
        let wanted: Vec<&str> =
            std::iter::repeat_n("", field_index).chain(field_values.iter().map(String::as_str)).collect();
        let mut any = false;
        for (found, rule) in self.read().await? {
            if found == ptype && matches(&rule, &wanted) {
                any |= self.delete(ptype, &rule).await?;
            }
        }
        Ok(any)
    }
}
