//! The public surface. What goes on to a service takes a straight way, since that is nearly all there is; what the
//! gateway answers itself goes through a router with layers. By either way a request gets the same: id and trace,
//! limits, metrics, a line of the log.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get};
use common::http::{Edge, Told, with_edge};
use http::Method;
use tower::{Layer, ServiceExt};
use tower_http::cors::CorsLayer;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;
use crate::browser::cors;
use crate::config::Config;
use crate::limits::limit;
use crate::proxy::{AnsweredBy, Asked, forward, proxy};
use crate::{fanout, openapi, pages, regions, routes};

/// All routes, with what is around them.
pub struct Public {
    app: App,
    edge: Edge,
    /// Patterns of what is passed on.
    proxied: matchit::Router<&'static str>,
    own: Router,
    cors: Option<CorsLayer>,
}

impl Public {
    pub fn new(app: App, edge: Edge, config: &Config) -> anyhow::Result<Self> {
        let mut proxied = matchit::Router::new();
        for pattern in routes::proxied() {
            proxied.insert(pattern, pattern)?;
        }
        let own = with_edge(own(app.clone()), edge.clone());
        Ok(Self { app, edge, proxied, own, cors: cors(&config.cors)? })
    }

    pub async fn answer(&self, request: Request, peer: SocketAddr) -> Response {
        let Some(cors) = &self.cors else { return self.route(request, peer).await };
        // Preflights are answered by it.
        let within =
            tower::service_fn(|request| async move { Ok::<_, Infallible>(self.route(request, peer).await) });
        cors.layer(within).oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    async fn route(&self, mut request: Request, peer: SocketAddr) -> Response {
        let Ok(found) = self.proxied.at(request.uri().path()) else {
            request.extensions_mut().insert(ConnectInfo(peer));
            return self.own.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        };
        let (pattern, id) = (*found.value, found.params.get("id").map(decoded));
        let told = Told::of(request.method(), request.headers());
        let run = |told: &Told| {
            let told = told.clone();
            // Boxed: it is moved about by all that is around it, and is gone when the answer's body begins.
            Box::pin(async move {
                let (method, started) = (told.method.clone(), Instant::now());
                let response = limit(&self.app, peer, pattern, request, |request, caller| async move {
                    let asked = Asked { pattern, id: id.as_deref(), caller, told };
                    forward(&self.app, asked, request).await.unwrap_or_else(IntoResponse::into_response)
                });
                let response = response.await;
                log(&self.app, &method, pattern, started, &response);
                response
            })
        };
        self.edge.around(told, pattern, run).await
    }
}

/// What the gateway answers itself.
fn own(app: App) -> Router {
    // Not as a fallback: layers do not reach fallbacks.
    let not_lists = MethodFilter::POST
        .or(MethodFilter::PUT)
        .or(MethodFilter::PATCH)
        .or(MethodFilter::DELETE)
        .or(MethodFilter::OPTIONS);
    let docs = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/v1/openapi.json"));
    Router::new()
        .route("/v1/regions", get(regions::list))
        .route("/v1/regions/nearest", get(regions::nearest))
        .route("/v1/openapi.json", get(openapi::serve))
        .route("/account/verify", get(pages::account))
        .route("/account/reset", get(pages::account))
        .route("/account/tickets", get(pages::tickets))
        .route("/v1/reservations", get(fanout::reservations).on(not_lists, proxy))
        .route("/v1/payments", get(fanout::payments).on(not_lists, proxy))
        .merge(docs)
        .route_layer(middleware::from_fn_with_state(app.clone(), admit))
        .with_state(app)
}

async fn admit(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    pattern: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let (method, started) = (request.method().clone(), Instant::now());
    let run = |mut request: Request, caller| {
        request.extensions_mut().insert(caller);
        next.run(request)
    };
    let response = limit(&app, peer, pattern.as_str(), request, run).await;
    log(&app, &method, pattern.as_str(), started, &response);
    response
}

/// One line a request; its id and trace come from the surrounding span. Errors of our own and of services (5xx) are
/// logged where they happen and by the edge.
fn log(app: &App, method: &Method, route: &str, started: Instant, response: &Response) {
    if response.status().is_server_error() {
        return;
    }
    let region = match response.extensions().get::<AnsweredBy>() {
        Some(AnsweredBy(Some(region))) => region.as_str(),
        Some(AnsweredBy(None)) => "global",
        None => app.directory.own().name.as_str(),
    };
    let (code, millis) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1000.0);
    tracing::info!(%method, route, code, millis, region, "request");
}

/// A part of a path as it is meant. What cannot be read is left: it names nothing, and the service says so.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        rest = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                &after[2..]
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_meant() {
        for (part, meant) in [
            ("shw_1", "shw_1"),
            ("%73hw_1", "shw_1"),
            ("a%20b%2", "a b%2"),
            ("%zz", "%zz"),
            ("%ff", "%ff"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(decoded(part), meant);
        }
    }

    #[test]
    fn all_that_is_proxied_can_be_told_apart() {
        let mut router = matchit::Router::new();
        for pattern in routes::proxied() {
            router.insert(pattern, pattern).unwrap();
        }
        for (path, pattern, id) in [
            ("/v1/movies", "/v1/movies", None),
            ("/v1/movies/import", "/v1/movies/import", None),
            ("/v1/movies/mov_1", "/v1/movies/{id}", Some("mov_1")),
            ("/v1/shows/shw_1/seats", "/v1/shows/{id}/seats", Some("shw_1")),
            ("/v1/shows/shw_1/a/b", "/v1/shows/{id}/{*rest}", Some("shw_1")),
        ] {
            let found = router.at(path).unwrap();
            assert_eq!((*found.value, found.params.get("id")), (pattern, id), "{path}");
        }
        for path in ["/v1/movies/", "/v1/regions", "/v1/reservations", "/v1/payments", "/v1/nothing", "/"] {
            assert!(router.at(path).is_err(), "{path}");
        }
    }
}
