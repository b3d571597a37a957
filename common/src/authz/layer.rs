//! Every route's permission, stated in one table a service and enforced before the handler runs.
//! A route that is not in the table is refused, and [`Permissions::check_covers`] makes a start fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, header};

use super::authority::Authority;
use super::claims::Actor;
use super::refusals::{NO_TOKEN, refused};
use crate::{Problem, RegionName, UserId};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// No token is looked at.
    Public,
    /// Any valid token; the handler touches only what is the caller's own.
    SignedIn,
    /// A role that allows `(resource, action)` in the region concerned: the home of the first id in the
    /// path that tells one, else the service's own.
    Role(&'static str, &'static str),
    /// The thing's owner, or a role as in `Role`. The handler compares the owner
    /// ([`Authorized::require_owner`]); a stranger learns 404, not 403.
    OwnerOr(&'static str, &'static str),
    /// A role in some region; the handler learns the region from the body and must call
    /// [`Authorized::require_in`].
    RoleInBody(&'static str, &'static str),
}

/// One service's routes with their permissions.
pub struct Permissions {
    service_region: Option<RegionName>,
    regions: Vec<RegionName>,
    table: BTreeMap<(&'static str, &'static str), Permission>,
}

impl Permissions {
    /// `service_region`: where things are done when the path does not tell; none in `global`.
    /// `regions`: all regions that an id may name.
    pub fn new(
        service_region: Option<RegionName>,
        regions: Vec<RegionName>,
        table: &[(&'static str, &'static str, Permission)],
    ) -> Self {
        let table = table.iter().map(|(method, path, permission)| ((*path, *method), *permission)).collect();
        Self { service_region, regions, table }
    }

    /// Compares the table with the routes (method, path) that the service has; names what is missing on
    /// either side.
    pub fn check_covers(&self, routes: &[(String, String)]) -> Result<(), String> {
        let mut faults: Vec<String> = routes
            .iter()
            .filter(|(method, path)| !self.table.contains_key(&(path.as_str(), method.as_str())))
            .map(|(method, path)| format!("{method} {path} has no stated permission"))
            .collect();
        for (path, method) in self.table.keys() {
            if !routes.iter().any(|(m, p)| m == method && p == path) {
                faults.push(format!("{method} {path} has a permission but no documented route"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    /// What the table states for a route.
    pub fn stated(&self, method: &str, path: &str) -> Option<Permission> {
        self.table.get(&(path, method)).copied()
    }

    fn of(&self, method: &Method, path: &str) -> Option<Permission> {
        let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
        self.stated(method, path)
    }

    fn region_of<'a>(&'a self, params: &RawPathParams) -> Option<&'a RegionName> {
        let tag = params.iter().find_map(|(_, value)| {
            let id = value.split('.').next().unwrap_or(value);
            crate::ids::home_tag_in(id)
        });
        match tag {
            Some(tag) => self.regions.iter().find(|r| r.tag() == tag).or(self.service_region.as_ref()),
            None => self.service_region.as_ref(),
        }
    }
}

/// Proof that the route's permission was checked; made by [`enforce`] only.
#[derive(Clone)]
pub struct Authorized {
    actor: Option<Actor>,
    by_role: bool,
    permission: Permission,
    authority: Arc<Authority>,
}

impl Authorized {
    /// The caller. 401 on a public route, which has none.
    pub fn actor(&self) -> Result<&Actor, Problem> {
        self.actor.as_ref().ok_or_else(no_token)
    }

    /// The caller, where there is one.
    pub fn user(&self) -> Option<UserId> {
        self.actor.as_ref().map(Actor::user)
    }

    /// Whether a role allowed it (staff), not ownership.
    pub fn by_role(&self) -> bool {
        self.by_role
    }

    /// For `OwnerOr`: the owner passes, a role passes, anyone else learns that there is no such `what`.
    pub fn require_owner(&self, owner: Option<UserId>, what: &str) -> Result<(), Problem> {
        let is_owner = self.actor.as_ref().is_some_and(|a| Some(a.user()) == owner);
        if is_owner || self.by_role {
            return Ok(());
        }
        if let Permission::OwnerOr(resource, action) = self.permission {
            refused("not_owner", resource, action);
        }
        Err(Problem::not_found(what))
    }

    /// For `RoleInBody`, and for rights beyond the route's own: 403 unless a role allows it in `region`.
    pub fn require_in(&self, region: Option<&RegionName>) -> Result<(), Problem> {
        match self.permission {
            Permission::RoleInBody(resource, action) if self.may(region, resource, action) => Ok(()),
            Permission::RoleInBody(resource, action) => {
                refused("role", resource, action);
                Err(Problem::forbidden())
            }
            _ => Err(Problem::forbidden()),
        }
    }

    pub fn may(&self, region: Option<&RegionName>, resource: &str, action: &str) -> bool {
        self.actor.as_ref().is_some_and(|actor| self.authority.may(actor, region, resource, action))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::internal("a route without authorisation"))
    }
}

/// 401 for whoever shows no good token.
pub fn no_token() -> Problem {
    Problem::unauthorized("send an access token: `Authorization: Bearer …`")
}

/// The middleware; install with `Router::route_layer`, so that unknown paths stay 404.
pub async fn enforce(
    State((authority, permissions)): State<(Arc<Authority>, Arc<Permissions>)>,
    mut request: Request,
    next: Next,
) -> Response {
    match check(&authority, &permissions, &mut request).await {
        Ok(authorized) => {
            request.extensions_mut().insert(authorized);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn check(
    authority: &Arc<Authority>,
    permissions: &Permissions,
    request: &mut Request,
) -> Result<Authorized, Problem> {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let permission = path
        .as_ref()
        .and_then(|path| permissions.of(request.method(), path.as_str()))
        // A path that exists under another method goes on to its 405.
        .or_else(|| path.as_ref().and_then(|p| other_method(permissions, p.as_str())))
        .ok_or_else(|| Problem::internal("a route has no stated permission"))?;
    let made = |actor, by_role| Authorized { actor, by_role, permission, authority: authority.clone() };
    if permission == Permission::Public {
        return Ok(made(None, false));
    }
    let token = bearer(request.headers()).ok_or_else(|| {
        refused(NO_TOKEN, "", "");
        no_token()
    })?;
    let actor = authority.authenticate(token).map_err(|fault| {
        refused(fault.name(), "", "");
        Problem::unauthorized(fault.to_string())
    })?;
    let (mut parts, body) = std::mem::take(request).into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    *request = Request::from_parts(parts, body);
    let params = params.map_err(|_| Problem::not_found("resource"))?;
    let by_role = match permission {
        Permission::Public | Permission::SignedIn => false,
        Permission::Role(resource, action) | Permission::OwnerOr(resource, action) => {
            authority.may(&actor, permissions.region_of(&params), resource, action)
        }
        Permission::RoleInBody(resource, action) => authority.may_somewhere(&actor, resource, action),
    };
    match permission {
        Permission::Role(resource, action) | Permission::RoleInBody(resource, action) if !by_role => {
            refused("role", resource, action);
            Err(Problem::forbidden())
        }
        _ => Ok(made(Some(actor), by_role)),
    }
}

/// A stand-in for a method that the path does not have; its handler is the 405.
fn other_method(permissions: &Permissions, path: &str) -> Option<Permission> {
    permissions.table.keys().any(|(p, _)| *p == path).then_some(Permission::Public)
}

fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}
