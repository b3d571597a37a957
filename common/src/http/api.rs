//! From documented handlers to a service's routes: every route has its permission or the start fails, and
//! what is the same for all routes stands in the document once, here.

use std::sync::Arc;

use axum::{Router, middleware};
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::authz::{Authority, Permission, Permissions, enforce};
use crate::problem::{FieldError, ProblemDetails};

/// The service's routes, guarded, and their OpenAPI document.
pub fn guarded<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    authority: Arc<Authority>,
    permissions: Permissions,
) -> Result<(Router<S>, OpenApi), String> {
    let (router, mut document) = routes.split_for_parts();
    permissions.check_covers(&documented(&document))?;
    complete(&mut document, &permissions);
    let state = (authority, Arc::new(permissions));
    Ok((router.route_layer(middleware::from_fn_with_state(state, enforce)), document))
}

type Slot<'a> = (&'static str, &'a mut Option<Operation>);

fn operations(item: &mut utoipa::openapi::PathItem) -> [Slot<'_>; 5] {
    [
        ("GET", &mut item.get),
        ("POST", &mut item.post),
        ("PUT", &mut item.put),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ]
}

/// (method, path) of every documented operation.
pub fn documented(document: &OpenApi) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, item) in &document.paths.paths {
        for (method, operation) in operations(&mut item.clone()) {
            if operation.is_some() {
                found.push((method.to_owned(), path.clone()));
            }
        }
    }
    found
}

fn complete(document: &mut OpenApi, permissions: &Permissions) {
    let components = document.components.get_or_insert_default();
    components.schemas.insert(ProblemDetails::name().into_owned(), ProblemDetails::schema());
    components.schemas.insert(FieldError::name().into_owned(), FieldError::schema());
    components.security_schemes.insert(
        "bearer".to_owned(),
        RefOr::T(SecurityScheme::Http(
            Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build(),
        )),
    );
    for (path, item) in &mut document.paths.paths {
        let has_params = path.contains('{');
        for (method, operation) in operations(item) {
            let Some(operation) = operation else { continue };
            let permission = permissions.stated(method, path).unwrap_or(Permission::Public);
            complete_operation(operation, permission, has_params);
        }
    }
}

fn complete_operation(operation: &mut Operation, permission: Permission, has_params: bool) {
    let has_body = operation.request_body.is_some();
    let signed_in = permission != Permission::Public;
    if signed_in {
        operation.security = Some(vec![SecurityRequirement::new::<&str, [&str; 0], &str>("bearer", [])]);
    }
    let by_role = matches!(permission, Permission::Role(..) | Permission::RoleInBody(..));
    let standard = [
        ("400", "The request is malformed", true),
        ("401", "No valid access token", signed_in),
        ("403", "The caller's roles do not allow this", by_role),
        ("404", "There is no such thing, or it is not the caller's to know of", has_params),
        ("413", "The body is too large", has_body),
        ("415", "The body has another content type", has_body),
        ("422", "A field is not valid; `errors` names it", true),
        ("429", "Too many requests; `Retry-After` tells when to come back", true),
        ("503", "Not possible now; `Retry-After` tells when to try again", true),
    ];
    for (code, description, applies) in standard {
        if applies && !operation.responses.responses.contains_key(code) {
            operation.responses.responses.insert(code.to_owned(), RefOr::T(problem(description)));
        }
    }
}

/// The response of an error: problem+json.
pub fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name(ProblemDetails::name());
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", ContentBuilder::new().schema(Some(schema)).build())
        .build()
}
