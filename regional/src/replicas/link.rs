//! A plain connection to a process of another region, for those who ask a few things and wait: the recovery of
//! a store, and tests. (Leaders have `peers`.)

use std::time::Duration;

use common::tls::{Tls, endpoint, names};
use common::{RegionName, ShowId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::proto::replication_client::ReplicationClient;
use super::wire::{self, Heard, Hello, MESSAGE_BYTES_MAX, MESSAGE_PARTS_MAX};
use super::{Reply, Request, proto};

const CONNECT: Duration = Duration::from_secs(2);
const IN_FLIGHT: usize = 4;

/// One way of it.
pub struct Sending {
    requests: mpsc::Sender<proto::Requests>,
}

/// And the other.
pub struct Receiving {
    pub from: RegionName,
    /// The peer's store, as its last message told it.
    pub store: Option<Heard>,
    answers: Streaming<proto::Answers>,
}

/// Connects to the process at `url`, which must be one of the region that `hello` means.
pub async fn open(tls: &Tls, url: &str, hello: Hello) -> anyhow::Result<(Sending, Receiving)> {
    open_with(tls, url, hello.into(), MESSAGE_BYTES_MAX).await
}

/// With whatever a test says in its hello.
#[cfg(test)]
pub async fn open_raw(url: &str, hello: proto::Hello) -> anyhow::Result<(Sending, Receiving)> {
    open_with(&Tls::plain(), url, hello, MESSAGE_BYTES_MAX).await
}

/// Sends longer messages than it should.
#[cfg(test)]
pub async fn open_wide(url: &str, hello: Hello) -> anyhow::Result<(Sending, Receiving)> {
    open_with(&Tls::plain(), url, hello.into(), 2 * MESSAGE_BYTES_MAX).await
}

async fn open_with(
    tls: &Tls,
    url: &str,
    hello: proto::Hello,
    longest: usize,
) -> anyhow::Result<(Sending, Receiving)> {
    let channel: Channel = endpoint(url)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(CONNECT)
        .keep_alive_timeout(CONNECT)
        .connect_with_connector(tls.connector(&format!("{}.{}", hello.to, names::REGIONAL)))
        .await?;
    let mut client = ReplicationClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(longest);
    let (requests, stream) = mpsc::channel(IN_FLIGHT);
    let (from, to) = (hello.from.clone(), hello.to.clone());
    requests.try_send(proto::Requests { hello: Some(hello), requests: vec![] })?;
    let exchange = tokio::time::timeout(CONNECT, client.exchange(ReceiverStream::new(stream)));
    let mut answers = exchange.await??.into_inner();
    let first = tokio::time::timeout(CONNECT, answers.message()).await??;
    let first = first.ok_or_else(|| anyhow::anyhow!("no answer to the hello"))?;
    let own: Hello = first.hello.ok_or_else(|| anyhow::anyhow!("no hello"))?.try_into()?;
    anyhow::ensure!(own.from.as_str() == to && own.to.as_str() == from, "{} answered for {to}", own.from);
    let store = first.store.map(Into::into);
    Ok((Sending { requests }, Receiving { from: own.from, store, answers }))
}

impl Sending {
    pub async fn send(&self, requests: Vec<(ShowId, Request)>) -> anyhow::Result<()> {
        let mut requests = requests.into_iter().map(|(show, request)| wire::asked(show, request)).peekable();
        while requests.peek().is_some() {
            let requests = requests.by_ref().take(MESSAGE_PARTS_MAX).collect();
            self.requests.send(proto::Requests { hello: None, requests }).await?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub async fn raw(&self, message: proto::Requests) {
        let _ = self.requests.send(message).await;
    }
}

impl Receiving {
    /// The next answers; an error when the connection is over.
    pub async fn next(&mut self) -> anyhow::Result<Vec<(ShowId, Reply)>> {
        let message = self.answers.message().await?.ok_or_else(|| anyhow::anyhow!("the peer ended it"))?;
        if let Some(store) = message.store {
            self.store = Some(store.into());
        }
        Ok(message.answers.into_iter().map(wire::reply).collect::<Result<_, _>>()?)
    }
}
