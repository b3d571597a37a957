//! Voters under the platform's authority: who gets in, and who may ask for what.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::path::Path;
use std::time::Duration;

use common::tls::authority::{Authority, Holder};
use common::tls::{Certificates, Tls};
use raft::client::{Beat, RegistryClient, RegistryError};
use support::{Group, new_show, region, until};
use tokio_util::sync::CancellationToken;

fn files(authority: &Authority, holder: &Holder, folder: &Path) -> Certificates {
    let issued = authority.issue(holder).unwrap();
    let write = |name: &str, content: &str| {
        let file = folder.join(format!("{holder}-{name}"));
        std::fs::write(&file, content).unwrap();
        file
    };
    Certificates {
        ca_file: write("ca", authority.pem()),
        cert_file: write("cert", &issued.certificate),
        key_file: write("key", &issued.key),
    }
}

struct Vouched {
    authority: Authority,
    _folder: tempfile::TempDir,
    group: Group,
}

impl Vouched {
    fn start() -> Self {
        let (authority, folder) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
        let group = Group::started(3, |config| {
            let holder = Holder::Raft(region(&config.region));
            config.peer_tls = files(&authority, &holder, folder.path());
        });
        Self { authority, _folder: folder, group }
    }

    fn client(&self, tls: &Tls) -> RegistryClient {
        RegistryClient::new(&self.group.urls(), tls).unwrap()
    }

    fn holding(&self, holder: &Holder) -> RegistryClient {
        self.client(&self.authority.tls(holder).unwrap())
    }

    async fn ready(&self, client: &RegistryClient) {
        until("a leader", async || {
            client.status().await.ok().filter(|status| !status.leader.is_empty()).map(|_| ())
        })
        .await;
    }
}

fn denied<T: std::fmt::Debug>(outcome: Result<T, RegistryError>) {
    match outcome {
        Err(RegistryError::Refused(refused)) => assert!(refused.reason.contains("certificate"), "{refused}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_does_what_their_certificate_says_and_no_more() {
    let vouched = Vouched::start();
    let (eu, us) = (region("eu"), region("us"));
    let ours = vouched.holding(&Holder::Regional(eu.clone()));
    vouched.ready(&ours).await;

    // At each voter, so that some calls are passed on to the leader, by a voter's certificate.
    let url = "http://127.0.0.1:1";
    let session = ours.open_session(&eu, url, "", Vec::new()).await.unwrap();
    let show = new_show("eu");
    ours.create_show(show, &eu).await.unwrap();
    for voter in &vouched.group.voters {
        let tls = vouched.authority.tls(&Holder::Regional(eu.clone())).unwrap();
        let at = RegistryClient::new(&[voter.url()], &tls).unwrap();
        let beat = Beat { healthy: true, caught_up: true };
        at.beat(session, &eu, beat, None, Duration::from_secs(5)).await.unwrap();
        assert_eq!(at.get_show(show).await.unwrap().unwrap().owner, eu);
    }

    // Another region's name.
    denied(ours.open_session(&us, url, "", Vec::new()).await);
    denied(ours.store_lost(&us, 0).await);
    let beat = Beat { healthy: true, caught_up: true };
    let error = ours.beat(session, &us, beat, None, Duration::from_secs(5)).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    // A gateway reads and follows, and commands nothing.
    let gateway = vouched.holding(&Holder::Gateway(eu.clone()));
    let view = gateway.watch(CancellationToken::new());
    until("the gateway's copy", async || view.show(show)).await;
    denied(gateway.create_show(new_show("eu"), &eu).await);
    denied(gateway.open_session(&eu, url, "", Vec::new()).await);
    denied(gateway.drain(&eu).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_certificate_of_this_platform_is_not_heard() {
    let vouched = Vouched::start();
    let ours = vouched.holding(&Holder::Regional(region("eu")));
    vouched.ready(&ours).await;
    let foreign = Authority::new().unwrap().tls(&Holder::Regional(region("eu"))).unwrap();
    for stranger in [Tls::plain(), foreign] {
        let client = vouched.client(&stranger);
        assert!(matches!(client.status().await, Err(RegistryError::Unavailable(_))));
    }
}
