//! The one connection that listens for this process: to the channels of the shows that it follows, and to
//! those who begin to follow a show that is led here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::ShowId;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::copy::Heard;
use super::message::Message;
use super::{HELLO, Inner, Order, name_of};

const CONNECT: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(200);

/// By channel.
type Inboxes = HashMap<String, mpsc::Sender<Heard>>;

/// Listens for ever, connecting again whenever the connection is lost.
pub(super) async fn listen(inner: &Arc<Inner>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut inboxes = Inboxes::new();
    let mut was_up = false;
    loop {
        match once(inner, &mut orders, &mut inboxes, &mut was_up).await {
            Ok(()) => return,
            Err(error) => {
                inner.listening.store(false, Ordering::Relaxed);
                inner.means.metrics.relay.up.set(0);
                if std::mem::take(&mut was_up) {
                    tracing::warn!(error, "Redis is away; seat maps are read from the journal");
                }
                tell_all(&mut inboxes, &Heard::Away);
            }
        }
        sleep(REST).await;
    }
}

/// Until the connection is lost; ends well only with the process.
async fn once(
    inner: &Arc<Inner>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    inboxes: &mut Inboxes,
    was_up: &mut bool,
) -> Result<(), String> {
    let connected = timeout(CONNECT, inner.client.get_async_pubsub()).await;
    let (mut sink, mut stream) = connected.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?.split();
    let channels: Vec<String> = inboxes.keys().cloned().chain([HELLO.to_owned()]).collect();
    let subscribed = timeout(CONNECT, sink.subscribe(channels)).await;
    subscribed.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    inner.listening.store(true, Ordering::Relaxed);
    inner.means.metrics.relay.up.set(1);
    if !std::mem::replace(was_up, true) {
        tracing::info!("seat maps are followed through Redis");
    }
    // What was said meanwhile is lost.
    tell_all(inboxes, &Heard::Back);
    loop {
        tokio::select! {
            said = stream.next() => {
                let said = said.ok_or("the connection ended")?;
                let channel = said.get_channel_name();
                if channel == HELLO {
                    hello(inner, said.get_payload_bytes());
                } else if let Some(message) = Message::read(said.get_payload_bytes()) {
                    inner.means.metrics.relay.received.inc();
                    tell(inboxes, channel, Heard::Said(message));
                }
            }
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Subscribe(show, inbox, done)) => {
                    // It may have begun while Redis was away.
                    let _ = inbox.try_send(Heard::Back);
                    inboxes.insert(name_of(show), inbox);
                    let answer = timeout(CONNECT, sink.subscribe(name_of(show))).await;
                    answer.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                    let _ = done.send(());
                }
                Some(Order::Unsubscribe(show)) => {
                    inboxes.remove(&name_of(show));
                    let answer = timeout(CONNECT, sink.unsubscribe(name_of(show))).await;
                    answer.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                }
            }
        }
    }
}

/// Somebody begins to follow: if the show is led here, it is told from now on.
fn hello(inner: &Inner, payload: &[u8]) {
    let show = std::str::from_utf8(payload).ok().and_then(|text| text.parse::<ShowId>().ok());
    if let Some(show) = show {
        let _ = inner.greeted.send(show);
    }
}

fn tell_all(inboxes: &mut Inboxes, heard: &Heard) {
    let channels: Vec<String> = inboxes.keys().cloned().collect();
    for channel in channels {
        tell(inboxes, &channel, heard.clone());
    }
}

/// Where an inbox is full its copy is behind anyway, and finds out by the next message that it takes.
fn tell(inboxes: &mut Inboxes, channel: &str, heard: Heard) {
    if let Some(inbox) = inboxes.get(channel)
        && let Err(mpsc::error::TrySendError::Closed(_)) = inbox.try_send(heard)
    {
        inboxes.remove(channel);
    }
}
