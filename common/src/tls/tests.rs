use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;

use super::authority::{Authority, Holder};
use super::*;

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// The certificate as the other side sees it.
fn shown(authority: &Authority, holder: &Holder) -> Caller {
    let pem = authority.issue(holder).unwrap().certificate;
    Caller::Holder(Some(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()))
}

#[test]
fn a_caller_is_whom_its_certificate_names_and_nobody_else() {
    let authority = Authority::new().unwrap();
    let eu = shown(&authority, &Holder::Regional(region("eu")));
    assert!(eu.is(&names::regional(&region("eu"))) && eu.is(names::REGIONAL));
    assert!(!eu.is(&names::regional(&region("us"))) && !eu.is(names::REGISTRY));
    let voter = shown(&authority, &Holder::Raft(region("eu")));
    assert!(voter.is(names::REGISTRY) && !voter.is(names::REGIONAL));
    let gateway = shown(&authority, &Holder::Gateway(region("eu")));
    assert!(gateway.is(names::GATEWAY) && !gateway.is(&names::regional(&region("eu"))));
    assert!(!Caller::Holder(None).is(names::GATEWAY), "whoever shows nothing is nobody");
    assert!(!eu.is("") && !eu.is("*") && !eu.is("eu."));
    assert!(Caller::Anybody.is(names::REGISTRY), "without TLS everybody is believed");
}

#[test]
fn settings_are_whole_and_only_loopback_does_without() {
    let problems = |certificates: &Certificates, listen: &str| {
        let mut problems = Vec::new();
        certificates.problems(&mut problems, &[("grpc_listen", listen)]);
        problems
    };
    let none = Certificates::default();
    assert!(problems(&none, "127.0.0.1:7400").is_empty() && problems(&none, "[::1]:7400").is_empty());
    assert!(problems(&none, "0.0.0.0:7400")[0].contains("`grpc_listen` is not on loopback"));
    assert!(problems(&none, "10.0.0.1:7400")[0].contains("`grpc_listen` is not on loopback"));
    let part = Certificates { ca_file: "ca.pem".into(), ..Certificates::default() };
    assert!(problems(&part, "127.0.0.1:7400")[0].contains("`key_file`"));
    let whole =
        Certificates { ca_file: "ca.pem".into(), cert_file: "cert.pem".into(), key_file: "key.pem".into() };
    assert!(problems(&whole, "0.0.0.0:7400").is_empty());
    assert!(whole.load().err().unwrap().to_string().contains("ca.pem"), "the missing file is named");
}

#[tokio::test]
async fn files_that_are_no_certificates_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let issued = Authority::new().unwrap().issue(&Holder::Global).unwrap();
    std::fs::write(at("ca"), "no certificate").unwrap();
    std::fs::write(at("cert"), issued.certificate).unwrap();
    // Another certificate's.
    std::fs::write(at("key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let files = Certificates { ca_file: at("ca"), cert_file: at("cert"), key_file: at("key") };
    assert!(files.load().unwrap().server().is_err());
}

#[tokio::test]
async fn nobody_speaks_to_whoever_only_pretends_nor_hears_a_stranger() {
    use tonic::service::Routes;
    use tonic::transport::server::TcpIncoming;

    let authority = Authority::new().unwrap();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let gateway = authority.tls(&Holder::Gateway(region("eu"))).unwrap();
    let mut server = gateway.server().unwrap();
    tokio::spawn(async move { server.add_routes(Routes::default()).serve_with_incoming(incoming).await });

    let us = authority.tls(&Holder::Regional(region("us"))).unwrap();
    us.endpoint(&url, names::GATEWAY).unwrap().connect().await.unwrap();
    assert!(us.endpoint(&url, names::REGISTRY).unwrap().connect().await.is_err(), "it is not a voter");
    let stranger = Authority::new().unwrap().tls(&Holder::Regional(region("us"))).unwrap();
    assert!(stranger.endpoint(&url, names::GATEWAY).unwrap().connect().await.is_err());
}
