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
    assert!(format!("{:#}", whole.load().err().unwrap()).contains("ca.pem"), "the missing file is named");
}

/// A holder's files.
struct Files {
    folder: tempfile::TempDir,
    writes: u64,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), writes: 0 }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn certificates(&self) -> Certificates {
        Certificates { ca_file: self.at("ca"), cert_file: self.at("cert"), key_file: self.at("key") }
    }

    /// Each write is a second later than the one before, however coarse the file system's clock is.
    fn write(&mut self, name: &str, content: &str) {
        std::fs::write(self.at(name), content).unwrap();
        self.writes += 1;
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(self.writes);
        std::fs::File::options().append(true).open(self.at(name)).unwrap().set_modified(at).unwrap();
    }

    fn write_all(&mut self, authority: &Authority, holder: &Holder) {
        let issued = authority.issue(holder).unwrap();
        self.write("ca", authority.pem());
        self.write("cert", &issued.certificate);
        self.write("key", &issued.key);
    }
}

#[test]
fn files_that_are_no_certificates_are_told_at_the_start() {
    let mut files = Files::new();
    let issued = Authority::new().unwrap().issue(&Holder::Global).unwrap();
    files.write("ca", "no certificate");
    files.write("cert", &issued.certificate);
    files.write("key", &issued.key);
    let why = format!("{:#}", files.certificates().load().err().unwrap());
    assert!(why.contains("the authority"), "{why}");
    files.write("ca", &issued.certificate);
    // Another certificate's.
    files.write("key", &KeyPair::generate().unwrap().serialize_pem());
    assert!(files.certificates().load().is_err());
}

/// Serves nothing at all, to whom it takes.
fn serve(tls: &Tls) -> String {
    use tonic::service::Routes;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    let port = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let incoming = tls.incoming(port);
    let server = Server::builder().add_routes(Routes::default()).serve_with_incoming(incoming);
    tokio::spawn(server);
    url
}

/// Whether each takes the other: of TLS 1.3 the one who begins learns only by a first answer that it was taken.
async fn answers(tls: &Tls, url: &str, name: &str) -> bool {
    let channel = tls.channel(url, name).unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    if client.ready().await.is_err() {
        return false;
    }
    let path = http::uri::PathAndQuery::from_static("/nothing/Nothing");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let outcome = client.unary(tonic::Request::new(()), path, codec).await;
    outcome.unwrap_err().code() == tonic::Code::Unimplemented
}

#[tokio::test]
async fn nobody_speaks_to_whoever_only_pretends_nor_hears_a_stranger() {
    let authority = Authority::new().unwrap();
    let url = serve(&authority.tls(&Holder::Gateway(region("eu"))).unwrap());
    let us = authority.tls(&Holder::Regional(region("us"))).unwrap();
    assert!(answers(&us, &url, names::GATEWAY).await);
    assert!(!answers(&us, &url, names::REGISTRY).await, "it is not a voter");
    let stranger = Authority::new().unwrap().tls(&Holder::Regional(region("us"))).unwrap();
    assert!(!answers(&stranger, &url, names::GATEWAY).await);
    assert!(!answers(&Tls::plain(), &url, names::GATEWAY).await, "it shows nothing");
}

#[tokio::test]
async fn whoever_says_nothing_holds_up_nobody() {
    let authority = Authority::new().unwrap();
    let url = serve(&authority.tls(&Holder::Global).unwrap());
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap());
    }
    assert!(answers(&authority.tls(&Holder::Global).unwrap(), &url, names::GLOBAL).await);
}

#[tokio::test]
async fn renewed_files_count_from_the_next_connection_on() {
    let (old, new) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (here, there) = (Holder::Gateway(region("eu")), Holder::Regional(region("us")));
    let (mut files, mut others) = (Files::new(), Files::new());
    files.write_all(&old, &here);
    others.write_all(&old, &there);
    let url = serve(&files.certificates().load().unwrap());
    let us = others.certificates().load().unwrap();
    assert!(answers(&us, &url, names::GATEWAY).await);

    // By the new authority alone: who is still of the old one no longer knows it.
    files.write_all(&new, &here);
    assert!(!answers(&us, &url, names::GATEWAY).await);
    others.write_all(&new, &there);
    assert!(answers(&us, &url, names::GATEWAY).await, "neither was started again");

    // Half of a renewal, and rubbish: the last that could be used stays in use.
    files.write("key", &KeyPair::generate().unwrap().serialize_pem());
    assert!(answers(&us, &url, names::GATEWAY).await);
    files.write("ca", "");
    assert!(answers(&us, &url, names::GATEWAY).await);
    files.write_all(&old, &here);
    assert!(!answers(&us, &url, names::GATEWAY).await);
}

#[tokio::test]
async fn an_authority_changes_with_both_in_the_file() {
    let (old, new) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (here, there) = (Holder::Gateway(region("eu")), Holder::Regional(region("us")));
    let mut files = Files::new();
    files.write_all(&new, &here);
    files.write("ca", &format!("{}{}", old.pem(), new.pem()));
    let url = serve(&files.certificates().load().unwrap());
    assert!(!answers(&old.tls(&there).unwrap(), &url, names::GATEWAY).await, "it has not got the new one");
    let mut others = Files::new();
    others.write_all(&old, &there);
    others.write("ca", &format!("{}{}", old.pem(), new.pem()));
    assert!(answers(&others.certificates().load().unwrap(), &url, names::GATEWAY).await);
}
