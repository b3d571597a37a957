//! The feed over gRPC (`common/proto/feed.proto`).

use std::pin::Pin;

use common::MovieId;
use common::proto::feed::feed_server::Feed as FeedService;
use common::proto::feed::{FollowRequest, GetMovieRequest, Movie, Update};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::Feed;
use crate::metrics::METRICS;
use crate::movies;

/// Few enough that a slow follower holds little, many enough that a fast one does not wait.
const BUFFERED: usize = 64;

pub struct Server {
    pub feed: Feed,
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl FeedService for Server {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let FollowRequest { follower, after, movies } = request.into_inner();
        tracing::info!(follower, after, movies, "a follower of the feed has come");
        let (out, updates) = mpsc::channel(BUFFERED);
        let (faults_in, faults) = mpsc::channel(1);
        let (feed, stop) = (self.feed.clone(), self.stop.clone());
        tokio::spawn(async move {
            METRICS.feed_followers.inc();
            let ended = feed.stream(after, movies, &out, &stop).await;
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
}
