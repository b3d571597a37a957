//! What this crate's tests stand on: a real Postgres with the region's schema, the routes of cinemas, halls
//! and movies behind their permissions, tokens, and a stand-in for `global`'s feed.

pub mod journals;
mod notices;

use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use common::authz::jwt::{Jwk, JwkSet, SigningKey};
use common::authz::{Authority, Claims, Policy, RoleGrant, Rule};
use common::personal::MonthKeys;
use common::proto::audit::audit_log_server::{AuditLog, AuditLogServer};
use common::proto::audit::{Line, TellReply, TellRequest};
use common::proto::feed::feed_server::{Feed, FeedServer};
use common::proto::feed::update::Update as Kind;
use common::proto::feed::{
    FollowRequest, GetMovieRequest, GetPersonKeysRequest, Heartbeat, Movie, PersonKeys, Update,
};
use common::proto::notices::Notice;
use common::proto::notices::notices_server::NoticesServer;
use common::tls::Tls;
use common::{Money, PaymentId, RefundId, RegionName, SessionId, UserId};
use jiff::Timestamp;
use migrations::Schema;
use migrations::testing::{Options, TestPostgres};
use raft::client::RegistryClient;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::Config;
use crate::app::{App, Parts};
use crate::metrics::Metrics;
use crate::payments::{Changes, Charge, Provider, ProviderError};

/// A migrated database that is gone with the value.
pub struct Database {
    pub pool: deadpool_postgres::Pool,
    _server: TestPostgres,
}

impl Database {
    pub async fn start() -> Self {
        let server = tokio::task::spawn_blocking(|| TestPostgres::start_with(Options { fsync: false }));
        let server = server.await.unwrap();
        let url = server.migrated("region", Schema::Regional).await;
        Self { pool: migrations::pool(&url, 8).unwrap(), _server: server }
    }
}

pub fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// The region `eu` of `eu` and `us`.
pub struct TestRegion {
    pub app: App,
    pub document: utoipa::openapi::OpenApi,
    /// As the feed fills them; empty at first.
    pub months: MonthKeys,
    router: axum::Router,
    key: SigningKey,
    _database: Database,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }

    /// The fields at fault.
    pub fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array();
        errors.into_iter().flatten().filter_map(|e| e["field"].as_str()).collect()
    }

    /// `items[..].<field>` of a page.
    pub fn column(&self, field: &str) -> Vec<&str> {
        self.body["items"].as_array().unwrap().iter().filter_map(|item| item[field].as_str()).collect()
    }
}

impl TestRegion {
    /// `global`: where its gRPC listens, if at all.
    pub async fn start(global: Option<&FakeGlobal>) -> Self {
        let database = Database::start().await;
        let key = SigningKey::generate();
        let authority = Authority::new("marquee");
        authority.set_keys(&JwkSet { keys: vec![Jwk::ed25519(key.public())] });
        let rule = |resource: &str| Rule {
            role: "manager".into(),
            region: "*".into(),
            resource: resource.into(),
            action: "write".into(),
        };
        authority.set_policy(Policy::new(1, &[rule("cinema"), rule("hall")], &[]).await.unwrap());
        let url = global.map_or("http://127.0.0.1:1".to_owned(), |g| g.url.clone());
        let config =
            Config { region: region("eu"), regions: vec![region("eu"), region("us")], ..Config::default() };
        // No registry answers here; what needs one is tested with the whole platform.
        let registry = RegistryClient::new(&["http://127.0.0.1:1".to_owned()], &Tls::plain()).unwrap();
        let months = MonthKeys::default();
        let app = App::new(Parts {
            config,
            pool: database.pool.clone(),
            guard: Default::default(),
            authority: authority.clone(),
            month_keys: months.clone(),
            global: Tls::plain().channel(&url, "").unwrap(),
            view: registry.watch(CancellationToken::new()),
            registry,
            session: crate::session::Session::fixed(1),
            endpoints: Arc::new(|_| Vec::new()),
            tls: Tls::plain(),
            caught_up: Default::default(),
            ticket_key: SigningKey::generate(),
            provider: Box::new(NoProvider),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            stop: CancellationToken::new(),
        });
        let (router, document) = crate::router(&app).unwrap();
        Self { router, document, app, months, key, _database: database }
    }

    /// A token of a manager of `home`.
    pub fn manager(&self, home: &str) -> String {
        let now = Timestamp::now().as_second();
        let claims = Claims {
            iss: "marquee".into(),
            aud: "marquee".into(),
            sub: UserId::new(),
            sid: SessionId::new(),
            jti: "1".into(),
            iat: now,
            nbf: now,
            exp: now + 600,
            username: "manager".into(),
            roles: vec![RoleGrant { role: "manager".into(), region: Some(region(home)) }],
            ver: 1,
            region: None,
            pk: None,
        };
        self.key.sign("at+jwt", &claims)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub async fn get_if_none_match(&self, path: &str, tag: &str) -> Answer {
        self.send("GET", path, &[("if-none-match", tag)], None).await
    }

    /// As a manager of `eu`.
    pub async fn write(&self, method: &str, path: &str, body: Value) -> Answer {
        self.write_if_match(method, path, None, body).await
    }

    pub async fn write_if_match(&self, method: &str, path: &str, tag: Option<&str>, body: Value) -> Answer {
        let token = format!("Bearer {}", self.manager("eu"));
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(tag.map(|tag| ("if-match", tag)));
        self.send(method, path, &headers, Some(body)).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Some(body) => {
                request.header("content-type", "application/json").body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        let response = self.router.clone().oneshot(request.unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

/// Speaks the feed's contract: what was published is sent after the position asked for, policy and keys at
/// the start of every stream, then what is published later; [`Self::cut`] breaks all streams.
#[derive(Clone)]
pub struct FakeGlobal {
    pub url: String,
    inner: Arc<FeedState>,
    stop: CancellationToken,
}

#[derive(Default)]
struct FeedState {
    updates: Mutex<Vec<Update>>,
    movies: Mutex<Vec<Movie>>,
    /// Positions that followers asked to go on from.
    asked: Mutex<Vec<i64>>,
    published: Notify,
    cut: Mutex<CancellationToken>,
    audit: Mutex<AuditState>,
    notices: Mutex<Vec<Notice>>,
}

/// What the audit log was told, and how it answers.
#[derive(Default)]
pub struct AuditState {
    pub told: Vec<Line>,
    pub away: bool,
    /// Takes the next message and never says so.
    pub mute_once: bool,
    /// Refuses lines with this action.
    pub refuses: String,
}

impl FakeGlobal {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (inner, stop) = (Arc::new(FeedState::default()), CancellationToken::new());
        let server = tonic::transport::Server::builder()
            .add_service(FeedServer::new(FeedService(inner.clone())))
            .add_service(AuditLogServer::new(FeedService(inner.clone())))
            .add_service(NoticesServer::new(FeedService(inner.clone())))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Self { url, inner, stop }
    }

    pub fn publish(&self, position: i64, kind: Kind) {
        self.inner.updates.lock().unwrap().push(Update { position, update: Some(kind) });
        self.inner.published.notify_waiters();
    }

    /// A film that the feed has not brought yet.
    pub fn knows(&self, movie: Movie) {
        self.inner.movies.lock().unwrap().push(movie);
    }

    pub fn cut(&self) {
        std::mem::take(&mut *self.inner.cut.lock().unwrap()).cancel();
    }

    pub fn audit(&self) -> std::sync::MutexGuard<'_, AuditState> {
        self.inner.audit.lock().unwrap()
    }

    pub fn asked(&self) -> Vec<i64> {
        self.inner.asked.lock().unwrap().clone()
    }
}

impl Drop for FakeGlobal {
    fn drop(&mut self) {
        // The last one standing; the services hold three of the state.
        if Arc::strong_count(&self.inner) <= 4 {
            self.stop.cancel();
            self.cut();
        }
    }
}

struct FeedService(Arc<FeedState>);

#[tonic::async_trait]
impl Feed for FeedService {
    type FollowStream = ReceiverStream<Result<Update, tonic::Status>>;

    async fn follow(
        &self,
        request: tonic::Request<FollowRequest>,
    ) -> Result<tonic::Response<Self::FollowStream>, tonic::Status> {
        let (state, after) = (self.0.clone(), request.into_inner().after);
        state.asked.lock().unwrap().push(after);
        let cut = state.cut.lock().unwrap().clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut sent = 0;
            loop {
                let published = state.published.notified();
                // What is published after a cut is for the next stream.
                if cut.is_cancelled() {
                    return;
                }
                let updates = state.updates.lock().unwrap()[sent..].to_vec();
                sent += updates.len();
                for update in updates {
                    let whole =
                        matches!(update.update, Some(Kind::Policy(_) | Kind::Keys(_) | Kind::MonthKeys(_)));
                    if (whole || update.position > after) && sender.send(Ok(update)).await.is_err() {
                        return;
                    }
                }
                let beat = tokio::time::sleep(std::time::Duration::from_secs(1));
                tokio::select! {
                    () = published => {}
                    () = beat => {
                        let beat = Update { position: after, update: Some(Kind::Heartbeat(Heartbeat {})) };
                        let _ = sender.send(Ok(beat)).await;
                    }
                    () = cut.cancelled() => return,
                }
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_person_keys(
        &self,
        _: tonic::Request<GetPersonKeysRequest>,
    ) -> Result<tonic::Response<PersonKeys>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody has a key here"))
    }

    async fn get_movie(
        &self,
        request: tonic::Request<GetMovieRequest>,
    ) -> Result<tonic::Response<Movie>, tonic::Status> {
        let id = request.into_inner().movie_id;
        let movies = self.0.movies.lock().unwrap();
        let found = movies.iter().find(|m| m.movie_id == id).cloned();
        found.map(tonic::Response::new).ok_or_else(|| tonic::Status::not_found("no such film"))
    }
}

#[tonic::async_trait]
impl AuditLog for FeedService {
    async fn tell(
        &self,
        request: tonic::Request<TellRequest>,
    ) -> Result<tonic::Response<TellReply>, tonic::Status> {
        let request = request.into_inner();
        assert_eq!(request.teller, "eu");
        let mut state = self.0.audit.lock().unwrap();
        if state.away {
            return Err(tonic::Status::unavailable("away"));
        }
        let refuses = state.refuses.clone();
        let (refused, told): (Vec<Line>, Vec<Line>) =
            request.lines.into_iter().partition(|line| line.action == refuses);
        state.told.extend(told);
        if std::mem::take(&mut state.mute_once) {
            return Err(tonic::Status::unavailable("the answer is lost"));
        }
        Ok(tonic::Response::new(TellReply { refused: refused.into_iter().map(|line| line.id).collect() }))
    }
}

/// Waits until `holds`; fails after ten seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "{what}: not within ten seconds");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A provider that cannot be reached.
pub struct NoProvider;

#[tonic::async_trait]
impl Provider for NoProvider {
    async fn changed(&self, _: Timestamp, _: Option<String>) -> Result<Changes, ProviderError> {
        Err(ProviderError::Unknown("no provider".into()))
    }

    async fn charge(&self, _: PaymentId, _: Money, _: &str) -> Result<Charge, ProviderError> {
        Err(ProviderError::Unknown("no provider".into()))
    }

    async fn find(&self, _: PaymentId) -> Result<Option<Charge>, ProviderError> {
        Err(ProviderError::Unknown("no provider".into()))
    }

    async fn cancel(&self, _: PaymentId, _: Money) -> Result<Charge, ProviderError> {
        Err(ProviderError::Unknown("no provider".into()))
    }

    async fn refund(&self, _: RefundId, _: PaymentId, _: Money) -> Result<(), ProviderError> {
        Err(ProviderError::Unknown("no provider".into()))
    }
}
