//! A registry that says what a test tells it to, over real gRPC.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::ShowId;
use common::proto::registry as reg;
use common::proto::registry::registry_server::{Registry, RegistryServer};
use common::proto::registry::watch_event::Event;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, TcpListenerStream};
use tonic::{Request, Response, Status};

type Events = Pin<Box<dyn Stream<Item = Result<reg::WatchEvent, Status>> + Send>>;

/// Cheap to clone; all clones are one registry.
#[derive(Clone)]
pub struct FakeRegistry {
    /// What a watcher is told first.
    known: Arc<Mutex<Vec<Event>>>,
    news: broadcast::Sender<Event>,
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self { known: Arc::default(), news: broadcast::channel(1024).0 }
    }
}

impl FakeRegistry {
    pub fn server(&self) -> RegistryServer<Self> {
        RegistryServer::new(self.clone())
    }

    /// Serves for the rest of the test; where it is reached.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(self.server());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        format!("http://{addr}")
    }

    pub fn region(&self, name: &str, state: &str) {
        self.tell(Event::Region(reg::Region {
            name: name.into(),
            state: state.into(),
            ticket_keys: Vec::new(),
            incarnation: 0,
            given_up: false,
            disowned: 0,
        }));
    }

    pub fn session(&self, no: u64, region: &str, http_url: &str) {
        let http_url = http_url.to_owned();
        let session = reg::Session { no, region: region.into(), http_url, grpc_url: String::new() };
        self.tell(Event::Session(session));
    }

    pub fn show(&self, id: ShowId, owner: &str, epoch: u64, replicas: &[&str]) {
        self.tell(Event::Show(reg::Show {
            show_id: id.to_string(),
            home: "eu".into(),
            owner: owner.into(),
            epoch,
            replicas: replicas.iter().map(|r| (*r).to_owned()).collect(),
            prior: Vec::new(),
        }));
    }

    fn tell(&self, event: Event) {
        self.known.lock().unwrap().push(event.clone());
        // Nobody may be listening yet.
        let _ = self.news.send(event);
    }
}

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type WatchStream = Events;

    async fn watch(&self, _: Request<reg::WatchRequest>) -> Result<Response<Events>, Status> {
        let news = BroadcastStream::new(self.news.subscribe()).filter_map(async |event| event.ok());
        let known = self.known.lock().unwrap().clone();
        let first = [Event::SnapshotBegin(reg::SnapshotBegin {})];
        let snapshot = first.into_iter().chain(known).chain([Event::SnapshotEnd(reg::SnapshotEnd {})]);
        let beats = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Some((Event::Heartbeat(reg::Heartbeat { has_leader: true }), ()))
        });
        let later = futures::stream::select(Box::pin(news), Box::pin(beats));
        let all = futures::stream::iter(snapshot).chain(later);
        Ok(Response::new(Box::pin(all.map(|event| Ok(reg::WatchEvent { index: 1, event: Some(event) })))))
    }

    async fn open_session(
        &self,
        _: Request<reg::OpenSessionRequest>,
    ) -> Result<Response<reg::OpenSessionReply>, Status> {
        Err(Status::unimplemented("not asked by gateways"))
    }

    async fn create_show(&self, _: Request<reg::CreateShowRequest>) -> Result<Response<reg::Show>, Status> {
        Err(Status::unimplemented("not asked by gateways"))
    }

    async fn get_show(&self, _: Request<reg::GetShowRequest>) -> Result<Response<reg::Show>, Status> {
        Err(Status::unimplemented("not asked by gateways"))
    }

    async fn status(&self, _: Request<reg::StatusRequest>) -> Result<Response<reg::StatusReply>, Status> {
        Ok(Response::new(reg::StatusReply::default()))
    }
}
