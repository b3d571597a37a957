//! The feed over gRPC (`common/proto/feed.proto`).

use std::pin::Pin;

use common::feed::Wanted;
use common::proto::feed::feed_server::Feed as FeedService;
use common::proto::feed::{FollowRequest, GetMovieRequest, GetPersonKeysRequest, Movie, PersonKeys, Update};
use common::tls::{Tls, names};
use common::{MovieId, UserId};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::Feed;
use crate::metrics::METRICS;
use crate::{movies, person_keys};

/// Few enough that a slow follower holds little, many enough that a fast one does not wait.
const BUFFERED: usize = 64;

pub struct Server {
    pub feed: Feed,
    pub tls: Tls,
    pub stop: CancellationToken,
}

impl Server {
    /// Keys of personal data are for those who hold personal data.
    fn regional_alone<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if self.tls.caller(request).is(names::REGIONAL) {
            return Ok(());
        }
        tracing::warn!(address = ?common::tls::address(request), "keys of personal data are refused to a stranger");
        Err(Status::permission_denied("keys of personal data are for regional processes"))
    }
}

#[tonic::async_trait]
impl FeedService for Server {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        if request.get_ref().month_keys {
            self.regional_alone(&request)?;
        }
        let FollowRequest { follower, after, movies, month_keys } = request.into_inner();
        let wanted = Wanted { movies, month_keys };
        tracing::info!(follower, after, movies, "a follower of the feed has come");
        let (out, updates) = mpsc::channel(BUFFERED);
        let (faults_in, faults) = mpsc::channel(1);
        let (feed, stop) = (self.feed.clone(), self.stop.clone());
        tokio::spawn(async move {
            METRICS.feed_followers.inc();
            let ended = feed.stream(after, wanted, &out, &stop).await;
            METRICS.feed_followers.dec();
            if let Err(fault) = ended {
                // The follower comes back by itself; it should know that this was no end.
                let _ = faults_in.try_send(Status::unavailable(fault.into_problem().detail));
            }
            tracing::info!(follower, "a follower of the feed has gone");
        });
        let updates = ReceiverStream::new(updates).map(Ok);
        let stream = updates.chain(ReceiverStream::new(faults).map(Err));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_movie(&self, request: Request<GetMovieRequest>) -> Result<Response<Movie>, Status> {
        let id: MovieId =
            request.into_inner().movie_id.parse().map_err(|_| Status::not_found("this is no movie's id"))?;
        let unavailable = |fault: crate::fault::Fault| Status::unavailable(fault.into_problem().detail);
        let client = self.feed.0.pool.get().await.map_err(|e| unavailable(e.into()))?;
        match movies::store::find_for_feed(&client, id).await.map_err(unavailable)? {
            Some(movie) => Ok(Response::new(movie)),
            None => Err(Status::not_found("there is no such movie")),
        }
    }

    async fn get_person_keys(
        &self,
        request: Request<GetPersonKeysRequest>,
    ) -> Result<Response<PersonKeys>, Status> {
        self.regional_alone(&request)?;
        let users: Vec<UserId> =
            request.into_inner().user_ids.iter().filter_map(|id| id.parse().ok()).collect();
        let unavailable = |fault: crate::fault::Fault| Status::unavailable(fault.into_problem().detail);
        let client = self.feed.0.pool.get().await.map_err(|e| unavailable(e.into()))?;
        let keys = person_keys::of_users(&client, &self.feed.0.sealing, &users).await.map_err(unavailable)?;
        Ok(Response::new(keys))
    }
}
