//! What changes who may lead a show: moves, replica sets, regions that drain, stores that went back in time.

use common::proto::registry as proto;
use common::proto::registry::ownership_client::OwnershipClient;
use common::{RegionName, ShowId};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::{Failed, RegionRecord, RegistryClient, RegistryError, ShowRecord, to_record};

impl RegistryClient {
    /// A planned move, by an operator: the show stays there until somebody moves it again. Of two moves that
    /// knew the same epoch one counts, and the other is refused.
    pub async fn move_show(
        &self,
        show: ShowId,
        to: &RegionName,
        if_epoch: u64,
    ) -> Result<ShowRecord, RegistryError> {
        let request = proto::MoveRequest { show_id: show.to_string(), to: to.to_string(), if_epoch };
        to_record(
            self.order(|mut voter| {
                let request = request.clone();
                async move { voter.r#move(request).await }
            })
            .await?,
        )
    }

    pub async fn change_replicas(
        &self,
        show: ShowId,
        replicas: &[RegionName],
        if_epoch: u64,
    ) -> Result<ShowRecord, RegistryError> {
        let replicas = replicas.iter().map(ToString::to_string).collect();
        let request = proto::ChangeReplicasRequest { show_id: show.to_string(), replicas, if_epoch };
        to_record(
            self.order(|mut voter| {
                let request = request.clone();
                async move { voter.change_replicas(request).await }
            })
            .await?,
        )
    }

    /// The leader of `epoch` has committed its first entry in majorities of both replica sets. Refused with
    /// `epoch-passed` for any other than the present one.
    pub async fn settled(&self, show: ShowId, epoch: u64) -> Result<ShowRecord, RegistryError> {
        let request = proto::SettleRequest { show_id: show.to_string(), epoch };
        to_record(
            self.order(|mut voter| {
                let request = request.clone();
                async move { voter.settle(request).await }
            })
            .await?,
        )
    }

    /// New shows and moves go elsewhere, and what the region owns is moved away, so many a second.
    pub async fn drain(&self, region: &RegionName) -> Result<RegionRecord, RegistryError> {
        let request = proto::RegionRequest { region: region.to_string() };
        to_region(
            self.order(|mut voter| {
                let request = request.clone();
                async move { voter.drain(request).await }
            })
            .await?,
        )
    }

    /// The region's own shows come home again, a few at a time.
    pub async fn undrain(&self, region: &RegionName) -> Result<RegionRecord, RegistryError> {
        let request = proto::RegionRequest { region: region.to_string() };
        to_region(
            self.order(|mut voter| {
                let request = request.clone();
                async move { voter.undrain(request).await }
            })
            .await?,
        )
    }

    /// The region, which is down, leaves the replica set of every show; for how many of them something acknowledged
    /// may be lost. Refused where they are more than `at_risk`.
    pub async fn give_up(
        &self,
        region: &RegionName,
        at_risk: u64,
    ) -> Result<(RegionRecord, u64), RegistryError> {
        let request = proto::GiveUpRequest { region: region.to_string(), at_risk };
        let reply = self.order(|mut voter| {
            let request = request.clone();
            async move { voter.give_up(request).await }
        });
        let reply = reply.await?;
        let at_risk = reply.at_risk;
        Ok((to_region(reply)?, at_risk))
    }

    /// The region's store lost its tail, or was restored: its sessions end, and every show that it ever
    /// replicated gets a new epoch. `incarnation` is the one that was lost; of two who notice one counts.
    pub async fn store_lost(
        &self,
        region: &RegionName,
        incarnation: u64,
    ) -> Result<RegionRecord, RegistryError> {
        let request = proto::StoreLostRequest { region: region.to_string(), incarnation };
        to_region(
            self.order(|mut voter| {
                let request = request.clone();
                async move { voter.store_lost(request).await }
            })
            .await?,
        )
    }

    async fn order<T, F>(&self, send: impl Fn(OwnershipClient<Channel>) -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_one_of(&self.0.owners, send).await.map_err(Failed::into_error)
    }
}

fn to_region(reply: proto::RegionReply) -> Result<RegionRecord, RegistryError> {
    let unreadable = |why: String| RegistryError::Unavailable(format!("an unreadable answer: {why}"));
    let region = reply.region.ok_or_else(|| unreadable("no region".into()))?;
    region.try_into().map_err(|error: crate::wire::BadMessage| unreadable(error.to_string()))
}
